"""Beat by beat: which test beat answers which reference beat, and the tables that follow (bxb).

The rules are those of WFDB bxb (revision of April 2020): two readers run through the beats of both
annotators, each knowing its current and its next beat; a pair is made where the current two lie
within 150 ms and neither waits for a better partner that is next; what is left over is paired with
the pseudo-beat O, or X where the other annotator has declared the signal unreadable. Test beats
inside ventricular fibrillation of the reference count nowhere. The first five minutes are learning.

Kept as bxb has it, though it may surprise:
- `j`, `e` and `n` are S under the map "bxb"; under "literature" they are N. Paced beats (`/`, `f`) are Q.
- F and Q beats called V are no false VEB, and Q beats called S no false SVEB; F called S is one.
- The RR error of bxb is tallied at every pair, pseudo-beats included, wherever both annotators have a
  valid interval; `rr_matched_ms` beside it takes only intervals between two successive matches.
- Shutdown and VF of the reference are known only as far as its reader has come, the two latest ones.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.ec57.marks import SHUTDOWN_BITS, Marks, Samples, Symbols, marks, samples_of

WINDOW_S = 0.15
START_S = 300.0
LABELS = "NSVFQOX"  # rows (reference) and columns (test) of a confusion matrix
QRS_SYMBOLS = frozenset("NLRaVFJASEj/QBenfr?!")
LabelMap = Literal["bxb", "literature"]

Counts = npt.NDArray[np.int64]

_NEVER = 2**62
_NONE = -1
_BXB = {
    **dict.fromkeys("NLRB", "N"),
    **dict.fromkeys("JASajen", "S"),
    **dict.fromkeys("VrE", "V"),
    "F": "F",
    **dict.fromkeys("Q/f?", "Q"),
}
LABEL_MAPS: dict[str, dict[str, str]] = {"bxb": _BXB, "literature": {**_BXB, **dict.fromkeys("ejn", "N")}}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Beats of one record compared.

    counts: int64 (7, 7), rows reference and columns test in the order of LABELS.
    ref_at, test_at: int64 (k,), samples of the k pairs, -1 for a pseudo-beat; ref, test: their labels.
    A test beat inside reference VF has the label `*` as its reference and is in no count.
    rr_ms: bxb's root mean square of RR differences, rr_matched_ms: that between successive matches; NaN for none.
    """

    counts: Counts
    ref_at: Samples
    test_at: Samples
    ref: tuple[str, ...]
    test: tuple[str, ...]
    rr_ms: float
    n_rr: int
    rr_matched_ms: float
    n_rr_matched: int
    shutdown_s: float

    @property
    def qrs(self) -> tuple[int, int, int]:
        """QRS complexes found, missed and invented: TP, FN, FP."""
        c = self.counts
        return int(c[:5, :5].sum()), int(c[:5, 5:].sum()), int(c[5:, :5].sum())


def compare(
    ref_samples: npt.ArrayLike,
    ref_symbols: Symbols,
    test_samples: npt.ArrayLike,
    test_symbols: Symbols,
    fs: float,
    start_s: float = START_S,
    end: int | None = None,
    label_map: LabelMap = "bxb",
) -> Comparison:
    """Compare plain arrays; the short form of `compare_marks` for who has beats alone (`end` in samples)."""
    ref, test = marks(ref_samples, ref_symbols), marks(test_samples, test_symbols)
    return compare_marks(ref, test, fs, start_s, end, label_map)


def compare_marks(
    ref: Marks,
    test: Marks,
    fs: float,
    start_s: float = START_S,
    end: int | None = None,
    label_map: LabelMap = "bxb",
    window_s: float = WINDOW_S,
) -> Comparison:
    """Compare two annotators of one record by the rules of bxb.

    `start_s`: length of the learning period; `end`: the record's length in samples, or None to go on to the last
    reference beat. Another window or start than the defaults makes the comparison non-standard, as bxb warns.
    Raises ValueError where `label_map` is unknown or `fs` is not positive.
    """
    if label_map not in LABEL_MAPS:
        raise ValueError(f"label_map: {label_map!r} is unknown; take one of {', '.join(LABEL_MAPS)}")
    if not fs > 0:
        raise ValueError(f"fs: {fs} is no sampling rate; give one above 0 Hz")
    window = samples_of(window_s, fs)
    start = samples_of(start_s, fs)
    a = _Reader(ref, LABEL_MAPS[label_map], window, open_noise_ends=_NEVER)
    b = _Reader(test, LABEL_MAPS[label_map], window, open_noise_ends=None)
    tally = _Tally()
    _pair_all(a, b, tally, window, start, end)
    return tally.result(fs, b.shutdown(end))


