"""All training examples as joined arrays, kept on disk between runs, and the patient-wise folds over them."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.examples import Cut, Half, Label, window_index
from model.segments import TICK_HZ, TOKEN_BEATS, TOKEN_HOPS, Float, Int


@dataclass(slots=True)
class Pool:
    """Recordings (r), their beats (n) and hops (m) one after another; `of_beat` and `of_hop` say whose they are."""

    source: npt.NDArray[np.str_]  # (r,)
    name: npt.NDArray[np.str_]
    patient: npt.NDArray[np.str_]
    age: Float  # (r,) years, NaN unknown
    male: Float
    potassium: Float  # 1 abnormal, 0 normal, NaN unknown
    missed: Int  # (r, 5) reference beats that no detected beat matches, by class
    of_beat: Int  # (n,)
    beat_at: Int
    beat_wave: Half  # (n, 4, 128)
    beat_features: Float  # (n, F)
    beat_form: Int
    beat: Label
    extra: npt.NDArray[np.bool_]
    of_hop: Int  # (m,)
    hop_end: Int
    hop_wave: Half  # (m, 2, 500)
    hop_mask: Float  # (m, 2)
    rhythm: Label
    shockable: Label
    quality: Label
    arrhythmia: Label
    rr_ms: Float
    window_hops: npt.NDArray[np.int32]  # (m, 15) hops of the window that ends with a hop, newest last, -1 none
    window_beats: npt.NDArray[np.int32]  # (m, 48)

    def save(self, path: Path) -> None:
        """Write all arrays to one .npz file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def load(cls, path: Path) -> "Pool":
        """Read what `save` wrote."""
        with np.load(path) as file:
            return cls(**{name: file[name] for name in cls.__slots__})

    def beat_age(self, hops: Int) -> Float:
        """Seconds (k, 48) from the R peaks of the windows that end with `hops` to their ends; 0 for none."""
        beats = self.window_beats[hops]
        age = (self.hop_end[hops, None] - self.beat_at[beats]) / np.float32(TICK_HZ)
        return np.where(beats < 0, 0, age).astype(np.float32)

    def folds(self, n: int, seed: int) -> Int:
        """Fold (r,) of each recording: whole patients, each source spread evenly, mitdb by hand so that the rare
        beats are spread too."""
        fold = np.zeros(self.source.size, np.int64)
        for source in np.unique(self.source):
            here = self.source == source
            names = np.unique(self.patient[here])
            place = dict(zip(names, spread(names, n, seed), strict=True))
            if source in {"mitdb", "flat"}:
                place |= {f"mitdb/{record}": i % n for i, record in enumerate(_MITDB_ORDER)}
            fold[here] = [place[p] for p in self.patient[here]]
        return fold


def spread(patients: Sequence[str] | npt.NDArray[np.str_], n: int, seed: int) -> Int:
    """Fold (k,) of each patient of a database, evenly; by name and seed alone."""
    order = sorted(range(len(patients)), key=lambda i: zlib.crc32(f"{seed} {patients[i]}".encode()))
    fold = np.zeros(len(patients), np.int64)
    fold[order] = np.arange(len(patients)) % n
    return fold


# DS1 and the paced records so that every fifth, fourth or third has some of the rare: S in 209 207 118 220 201 223 124
# 114, V in 208 106 119 223 203 201 215 116 207, F in 208, AF in 203 201 217, VT and SVT in 223 209 207.
_MITDB_ORDER = (
    "209", "207", "118", "220", "201", "223", "208", "106", "119", "203", "215", "116", "124", "114", "109", "205",
    "108", "101", "112", "115", "122", "230", "102", "104", "107", "217",
)  # fmt: skip


def join(cuts: list[Cut]) -> Pool:
    """One pool of many recordings."""
    n_beats, n_hops = np.array([c.beat_at.size for c in cuts]), np.array([c.hop_end.size for c in cuts])
    first_beat, first_hop = np.cumsum(n_beats) - n_beats, np.cumsum(n_hops) - n_hops
    of_hops, of_beats = [], []
    for cut, beat, hop in zip(cuts, first_beat, first_hop, strict=True):
        hops, beats = window_index(cut, np.arange(cut.hop_end.size))
        of_hops.append(np.where(hops < 0, -1, hops + hop).reshape(-1, TOKEN_HOPS))
        of_beats.append(np.where(beats < 0, -1, beats + beat).reshape(-1, TOKEN_BEATS))

    def column(name: str) -> Any:
        return np.concatenate([getattr(c, name) for c in cuts])

    return Pool(
        source=np.array([c.source for c in cuts]), name=np.array([c.name for c in cuts]),
        patient=np.array([c.patient for c in cuts]), age=np.array([c.age for c in cuts], np.float32),
        male=np.array([c.male for c in cuts], np.float32),
        potassium=np.array([c.potassium for c in cuts], np.float32),
        missed=np.array([[c.missed.get(k, 0) for k in "NSVFQ"] for c in cuts], np.int64),
        of_beat=np.repeat(np.arange(len(cuts)), n_beats), of_hop=np.repeat(np.arange(len(cuts)), n_hops),
        window_hops=np.concatenate(of_hops).astype(np.int32),
        window_beats=np.concatenate(of_beats).astype(np.int32),
        **{name: column(name) for name in (
            "beat_at", "beat_wave", "beat_features", "beat_form", "beat", "extra", "hop_end", "hop_wave", "hop_mask",
            "rhythm", "shockable", "quality", "arrhythmia", "rr_ms",
        )},
    )  # fmt: skip
