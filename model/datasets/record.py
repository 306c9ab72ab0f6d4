"""What a reader hands out: a record of digital samples with what turns them into physical units."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["ecg", "pleth", "abp", "resp", "counter", "other"]
MISSING = -32768  # int16 that stands for a sample that is not there, as on the wire

_ECG_NAMES = re.compile(
    r"^(?:(?:mod\.?|m)?(?:i|ii|iii|avr|avl|avf|vx?|v\d\d?r?|v[xyz]|[xyz]|mli{1,3}|mv\d?|mcl\d?|d\d|cm\d|cc\d|cs\d)[+-]?"
    r"|.*e[ck]g.*|lead.*)$",
    re.IGNORECASE,
)
_OTHER_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("resp", re.compile(r"resp|thorax|abdom|airflow|^rsp|imped", re.IGNORECASE)),
    ("pleth", re.compile(r"pleth|ppg|^spo2? ?wave", re.IGNORECASE)),
    ("abp", re.compile(r"^(abp|art|ibp|p\d|bp|pap|cvp|uap|ao|fap|rap|ubp)\b|blood.?pres|arterial", re.IGNORECASE)),
    ("other", re.compile(r"eeg|emg|eog|spo2|sao2|co2|temp|event|status", re.IGNORECASE)),
)
_MILLIVOLTS = {"nv": 1e-6, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "mv": 1.0, "v": 1e3}


class DatasetError(ValueError):
    """A recording or a label file that cannot be used: record, what, value and mend in one line."""


@dataclass(frozen=True, slots=True)
class SignalInfo:
    """One signal. Physical value = (digital - baseline) / gain, in `unit`; the unit of an ECG is always mV."""

    name: str
    kind: Kind
    unit: str
    gain: float
    baseline: int


@dataclass(frozen=True, slots=True)
class Annotations:
    """Reference annotations, sorted by sample.

    sample: int64 (n,), index from the start of what was read, at the rate of the record's samples. symbols: the WFDB
    codes. aux: the notes, `(AFIB` and such. subtype, num and chan: int16 (n,).
    """

    sample: npt.NDArray[np.int64]
    symbols: list[str]
    aux: list[str]
    subtype: npt.NDArray[np.int16]
    num: npt.NDArray[np.int16]
    chan: npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Info:
    """A record without its samples. `n`: samples of the whole record; `frame`: samples of this record per WFDB frame,
    1 but for records with several rates, whose annotation files count frames."""

    name: str
    path: Path
    fs: float
    n: int
    signals: tuple[SignalInfo, ...]
    comments: tuple[str, ...]
    frame: int = 1


@dataclass(frozen=True, slots=True)
class Record:
    """Samples of all signals at one rate.

    digital: int16 (signals, n), `MISSING` where there is none. `first`: index in the whole record of the first sample
    here. `frame`: see `Info`.
    """

    name: str
    fs: float
    signals: tuple[SignalInfo, ...]
    digital: npt.NDArray[np.int16]
    annotations: Annotations | None
    comments: tuple[str, ...]
    path: Path
    first: int = 0
    frame: int = 1


def physical(record: Record) -> npt.NDArray[np.float32]:
    """Samples in the unit of each signal, float32 (signals, n); NaN where missing."""
    gain = np.array([s.gain for s in record.signals])[:, None]
    baseline = np.array([s.baseline for s in record.signals], np.float64)[:, None]
    values: npt.NDArray[np.float32] = ((record.digital - baseline) / gain).astype(np.float32)
    values[record.digital == MISSING] = np.nan
    return values


def kind_of(name: str, unit: str) -> Kind:
    """What a signal is, by its name and, where that says nothing, its unit."""
    for kind, pattern in _OTHER_KINDS:
        if pattern.search(name):
            return kind
    if _ECG_NAMES.match(name):
        return "ecg"
    if unit.lower() in _MILLIVOLTS:
        return "ecg"
    return "abp" if unit.lower() == "mmhg" else "other"


def millivolts(kind: Kind, unit: str, gain: float) -> tuple[str, float]:
    """Unit and gain of a signal, with an ECG in µV or V told in mV. Raises ValueError for one in no voltage."""
    if kind != "ecg":
        return unit, gain
    if unit.lower() not in _MILLIVOLTS:
        raise ValueError(f"is an ECG in {unit!r}; put its gain per mV, and mV, into the header")
    return "mV", gain / _MILLIVOLTS[unit.lower()]
