"""Signals whose truth is exact, through the whole shard with the weights that are shipped: the irregular rhythms, rate
steps, ventricular tachycardias, tall T waves and the asystole that monitors are tried with.

The rhythms are those of the test signals that standards of monitors describe (rates, alternations, sizes); the
waveforms are our own, sums of bumps, at two leads, 250 Hz, with noise of 10 uV. All of them are beds of one shard.
"""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model import datasets
from model.judge import Judge
from stream.annotate import Annotated, run

FS = 250.0
LENGTH_S, CHANGE_S = 60.0, 30.0
GAIN = 1000.0  # digital units per mV
# Bumps of a beat: (s after the R peak, width in s, mV) of a normal and of a ventricular one, by lead.
NORMAL = (
    ((-0.17, 0.03, 0.12), (-0.03, 0.008, -0.1), (0.0, 0.012, 1.0), (0.03, 0.01, -0.2), (0.28, 0.05, 0.25)),
    ((-0.17, 0.03, 0.08), (0.0, 0.008, 0.25), (0.03, 0.013, -0.8), (0.28, 0.05, 0.15)),
)
BROAD = (
    ((0.0, 0.03, 1.3), (0.26, 0.07, -0.4)),
    ((0.0, 0.03, -1.2), (0.26, 0.07, 0.35)),
)
Bumps = Sequence[tuple[float, float, float]]


def at_rate(bpm: float, from_s: float = 0.0, to_s: float = LENGTH_S) -> list[float]:
    """R peaks at an even rate."""
    return [float(s) for s in np.arange(from_s + 60 / bpm, to_s, 60 / bpm)]


def in_cycles(intervals_s: Sequence[float]) -> list[float]:
    """R peaks whose intervals come round."""
    at, peaks = 0.5, []
    for interval in cycle(intervals_s):
        peaks.append(at)
        at += interval
        if at >= LENGTH_S:
            return peaks
    raise AssertionError


def wave(beats: Sequence[tuple[float, Sequence[Bumps]]], size: float = 1.0, seed: int = 0) -> npt.NDArray[np.float64]:
    """Beats, (R peak in s, bumps of each lead), as two leads in mV."""
    t = np.arange(int(LENGTH_S * FS)) / FS
    leads = np.random.default_rng(seed).normal(scale=0.01, size=(2, t.size))
    for at, shapes in beats:
        near = slice(max(0, int((at - 0.5) * FS)), int((at + 0.8) * FS))
        for lead, bumps in enumerate(shapes):
            for after, width, mv in bumps:
                leads[lead, near] += size * mv * np.exp(-0.5 * ((t[near] - at - after) / width) ** 2)
    return leads


def sized(shapes: Sequence[Bumps], by: float) -> list[list[tuple[float, float, float]]]:
    return [[(after, width, by * mv) for after, width, mv in bumps] for bumps in shapes]


def every_second(peaks: Sequence[float], one: Sequence[Bumps], other: Sequence[Bumps]) -> npt.NDArray[np.float64]:
    return wave([(at, (one, other)[i % 2]) for i, at in enumerate(peaks)])


def vt(shape: str, bpm: float, mv: float, gain: float) -> npt.NDArray[np.float64]:
    """Sinus rhythm of 80, then a ventricular tachycardia of `mv`, seen at a gain: a QRS of 0.12 s (`broad`), a wave
    without any rest (`triangle`), or what lies between (`between`: 0.17 s, and a T wave that runs into the next)."""
    sinus = [(at, NORMAL) for at in at_rate(80, 0, CHANGE_S)]
    if shape == "triangle":
        t = np.arange(int(LENGTH_S * FS)) / FS
        saw = mv / 2 * (2 * np.abs(2 * ((t * bpm / 60) % 1) - 1) - 1) * (t >= CHANGE_S)
        return wave(sinus, gain) + gain * saw * np.array([[1.0], [-0.8]])
    width = {"broad": 0.03, "between": 0.042}[shape]
    shapes = [[(0.0, width, by * mv), (0.26, 0.07, -0.35 * by * mv)] for by in (1.0, -0.9)]
    return wave([*sinus, *((at, shapes) for at in at_rate(bpm, CHANGE_S))], gain)


def tall_t(mv: float) -> npt.NDArray[np.float64]:
    """80 per minute, a QRS of 1 mV, and T waves of `mv`."""
    shapes = [[*bumps[:-1], (0.28, 0.05, mv)] for bumps in NORMAL]
    return wave([(at, shapes) for at in at_rate(80)])


