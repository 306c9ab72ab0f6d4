"""MIMIC-IV-ECG with what MIMIC-IV knows of the patient: age, sex, and serum potassium from the laboratory.

For who has access to both (PhysioNet, credentialed): put them side by side into one folder, as `mimic-iv-ecg`
(record_list.csv, machine_measurements.csv, files/) and `mimic-iv` (hosp/patients.csv.gz, hosp/labevents.csv.gz), name
that folder with RECORDINGS, and train with `--source mimic-iv-ecg`. Tables may be gzipped or not. The tests run on
small files of the same format.
"""

import csv
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import nan
from pathlib import Path

from tqdm import tqdm

from model.datasets.labels import POTASSIUM_NORMAL, folder_of, lines_of, reading
from model.datasets.record import DatasetError

POTASSIUM_ITEMS = frozenset({"50971", "50822"})  # serum or plasma, and whole blood
NO_MEASUREMENT = 29_999  # of the machine


@dataclass(frozen=True, slots=True)
class MimicEcg:
    """One ECG of 10 s. NaN where not known: age in years, male 1 or 0, rr_ms by the machine, potassium in mmol/L of the
    nearest blood sample, abnormal 1 or 0 by the laboratory's own flag or, without one, by `POTASSIUM_NORMAL`."""

    path: Path
    patient: str
    age: float = nan
    male: float = nan
    rr_ms: float = nan
    potassium: float = nan
    abnormal: float = nan


def mimic_ecgs(
    folder: str | Path = "mimic-iv-ecg", hospital: str | Path = "mimic-iv", within_h: float = 4.0
) -> list[MimicEcg]:
    """All ECGs, in the order of record_list.csv, with the potassium taken nearest to each within `within_h` hours.

    The clock of an ECG machine is its own, so an hour is not to be taken to the minute. Raises DatasetError where a
    file is not there or is not what it should be."""
    root, clinic = folder_of(folder), folder_of(hospital)
    rr_ms = {row["study_id"]: float(row["rr_interval"]) for row in _rows(root, "machine_measurements")}
    people = {row["subject_id"]: row for row in _rows(clinic, "hosp/patients")}
    records = list(_rows(root, "record_list"))
    blood = _potassium(clinic, {row["subject_id"] for row in records})
    found = []
    for row in records:
        with reading(root / "record_list.csv"):
            at = datetime.fromisoformat(row["ecg_time"])
            person = people.get(row["subject_id"])
            potassium, abnormal = _nearest(blood.get(row["subject_id"], []), at.timestamp(), within_h * 3600)
            rr = rr_ms.get(row["study_id"], nan)
            found.append(
                MimicEcg(
                    root / row["path"],
                    f"mimic-iv-ecg/{row['subject_id']}",
                    nan if person is None else float(person["anchor_age"]) + at.year - int(person["anchor_year"]),
                    nan if person is None else float(person["gender"] == "M"),
                    rr if 0 < rr < NO_MEASUREMENT else nan,
                    potassium,
                    abnormal,
                )
            )
    return found


def _rows(root: Path, name: str) -> Iterator[dict[str, str]]:
    """The rows of a table of MIMIC, gzipped or not."""
    for suffix in (".csv", ".csv.gz"):
        path = root / f"{name}{suffix}"
        if path.is_file():
            with reading(path):
                yield from csv.DictReader(lines_of(path))
            return
    raise DatasetError(f"{root}: the table {name}.csv or {name}.csv.gz is not there; put it beside the records")


def _potassium(clinic: Path, subjects: set[str]) -> dict[str, list[tuple[float, float, float]]]:
    """By patient, (time, mmol/L, abnormal) of every potassium measured, in order of time."""
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for row in tqdm(_rows(clinic, "hosp/labevents"), desc="labevents", unit="row", unit_scale=True, mininterval=2):
        if row["itemid"] not in POTASSIUM_ITEMS or row["subject_id"] not in subjects or not row["valuenum"]:
            continue
        value, (low, high) = float(row["valuenum"]), POTASSIUM_NORMAL
        judged = bool(row.get("ref_range_lower"))  # the laboratory knew its range: an empty flag says normal
        abnormal = row["flag"] == "abnormal" if judged else not low <= value <= high
        found[row["subject_id"]].append((datetime.fromisoformat(row["charttime"]).timestamp(), value, float(abnormal)))
    for events in found.values():
        events.sort()
    return found


def _nearest(events: list[tuple[float, float, float]], at: float, within: float) -> tuple[float, float]:
    """mmol/L and abnormal of the event nearest to `at`, NaN where none is within so many seconds."""
    place = bisect(events, (at,))
    near = [(abs(time - at), value, abnormal) for time, value, abnormal in events[max(place - 1, 0) : place + 1]]
    distance, value, abnormal = min(near, default=(within + 1, nan, nan))
    return (value, abnormal) if distance <= within else (nan, nan)