def _pair_all(a: "_Reader", b: "_Reader", tally: "_Tally", window: int, start: int, end: int | None) -> None:
    """The loop of bxb: a reads the reference, b the test."""
    a.advance()
    while a.at < start:
        a.advance()
    b.advance()
    while b.next_at < start:
        b.advance()
    # The last test beat of the learning period may belong to the first reference beat after it.
    if a.at - b.at < abs(a.at - b.next_at) and a.at - b.at <= window:
        if a.label or b.label:
            tally.match(a, b)
        a.advance()
        b.advance()
    else:
        b.advance()
        # A test beat just after the learning period may belong to a reference beat just before it.
        if b.at - start <= window and abs(a.at - b.next_at) < abs(a.at - b.at):
            b.advance()

    while a.at != _NEVER if end is None else (a.at <= end or b.at <= end):
        apart = abs(a.at - b.at)
        if b.at < a.at:
            other = abs(a.at - b.next_at)
            matched = apart <= window and (apart < other or abs(a.next_at - b.next_at) < other)
        else:
            other = abs(b.at - a.next_at)
            matched = apart <= window and (apart < other or abs(b.next_at - a.next_at) < other)
        if matched:
            tally.match(a, b)
            a.advance()
            b.advance()
        elif b.at < a.at:
            tally.extra(a, b)
            b.advance()
        else:
            tally.missed(a, b)
            a.advance()


class _Reader:
    """One annotator's beats, read one ahead, with the shutdown and VF periods met on the way.

    `at` and `label`: the current beat; `next_at`, `next_label`: the one after it; `rr`: the interval that ends at the
    current beat, 0 where it is not valid. A time of `_NEVER` says that there are no more.
    """

    def __init__(self, of: Marks, labels: dict[str, str], window: int, open_noise_ends: int | None) -> None:
        self._samples: list[int] = of.sample.tolist()
        self._symbols = of.symbol
        self._shut = ((of.subtype & SHUTDOWN_BITS) == SHUTDOWN_BITS).tolist()
        self._labels = labels
        self._window = window
        self._i = 0
        self._noise: list[tuple[int, int]] = [(_NONE, _NONE), (_NONE, _NONE)]  # the latest first
        self._vf: list[tuple[int, int]] = [(_NONE, _NONE), (_NONE, _NONE)]
        self._shutdown = 0
        self._open_shutdown: int | None = None
        self.at = self.next_at = 0
        self.label = self.next_label = ""
        self.rr = 0
        self._open_noise_ends = open_noise_ends

    def advance(self) -> None:
        """Step to the next beat."""
        before = self.at
        self.at, self.label = self.next_at, self.next_label
        broken = any(before <= on < self.at for on, _ in (*self._vf, *self._noise))
        self.rr = 0 if before == 0 or self.at == _NEVER or broken else self.at - before
        self._look_ahead()

    def pseudo(self, at: int, skip_vf: bool) -> str:
        """What stands for the beat that this annotator does not have at `at`: O, X, or `*` for not counted."""
        (on, off), (before_on, before_off) = self._vf
        if skip_vf and _inside(at, on, off, before_on, before_off):
            return "*"
        (on, off), (before_on, before_off) = self._noise
        return "X" if _inside(at, on, off, before_on, before_off) else "O"

    def shutdown(self, end: int | None) -> int:
        """Samples declared unreadable; a shutdown that is never ended lasts to the end of the record."""
        if self._open_shutdown is not None and end is not None:
            return self._shutdown + end - self._open_shutdown
        return self._shutdown

    def _look_ahead(self) -> None:
        n = len(self._symbols)
        while self._i < n:
            i = self._i
            self._i += 1
            symbol = self._symbols[i]
            if symbol in QRS_SYMBOLS:
                # A symbol that is a QRS to WFDB and no beat to the standard (`!`) is an O, and pairs as one.
                self.next_at, self.next_label = self._samples[i], self._labels.get(symbol, "O")
                return
            if symbol == "~" and self._shut[i]:
                if not self._begin_shutdown(i):
                    break
            elif symbol == "[" and not self._skip_vf(i):
                break
        self.next_at, self.next_label = _NEVER, "*"

    def _begin_shutdown(self, i: int) -> bool:
        """Take in a shutdown that begins at mark i; False where the file ends in it."""
        if self._i >= len(self._symbols):
            # bxb leaves a test annotator the end of the shutdown before this one, which is none at the first.
            off = self._noise[0][1] if self._open_noise_ends is None else self._open_noise_ends
            self._noise = [(self._samples[i], off), self._noise[0]]
            self._open_shutdown = self._samples[i]
            return False
        after = self._samples[self._i]
        if self._symbols[self._i] == "~" and not self._shut[self._i]:
            on, off = self._samples[i], after
            self._i += 1
        else:
            # A lone mark, as the AHA database has it: from the beat (or VF) before it to the mark after it.
            vf_off = self._vf[0][1]
            off = after - self._window
            on = min((vf_off if vf_off > self.at else self.at) + self._window, off)
        self._noise = [(on, off), self._noise[0]]
        self._shutdown += off - on
        return True

    def _skip_vf(self, i: int) -> bool:
        """Pass over all marks up to the end of VF; False where the file ends in it."""
        # Until its end is read, VF keeps the end of the one before it, as in bxb.
        self._vf = [(self._samples[i], self._vf[0][1]), self._vf[0]]
        while self._i < len(self._symbols):
            j = self._i
            self._i += 1
            if self._symbols[j] == "]":
                self._vf[0] = (self._samples[i], self._samples[j])
                return True
        return False


