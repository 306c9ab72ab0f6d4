"""The order of one bed's samples: what comes out of it is in order, whole, or said to be missing.

A `Sequence` is fed the packets of one bed as they arrive (twice, late, out of order, or not at all)
and gives out events whose samples follow one another without overlap: a `Gap` stands wherever
samples are missing, so that nothing is ever spliced. It keeps two positions: `next`, up to which
packets have been put in order, and `taken`, up to which the shard has been given them; the account
and the checkpoint speak of `taken`.
"""

from collections import deque
from typing import Any

import msgspec

from stream.transport.arrivals import Chunk, Ended, Event, Gap, NewEpoch, Piece, TruthSeen, follows, join
from stream.wire import End, Lost, Signal, Truth, Waveform

__all__ = ["Chunk", "Ended", "Event", "Gap", "NewEpoch", "Sequence", "Taken", "TruthSeen"]

MAX_HELD = 64  # packets kept ahead of a hole; the rest comes again by the resend that was asked for
MAX_HELD_BYTES = 1 << 20
MAX_RUN = 20_000  # samples in one chunk
TAKE_S = 8.0  # so much of a bed is taken at once: it may be far ahead of its judgements, but no further
MAX_CAUSES = 8  # causes of gaps told apart per bed; a source may invent more, they count as "other"
MAX_JUMP_S = 24 * 3600  # a source that loses more than this within an epoch has miscounted
NOWHERE = 2**62
REASK_NS = 250_000_000  # a resend is asked for again after this, and after eight times as long from the eighth on


class Taken:
    """What the shard has been given of a bed: what a checkpoint holds."""

    __slots__ = (
        "closed", "ended", "epoch", "epoch_n", "position", "rate", "session", "signals", "source", "truth_next",
    )  # fmt: skip

    def __init__(self) -> None:
        self.epoch = ""
        self.epoch_n = 0
        self.signals: tuple[Signal, ...] = ()
        self.rate = 0.0
        self.position = 0
        self.ended = False
        self.truth_next = 0
        self.source = ""
        self.session = ""
        self.closed: deque[str] = deque(maxlen=8)


