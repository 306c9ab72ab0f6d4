"""Labels of the public databases, each as its own files have them."""

import csv
import gzip
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.datasets.record import DatasetError, Record
from model.datasets.sources import find

POTASSIUM_LEVELS = "potassium.csv"  # in a folder of simulated patients: the level of each
POTASSIUM_NORMAL = (3.5, 5.0)
"""Normal serum potassium, mmol/L; outside of it a level counts as abnormal where no laboratory says so itself."""

# Records of one patient, where a database has several of him; all else is a patient each, as far as is published.
_SAME_PATIENT = {"mitdb": {"202": "201"}}
_SAME_RHYTHM = {"VFIB": "VF", "NSR": "N"}  # vfdb writes both ways
_AGE_AND_SEX = (
    re.compile(r"^\s*(?P<age>\d{1,3})\s+(?P<sex>[MF])\b"),  # mitdb: "69 M 1085 1629 x1"
    re.compile(r"(?:<age>|age)\s*:?\s*(?P<age>\d{1,3})", re.IGNORECASE),
    re.compile(r"(?:<sex>|sex|gender)\s*:?\s*(?P<sex>[MF])", re.IGNORECASE),
)


@dataclass(frozen=True, slots=True)
class RhythmSpan:
    """Samples start <= s < end of one rhythm, `N`, `AFIB`, `VT`, ...: the note without its bracket."""

    start: int
    end: int
    rhythm: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm of Challenge 2015: its kind, and whether it was a true one. For scoring only."""

    kind: str
    true: bool


@dataclass(frozen=True, slots=True)
class RrRows:
    """Beats of one case without waveforms, sorted by time.

    time_s: float64 (n,) of the R peaks. beats: N S V U, or empty. rhythms: label of each row. bad: bool (n,).
    """

    time_s: npt.NDArray[np.float64]
    beats: list[str]
    rhythms: list[str]
    bad: npt.NDArray[np.bool_]


def patients(database: str | Path) -> dict[str, str]:
    """Record name to patient, `mitdb/201` for mitdb's records 201 and 202, so that a split keeps patients apart."""
    name = Path(str(database)).name
    same = _SAME_PATIENT.get(name, {})
    if name == "vitaldb-rhythm":
        return {case: f"{name}/{case}" for case in rr_cases(database)}
    return {path.name: f"{name}/{same.get(path.name, path.name)}" for path in find(database)}


def rhythm_spans(record: Record) -> list[RhythmSpan]:
    """Rhythms of a record by its annotations, up to its end; what is before the first of them is in no span.

    `VFIB` is told as `VF` and `NSR` as `N`. A ventricular flutter that beats mark with `[` and `]` alone is not a span.
    """
    notes = record.annotations
    if notes is None:
        return []
    changes = [(int(s), aux[1:].strip()) for s, aux in zip(notes.sample, notes.aux, strict=True) if aux.startswith("(")]
    ends = [s for s, _ in changes[1:]] + [record.digital.shape[1]]
    return [
        RhythmSpan(start, end, _SAME_RHYTHM.get(rhythm, rhythm))
        for (start, rhythm), end in zip(changes, ends, strict=True)
        if end > start
    ]


def age_and_sex(comments: tuple[str, ...]) -> tuple[int | None, str | None]:
    """Age in years and `M` or `F`, from the comments of a header; None where it does not say."""
    found: dict[str, str] = {}
    for comment in comments:
        for pattern in _AGE_AND_SEX:
            match = pattern.search(comment)
            if match:
                found |= {key: value for key, value in match.groupdict().items() if key not in found}
    return (int(found["age"]) if "age" in found else None), (found["sex"].upper() if "sex" in found else None)


def labels_2017(folder: str | Path = "cinc2017") -> dict[str, str]:
    """Challenge 2017: record to N, A, O or `~`."""
    path = _file(folder, "REFERENCE-v3.csv")
    with reading(path):
        return {row[0]: row[1] for row in csv.reader(lines_of(path)) if row}


def alarms_2015(folder: str | Path = "cinc2015") -> dict[str, Alarm]:
    """Challenge 2015: record to its alarm, which is at 300 s. Nothing but scoring may read this."""
    path = _file(folder, "ALARMS")
    with reading(path):
        return {row[0]: Alarm(row[1], row[2].strip() == "1") for row in csv.reader(lines_of(path)) if row}


def shockable_5s(folder: str | Path = "cudb") -> dict[str, list[tuple[int, int, bool]]]:
    """cudb: record to (start sample, end sample, shockable) of its segments of 5 s, in order."""
    path = _file(folder, "labels_5s.csv")
    found: dict[str, list[tuple[int, int, bool]]] = {}
    with reading(path):
        for row in csv.DictReader(lines_of(path)):
            span = (int(row["start_sample"]), int(row["end_sample"]), row["shockable"] == "1")
            found.setdefault(row["record"], []).append(span)
    return found


def ludb_labels(folder: str | Path = "ludb") -> dict[str, dict[str, str]]:
    """ludb: record to the row of `ludb.csv` (Sex, Age, Rhythms, Cardiac pacing, ...), stripped of spaces."""
    path = _file(folder, "ludb.csv")
    with reading(path):
        return {
            row["ID"].strip(): {key: (value or "").strip() for key, value in row.items() if key}
            for row in csv.DictReader(lines_of(path))
        }


def potassium_levels(folder: str | Path) -> dict[str, float]:
    """Simulated patients of `simulators.potassium`: record to serum potassium in mmol/L."""
    path = _file(folder, POTASSIUM_LEVELS)
    with reading(path):
        return {row["record"]: float(row["potassium_mmol_l"]) for row in csv.DictReader(lines_of(path))}


def rr_cases(folder: str | Path = "vitaldb-rhythm") -> list[str]:
    """Cases of the VitalDB arrhythmia database that are here, in order."""
    files = folder_of(folder).glob("Annotation_file_*.csv*")
    return sorted((file.name.split("_")[2].split(".")[0] for file in files), key=int)


def rr_rows(case: str, folder: str | Path = "vitaldb-rhythm") -> RrRows:
    """Beats, rhythms and quality of one case. Raises DatasetError for a case that is not there."""
    root = folder_of(folder)
    path = next(iter(sorted(root.glob(f"Annotation_file_{case}.csv*"))), None)
    if path is None:
        raise DatasetError(f"{root.name}: there is no case {case!r}; choose one that rr_cases() gives")
    with reading(path):
        rows = sorted(csv.DictReader(lines_of(path)), key=lambda row: float(row["time_second"]))
        return RrRows(
            np.array([float(row["time_second"]) for row in rows]),
            [row["beat_type"] for row in rows],
            [row["rhythm_label"] for row in rows],
            np.array([row["bad_signal_quality"] == "True" for row in rows], np.bool_),
        )


def folder_of(source: str | Path) -> Path:
    """The folder of a database, by path or name; label files need no record beside them."""
    for root in (Path(source), Path(os.environ.get("RECORDINGS", ".")) / source):
        if root.is_dir():
            return root
    return find(source)[0].parent


def _file(source: str | Path, name: str) -> Path:
    path = folder_of(source) / name
    if not path.is_file():
        raise DatasetError(f"{source}: the label file {path} is not there; get it with the database")
    return path


def lines_of(path: Path) -> Iterator[str]:
    """Lines of a text file, gzipped or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        yield from file


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a label file that is not one raises into a DatasetError that names it."""
    try:
        yield
    except (OSError, EOFError, KeyError, IndexError, ValueError, csv.Error) as error:
        raise DatasetError(f"{path}: not the label file that it should be ({error!r}); get it again") from None
