"""A bad network between a source and its shard: frames are lost, doubled, overtaken, and held back.

    link = Link(dealer("producer"), seed=1)
    link.spoil(20.0, loss=0.05, jitter_s=0.2)      for 20 s from now, both ways
    source = Source("producer", endpoint, socket=link)

A `Link` stands for the socket that it is given, so a source behind it knows of nothing.
"""

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

SECOND = 1_000_000_000
MAX_CALLS = 5  # a frame that is overtaken comes with one of the next so many messages


class Spoiler:
    """Spoils messages: each frame is lost, doubled or overtaken with the given probabilities.

    `counts`: frames by what became of them: `lost`, `doubled`, `overtaken`."""

    def __init__(self, seed: int = 0, loss: float = 0.0, double: float = 0.0, reorder: float = 0.0) -> None:
        self.loss, self.double, self.reorder = loss, double, reorder
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._aside: list[tuple[int, bytes]] = []
        self._n_calls = 0

    def spoil(self, frames: list[bytes]) -> list[bytes]:
        """What comes of a message, with the frames of earlier ones that it has overtaken."""
        chance = self._random.random
        self._n_calls += 1
        out: list[bytes] = []
        for frame in frames:
            if chance() < self.loss:
                self.counts["lost"] += 1
                continue
            if chance() < self.reorder:
                self.counts["overtaken"] += 1
                self._aside.append((self._n_calls + self._random.randint(1, MAX_CALLS), frame))
            else:
                out.append(frame)
            if chance() < self.double:
                self.counts["doubled"] += 1
                out.append(frame)
        out += [frame for due, frame in self._aside if due <= self._n_calls]
        self._aside = [entry for entry in self._aside if entry[0] > self._n_calls]
        return out

    def forget(self) -> None:
        """The connection breaks: what was set aside is gone."""
        self._aside.clear()


@dataclass(frozen=True, slots=True)
class _Spell:
    """A time in which the link is bad."""

    until_ns: int
    loss: float
    double: float
    reorder: float
    jitter_s: float


class Link:
    """The socket of a source (what `Source` uses of it) with a network that can be spoilt for a while.

    `counts`: frames both ways by what became of them, `held` (back, by jitter) among them."""

    def __init__(
        self, socket: "zmq.Socket[bytes]", seed: int = 0, mono_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.socket = socket
        self._mono_ns = mono_ns
        self._random = random.Random(seed)
        self._ways = {"up": Spoiler(seed), "down": Spoiler(seed + 1)}
        self._spells: list[_Spell] = []
        self._held: list[tuple[int, int, list[bytes]]] = []  # when due, a number of its own, the message
        self._n_held = self._n_lost = self._n_messages = 0

    def spoil(
        self, for_s: float, *, loss: float = 0.0, double: float = 0.0, reorder: float = 0.0, jitter_s: float = 0.0
    ) -> None:
        """Be bad for so long; of several such times the worst of each holds."""
        until_ns = self._mono_ns() + round(for_s * SECOND)
        self._spells.append(_Spell(until_ns, loss, double, reorder, jitter_s))

    @property
    def counts(self) -> dict[str, int]:
        """See the class."""
        counts = self._ways["up"].counts + self._ways["down"].counts
        return {
            "lost": counts["lost"] + self._n_lost,
            "doubled": counts["doubled"],
            "overtaken": counts["overtaken"],
            "held": self._n_held,
        }

    def send_multipart(self, frames: list[bytes], flags: int = 0) -> None:
        """Send what comes of a message, now or later. Raises zmq.Again as the socket does."""
        self._flush()
        jitter_s = self._set()
        if not self._spells and not self._ways["up"].reorder:
            self.socket.send_multipart(frames, flags)
            return
        if not self.socket.poll(0, zmq.POLLOUT):
            raise zmq.Again
        spoilt = self._ways["up"].spoil(frames)
        if not spoilt:
            return
        if jitter_s > 0:
            self._n_messages += 1
            self._n_held += len(spoilt)
            due_ns = self._mono_ns() + round(self._random.uniform(0, jitter_s) * SECOND)
            heapq.heappush(self._held, (due_ns, self._n_messages, spoilt))
        else:
            self.socket.send_multipart(spoilt, flags)

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        """What comes of the next message from the shard; may be empty."""
        frames = self.socket.recv_multipart(flags)
        self._set()
        return self._ways["down"].spoil(frames) if self._spells else frames

    def poll(self, timeout: int = 0) -> int:
        """As of the socket; what was held back goes out when it is due."""
        self._flush()
        return int(self.socket.poll(timeout))

    def connect(self, endpoint: str) -> None:
        """As of the socket."""
        self.socket.connect(endpoint)

    def close(self, linger: int | None = None) -> None:
        """As of the socket; what is held back is lost."""
        self._n_lost += sum(len(frames) for _, _, frames in self._held)
        self.socket.close(linger)

    def _set(self) -> float:
        """Spoil as the present spells say; returns the jitter in s."""
        if self._spells:
            now_ns = self._mono_ns()
            self._spells = [spell for spell in self._spells if spell.until_ns > now_ns]
        for way in self._ways.values():
            way.loss = max((spell.loss for spell in self._spells), default=0.0)
            way.double = max((spell.double for spell in self._spells), default=0.0)
            way.reorder = max((spell.reorder for spell in self._spells), default=0.0)
        return max((spell.jitter_s for spell in self._spells), default=0.0)

    def _flush(self) -> None:
        while self._held and self._held[0][0] <= self._mono_ns():
            frames = heapq.heappop(self._held)[2]
            try:
                self.socket.send_multipart(frames, zmq.NOBLOCK)
            except zmq.Again:
                self._n_lost += len(frames)


def unspoilt(link: Any) -> "zmq.Socket[bytes]":
    """The socket itself, for a poller."""
    return link.socket if isinstance(link, Link) else link
