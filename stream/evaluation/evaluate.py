"""`evaluate`: annotate recordings, or take annotations that are there, and score them against the reference.

What can be scored follows from what the reference holds: beats give the EC57 tables, rhythm changes give episodes,
segments and alarm delays, `ALARMS` the Challenge 2015 score, `labels_5s.csv` shockable segments, `REFERENCE-v3.csv`
AF by record. Every figure is pooled from counts that are in the JSON too.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from model import challenge2015, datasets
from model.ec57.beats import START_S
from model.ec57.episodes import AF, rhythm_episodes
from model.ec57.marks import Marks, marks, read_marks
from model.ec57.scoring import score_record
from model.ec57.truths import alarm_truths, unlabelled
from model.periods import PeriodDetector
from model.resample import TICK_RATE, Resampler
from stream.evaluation import report, scoreboard
from stream.evaluation.alarmscore import AlarmScore, Alert, read_alerts, score_alarms
from stream.evaluation.evaluated import Evaluated
from stream.evaluation.results import result_of

CHUNK_S = 8.0
N_LEADS = 4
NOT_TOLD = "not told: beat classes and rhythms are of unseen patients only if these were left out of training"


class EvaluateError(ValueError):
    """What cannot be evaluated, and the mend, a line each."""


@dataclass(frozen=True, slots=True)
class Run:
    """How the annotations came about, for the JSON and the report."""

    source: str
    beats: str
    split: str
    seed: int | None


def evaluate(
    source: str,
    json_path: Path | None = None,
    html_path: Path | None = None,
    annotations: Path | None = None,
    *,
    weights: Path | None = None,
    device: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    start_s: float = START_S,
    progress: bool = True,
    console: Console | None = None,
) -> list[str]:
    """Score `source` and say so in the terminal, in JSON and as a page; returns why records could not be annotated, a
    line each, while the rest is scored.

    `annotations`: a folder of RECORD.moe (and RECORD.alerts.jsonl) to score; without it the records are annotated with
    `weights` first. `split` and `seed` say what the weights were trained on. `start_s` other than 300 makes the EC57
    figures non-standard. Raises DatasetError, WeightsError, AlertLogError, and EvaluateError where there is nothing to
    score.
    """
    paths = datasets.find(source)
    refused: list[str] = []
    with tempfile.TemporaryDirectory(prefix="wardbeat-") as scratch:
        folder = annotations
        if folder is None:
            from stream.annotate import annotate

            folder = Path(scratch)
            refused = annotate(source, folder, weights=weights, device=device, progress=progress).refused
        elif not folder.is_dir():
            raise EvaluateError(f"annotations: {folder} is no folder; name one that `annotate` wrote, or leave it out")
        evaluated = list(_records(paths, folder, start_s, ours=annotations is None))
    if not evaluated:
        fault = f"{source}: no record has reference labels to score against; choose one that has"
        raise EvaluateError("\n".join([*refused, fault]))
    beats = "ours, online, by this version" if annotations is None else f"as given in {annotations}"
    run = Run(source, beats, split or NOT_TOLD, seed)
    result = result_of(evaluated, run.source, run.beats, run.split, run.seed, start_s, refused)
    scoreboard.show(result, console or _console())
    if json_path is not None:
        json_path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if html_path is not None:
        html_path.write_text(report.page(result, evaluated), encoding="utf-8")
    return refused


def detection_delays(path: Path) -> npt.NDArray[np.float64]:
    """Seconds of signal that the detector needed beyond each R peak of a record, float64 (n,), on the sample clock."""
    record = datasets.read(path, annotator=None)
    leads = [i for i, signal in enumerate(record.signals) if signal.kind == "ecg"][:N_LEADS]
    if not leads:
        return np.zeros(0)
    signal = datasets.physical(record)[leads][None]
    rows, step = np.zeros(1, np.int64), max(1, round(CHUNK_S * record.fs))
    resampler, detector = Resampler(1, len(leads)), PeriodDetector(1, len(leads))
    resampler.configure(0, record.fs)
    detector.reset(rows, np.zeros(1, np.int64))
    waits: list[npt.NDArray[np.int64]] = []
    for at in range(0, signal.shape[2], step):
        chunk = np.ascontiguousarray(signal[:, :, at : at + step])
        y, m, _ = resampler.push(rows, chunk, np.array([chunk.shape[2]]))
        beats = detector.push(rows, y, m)
        waits.append(beats.decided - beats.at)
    ticks = np.concatenate(waits).astype(np.float64) + resampler.delay(0)
    seconds: npt.NDArray[np.float64] = ticks / TICK_RATE
    return seconds


def _console() -> Console:
    """The terminal; where the output goes elsewhere, lines wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def _records(paths: list[Path], folder: Path, start_s: float, ours: bool) -> Iterator[Evaluated]:
    """Every record that has both annotations and a reference. Of `ours`, one without annotations could not be read, as
    `annotate` has told; annotations that were given must be there. Raises EvaluateError where they are not."""
    labels = _Labels()
    missing: list[str] = []
    for path in paths:
        moe = next((m for m in (path.name, f"{path.parent.name}-{path.name}") if (folder / f"{m}.moe").is_file()), None)
        if moe is None:
            missing.append(path.name)
            continue
        evaluated = _one(path, folder / moe, labels, start_s, ours)
        if evaluated is not None:
            yield evaluated
    if missing and not ours:
        raise EvaluateError(
            f"{folder}: no annotations of {', '.join(missing[:5])} ({len(missing)} in all); annotate them"
        )


