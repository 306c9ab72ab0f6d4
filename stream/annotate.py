"""`annotate`: recordings through the streaming stages on a virtual clock, to annotation files and alerts.

The shard, the model and the alarms are those of a live ward; only the sockets and the waiting are left out.
Records go side by side, as beds of one shard.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from tqdm import tqdm

from model import datasets
from model.judge import Judge
from stream import marks, wire
from stream.alarms.conditions import Profile
from stream.analysis import MAX_CHUNK_S
from stream.shard import Shard
from stream.transport.sequence import Chunk, Ended, Event, NewEpoch

N_BEDS = 32
N_LEADS = 4
MAX_BATCH = 128
START_NS = 1_767_225_600_000_000_000  # 2026-01-01 UTC: where the virtual clock starts


@dataclass(slots=True)
class Annotated:
    """What was found in a record; samples are its own."""

    name: str
    fs: float
    n_samples: int
    beats: list[wire.BeatJudgement] = field(default_factory=list)
    windows: list[wire.WindowJudgement] = field(default_factory=list)
    numerics: list[wire.Numeric] = field(default_factory=list)
    alerts: list[wire.AlertEvent] = field(default_factory=list)


def annotate(
    source: str,
    out: Path,
    *,
    weights: Path | None = None,
    device: str | None = None,
    progress: bool = True,
) -> list[Annotated]:
    """Annotate every record of `source` and write RECORD.moe and RECORD.alerts.jsonl to `out`.

    Raises DatasetError for a source or record that cannot be read, WeightsError for weights that do not fit."""
    paths = datasets.find(source)
    out.mkdir(parents=True, exist_ok=True)
    results = []
    with tqdm(total=sum(_seconds(path) for path in paths), unit="s", desc="signal", disable=not progress) as bar:
        for result in annotated(paths, Judge.load(weights, device), bar):
            write(result, out)
            results.append(result)
    return results


def annotated(paths: Sequence[Path], judge: Judge, bar: "tqdm[None] | None" = None) -> Iterator[Annotated]:
    """What is found in each record, in the order of `paths`, `N_BEDS` records side by side."""
    for at in range(0, len(paths), N_BEDS):
        yield from run([datasets.read(path) for path in paths[at : at + N_BEDS]], judge, bar)


def run(records: Sequence[datasets.Record], judge: Judge, bar: "tqdm[None] | None" = None) -> list[Annotated]:
    """What is found in records that go side by side."""
    clock = VirtualClock()
    shard = Shard("annotate", len(records), N_LEADS, lambda bed: Profile(), clock, "annotate")
    shard.model_version = judge.version
    names = [record.name for record in records]
    if len(set(names)) < len(names):  # records of several folders may share a name
        names = [f"{record.path.parent.name}-{record.name}" for record in records]
    beds = {
        name: Annotated(name, record.fs, record.digital.shape[1]) for name, record in zip(names, records, strict=True)
    }
    feeds = [_events(name, record) for name, record in zip(names, records, strict=True)]
    while feeds:
        events = [(feed, next(feed, None)) for feed in feeds]
        feeds = [feed for feed, event in events if event is not None]
        shard.feed(event for _, event in events if event is not None)
        judge_all(shard, judge, clock)
        collect(shard, beds)
        clock.ns += round(MAX_CHUNK_S * 1e9)
        if bar is not None:
            bar.update(sum(e.samples.shape[1] / e.rate for _, e in events if isinstance(e, Chunk)))
    return list(beds.values())


class VirtualClock:
    """UTC in ns that moves when it is told to."""

    def __init__(self) -> None:
        self.ns = START_NS

    def __call__(self) -> int:
        return self.ns


def judge_all(shard: Shard, judge: Judge, now_ns: VirtualClock) -> None:
    """Answer all that the shard wants judged, until it wants no more."""
    while works := shard.work():
        for work in works:
            arrays = {name: tensor.array() for name, tensor in work.arrays.items()}
            for at in range(0, work.n, MAX_BATCH):
                part = {name: array[at : at + MAX_BATCH] for name, array in arrays.items()}
                answers = getattr(judge, f"{work.kind}s")(**part)
                shard.answer(
                    wire.Judged(
                        kind=work.kind,
                        ids=wire.Tensor.of(np.arange(at, min(at + MAX_BATCH, work.n)) + work.first_id),
                        arrays={name: wire.Tensor.of(array) for name, array in answers.items()},
                        batched_ns=now_ns(),
                        judged_ns=now_ns(),
                    )
                )


def collect(shard: Shard, beds: dict[str, Annotated]) -> None:
    """Take what the shard has to say to the gateway."""
    for message in shard.messages:
        if isinstance(message, wire.BeatJudgement):
            beds[message.bed].beats.append(message)
        elif isinstance(message, wire.WindowJudgement):
            beds[message.bed].windows.append(message)
        elif isinstance(message, wire.Numeric):
            beds[message.bed].numerics.append(message)
    shard.messages.clear()
    for alerts in shard.outbox.unsent():
        for event in alerts.events:
            beds[event.bed].alerts.append(event)
        shard.outbox.committed(wire.Committed(session=alerts.session, until=alerts.first + len(alerts.events)))


def write(result: Annotated, out: Path) -> None:
    """Write RECORD.moe and RECORD.alerts.jsonl to the folder `out`."""
    found = marks.marks(result.beats, result.windows, result.alerts, result.n_samples)
    marks.write(out / f"{result.name}.moe", found, result.fs)
    encoder = msgspec.json.Encoder()
    lines = (encoder.encode(event) for event in result.alerts)
    (out / f"{result.name}.alerts.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def _events(bed: str, record: datasets.Record) -> Iterator[Event]:
    """The record as a shard takes it, in chunks as long as a push may be."""
    signals = tuple(wire.Signal(s.name[:64] or "?", s.kind, s.unit[:16], s.gain, s.baseline) for s in record.signals)
    yield NewEpoch(bed, record.name, signals, record.fs, "annotate", 0.0)
    step = int(MAX_CHUNK_S * record.fs)
    n = record.digital.shape[1]
    for first in range(0, n, step):
        samples = record.digital[:, first : first + step]
        yield Chunk(bed, record.name, signals, record.fs, first, samples, 0, 0, 0, 0)
    yield Ended(bed, record.name, n)


def _seconds(path: Path) -> float:
    about = datasets.info(path)
    return about.n / about.fs
