"""A shard in the test's own process, with a patient of known truth and a model that answers at once."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from model.labels import ARRHYTHMIAS, BEATS, RHYTHMS
from model.segments import FEATURES
from simulators.patients import Patient
from stream import wire
from stream.alarms.conditions import Profile
from stream.annotate import Annotated, VirtualClock, collect, judge_all
from stream.shard import Shard
from stream.transport.sequence import Chunk, Ended, Event, Gap, NewEpoch


class RuleJudge:
    """Stands in for the trained model where a test is about what is around it: fixed rules on its own inputs.

    A beat that is early and unlike its template is V; a window is VF where its hops swing wide without a baseline."""

    version = "rules"

    def __init__(self, token: int = 8) -> None:
        self._token = token

    def beats(self, wave: np.ndarray, features: np.ndarray) -> dict[str, np.ndarray]:
        early = features[:, FEATURES.index("rr_median")] < -0.15
        unlike = features[:, FEATURES.index("correlation")] < 0.7
        probs = np.full((len(wave), len(BEATS)), 0.02, np.float32)
        probs[np.arange(len(wave)), np.where(early & unlike, BEATS.index("V"), 0)] = 0.92
        token = np.repeat(features[:, :1], self._token, 1)
        return {"probs": probs, "token": token, "gates": np.full((len(wave), 4), 0.25, np.float32)}

    def hops(self, wave: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {"token": np.repeat(np.abs(wave).mean((1, 2))[:, None], self._token, 1).astype(np.float32)}

    def windows(
        self,
        hop_tokens: np.ndarray,
        hop_mask: np.ndarray,
        beat_tokens: np.ndarray,
        beat_features: np.ndarray,
        beat_age: np.ndarray,
        beat_mask: np.ndarray,
    ) -> dict[str, np.ndarray]:
        k = len(hop_mask)
        rhythm = np.full((k, len(RHYTHMS)), 0.01, np.float32)
        rhythm[:, 0] = 0.91
        number = np.where(beat_mask, beat_features[:, :, 6], 0).sum(1).astype(np.float32)
        flat = {name: np.zeros(k, np.float32) for name in ("shockable", "age", "male", "potassium")}
        return {
            "rhythm": rhythm,
            "quality": hop_mask.mean(1).astype(np.float32),
            "rr_ms": number,
            "arrhythmia": np.full((k, len(ARRHYTHMIAS)), 0.25, np.float32),
            "gates": np.zeros((k, 5), np.float32),
            **flat,
        }


def events_of(
    patient: Patient, seconds: float, sizes: Iterable[int], gap: tuple[int, int] | None = None, speed: float = 0.0
) -> Iterator[Event]:
    """A patient's first `seconds`, as a shard takes them, in chunks of `sizes` samples (the last size goes on).

    `gap`: samples (first, n) that are missing."""
    signals = tuple(wire.Signal(s.name, s.kind, s.unit, s.gain, s.baseline) for s in patient.signals)
    name, fs, n = patient.name, patient.fs, int(seconds * patient.fs)
    yield NewEpoch(name, "epoch-1", signals, fs, "test", speed)
    cuts = iter(sizes)
    first, size = 0, 1
    while first < n:
        size = next(cuts, size)
        last = min(first + size, n)
        if gap is not None and first <= gap[0] < last:
            last = gap[0] if gap[0] > first else first
        if gap is not None and first == gap[0]:
            yield Gap(name, "epoch-1", *gap, "test")
            first += gap[1]
            continue
        off = sum(1 << signal for signal, _, _ in patient.off_spans(first, last - first))
        yield Chunk(name, "epoch-1", signals, fs, first, patient.render(first, last - first), off, 0, 0, 0)
        first = last
    yield Ended(name, "epoch-1", n)


def new_shard(capacity: int = 4) -> tuple[Shard, VirtualClock]:
    clock = VirtualClock()
    return Shard("test", capacity, 2, lambda bed: Profile(), clock, "session"), clock


def play(shard: Shard, clock: VirtualClock, feeds: Sequence[Iterator[Event]], result: dict[str, Annotated]) -> None:
    """Play feeds side by side to their end; what comes of it goes to `result`."""
    judge = RuleJudge()
    while feeds:
        events = [(feed, next(feed, None)) for feed in feeds]
        feeds = [feed for feed, event in events if event is not None]
        shard.feed(event for _, event in events if event is not None)
        judge_all(shard, judge, clock)
        collect(shard, result)


def found(patients: Sequence[Patient], seconds: float, sizes: Sequence[int]) -> dict[str, Annotated]:
    """What a fresh shard finds in patients that go side by side."""
    shard, clock = new_shard(len(patients))
    result = {p.name: Annotated(p.name, p.fs, int(seconds * p.fs)) for p in patients}
    play(shard, clock, [events_of(p, seconds, sizes) for p in patients], result)
    return result


def told(result: Annotated) -> set[tuple[str, int, int]]:
    """(code, onset, stream_time) of every alert event: what must not depend on speed or packets."""
    return {(event.code, event.onset.sample, event.stream_time.sample) for event in result.alerts}