def _inside(at: int, on: int, off: int, before_on: int, before_off: int) -> bool:
    latest = on != _NONE and on <= at and (at <= off or off == _NONE)
    return latest or (before_on != _NONE and before_on <= at <= before_off)


@dataclass(slots=True)
class _Tally:
    """What the pairs add up to."""

    pairs: list[tuple[int, int, str, str]] = field(default_factory=list)
    squares: float = 0.0
    n_rr: int = 0
    squares_matched: float = 0.0
    n_rr_matched: int = 0
    _last_matched: bool = False

    def match(self, a: _Reader, b: _Reader) -> None:
        self._add(a, b, (a.at, b.at, a.label, b.label), matched=True)

    def extra(self, a: _Reader, b: _Reader) -> None:
        self._add(a, b, (_NONE, b.at, a.pseudo(b.at, skip_vf=True), b.label), matched=False)

    def missed(self, a: _Reader, b: _Reader) -> None:
        self._add(a, b, (a.at, _NONE, a.label, b.pseudo(a.at, skip_vf=False)), matched=False)

    def _add(self, a: _Reader, b: _Reader, pair: tuple[int, int, str, str], matched: bool) -> None:
        self.pairs.append(pair)
        if a.rr > 0 and b.rr > 0:
            self.squares += float(a.rr - b.rr) ** 2
            self.n_rr += 1
            if matched and self._last_matched:
                self.squares_matched += float(a.rr - b.rr) ** 2
                self.n_rr_matched += 1
        self._last_matched = matched

    def result(self, fs: float, shutdown: int) -> Comparison:
        ref_at, test_at, ref, test = zip(*self.pairs, strict=True) if self.pairs else ((), (), (), ())
        counts = np.zeros((len(LABELS), len(LABELS)), np.int64)
        for pair, n in Counter(zip(ref, test, strict=True)).items():
            if "*" not in pair:
                counts[LABELS.index(pair[0]), LABELS.index(pair[1])] = n
        counts[5:, 5:] = 0  # bxb has no count for a pseudo-beat paired with a pseudo-beat
        return Comparison(
            counts,
            np.array(ref_at, dtype=np.int64),
            np.array(test_at, dtype=np.int64),
            tuple(ref),
            tuple(test),
            _root_mean(self.squares, self.n_rr, fs),
            self.n_rr,
            _root_mean(self.squares_matched, self.n_rr_matched, fs),
            self.n_rr_matched,
            shutdown / fs,
        )


def _root_mean(squares: float, n: int, fs: float) -> float:
    return float("nan") if n == 0 else float(np.sqrt(squares / n) * 1000.0 / fs)