class Sequence:
    """The sequence of one bed. `wave`, `lost`, `end` and `truth` take messages in and return why they
    are refused, or None; `take` gives events out; `since` tells that a hole is being waited for."""

    def __init__(self, bed: str) -> None:
        self.bed = bed
        self.epoch = ""
        self.epoch_n = 0
        self.signals: tuple[Signal, ...] = ()
        self.rate = 0.0
        self.next = 0
        self.seq: int | None = 0
        self.end_at: int | None = None
        self.ended = False
        self._any_epoch = False  # the next epoch may be any: those between will not come
        self._resumed = 0  # where the epoch began, or a restarted shard went on with it
        self.source, self.session, self.speed = "", "", 1.0
        self.device_ns = 0
        self.heard_mono_ns = 0  # when a packet was last taken in or held; 0 before the first look at the bed
        self.silent_ns = 0  # how long ago that was, at the last look: a shard that restarts counts on from there
        # The hole at `next`, if there is one: since when, when asked for again last, how often.
        self.since: int | None = None
        self.opened = 0
        self.asked = 0
        self.n_asked = 0
        self.taken = Taken()
        self.lane = -1  # its row in `Lanes`
        self._held: dict[int, tuple[Waveform, int]] = {}
        self._losses: list[tuple[int, int, str]] = []
        self._successors: list[tuple[Waveform, int]] = []
        self._closed: deque[str] = deque(maxlen=8)
        self._gaps: deque[tuple[int, int]] = deque(maxlen=32)
        self._truth_next = 0
        self._out: list[Piece | NewEpoch | Gap | TruthSeen | Ended] = []
        # The account. Packets by fate:
        self.n_received = self.n_accepted = self.n_duplicate = self.n_late = 0
        self.n_reordered = self.n_dropped = self.n_refused = 0
        self.n_truth_dropped = 0  # annotations
        # Samples that were taken, by fate; `closed` is the length of the epochs before.
        self.delivered = self.closed = 0
        self.n_epochs_missed = 0
        self.gaps: dict[str, int] = {}

    def wave(self, packet: Waveform, now_ns: int, mono_ns: int) -> str | None:
        self.n_received += 1
        return self._wave(packet, now_ns, mono_ns)

    @property
    def calm(self) -> bool:
        """Whether all that can come next is the next packet: nothing is missing, held, or left to be taken."""
        return (
            not self._out and self.since is None and not self._held and not self._losses and not self._successors
            and self.end_at is None and not self.ended and self.seq is not None
            and bool(self.epoch) and self.taken.epoch == self.epoch and not self.taken.ended
        )  # fmt: skip

    def pass_by(self, n_packets: int, n_samples: int) -> None:
        """So many packets were in order and so many samples were taken that did not come through here (`Lanes`)."""
        self.n_received += n_packets
        self.n_accepted += n_packets
        self.delivered += n_samples
        self.taken.position += n_samples

    def put_back(self, packet: Waveform, received_ns: int) -> None:
        """What went by is to be taken later, in its turn."""
        self._out.append(Piece(packet, 0, packet.n, received_ns))

    def adopt(self, source: str, session: str, speed: float) -> None:
        """Who sends the bed from here on: asked again after a restart, and named where the bed is."""
        if session != self.session:
            self.epoch_n = 0  # each session counts its own
            self._any_epoch = False
        self.source, self.session, self.speed = source, session, speed
        if self.taken.epoch == self.epoch:
            self.taken.source, self.taken.session = source, session

    def lost(self, message: Lost, mono_ns: int) -> str | None:
        until = message.first + message.n
        if message.epoch != self.epoch:
            return None  # of an epoch that is closed, or of one that has not begun: it will be asked for then
        if message.n == 0:
            if message.first <= self.next and self._successors:
                self.close("unknown to the source", mono_ns)
            return None
        if self.ended:
            return None
        if (text := self._too_far("first + n", until, self.next, self.rate)) is not None:
            return text
        if until > self.next and len(self._losses) < MAX_HELD:
            self._losses.append((message.first, until, message.cause))
            before = self.next
            self._drain()
            self._settle(mono_ns, progress=self.next > before)
        return None

    def end(self, message: End, mono_ns: int) -> str | None:
        if message.epoch != self.epoch or self.ended:
            return None
        if message.n_samples < self.next:
            return f"n_samples: {message.n_samples}, but {self.next} samples have come; send the length of the epoch"
        if (text := self._too_far("n_samples", message.n_samples, self.next, self.rate)) is not None:
            return text
        self.end_at = message.n_samples
        self._drain()
        self._settle(mono_ns, progress=False)
        return None

    def truth(self, message: Truth) -> str | None:
        if not len(message.samples) == len(message.symbols) == len(message.notes):
            return "samples, symbols, notes: not of one length; send one of each for every annotation"
        if message.epoch != self.epoch:
            return None
        if message.samples and max(message.samples) >= self.next:
            # Their samples were lost, or went with a shard that was killed, and so perhaps did annotations before them:
            # they come again after those, by the resend of the samples.
            self.n_truth_dropped += len(message.samples)
            return None
        # A resend brings annotations again: those up to the newest one seen are known.
        new = [i for i, sample in enumerate(message.samples) if sample >= self._truth_next]
        if new:
            self._truth_next = max(message.samples) + 1
            samples = tuple(message.samples[i] for i in new)
            symbols, notes = tuple(message.symbols[i] for i in new), tuple(message.notes[i] for i in new)
            self._out.append(TruthSeen(self.bed, self.epoch, samples, symbols, notes))
        return None

    def expire(self, mono_ns: int) -> None:
        """The wait for a hole is over: declare it a gap, and go on with what is there after it."""
        ahead = [*self._held, *(loss[0] for loss in self._losses)]
        if ahead:
            self._gap(min(ahead) - self.next, "timeout")
        elif self.end_at is not None and not self.ended:
            self._gap(self.end_at - self.next, "timeout")
        elif self._successors:
            self.close("timeout", mono_ns)
            return
        else:
            self.since = None
            return
        self._drain()
        self._settle(mono_ns, progress=True)

    def close(self, cause: str, mono_ns: int) -> None:
        """End the epoch with what has come of it: its source has gone on without an end, or without the
        epochs in between."""
        while ahead := [*self._held, *(loss[0] for loss in self._losses)]:
            self._gap(min(ahead) - self.next, cause)
            self._drain()
        if self.end_at is not None and not self.ended:
            self._gap(self.end_at - self.next, cause)
        if not self.ended and self.epoch:
            self._finish()
        else:
            numbers = [entry[0].epoch_n for entry in self._successors if entry[0].epoch_n]
            if self.epoch_n and numbers:
                self.n_epochs_missed += min(numbers) - self.epoch_n - 1
            self._any_epoch = True
        self._settle(mono_ns, progress=True)

    def expect(self, mono_ns: int) -> None:
        """Ask for what follows `next`, whether or not anything has come after it."""
        if self.since is None:
            self.since = self.opened = mono_ns
            self.asked = self.n_asked = 0

    def ask_due(self, mono_ns: int, reorder_ns: int) -> bool:
        """Whether to ask the source to go back, now: at once after a restart, after `reorder_ns` when a
        packet may only have been overtaken, and again while there is no answer."""
        if self.since is None:
            return False
        if self.n_asked == 0:
            due = mono_ns - self.since >= (reorder_ns if self.next > self._resumed else 0)
        else:
            due = mono_ns - self.asked >= (REASK_NS if self.n_asked < 8 else 8 * REASK_NS)
        if due:
            self.asked = mono_ns
            self.n_asked += 1
        return due

    @property
    def pending(self) -> int:
        return len(self._out)

    @property
    def pending_bytes(self) -> int:
        return sum(item.packet.data.nbytes for item in self._out if type(item) is Piece)

    def take(self, into: list[Event]) -> None:
        """Append what is in order to `into`, up to the end of an epoch or `TAKE_S` of samples, and enter it in the
        account."""
        out, self._out = self._out, []
        taken = self.taken
        i = n_taken = 0
        while i < len(out):
            item = out[i]
            i += 1
            if type(item) is Piece:
                most = min(MAX_RUN, TAKE_S * item.packet.rate - n_taken)
                pieces = [item]
                n = item.b - item.a
                while i < len(out) and follows(item, out[i]) and n < most:
                    pieces.append(out[i])  # type: ignore[arg-type]
                    n += pieces[-1].b - pieces[-1].a
                    i += 1
                into.append(join(pieces))
                self.delivered += n
                taken.position += n
                n_taken += n
                if n_taken >= TAKE_S * item.packet.rate:
                    self._out = out[i:]
                    return
                continue
            into.append(item)  # type: ignore[arg-type]
            if type(item) is Gap:
                cause = item.cause if item.cause in self.gaps or len(self.gaps) < MAX_CAUSES else "other"
                self.gaps[cause] = self.gaps.get(cause, 0) + item.n
                taken.position += item.n
            elif type(item) is NewEpoch:
                if taken.epoch:
                    taken.closed.append(taken.epoch)
                self.closed += taken.position
                taken.epoch, taken.epoch_n, taken.signals, taken.rate = item.epoch, item.number, item.signals, item.rate
                taken.position, taken.truth_next, taken.ended = 0, 0, False
                taken.source, taken.session = self.source, self.session
            elif type(item) is TruthSeen:
                taken.truth_next = max(item.samples) + 1
            else:
                taken.ended = True
                self._out = out[i:]
                return

    def silence(self, mono_ns: int) -> int:
        """How long ago a packet was last taken in or held, in ns; of a bed that was never heard, or not
        since its shard restarted, since the first time that this was asked, and what it was before."""
        if not self.heard_mono_ns:
            self.heard_mono_ns = mono_ns - self.silent_ns
        self.silent_ns = mono_ns - self.heard_mono_ns
        return self.silent_ns

    def counts(self) -> dict[str, int]:
        """Packets by fate, then samples by fate: `delivered` + `gap` is the length of all epochs so far,
        up to the newest sample taken; `closed` is that of the epochs before this one."""
        return {
            "received": self.n_received,
            "accepted": self.n_accepted,
            "duplicate": self.n_duplicate,
            "late": self.n_late,
            "reordered": self.n_reordered,
            "dropped": self.n_dropped,
            "refused": self.n_refused,
            "truth_dropped": self.n_truth_dropped,
            "delivered": self.delivered,
            "closed": self.closed,
            "epochs_missed": self.n_epochs_missed,
            "gap": sum(self.gaps.values()),
            **{f"gap.{cause}": n for cause, n in self.gaps.items()},
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs, of builtin types."""
        taken = self.taken
        return {
            "bed": self.bed, "epoch": taken.epoch, "epoch_n": taken.epoch_n,
            "signals": msgspec.to_builtins(taken.signals), "rate": taken.rate, "next": taken.position,
            "ended": taken.ended, "truth_next": taken.truth_next, "closed": list(taken.closed),
            "source": taken.source, "session": taken.session, "counts": self.counts(), "length": self.closed,
            "silent_ns": self.silent_ns,
        }  # fmt: skip

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Sequence":
        """The sequence that `state` was taken of."""
        self = cls(state["bed"])
        taken = self.taken
        self.epoch = taken.epoch = state["epoch"]
        self.epoch_n = taken.epoch_n = state["epoch_n"]
        self.signals = taken.signals = msgspec.convert(state["signals"], tuple[Signal, ...])
        self.rate = taken.rate = state["rate"]
        self.source, self.session = taken.source, taken.session = state["source"], state["session"]
        self.ended = taken.ended = state["ended"]
        self._truth_next = taken.truth_next = state["truth_next"]
        self._closed.extend(state["closed"])
        taken.closed.extend(state["closed"])
        self._resumed = self.next = taken.position = state["next"]
        self.seq = None
        counts = dict(state["counts"])
        # Packets that were held went with the process: they come again.
        self.n_received = sum(counts[fate] for fate in ("accepted", "duplicate", "late", "dropped", "refused"))
        self.n_accepted, self.n_duplicate = counts["accepted"], counts["duplicate"]
        self.n_late, self.n_reordered, self.n_dropped = counts["late"], counts["reordered"], counts["dropped"]
        self.n_refused, self.delivered = counts["refused"], counts["delivered"]
        self.gaps = {key.removeprefix("gap."): n for key, n in counts.items() if key.startswith("gap.")}
        self.n_epochs_missed = counts["epochs_missed"]
        self.n_truth_dropped = counts["truth_dropped"]
        self.closed = state["length"]
        self.silent_ns = state["silent_ns"]
        return self

    def _wave(self, packet: Waveform, now_ns: int, mono_ns: int) -> str | None:
        if packet.epoch != self.epoch:
            return self._other_epoch(packet, now_ns, mono_ns)
        if packet.rate != self.rate or packet.signals != self.signals:
            self.n_refused += 1
            what = "rate" if packet.rate != self.rate else "signals"
            return f"{what}: changed within epoch {self.epoch} of bed {self.bed}; start a new epoch"
        if (text := self._too_far("first", packet.first, self.next, self.rate)) is not None:
            self.n_refused += 1
            return text
        if packet.first == self.next and not self._held and self.since is None and not self.ended:
            self.heard_mono_ns = mono_ns
            self._accept(packet, now_ns)
            return None
        return self._sort(packet, now_ns, mono_ns)

    def _sort(self, packet: Waveform, now_ns: int, mono_ns: int) -> str | None:
        end = packet.first + packet.n
        if end <= self.next:
            late = any(first < end and packet.first < until for first, until in self._gaps)
            self.n_late += late
            self.n_duplicate += not late
        elif self.ended:
            self.n_refused += 1
            return (
                f"first: {packet.first}, but epoch {self.epoch} of bed {self.bed} ended at {self.next}; start a new one"
            )
        elif packet.first <= self.next or (packet.seq == self.seq and not self._held):
            if packet.first > self.next:  # the next packet, so the source never had what it skips
                self._gap(packet.first - self.next, "skipped")
            self.n_reordered += bool(self._held) and self.n_asked == 0
            self.heard_mono_ns = mono_ns
            self._accept(packet, now_ns)
            self._drain()
            self._settle(mono_ns, progress=True)
        else:
            if packet.first in self._held:
                self.n_duplicate += 1
            elif not self._room(packet):
                self.n_dropped += 1
            else:
                self.heard_mono_ns = mono_ns
                self._held[packet.first] = (packet, now_ns)
                self._drain()
            self._settle(mono_ns, progress=False)
        return None

    def _other_epoch(self, packet: Waveform, now_ns: int, mono_ns: int) -> str | None:
        number = packet.epoch_n
        if packet.epoch in self._closed or 0 < number <= self.epoch_n:
            self.n_late += 1
        elif (text := self._too_far("first", packet.first, 0, packet.rate)) is not None:
            self.n_refused += 1
            return text
        elif (self.epoch and not self.ended) or (number > self.epoch_n + 1 and not self._any_epoch):
            # The rest of the old epoch comes first, and what is between, if the source has it.
            if self._room(packet):
                self.heard_mono_ns = mono_ns
                self._successors.append((packet, now_ns))
            else:
                self.n_dropped += 1
            self._await(mono_ns, progress=False)
        else:
            if self.epoch:
                self._closed.append(self.epoch)
            self.epoch, self.epoch_n, self._any_epoch = packet.epoch, number, False
            self.signals, self.rate = packet.signals, packet.rate
            self.next, self.seq, self.end_at, self.ended = 0, 0, None, False
            self._resumed = self._truth_next = 0
            self._losses.clear()
            self._gaps.clear()
            begun = NewEpoch(self.bed, self.epoch, self.signals, self.rate, self.source, self.speed, number)
            self._out.append(begun)
            return self._wave(packet, now_ns, mono_ns)
        return None

    def _accept(self, packet: Waveform, received_ns: int) -> None:
        """Put a packet that begins at or before `next`, and ends after it, in order."""
        first, n = packet.first, packet.n
        self._out.append(Piece(packet, self.next - first, n, received_ns))
        self.next = first + n
        self.seq = packet.seq + 1
        self.device_ns = packet.device_ns
        self.n_accepted += 1

    def _too_far(self, field: str, sample: int, known: int, rate: float) -> str | None:
        """Why `sample` cannot be, where the newest one known of its epoch is `known`."""
        if sample - known <= MAX_JUMP_S * rate:
            return None
        return (
            f"{field}: {sample} is over {MAX_JUMP_S // 3600} h of samples after {known}, the newest known of bed "
            f"{self.bed}; count from 0 at the start of the epoch, or start a new one"
        )

    def _room(self, packet: Waveform) -> bool:
        """Whether one more packet may be held."""
        held = [*(entry[0] for entry in self._held.values()), *(entry[0] for entry in self._successors)]
        return len(held) < MAX_HELD and packet.data.nbytes + sum(p.data.nbytes for p in held) <= MAX_HELD_BYTES

    def _gap(self, n: int, cause: str) -> None:
        """Declare the next `n` samples missing."""
        if n > 0:
            self._out.append(Gap(self.bed, self.epoch, self.next, n, cause))
            self._gaps.append((self.next, self.next + n))
            self.next += n

    def _drain(self) -> None:
        """Go on for as long as what is held, or known to be lost, follows `next`."""
        while True:
            nearest = min(self._held) if self._held else None
            if nearest is not None and nearest <= self.next:
                packet, received_ns = self._held.pop(nearest)
                if packet.first + packet.n > self.next:
                    self._accept(packet, received_ns)
                else:
                    self.n_duplicate += 1
                continue
            self._losses = [loss for loss in self._losses if loss[1] > self.next]
            loss = next((loss for loss in self._losses if loss[0] <= self.next), None)
            if loss is None:
                break
            self._gap(min(loss[1], nearest or NOWHERE) - self.next, loss[2])
        if self.end_at is not None and self.next >= self.end_at and not self.ended:
            self._finish()

    def _finish(self) -> None:
        self.ended = True
        self.end_at = self.next
        self.n_refused += len(self._held)  # they lie beyond the end
        self._held.clear()
        self._out.append(Ended(self.bed, self.epoch, self.next))

    def _settle(self, mono_ns: int, progress: bool) -> None:
        """After a change: begin, go on with or end the wait for a hole; let the next epoch in."""
        n_waiting = -1
        while (self.ended or not self.epoch) and self._successors and len(self._successors) != n_waiting:
            successors, self._successors = self._successors, []
            n_waiting = len(successors)
            for packet, received_ns in sorted(successors, key=lambda entry: entry[0].epoch_n):
                self._wave(packet, received_ns, mono_ns)
        self._await(mono_ns, progress)

    def _await(self, mono_ns: int, progress: bool) -> None:
        if not (self._held or self._losses or self._successors or (self.end_at is not None and not self.ended)):
            self.since = None
        elif self.since is None:
            self.expect(mono_ns)
        elif progress:
            self.since = self.opened = self.asked = mono_ns
            self.n_asked = min(self.n_asked, 1)
