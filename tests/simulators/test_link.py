"""The bad network: what is lost, doubled, overtaken and held back, and that all of it is counted."""

import zmq

from simulators.link import Link, Spoiler

SECOND = 1_000_000_000
FRAMES = [bytes([i]) for i in range(200)]


class Wire:
    """Stands for the socket behind a link."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.peer = True

    def send_multipart(self, frames: list[bytes], flags: int = 0) -> None:
        if not self.peer:
            raise zmq.Again
        self.sent += frames

    def poll(self, timeout: int = 0, flags: int = zmq.POLLIN) -> int:
        return int(self.peer and flags == zmq.POLLOUT)

    def close(self, linger: int | None = None) -> None:
        pass


def test_what_a_spoiler_does_to_frames_is_what_it_counts() -> None:
    spoiler = Spoiler(seed=3, loss=0.1, double=0.1, reorder=0.1)
    out = [frame for frame in FRAMES for frame in spoiler.spoil([frame])]
    spoiler.loss = spoiler.double = spoiler.reorder = 0.0
    for _ in range(6):  # what is set aside comes with one of the next messages
        out += spoiler.spoil([])
    assert all(spoiler.counts[what] > 0 for what in ("lost", "doubled", "overtaken"))
    assert len(out) == len(FRAMES) - spoiler.counts["lost"] + spoiler.counts["doubled"]
    assert len(set(out)) >= len(FRAMES) - spoiler.counts["lost"]
    assert out != sorted(out)


def test_a_link_is_bad_for_as_long_as_it_was_told_and_then_perfect() -> None:
    now = [0]
    wire = Wire()
    link = Link(wire, seed=1, mono_ns=lambda: now[0])  # type: ignore[arg-type]
    link.spoil(5.0, loss=1.0)
    link.send_multipart(FRAMES)
    assert wire.sent == [] and link.counts["lost"] == len(FRAMES)
    now[0] = 6 * SECOND
    link.send_multipart(FRAMES)
    assert wire.sent == FRAMES and link.counts["lost"] == len(FRAMES)


def test_jitter_holds_messages_back_and_loses_none() -> None:
    now = [0]
    wire = Wire()
    link = Link(wire, seed=1, mono_ns=lambda: now[0])  # type: ignore[arg-type]
    link.spoil(1.0, jitter_s=0.3)
    for frame in FRAMES:
        link.send_multipart([frame])
    assert wire.sent == []
    for _ in range(40):
        now[0] += SECOND // 100
        link.poll()
    assert sorted(wire.sent) == FRAMES and wire.sent != FRAMES
    assert link.counts["held"] == len(FRAMES)


def test_what_is_held_back_when_the_connection_breaks_is_lost_and_counted() -> None:
    now = [0]
    wire = Wire()
    link = Link(wire, seed=1, mono_ns=lambda: now[0])  # type: ignore[arg-type]
    link.spoil(1.0, jitter_s=0.3)
    link.send_multipart(FRAMES)
    wire.peer = False
    now[0] = SECOND
    link.poll()
    assert link.counts["lost"] == len(FRAMES)
