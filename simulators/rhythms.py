"""Scripted rhythms: from a script to the beats and spans of a patient: what is drawn, and at once the truth."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from model.datasets import Annotations
from simulators.waveforms import ATRIAL, NO_P, NORMAL, VENTRICULAR, VENTRICULAR_2

# Each rhythm and its parameters with their defaults: hr and rate per minute, level and amplitude in mV, lead an index
# (-1: all leads). hr -1: the patient's own.
RHYTHMS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "sinus": {"hr": -1, "pvc_per_min": 0, "pac_per_min": 0},
        "brady": {"hr": 36},
        "tachy": {"hr": 135},
        "af": {"hr": 95, "amplitude": 0.06},
        "afl": {"rate": 300, "conduction": 3, "amplitude": 0.15},
        "svt": {"hr": 185},
        "bigeminy": {"hr": -1},
        "trigeminy": {"hr": -1},
        "couplets": {"hr": -1},
        "runs": {"hr": -1, "beats": 4, "rate": 150},
        "vt": {"rate": 170, "form": 0},
        "vf": {"amplitude": 0.45},
        "asystole": {},
        "pause": {"hr": -1, "pause_s": 3.0},
        "lead_off": {"hr": -1, "lead": -1},
        "noise": {"hr": -1, "level": 1.5},
    }
)
_NOTES = {"af": "(AFIB", "afl": "(AFL", "svt": "(SVTA", "bigeminy": "(B", "trigeminy": "(T", "vt": "(VT", "vf": "(VF"}
_NOTES |= {"asystole": "(ASYS", "brady": "(SBR"}  # all others are (N
_SYMBOLS = {NORMAL: "N", NO_P: "N", ATRIAL: "A", VENTRICULAR: "V", VENTRICULAR_2: "V"}
_PATTERNS = {"bigeminy": "NV", "trigeminy": "NNV", "couplets": "NNNNVV"}
_RANGES = {"hr": (10, 400), "rate": (10, 400), "conduction": (1, 8), "beats": (1, 100), "lead": (-1, 1)}
_OTHER_RANGE = (0, 60)
_MIN_EPISODE_S = 2.0
_RECOVERY_S = 0.7  # from the end of a VF or an asystole to the next beat


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch of one rhythm. `params` overrides defaults of `RHYTHMS`. Raises ValueError for what is not there."""

    rhythm: str
    duration_s: float
    params: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rhythm not in RHYTHMS:
            raise ValueError(f"rhythm: {self.rhythm!r} is not known; choose among {', '.join(RHYTHMS)}")
        if not _MIN_EPISODE_S <= self.duration_s <= 86_400:
            raise ValueError(f"duration_s: {self.duration_s} of {self.rhythm}; give {_MIN_EPISODE_S:g} s to 86400 s")
        known = RHYTHMS[self.rhythm]
        for name, value in self.params.items():
            if name not in known:
                raise ValueError(f"{name}: no parameter of {self.rhythm}; it has {', '.join(known) or 'none'}")
            low, high = _RANGES.get(name, _OTHER_RANGE)
            if not low <= value <= high:
                raise ValueError(f"{name}: {value} of {self.rhythm}; give {low} to {high}")

    def get(self, name: str) -> float:
        """A parameter, or its default."""
        return float(self.params.get(name, RHYTHMS[self.rhythm][name]))


@dataclass(frozen=True, slots=True)
class Span:
    """Samples start <= s < end of something that is not beats: `fibrillation`, `atrial`, `flutter`, `motion`, `off`.
    level: mV. lead: -1 for all. rate: per minute, of flutter."""

    start: int
    end: int
    what: str
    level: float = 0.0
    lead: int = -1
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Score:
    """All that happens in one pass of a script of `n` samples.

    at: int64 (beats,) samples of the R peaks. kind: int64 template kinds. rr_s: float64 interval before. size: float32
    of each beat, 1 on average.
    """

    n: int
    at: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int64]
    rr_s: npt.NDArray[np.float64]
    size: npt.NDArray[np.float32]
    spans: tuple[Span, ...]
    truth: Annotations


ScriptLike = Iterable[Episode | tuple[str, float] | tuple[str, float, Mapping[str, float]]]


def script_of(items: ScriptLike) -> tuple[Episode, ...]:
    """A script from data: (rhythm, duration_s) or (rhythm, duration_s, params) each. Raises ValueError."""
    script = tuple(item if isinstance(item, Episode) else Episode(*item) for item in items)
    if not script:
        raise ValueError("script: it has no episode; give one at least, such as ('sinus', 60)")
    return script


