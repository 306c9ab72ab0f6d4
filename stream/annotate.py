"""`annotate`: recordings through the streaming stages on a virtual clock, to annotation files and alerts.

The shard, the model and the alarms are those of a live ward; only the sockets and the waiting are left out.
Records go side by side, as beds of one shard.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

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
from stream.views import paper

N_BEDS = 32
N_LEADS = 4
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
    strips: list[wire.Strip] = field(default_factory=list)


class Done(NamedTuple):
    """What came of a source: the records that were annotated, and why others were not, a line each."""

    records: list[Annotated]
    refused: list[str]


def annotate(
    source: str,
    out: Path,
    *,
    weights: Path | None = None,
    device: str | None = None,
    windows: bool = False,
    strips: bool = False,
    progress: bool = True,
) -> Done:
    """Annotate every record of `source` and write RECORD.moe and RECORD.alerts.jsonl to `out`; with `windows` what the
    model says of each window too, to RECORD.windows.jsonl; with `strips` the strip of each red and yellow alert, drawn,
    to `out`/strips.

    A record that cannot be read is passed over, and told. Raises DatasetError where the source is not found or none
    of it can be read, WeightsError for weights that do not fit."""
    paths = _by_name(datasets.find(source))
    judge = Judge.load(weights, device)
    done = Done([], [])
    out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(paths), unit="record", disable=not progress) as bar:
        for at in range(0, len(paths), N_BEDS):
            records = {}
            for name, path in list(paths.items())[at : at + N_BEDS]:
                try:
                    rate_fault(datasets.info(path))
                    records[name] = datasets.read(path)
                except datasets.DatasetError as error:
                    done.refused.append(str(error))
            for result in run(records, judge):
                write(result, out)
                if windows:
                    _write_lines(out / f"{result.name}.windows.jsonl", result.windows)
                if strips:
                    draw(result, out / "strips", progress)
                result.strips.clear()
                done.records.append(result)
            bar.update(N_BEDS)
    if not done.records:
        raise datasets.DatasetError("\n".join(done.refused))
    return done


def rate_fault(about: datasets.Info) -> None:
    """Raises DatasetError for a record at a rate that the stages do not take."""
    if not wire.MIN_RATE_HZ <= about.fs <= wire.MAX_RATE_HZ:
        raise datasets.DatasetError(
            f"{about.path}: its rate of {about.fs:g} Hz is outside {wire.MIN_RATE_HZ:g}..{wire.MAX_RATE_HZ:g}; "
            "resample it, for example with wfdb.processing.resample_sig"
        )


def run(records: Mapping[str, datasets.Record], judge: Judge) -> list[Annotated]:
    """What is found in records, by name, that go side by side."""
    clock = VirtualClock()
    shard = Shard("annotate", max(1, len(records)), N_LEADS, lambda bed: Profile(), clock, "annotate")
    shard.model_version = judge.version
    beds = {name: Annotated(name, record.fs, record.digital.shape[1]) for name, record in records.items()}
    feeds = [_events(name, record) for name, record in records.items()]
    while feeds:
        events = [(feed, next(feed, None)) for feed in feeds]
        feeds = [feed for feed, event in events if event is not None]
        shard.feed(event for _, event in events if event is not None)
        judge_all(shard, judge, clock)
        collect(shard, beds)
        clock.ns += round(MAX_CHUNK_S * 1e9)
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
            shard.answer(answers_to(work, judge, now_ns()))


def answers_to(work: wire.Work, judge: Judge, now_ns: int) -> wire.Judged:
    """What a worker would answer to a block."""
    arrays = {name: tensor.array() for name, tensor in work.arrays.items()}
    answers = getattr(judge, f"{work.kind}s")(**arrays)
    return wire.Judged(
        kind=work.kind,
        ids=wire.Tensor.of(np.arange(work.first_id, work.first_id + work.n)),
        arrays={name: wire.Tensor.of(array) for name, array in answers.items()},
        batched_ns=now_ns,
        judged_ns=now_ns,
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
        for item in alerts.events:
            if isinstance(item, wire.Strip):
                beds[item.bed].strips.append(item)
            else:
                beds[item.bed].alerts.append(item)
        shard.outbox.committed(wire.Committed(session=alerts.session, until=alerts.first + len(alerts.events)))


def write(result: Annotated, out: Path) -> None:
    """Write RECORD.moe and RECORD.alerts.jsonl to the folder `out`."""
    found = marks.marks(result.beats, result.windows, result.alerts, result.n_samples)
    marks.write(out / f"{result.name}.moe", found, result.fs)
    _write_lines(out / f"{result.name}.alerts.jsonl", result.alerts)


def _write_lines(path: Path, messages: Sequence[wire.Message]) -> None:
    """Write each message as a line, as it is on the wire."""
    encoder = msgspec.json.Encoder()
    path.write_bytes(b"".join(encoder.encode(message) + b"\n" for message in messages))


def draw(result: Annotated, out: Path, progress: bool = True) -> None:
    """Write the strip of each red and yellow alert to the folder `out`, RECORD-SECOND-CODE-ID.png."""
    out.mkdir(parents=True, exist_ok=True)
    for strip in tqdm(result.strips, desc=result.name, unit="strip", leave=False, disable=not progress):
        decided_s = strip.decided.sample / strip.rate
        name = f"{result.name}-{decided_s:06.1f}s-{strip.code}-{strip.id[:8]}.png"
        (out / name).write_bytes(paper.draw(paper.sheet_of(strip)))


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


def _by_name(paths: Sequence[Path]) -> dict[str, Path]:
    """A name for each record: its own, with its folder where records of several folders share one."""
    shared = {name for name, n in Counter(path.name for path in paths).items() if n > 1}
    return {f"{path.parent.name}-{path.name}" if path.name in shared else path.name: path for path in paths}
