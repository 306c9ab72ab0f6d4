"""What a record's reference annotations say should have raised an alarm, and the truth of rhythm segments.

Episodes are by the reference's own beats and rhythm changes, by the criteria of the alarm table with its default
limits: asystole is an interval of 4 s or more between beats (or the rhythm `(ASYS`), ventricular tachycardia 5 or more
ventricular beats in a row at 100 per minute or more (or the rhythm `(VT` in a record without beats), the extreme rates
are those of the heart-rate rule in `rates`. A kind that the reference cannot tell is absent. `near X_TACHY` and
`near X_BRADY` hold where the reference rate is within 10 % of the limit, the accuracy that a monitor must have.
"""

import numpy as np
import numpy.typing as npt

from model.ec57.episodes import AF, VF, VT, Episodes, rhythm_episodes, vf_episodes
from model.ec57.marks import SHUTDOWN_BITS, Marks
from model.ec57.rates import heart_rate
from model.ec57.reader import LABEL_MAPS, QRS_SYMBOLS

ASYSTOLE_S = 4.0
VT_BEATS, VT_BPM = 5, 100.0
TACHY_BPM, BRADY_BPM = 140.0, 40.0
NEAR = 1.1
ASYS = ("(ASYS",)
_NO_EPISODES = np.zeros((0, 2), np.int64)


def has_beats(of: Marks) -> bool:
    """Whether the annotator marked beats at all."""
    return any(symbol in QRS_SYMBOLS and symbol != "!" for symbol in of.symbol)


def has_rhythms(of: Marks) -> bool:
    """Whether the annotator marked rhythm changes."""
    return any(symbol == "+" and aux.startswith("(") for symbol, aux in zip(of.symbol, of.aux, strict=True))


def is_paced(of: Marks) -> bool:
    """Whether paced beats are marked: EC57 leaves such records out of its tables."""
    return "/" in of.symbol


def fibrillation(of: Marks, end: int) -> Episodes:
    """Ventricular fibrillation and flutter: by brackets where there are some, else by rhythm changes."""
    return vf_episodes(of, end) if "[" in of.symbol else rhythm_episodes(of, VF, end)


def unlabelled(of: Marks, end: int) -> Episodes:
    """The stretch before the first rhythm change, where the rhythm is not known."""
    first = next(
        (int(s) for s, y, a in zip(of.sample, of.symbol, of.aux, strict=True) if y == "+" and a[:1] == "("), end
    )
    return np.array([[0, first]], dtype=np.int64) if first > 0 else _NO_EPISODES


def alarm_truths(of: Marks, fs: float, end: int) -> dict[str, Episodes]:
    """Episodes of one record by the code of the alarm that they should raise, in samples."""
    found: dict[str, Episodes] = {}
    if has_rhythms(of):
        found["AFIB"] = rhythm_episodes(of, AF, end)
        found["VFIB"] = fibrillation(of, end)
    if has_beats(of):
        found["VTACH"] = ventricular_runs(of, fs)
        found["ASYSTOLE"] = _silences(of, fs)
        at, bpm = heart_rate(of, fs, end)
        found["X_TACHY"] = _spans(at, bpm >= TACHY_BPM, fs)
        found["X_BRADY"] = _spans(at, bpm <= BRADY_BPM, fs)
        found["near X_TACHY"] = _spans(at, bpm >= TACHY_BPM / NEAR, fs)
        found["near X_BRADY"] = _spans(at, bpm <= BRADY_BPM * NEAR, fs)
    elif has_rhythms(of):
        found["VTACH"] = rhythm_episodes(of, VT, end)
        found["ASYSTOLE"] = rhythm_episodes(of, ASYS, end)
    return found


def ventricular_runs(of: Marks, fs: float, n_beats: int = VT_BEATS, bpm: float = VT_BPM) -> Episodes:
    """Ventricular runs with some `n_beats` in a row at `bpm` or faster: from the first such beats to the last."""
    found: list[tuple[int, int]] = []
    run: list[int] = []
    longest = 60.0 * fs * (n_beats - 1) / bpm

    def close() -> None:
        fast = [i for i in range(len(run) - n_beats + 1) if run[i + n_beats - 1] - run[i] <= longest]
        if fast:
            found.append((run[fast[0]], run[fast[-1] + n_beats - 1]))
        run.clear()

    for at, symbol, subtype in zip(of.sample.tolist(), of.symbol, of.subtype.tolist(), strict=True):
        label = LABEL_MAPS["bxb"].get(symbol)
        if label == "V":
            run.append(at)
        elif label or symbol in "[]" or (symbol == "~" and (subtype & SHUTDOWN_BITS) == SHUTDOWN_BITS):
            close()
    close()
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _silences(of: Marks, fs: float) -> Episodes:
    """Intervals of 4 s or more between two beats that nothing but beats bounds."""
    found: list[tuple[int, int]] = []
    last: int | None = None
    for at, symbol, subtype in zip(of.sample.tolist(), of.symbol, of.subtype.tolist(), strict=True):
        if symbol in QRS_SYMBOLS:
            if last is not None and at - last >= ASYSTOLE_S * fs:
                found.append((last, at))
            last = at
        elif symbol in "[]" or (symbol == "~" and (subtype & SHUTDOWN_BITS) == SHUTDOWN_BITS):
            last = None
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _spans(at: npt.NDArray[np.int64], holds: npt.NDArray[np.bool_], fs: float) -> Episodes:
    """Stretches over which a condition told once a second holds."""
    edges = np.diff(np.concatenate([[0], holds.astype(np.int8), [0]]))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    second = round(fs)
    return np.stack([at[first] - second, at[last]], axis=1).reshape(-1, 2).astype(np.int64)
