"""What simulated ECG is put together from: beat templates, and tables of noise, fibrillation and wander.

The base waveform is neurokit2's ECGSYN (McSharry 2003, a dynamical model), simulated once per process and cut into one
average beat per lead; thousands of patients then cost additions. Ectopic beats are Gaussians, as ECGSYN has none.
Tables are periodic (made of a spectrum with random phases), so they can be read at any index without a seam.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

NORMAL, NO_P, ATRIAL, VENTRICULAR, VENTRICULAR_2 = range(5)  # kinds of template
LEADS = ("II", "V1")
BEFORE_S, AFTER_S = 0.32, 0.68  # reach of a template around its R peak
TABLE = 1 << 17
QT_FACTORS = np.linspace(0.6, 1.2, 13)  # how far the T wave is pulled in or out, by the square root of the RR interval

_SYN_FS = 1000
_P_END_S = -0.085  # where the P wave of the model ends and its QRS begins
_T_START_S = 0.07
# The model's angles and amplitudes of P, Q, R, S, T: lead II as it comes, V1 with a small r and a deep S.
_LEADS = (
    {"ai": (0.7, -5.0, 30.0, -7.5, 0.75)},
    {"ai": (0.4, 0.0, 9.0, -24.0, 0.35)},
)
_QRS_MV = (1.35, 1.5)  # peak to peak


@dataclass(frozen=True, slots=True)
class Bank:
    """Templates at one rate. beats: float32 (kinds, QT factors, leads, before + after) in mV, R peak at `before`."""

    beats: npt.NDArray[np.float32]
    before: int

    def qt_index(self, rr_s: float) -> int:
        """The QT factor for an RR interval, by Bazett's square root, 1 at 0.85 s."""
        return int(np.abs(QT_FACTORS - np.sqrt(rr_s / 0.85)).argmin())


@lru_cache(maxsize=8)
def bank(fs: float) -> Bank:
    """All templates at `fs` Hz."""
    before = round(BEFORE_S * fs)
    time_s = (np.arange(before + round(AFTER_S * fs)) - before) / fs
    beats = np.empty((5, QT_FACTORS.size, len(LEADS), time_s.size), np.float32)
    for lead, (syn_time, syn) in enumerate(_base_beats()):
        for i, factor in enumerate(QT_FACTORS):
            # The T wave alone is stretched: QRS width does not follow the rate.
            warped = np.where(time_s < _T_START_S, time_s, _T_START_S + (time_s - _T_START_S) / factor)
            whole = np.interp(warped, syn_time, syn, left=0.0, right=0.0)
            p_wave = whole / (1 + np.exp((time_s - _P_END_S) / 0.006))
            beats[NORMAL, i, lead] = whole
            beats[NO_P, i, lead] = whole - p_wave
            beats[ATRIAL, i, lead] = whole - 1.6 * p_wave
            beats[VENTRICULAR, i, lead] = _ventricular(time_s, factor, ((1.6, -0.38), (-1.4, 0.3))[lead])
            beats[VENTRICULAR_2, i, lead] = _ventricular(time_s, factor, ((-1.5, 0.36), (1.7, -0.36))[lead])
    edge = np.clip(np.minimum(np.arange(time_s.size), np.arange(time_s.size)[::-1]) / (0.04 * fs), 0, 1)
    beats *= edge
    beats.setflags(write=False)
    return Bank(beats, before)


@lru_cache(maxsize=64)
def table(name: str, fs: float) -> npt.NDArray[np.float32]:
    """A periodic table of `TABLE` samples of rms 1, twice over so that any stretch of one period is a slice.

    `muscle` 15 Hz and up, `wander` 0.05 to 0.4 Hz, `motion` 0.5 to 9 Hz, `fibrillation` ventricular, around 5 Hz,
    `atrial` f-waves, around 6.5 Hz. fs: Hz. Returns float32 (2 * TABLE,).
    """
    seed = ("muscle", "wander", "motion", "fibrillation", "atrial").index(name)
    f = np.fft.rfftfreq(TABLE, 1 / fs)
    shapes = {
        "muscle": (f > 15) * np.exp(-f / 60),
        "wander": (f > 0.05) * (f < 0.4) / np.maximum(f, 0.05),
        "motion": (f > 0.5) * (f < 9) / np.sqrt(np.maximum(f, 0.5)),
        "fibrillation": np.exp(-(((f - 5.0) / 0.8) ** 2)) + 0.15 * np.exp(-(((f - 9.0) / 1.5) ** 2)),
        "atrial": np.exp(-(((f - 6.5) / 0.9) ** 2)) + 0.25 * np.exp(-(((f - 13.0) / 1.5) ** 2)),
    }
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, f.size)
    spectrum = shapes[name] * np.exp(1j * phases)
    values = np.fft.irfft(spectrum, TABLE)
    if name in {"fibrillation", "atrial"}:
        # Random phases alone let the envelope fall to nothing, where a heart that fibrillates goes on.
        analytic = np.fft.ifft(np.concatenate([2 * spectrum[:-1], np.zeros(TABLE // 2)]))
        envelope = np.abs(analytic)
        values = values / (envelope / envelope.mean() + 0.15) ** 0.6
    values = (values / values.std()).astype(np.float32)
    twice = np.concatenate([values, values])
    twice.setflags(write=False)
    return twice


@lru_cache(maxsize=1)
def _base_beats() -> tuple[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], ...]:
    """(time in s, mV) of one beat per lead: the average of the model's beats, its baseline taken to 0."""
    import neurokit2

    beats = []
    for parameters, size in zip(_LEADS, _QRS_MV, strict=True):
        signal = np.asarray(
            neurokit2.ecg_simulate(
                duration=14,
                sampling_rate=_SYN_FS,
                method="ecgsyn",
                heart_rate=70,
                heart_rate_std=0,
                noise=0,
                random_state=1,
                random_state_distort=1,
                **parameters,
            )
        )
        reach = np.arange(-round(0.33 * _SYN_FS), round(0.50 * _SYN_FS))
        steep = np.abs(np.convolve(np.diff(signal), np.ones(30), "same"))
        rough = [int(i) for i in range(1000, len(signal) - 1500) if steep[i] == steep[max(0, i - 300) : i + 300].max()]
        peaks = [i - 60 + int(np.argmax(signal[i - 60 : i + 60])) for i in rough]
        mean = np.mean([signal[p + reach] for p in dict.fromkeys(peaks)], axis=0)
        ends = (mean[:20].mean(), mean[-20:].mean())
        mean = mean - np.linspace(*ends, mean.size)
        qrs = mean[(reach > -80) & (reach < 80)]
        beats.append((reach / _SYN_FS, mean * size / np.ptp(qrs)))
    return tuple(beats)


def _ventricular(time_s: npt.NDArray[np.float64], factor: float, size: tuple[float, float]) -> npt.NDArray[np.float64]:
    """A ventricular beat in mV: no P wave, a QRS some 150 ms wide and notched, a T wave against it."""

    def bump(at: float, width: float) -> npt.NDArray[np.float64]:
        return np.exp(-(((time_s - at) / width) ** 2))

    qrs, t_wave = size
    body = bump(0.0, 0.026) + 0.42 * bump(0.048, 0.022) - 0.25 * bump(-0.048, 0.016)
    return qrs * body + t_wave * bump(0.10 + 0.19 * factor, 0.065 * factor)
