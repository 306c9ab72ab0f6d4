"""Simulated patients: a script, a seed and a rate give the same samples and the same exact truth each time.

    >>> bed = Patient("bed1", [("sinus", 20), ("vf", 25), ("sinus", 60)], seed=7)
    >>> bed.render(5000, 250).shape
    (2, 250)

A patient is drawn at any index and in pieces of any size: samples are a pure function of their index, so how a stream
is cut does not change it. The script starts again at its end, for ever.
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.datasets import Annotations, SignalInfo
from model.datasets.record import MISSING
from simulators.rhythms import Score, ScriptLike, Span, compose, script_of
from simulators.waveforms import LEADS, TABLE, bank, table

GAIN = 200.0  # adu per mV
RAIL = 2047  # what a lead reads that is off: the end of a 12-bit converter
COUNTER_MODULO = 1 << 15
_RAMP_S = 0.15


class Patient:
    """A simulated patient with two ECG leads, II and V1, in int16 at 200 adu per mV.

    script: episodes, or tuples (rhythm, duration_s[, params]), see `simulators.rhythms.RHYTHMS`. fs: Hz, 50 to 2000.
    hr: own heart rate per minute; None draws one. counter: a further signal `N` that holds the index of each sample
    modulo 2**15, so that a test can tell which samples came. Raises ValueError for a script or rate out of range.
    """

    def __init__(
        self,
        name: str,
        script: ScriptLike,
        *,
        seed: int = 0,
        fs: float = 250.0,
        hr: float | None = None,
        noise_mv: float | None = None,
        counter: bool = False,
    ) -> None:
        if not 50 <= fs <= 2000:
            raise ValueError(f"fs: {fs} Hz; give 50 to 2000")
        if hr is not None and not 20 <= hr <= 300:
            raise ValueError(f"hr: {hr} per minute; give 20 to 300")
        if noise_mv is not None and not 0 <= noise_mv <= 1:
            raise ValueError(f"noise: {noise_mv} mV; give 0 to 1")
        if seed < 0:
            raise ValueError(f"seed: {seed}; give 0 or more")
        self.name, self.seed, self.fs, self.counter = name, seed, float(fs), counter
        self.script = script_of(script)
        rng = np.random.default_rng([seed, 1])
        drawn = rng.uniform(62, 84)
        self.hr = drawn if hr is None else float(hr)
        self._size = rng.uniform(0.8, 1.3, len(LEADS)).astype(np.float32)
        own_noise, own_wander = rng.uniform(0.008, 0.018), rng.uniform(0.03, 0.09)
        self._noise_mv = np.float32(own_noise if noise_mv is None else noise_mv)
        self._wander_mv = np.float32(own_wander if noise_mv is None else 5 * noise_mv)
        self._offsets = rng.integers(0, TABLE, 16)
        self.signals = tuple(SignalInfo(lead, "ecg", "mV", GAIN, 0) for lead in LEADS)
        if counter:
            self.signals += (SignalInfo("N", "counter", "", 1.0, 0),)

    @cached_property
    def score(self) -> Score:
        """One pass of the script: beats, spans and truth."""
        return compose(self.script, self.fs, self.hr, len(LEADS), np.random.default_rng([self.seed, 2]))

    @property
    def n_script(self) -> int:
        """Samples of one pass of the script."""
        return round(sum(episode.duration_s for episode in self.script) * self.fs)

    def render(self, first: int, n: int) -> npt.NDArray[np.int16]:
        """Samples first <= s < first + n, int16 (signals, n), in digital units."""
        wave = np.empty((len(LEADS), n), np.float32)
        for lead in range(len(LEADS)):
            wave[lead] = self._noise_mv * self._slice("muscle", lead, first, n)
            wave[lead] += self._wander_mv * self._slice("wander", 2 + lead, first, n)
        self._add_beats(wave, first)
        off = []
        for begin, span in self._spans(first, n):
            if span.what == "off":
                off.append((begin, span))
            else:
                self._add_span(wave, first, begin, span)
        digital = np.empty((len(self.signals), n), np.int16)
        np.rint(np.clip(wave * np.float32(GAIN), -RAIL - 1, RAIL), out=wave)
        digital[: len(LEADS)] = wave
        for begin, span in off:
            rows = slice(0, len(LEADS)) if span.lead < 0 else slice(span.lead, span.lead + 1)
            digital[rows, max(0, begin - first) : begin - first + span.end - span.start] = RAIL
        if self.counter:
            digital[-1] = np.arange(first, first + n) % COUNTER_MODULO
        return digital

    def off_spans(self, first: int, n: int) -> list[tuple[int, int, int]]:
        """(start, end, lead bits) of the leads that are off within first <= s < first + n, in order."""
        every = (1 << len(LEADS)) - 1
        return [
            (
                max(first, begin),
                min(first + n, begin + span.end - span.start),
                every if span.lead < 0 else 1 << span.lead,
            )
            for begin, span in self._spans(first, n)
            if span.what == "off"
        ]

    def truth(self, first: int, n: int) -> Annotations:
        """What is true of samples first <= s < first + n, at absolute samples."""
        one, length = self.score.truth, self.score.n
        index, sample = [], []
        for at_pass in range(first // length, (first + n - 1) // length + 1):
            low, high = np.searchsorted(one.sample, [first - at_pass * length, first + n - at_pass * length])
            index.append(np.arange(low, high))
            sample.append(one.sample[low:high] + at_pass * length)
        rows = np.concatenate(index)
        return Annotations(
            np.concatenate(sample),
            [one.symbols[i] for i in rows],
            [one.aux[i] for i in rows],
            one.subtype[rows],
            one.num[rows],
            one.chan[rows],
        )

    def write(self, folder: Path, duration_s: float) -> Path:
        """Write the first `duration_s` as a WFDB record (format 16, truth as `.atr`); its path without suffix."""
        import wfdb

        folder.mkdir(parents=True, exist_ok=True)
        n = round(duration_s * self.fs)
        digital, truth = self.render(0, n), self.truth(0, n)
        digital[digital == MISSING] = MISSING + 1
        n_signals = len(self.signals)
        wfdb.wrsamp(
            self.name,
            fs=self.fs,
            units=[signal.unit or "NU" for signal in self.signals],
            sig_name=[signal.name for signal in self.signals],
            d_signal=digital.T.astype(np.int64),
            fmt=["16"] * n_signals,
            adc_gain=[signal.gain for signal in self.signals],
            baseline=[signal.baseline for signal in self.signals],
            comments=[f"simulated patient, seed {self.seed}"],
            write_dir=str(folder),
        )
        wfdb.wrann(
            self.name,
            "atr",
            sample=truth.sample,
            symbol=truth.symbols,
            subtype=truth.subtype.astype(np.int64),
            aux_note=truth.aux,
            write_dir=str(folder),
        )
        return folder / self.name

    def _slice(self, name: str, offset: int, first: int, n: int) -> npt.NDArray[np.float32]:
        values = table(name, self.fs)
        start = (int(self._offsets[offset]) + first) % TABLE
        if n <= TABLE:
            return values[start : start + n]
        return np.take(values, np.arange(start, start + n) % TABLE)

    def _add_beats(self, wave: npt.NDArray[np.float32], first: int) -> None:
        templates, score, n = bank(self.fs), self.score, wave.shape[1]
        before, length = templates.before, templates.beats.shape[-1]
        size = self._size[:, None]
        low, high = first - (length - before), first + n + before  # R peaks whose template reaches in
        for at_pass in range(max(0, low // score.n), high // score.n + 1):
            begin = at_pass * score.n
            for i in range(*np.searchsorted(score.at, [low - begin, high - begin])):
                start = int(score.at[i]) + begin - before - first
                a, b = max(0, start), min(n, start + length)
                if a < b:
                    shape = templates.beats[score.kind[i], templates.qt_index(score.rr_s[i])]
                    wave[:, a:b] += shape[:, a - start : b - start] * (size * score.size[i])

    def _spans(self, first: int, n: int) -> Iterable[tuple[int, Span]]:
        """(absolute start, span) of the spans that reach into first <= s < first + n, in order."""
        length = self.score.n
        for at_pass in range(first // length, (first + n - 1) // length + 1):
            for span in self.score.spans:
                begin = at_pass * length + span.start
                if begin < first + n and begin + span.end - span.start > first:
                    yield begin, span

    def _add_span(self, wave: npt.NDArray[np.float32], first: int, begin: int, span: Span) -> None:
        """Add a span that starts at absolute sample `begin`; it comes and goes over 0.15 s."""
        end, n = begin + span.end - span.start, wave.shape[1]
        a, b = max(first, begin), min(first + n, end)
        index = np.arange(a, b)
        ramp = np.clip(np.minimum(index - begin + 1, end - index) / (_RAMP_S * self.fs), 0, 1).astype(np.float32)
        part = wave[:, a - first : b - first]
        if span.what == "flutter":
            turn = (index - begin) * (span.rate / 60 / self.fs) % 1.0
            saw = (ramp * span.level * (1 - 2 * turn + 0.3 * np.sin(2 * np.pi * turn))).astype(np.float32)
            part += saw * np.array([[1.0], [0.5]], np.float32)
            return
        level = ramp * np.float32(span.level)
        if span.what == "motion":
            for lead in range(len(LEADS)):
                noise = self._slice("motion", 4 + lead, a, b - a) + 0.4 * self._slice("muscle", 6 + lead, a, b - a)
                part[lead] += level * noise
            return
        common = self._slice(span.what, 8, a, b - a)
        part[0] += level * common
        part[1] += level * (0.5 * common + 0.7 * self._slice(span.what, 9, a, b - a))