def compose(script: tuple[Episode, ...], fs: float, hr: float, n_leads: int, rng: np.random.Generator) -> Score:
    """The score of a script at `fs` Hz for a patient whose own heart rate is `hr` per minute."""
    beats: list[tuple[float, int]] = []
    spans: list[Span] = []
    notes: list[tuple[int, str, str, int]] = []
    start_s, last_s = 0.0, -60.0 / hr + 0.4
    for episode in script:
        end_s = start_s + episode.duration_s
        new = _beats(episode, start_s, end_s, last_s, hr, rng)
        if episode is script[-1] and episode.rhythm in {"sinus", "tachy", "brady", "svt"}:
            new = _fitted(new, start_s, end_s - (60 / _hr(episode, hr) - 0.4))
        first, last = round(start_s * fs), round(end_s * fs)
        span = _span(episode, first, last)
        if span is not None:
            spans.append(span)
        notes += _notes(episode, first, last, [round(t * fs) for t, _ in new], n_leads)
        beats += new
        rests = episode.rhythm in {"vf", "asystole"}
        last_s = end_s + _RECOVERY_S - 60 / hr if rests else (new[-1][0] if new else last_s)
        start_s = end_s
    return _score(round(start_s * fs), fs, beats, spans, _without_repeats(notes), rng)


def _beats(
    episode: Episode, start_s: float, end_s: float, last_s: float, hr: float, rng: np.random.Generator
) -> list[tuple[float, int]]:
    """(time in s, kind) of the beats of an episode; `last_s` is the beat before it."""
    name = episode.rhythm
    if name in {"vf", "asystole"}:
        return []
    if name == "vt":
        kind = VENTRICULAR_2 if episode.get("form") else VENTRICULAR
        return _run(last_s, start_s, end_s, lambda: 60 / episode.get("rate") * rng.normal(1, 0.012), kind)
    if name == "af":
        mean = 60 / episode.get("hr")
        return _run(last_s, start_s, end_s, lambda: max(0.33, mean * rng.lognormal(-0.02, 0.22)), NO_P)
    if name == "afl":
        wave = 60 / episode.get("rate")
        return _run(last_s, start_s, end_s, lambda: wave * episode.get("conduction") * rng.normal(1, 0.004), NO_P)
    if name == "svt":
        return _run(last_s, start_s, end_s, lambda: 60 / episode.get("hr") * rng.normal(1, 0.006), NO_P)
    rr_s = 60 / _hr(episode, hr)
    if name == "pause":
        half = (start_s + end_s - episode.get("pause_s")) / 2
        before = _patterned("N", last_s, start_s, half, rr_s, 0, rng)
        held = (before[-1][0] if before else start_s) + episode.get("pause_s")
        return [*before, (held, NORMAL), *_patterned("N", held, start_s, end_s, rr_s, 0, rng)]
    if name == "runs":
        pattern = "N" * 8 + "V" * int(episode.get("beats"))
        return _patterned(pattern, last_s, start_s, end_s, rr_s, 60 / episode.get("rate"), rng)
    if name in _PATTERNS:
        return _patterned(_PATTERNS[name], last_s, start_s, end_s, rr_s, 0.42, rng)
    ectopy = {"V": episode.get("pvc_per_min"), "A": episode.get("pac_per_min")} if name == "sinus" else {}
    return _patterned("N", last_s, start_s, end_s, rr_s, 0.42, rng, ectopy)


def _run(last_s: float, start_s: float, end_s: float, draw: Callable[[], float], kind: int) -> list[tuple[float, int]]:
    beats = []
    at = max(last_s + draw(), start_s)
    while at < end_s:
        beats.append((at, kind))
        at += draw()
    return beats


def _patterned(
    pattern: str,
    last_s: float,
    start_s: float,
    end_s: float,
    rr_s: float,
    run_rr_s: float,
    rng: np.random.Generator,
    ectopy: Mapping[str, float] | None = None,
) -> list[tuple[float, int]]:
    """Sinus beats with ectopic ones between: N a sinus beat, V early by its coupling and followed by a full pause, V
    after V at `run_rr_s`, A early and without a full pause. `ectopy`: V and A per minute beside the pattern."""
    beats: list[tuple[float, int]] = []
    phase = rng.uniform(0, 2 * np.pi)
    before, sinus_s, at, i = "N", last_s, last_s, 0
    while True:
        breathing = 1 + 0.025 * np.sin(2 * np.pi * 0.23 * at + phase) + 0.012 * rng.standard_normal()
        letter = pattern[i % len(pattern)]
        chance = rng.uniform()
        if letter == "N" and before == "N" and ectopy:
            v, a = (ectopy.get(key, 0.0) * rr_s / 60 for key in "VA")
            letter = "V" if chance < v else "A" if chance < v + a else "N"
        if letter == "V":
            at += run_rr_s * rng.normal(1, 0.02) if before == "V" else min(0.6 * rr_s, 0.5) * rng.normal(1, 0.03)
        elif letter == "A":
            at += 0.68 * rr_s
            sinus_s = at
        else:
            at = max(sinus_s + 2 * rr_s, at + 0.9 * rr_s) if before == "V" else at + rr_s * breathing
            sinus_s = at
        if at >= end_s:
            return beats
        if at >= start_s:
            beats.append((at, {"N": NORMAL, "V": VENTRICULAR, "A": ATRIAL}[letter]))
        before = letter
        i += 1


