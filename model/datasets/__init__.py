"""Readers of recordings and of the labels of the public databases.

    >>> record = read(find("mitdb/208")[0], start_s=60, duration_s=10)
    >>> physical(record).shape
    (2, 3600)

Everything that cannot be read raises `DatasetError`, whose one line names the record, what is wrong with it, the value
and the mend.
"""

from model.datasets.labels import (
    POTASSIUM_LEVELS,
    POTASSIUM_NORMAL,
    Alarm,
    RhythmSpan,
    RrRows,
    age_and_sex,
    alarms_2015,
    folder_of,
    labels_2017,
    ludb_labels,
    patients,
    potassium_levels,
    rhythm_spans,
    rr_cases,
    rr_rows,
    shockable_5s,
)
from model.datasets.mimic import MimicEcg, mimic_ecgs
from model.datasets.record import Annotations, DatasetError, Info, Kind, Record, SignalInfo, kind_of, physical
from model.datasets.sources import cache_folder, find, records_in
from model.datasets.wfdb_reader import annotations, info, read

__all__ = [
    "POTASSIUM_LEVELS",
    "POTASSIUM_NORMAL",
    "Alarm",
    "Annotations",
    "DatasetError",
    "Info",
    "Kind",
    "MimicEcg",
    "Record",
    "RhythmSpan",
    "RrRows",
    "SignalInfo",
    "age_and_sex",
    "alarms_2015",
    "annotations",
    "cache_folder",
    "find",
    "folder_of",
    "info",
    "kind_of",
    "labels_2017",
    "ludb_labels",
    "mimic_ecgs",
    "patients",
    "physical",
    "potassium_levels",
    "read",
    "records_in",
    "rhythm_spans",
    "rr_cases",
    "rr_rows",
    "shockable_5s",
]
