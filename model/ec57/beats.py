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

from model.ec57.marks import Marks, Samples, Symbols, marks, samples_of
from model.ec57.reader import LABEL_MAPS, NEVER, NONE, BeatReader

WINDOW_S = 0.15
START_S = 300.0
LABELS = "NSVFQOX"  # rows (reference) and columns (test) of a confusion matrix
LabelMap = Literal["bxb", "literature"]

Counts = npt.NDArray[np.int64]


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
    a = BeatReader(ref, LABEL_MAPS[label_map], window, open_noise_ends=NEVER)
    b = BeatReader(test, LABEL_MAPS[label_map], window, open_noise_ends=None)
    tally = _Tally()
    _pair_all(a, b, tally, window, start, end)
    return tally.result(fs, b.shutdown(end))


def _pair_all(a: "BeatReader", b: "BeatReader", tally: "_Tally", window: int, start: int, end: int | None) -> None:
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

    while a.at != NEVER if end is None else (a.at <= end or b.at <= end):
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


@dataclass(slots=True)
class _Tally:
    """What the pairs add up to."""

    pairs: list[tuple[int, int, str, str]] = field(default_factory=list)
    squares: float = 0.0
    n_rr: int = 0
    squares_matched: float = 0.0
    n_rr_matched: int = 0
    _last_matched: bool = False

    def match(self, a: BeatReader, b: BeatReader) -> None:
        self._add(a, b, (a.at, b.at, a.label, b.label), matched=True)

    def extra(self, a: BeatReader, b: BeatReader) -> None:
        self._add(a, b, (NONE, b.at, a.pseudo(b.at, skip_vf=True), b.label), matched=False)

    def missed(self, a: BeatReader, b: BeatReader) -> None:
        self._add(a, b, (a.at, NONE, a.label, b.pseudo(a.at, skip_vf=False)), matched=False)

    def _add(self, a: BeatReader, b: BeatReader, pair: tuple[int, int, str, str], matched: bool) -> None:
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