def _one(path: Path, annotated: Path, labels: "_Labels", start_s: float, ours: bool) -> Evaluated | None:
    about = datasets.info(path)
    found = datasets.annotations(path)
    ref = marks([], []) if found is None else marks(found.sample, found.symbols, found.subtype, found.aux)
    test = read_marks(annotated, "moe")
    log = annotated.with_name(f"{annotated.name}.alerts.jsonl")
    alerts = read_alerts(log, about.fs) if log.is_file() else None
    alarm, rhythm, shockable = labels.alarm(path), labels.rhythm(path), labels.shockable(path)
    if found is None and alarm is None and rhythm is None and shockable is None:
        return None
    patient = labels.patient(path)
    score = score_record(path.name, patient, ref, test, about.fs, about.n, start_s, shockable)
    return Evaluated(
        path=path,
        ref=ref,
        test=test,
        score=score,
        alerts=alerts,
        alarms=_alarms(alerts, ref, about.fs, about.n),
        challenge=None if alarm is None or alerts is None else _challenge(path.name, alarm, alerts, about.fs),
        rhythm=rhythm,
        said_af=len(rhythm_episodes(test, AF, about.n)) > 0,
        delays_s=detection_delays(path) if ours and score.beats else None,
    )


def _alarms(alerts: list[Alert] | None, ref: Marks, fs: float, n: int) -> AlarmScore | None:
    """Alarms of the labelled part; without any reference only their number counts."""
    if alerts is None:
        return None
    unknown = unlabelled(ref, n) if "+" in ref.symbol else np.zeros((0, 2), np.int64)
    return score_alarms(alerts, alarm_truths(ref, fs, n), fs, n, int(unknown[0, 1]) if len(unknown) else 0)


def _challenge(name: str, alarm: datasets.Alarm, alerts: list[Alert], fs: float) -> challenge2015.Outcome:
    active = [(a.code, a.decided / fs, None if a.ended is None else a.ended / fs) for a in alerts]
    return challenge2015.Outcome(name, alarm.kind, alarm.true, challenge2015.confirmed(alarm.kind, active))


class _Labels:
    """Label files beside the records, each read once. A record may lie one folder below its labels."""

    def __init__(self) -> None:
        self._read: dict[tuple[Path, str], dict[str, Any]] = {}

    def alarm(self, path: Path) -> datasets.Alarm | None:
        alarm: datasets.Alarm | None = self._of(path, "ALARMS", datasets.alarms_2015)
        return alarm

    def rhythm(self, path: Path) -> str | None:
        rhythm: str | None = self._of(path, "REFERENCE-v3.csv", datasets.labels_2017)
        return rhythm

    def shockable(self, path: Path) -> list[tuple[int, int, bool]] | None:
        segments: list[tuple[int, int, bool]] | None = self._of(path, "labels_5s.csv", datasets.shockable_5s)
        return segments

    def patient(self, path: Path) -> str:
        """Whose record it is, so that a bootstrap draws patients."""
        key = (path.parent, "patients")
        if key not in self._read:
            self._read[key] = dict(datasets.patients(path.parent))
        return str(self._read[key].get(path.name, path.name))

    def _of(self, path: Path, name: str, reader: Callable[[Path], dict[str, Any]]) -> Any:
        for folder in (path.parent, path.parent.parent):
            if (folder / name).is_file():
                key = (folder, name)
                if key not in self._read:
                    self._read[key] = reader(folder)
                return self._read[key].get(path.name)
        return None