def _fitted(beats: list[tuple[float, int]], start_s: float, wanted_s: float) -> list[tuple[float, int]]:
    """The beats stretched a little so that the last falls where a script that starts again goes on in step."""
    if len(beats) < 8:
        return beats
    scale = (wanted_s - start_s) / (beats[-1][0] - start_s)
    return [(start_s + (at - start_s) * scale, kind) for at, kind in beats]


def _span(episode: Episode, first: int, last: int) -> Span | None:
    match episode.rhythm:
        case "vf":
            return Span(first, last, "fibrillation", episode.get("amplitude"))
        case "af":
            return Span(first, last, "atrial", episode.get("amplitude"))
        case "afl":
            return Span(first, last, "flutter", episode.get("amplitude"), rate=episode.get("rate"))
        case "noise":
            return Span(first, last, "motion", episode.get("level"))
        case "lead_off":
            return Span(first, last, "off", lead=int(episode.get("lead")))
    return None


def _notes(episode: Episode, first: int, last: int, peaks: list[int], n_leads: int) -> list[tuple[int, str, str, int]]:
    """(sample, symbol, aux, subtype) of what is no beat: a new rhythm, [ ] around VF, ~ around the unreadable."""
    name = episode.rhythm
    at_beats = name in {"vt", "af", "afl", "svt", "bigeminy", "trigeminy"} and peaks
    notes = [(peaks[0] if at_beats else first, "+", _NOTES.get(name, "(N"), 0)]
    if name == "vf":
        notes += [(first, "[", "", 0), (last, "]", "", 0)]
    if _unreadable(episode, n_leads):
        notes += [(first, "~", "", -1), (last, "~", "", 0)]
    return notes


def _unreadable(episode: Episode, n_leads: int) -> bool:
    if episode.rhythm == "lead_off":
        return episode.get("lead") < 0 or n_leads == 1
    return episode.rhythm == "noise" and episode.get("level") >= 0.5


def _without_repeats(notes: list[tuple[int, str, str, int]]) -> list[tuple[int, str, str, int]]:
    """Rhythm notes only where the rhythm changes."""
    kept: list[tuple[int, str, str, int]] = []
    rhythm = ""
    for note in notes:
        if note[1] == "+":
            if note[2] == rhythm:
                continue
            rhythm = note[2]
        kept.append(note)
    return kept


def _score(
    n: int,
    fs: float,
    beats: list[tuple[float, int]],
    spans: list[Span],
    notes: list[tuple[int, str, str, int]],
    rng: np.random.Generator,
) -> Score:
    at = np.array([round(t * fs) for t, _ in beats], np.int64)
    kind = np.array([k for _, k in beats], np.int64)
    inside = (at >= 0) & (at < n)
    at, kind = at[inside], kind[inside]
    rr_s = np.diff(at, prepend=at[:1] - round(0.85 * fs)) / fs
    size = (1 + 0.04 * np.sin(2 * np.pi * 0.23 * at / fs) + 0.015 * rng.standard_normal(at.size)).astype(np.float32)
    hidden = np.zeros(at.size, bool)
    for sample, symbol, _, subtype in notes:
        if symbol == "~":  # the last one that is said of a sample holds
            hidden[at >= sample] = subtype == -1
    rows = [(int(s), _SYMBOLS[int(k)], "", 0) for s, k in zip(at[~hidden], kind[~hidden], strict=True)]
    rows += [(min(sample, n - 1), symbol, aux, subtype) for sample, symbol, aux, subtype in notes]
    rows.sort(key=lambda row: row[0])
    zeros = np.zeros(len(rows), np.int16)
    truth = Annotations(
        np.array([row[0] for row in rows], np.int64),
        [row[1] for row in rows],
        [row[2] for row in rows],
        np.array([row[3] for row in rows], np.int16),
        zeros,
        zeros,
    )
    return Score(n, at, kind, rr_s, size, tuple(spans), truth)


def _hr(episode: Episode, own: float) -> float:
    hr = episode.get("hr")
    return own if hr < 0 else hr