DOWN = sized(BROAD, -1.0)
IRREGULAR = {
    "3a": (80, every_second(in_cycles([0.55, 0.95]), NORMAL, BROAD)),
    "3b": (60, every_second(in_cycles([0.7, 0.7, 1.3, 1.3]), NORMAL, BROAD)),
    "3c": (120, every_second(in_cycles([0.4, 0.4, 0.6, 0.6]), NORMAL, BROAD)),
    "3d": (90, every_second(in_cycles([0.6, 0.732]), BROAD, DOWN)),
}
STEPS = {
    f"80 to {bpm}": (bpm, wave([(at, NORMAL) for at in [*at_rate(80, 0, CHANGE_S), *at_rate(bpm, CHANGE_S - 0.1)]]))
    for bpm in (120, 40)
}
VTS = {
    f"vt {shape} {bpm} x{gain}": vt(shape, bpm, mv, gain)
    for shape in ("broad", "triangle", "between")
    for bpm, mv in ((206, 1.0), (195, 2.0))
    for gain in (0.5, 1.0, 2.0)
}
TALL = {f"t {mv}": tall_t(mv) for mv in (0.3, 0.6, 0.9, 1.2)}
ASYSTOLE = {"asystole": wave([(at, NORMAL) for at in at_rate(80, 0, CHANGE_S)])}


@pytest.fixture(scope="module")
def found() -> dict[str, Annotated]:
    """What the shard finds in all of them, side by side."""
    waves = {name: of for table in (IRREGULAR, STEPS) for name, (_, of) in table.items()} | VTS | TALL | ASYSTOLE
    signals = tuple(datasets.SignalInfo(name, "ecg", "mV", GAIN, 0) for name in ("II", "V1"))
    records = {
        name: datasets.Record(name, FS, signals, np.rint(GAIN * of).astype(np.int16), None, (), Path())
        for name, of in waves.items()
    }
    return {result.name: result for result in run(records, Judge.load())}


def shown(result: Annotated, from_s: float, to_s: float = LENGTH_S) -> list[tuple[float, float | None]]:
    """(second, rate shown) of a stretch."""
    return [(n.at.sample / FS, n.hr) for n in result.numerics if from_s <= n.at.sample / FS < to_s]


def reds(result: Annotated) -> dict[str, float]:
    """First decision of each red, s."""
    first: dict[str, float] = {}
    for event in result.alerts:
        if event.phase == "start" and event.priority == "high":
            first.setdefault(event.code, event.stream_time.sample / FS)
    return first


@pytest.mark.parametrize("name", IRREGULAR)
def test_irregular_rhythms_show_their_rate_after_twenty_seconds(found: dict[str, Annotated], name: str) -> None:
    bpm = IRREGULAR[name][0]
    rates = [rate for _, rate in shown(found[name], 20)]
    assert rates == pytest.approx([bpm] * len(rates), abs=2), rates
    assert len(rates) > 30


@pytest.mark.parametrize("name", STEPS)
def test_the_rate_shown_follows_a_step_within_ten_seconds(found: dict[str, Annotated], name: str) -> None:
    bpm = STEPS[name][0]
    late = [second for second, rate in shown(found[name], CHANGE_S, LENGTH_S - 1) if abs((rate or 0) - bpm) > 2]
    print(f"{name}: within 2 bpm {max(late) + 1 - CHANGE_S:.0f} s after the step")
    assert max(late) + 1 - CHANGE_S <= 10
    assert shown(found[name], CHANGE_S - 5, CHANGE_S)[0][1] == pytest.approx(80, abs=1)


def test_a_step_to_40_is_an_extreme_bradycardia_within_ten_seconds_and_one_to_120_is_within_its_limit(
    found: dict[str, Annotated],
) -> None:
    assert CHANGE_S < reds(found["80 to 40"])["X_BRADY"] <= CHANGE_S + 10
    assert reds(found["80 to 120"]) == {}


@pytest.mark.parametrize("name", VTS)
def test_a_ventricular_tachycardia_is_a_ventricular_red_within_ten_seconds_at_any_gain(
    found: dict[str, Annotated], name: str
) -> None:
    told = {code: at - CHANGE_S for code, at in reds(found[name]).items()}
    print(name, {code: round(at, 1) for code, at in told.items()})
    assert min(told.values(), default=99) > 0, "a red before there was any reason"
    assert min(told.get("VTACH", 99), told.get("VFIB", 99)) <= 10, told


@pytest.mark.parametrize("name", TALL)
def test_a_tall_t_wave_is_not_counted(found: dict[str, Annotated], name: str) -> None:
    rates = [rate for _, rate in shown(found[name], 20)]
    assert rates == pytest.approx([80] * len(rates), abs=1)
    assert reds(found[name]) == {}
    at = [beat.at.sample / FS for beat in found[name].beats]
    assert len(at) == pytest.approx(len(at_rate(80)), abs=2)


def test_asystole_is_told_within_ten_seconds_of_the_last_beat(found: dict[str, Annotated]) -> None:
    last = at_rate(80, 0, CHANGE_S)[-1]
    told = reds(found["asystole"])
    print(f"asystole {told['ASYSTOLE'] - last:.2f} s after the last beat")
    assert set(told) == {"ASYSTOLE"}
    assert 4.0 <= told["ASYSTOLE"] - last <= 10
