"""Heart rate against the reference (mxm), and the rule by which both rates are made.

EC57 leaves the reference heart rate to be disclosed. Ours: both annotators' beats go through one rule, the mean of
the latest 12 RR intervals (of 4 where the latest three are all longer than 1.2 s, so slow rhythms answer sooner),
told once a second of sample time. Intervals across VF, an unreadable stretch or an interval over 4 s start afresh.
`measurement_error` then pairs each test value with the reference value that is nearest in time, as mxm does.

mxm divides by the number of all test values read, those of the learning period included, though it sums errors
after it alone; that makes errors look smaller. We divide by the pairs, and give mxm's own figure as `percent_mxm`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.ec57.beats import START_S
from model.ec57.marks import SHUTDOWN_BITS, Marks, Samples, samples_of
from model.ec57.reader import QRS_SYMBOLS

Values = npt.NDArray[np.float64]

N_RR, N_RR_SLOW, SLOW_S, LONGEST_S = 12, 4, 1.2, 4.0


@dataclass(frozen=True, slots=True)
class RateError:
    """Heart-rate error of one record over n pairs; NaN where there is none.

    `percent`: root mean square error in percent of the mean reference rate; `bpm`: the same in beats per minute.
    """

    n: int
    percent: float
    bpm: float
    mean_reference: float
    percent_mxm: float
    within_5: int  # pairs that differ by no more than 10 % or 5 bpm, whichever is greater (IEC 60601-2-27)


def heart_rate(of: Marks, fs: float, end: int) -> tuple[Samples, Values]:
    """Heart rate once a second by the rule above: samples (m,) int64, and beats per minute (m,) where it is known."""
    beats, fresh = _beats(of)
    rr = np.diff(beats) / fs
    broken = fresh[1:] | (rr > LONGEST_S) | (rr <= 0)
    first_of = np.maximum.accumulate(np.where(broken, np.arange(1, rr.size + 1), 0)) if rr.size else np.zeros(0, int)
    total = np.concatenate([[0.0], np.cumsum(rr)])
    k = np.arange(1, rr.size + 1)
    slow = np.zeros(rr.size, bool)
    if rr.size >= 3:
        slow[2:] = (rr[2:] > SLOW_S) & (rr[1:-1] > SLOW_S) & (rr[:-2] > SLOW_S)
    begin = np.maximum(first_of, k - np.where(slow, N_RR_SLOW, N_RR))
    count = k - begin
    mean = np.divide(total[k] - total[begin], count, out=np.full(rr.size, np.nan), where=count > 0)

    ticks = np.round(np.arange(1, int(end / fs) + 1) * fs).astype(np.int64)
    latest = np.searchsorted(beats, ticks, side="right") - 2  # index of the interval that ended last
    usable = latest >= 0
    known = np.zeros(ticks.size, bool)
    if rr.size:
        inside = np.clip(latest, 0, rr.size - 1)
        known = usable & (count[inside] > 0) & (ticks - beats[np.clip(latest + 1, 0, beats.size - 1)] <= LONGEST_S * fs)
        return ticks[known], 60.0 / mean[inside[known]]
    return ticks[known], np.zeros(0)


def measurement_error(
    ref_at: Samples,
    ref: Values,
    test_at: Samples,
    test: Values,
    fs: float,
    start_s: float = START_S,
    end: int | None = None,
) -> RateError:
    """Pair each test value from `start_s` to `end` with the nearest reference value, the later one at a tie."""
    start = samples_of(start_s, fs)
    used = (test_at >= start) & (True if end is None else test_at <= end)
    if not used.any() or ref.size == 0:
        nan = float("nan")
        return RateError(0, nan, nan, nan, nan, 0)
    after = np.searchsorted(ref_at, test_at[used], side="left")
    before = np.maximum(after - 1, 0)
    after_in = np.minimum(after, ref_at.size - 1)
    nearer = (after > 0) & (
        (after == ref_at.size) | (test_at[used] - ref_at[before] < ref_at[after_in] - test_at[used])
    )
    paired = ref[np.where(nearer, before, after_in)]
    error = test[used] - paired
    squares, total, n = float((error**2).sum()), float(paired.sum()), int(error.size)
    allowed = np.maximum(5.0, 0.1 * paired)
    return RateError(
        n=n,
        percent=100 * np.sqrt(squares * n) / total if total else float("nan"),
        bpm=float(np.sqrt(squares / n)),
        mean_reference=total / n,
        percent_mxm=100 * np.sqrt(squares * test_at.size) / total if total else float("nan"),
        within_5=int((np.abs(error) <= allowed).sum()),
    )


def _beats(of: Marks) -> tuple[Samples, npt.NDArray[np.bool_]]:
    """Samples of the beats outside VF, and whether VF or an unreadable stretch lies before each."""
    at: list[int] = []
    fresh: list[bool] = []
    in_vf = broken = False
    for sample, symbol, subtype in zip(of.sample.tolist(), of.symbol, of.subtype.tolist(), strict=True):
        if symbol in "[]":
            in_vf, broken = symbol == "[", True
        elif symbol == "~":
            broken = broken or (subtype & SHUTDOWN_BITS) == SHUTDOWN_BITS
        elif symbol in QRS_SYMBOLS and not in_vf:
            at.append(sample)
            fresh.append(broken)
            broken = False
    return np.array(at, dtype=np.int64), np.array(fresh, dtype=bool)
