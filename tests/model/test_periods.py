import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.periods import DELAY, PeriodDetector
from model.quality import REASONS, Quality
from model.resample import Resampler
from simulators.patients import Patient
from stream.alarms.numerics import HeartRate

R = 180  # ticks between beats


def beats_at(n, every=R, first=120):
    return np.arange(first, n - 80, every)


def ecg(n, at, noise=0.01, seed=0, size=1.0):
    """QRS of 40 ms with P and T waves at each tick of `at`, mV."""
    t = np.arange(n)[:, None] - np.asarray(at)[None, :]
    x = np.exp(-0.5 * (t / 3.5) ** 2) - 0.25 * np.exp(-0.5 * ((t - 9) / 4) ** 2)
    x += 0.12 * np.exp(-0.5 * ((t + 42) / 9) ** 2) + 0.3 * np.exp(-0.5 * ((t - 70) / 16) ** 2)
    return (size * x.sum(1) + np.random.default_rng(seed).normal(scale=noise, size=n)).astype(np.float32)


def detect(y):
    detector = PeriodDetector(1, y.shape[0])
    rows = np.array([0])
    found, rest = detector.push(rows, y[None], np.array([y.shape[1]])), detector.flush(rows)
    return np.concatenate([found.at, rest.at]), np.concatenate([found.decided, rest.decided])


def resampled(x, fs):
    stage = Resampler(1, 1)
    stage.configure(0, fs)
    y, m, _ = stage.push(np.array([0]), x[None, None].astype(np.float32), np.array([len(x)]))
    return y[0, :, : m[0]]


def turned_beats(n, at, wide):
    """Every second beat (index in `wide` of each pair) is ventricular: broad, tall, its T wave the other way; the two
    of a bidirectional rhythm point up and down."""
    t = np.arange(n)[:, None] - at[None, :]
    narrow = np.exp(-0.5 * (t / 3.5) ** 2) + 0.2 * np.exp(-0.5 * ((t - 60) / 14) ** 2)
    broad = 1.3 * np.exp(-0.5 * (t / 9) ** 2) - 0.3 * np.exp(-0.5 * ((t - 55) / 14) ** 2)
    turn = np.arange(len(at)) % 2
    x = broad * (1 - 2 * turn) if wide == (0, 1) else np.where(turn[None, :] == 1, -broad, narrow)
    return (x.sum(1) + np.random.default_rng(0).normal(scale=0.01, size=n)).astype(np.float32)


def rates(found, decided=None):
    """What the heart rate shows from each beat on, by the tick at which it was decided."""
    rate = HeartRate()
    shown = {}
    for k in range(1, len(found)):
        rate.add(int(found[k] - found[k - 1]))
        bpm = rate.bpm()
        if bpm is not None:
            shown[int(found[k] if decided is None else decided[k])] = bpm
    return shown


def missed_and_extra(found, at, within=10):
    near = np.abs(np.asarray(found)[:, None] - np.asarray(at)[None, :]) <= within
    return int((~near.any(0)).sum()), int((~near.any(1)).sum())


@pytest.mark.parametrize("n_leads", [1, 2, 3, 12])
def test_every_beat_is_found_in_time_and_in_place(n_leads):
    at = beats_at(15000)
    y = np.stack([ecg(15000, at, seed=c, size=0.5 + 0.2 * c) for c in range(n_leads)])
    found, decided = detect(y)
    assert missed_and_extra(found, at, 2) == (0, 0)
    assert (decided - found).max() <= DELAY


def test_the_watermark_is_never_overtaken():
    y = ecg(5000, beats_at(5000))[None, None]
    detector, rows = PeriodDetector(1, 1), np.array([0])
    for start in range(0, 5000, 7):
        before = detector.watermark(rows)[0]
        found = detector.push(rows, y[:, :, start : start + 7], np.array([min(7, 5000 - start)]))
        assert (found.at >= before).all()


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0.5, 5.0), noise=st.floats(0.0, 0.05))
def test_gain_does_not_change_the_beats(gain, noise):
    at = beats_at(10000)
    y = np.stack([ecg(10000, at, noise), ecg(10000, at, noise, seed=1, size=-0.7)])
    np.testing.assert_array_equal(detect(np.float32(gain) * y)[0], detect(y)[0])


def test_polarity_moves_no_beat_by_more_than_10_ms():
    y = ecg(10000, beats_at(10000))[None]
    up, down = detect(y)[0], detect(-y)[0]
    assert len(up) == len(down)
    assert np.abs(up - down).max() * 4 <= 10


@pytest.mark.parametrize("lost", [np.nan, 0.0, 5.0, -5.0], ids=["missing", "flat", "high rail", "low rail"])
def test_a_stretch_without_signal_has_no_beats_and_the_rest_keeps_its_own(lost):
    at = beats_at(30000)
    y = np.stack([ecg(30000, at), ecg(30000, at, seed=1)])
    y[:, 10000:16000] = lost
    found, _ = detect(y)
    assert not ((found > 10100) & (found < 15990)).any()
    seen = at[(at < 9900) | (at > 16600)]
    assert missed_and_extra(found, seen, 3)[0] == 0
    assert missed_and_extra(found, at, 3)[1] <= 2  # the steps at the edges


def test_a_flat_lead_gives_no_beats_and_says_flat():
    y = np.zeros((1, 1, 2500), np.float32)
    rows, m = np.array([0]), np.array([2500])
    report = Quality(1, 1).push(rows, y, m)
    assert len(detect(y[0])[0]) == 0
    assert {REASONS[k] for k in report.reason[-3:, 0]} == {"flat"}


@pytest.mark.parametrize("fs", [250.0, 360.0, 500.0, 1000.0])
@pytest.mark.parametrize("height", [2.0, -2.0, 5.0])
def test_pacing_pulses_are_no_beats_and_paced_beats_are(fs, height):
    at = beats_at(15000, 200)
    paced = at[at < 7500]
    t = np.arange(int(60 * fs)) / fs
    x = np.interp(t * 250, np.arange(15000), ecg(15000, paced))
    for tick in at:  # 2 ms, 48 ms before each R peak; from half a minute on nothing answers them
        start = int((tick - 12) / 250 * fs)
        x[start : start + max(1, int(0.002 * fs))] += height
    found, _ = detect(resampled(x, fs))
    assert missed_and_extra(found, paced, 4) == (0, 0)


def test_pacing_pulses_alone_are_never_beats():
    y = np.random.default_rng(0).normal(scale=0.01, size=(1, 15000)).astype(np.float32)
    y[0, 100::200] += 3
    assert len(detect(y)[0]) == 0


@pytest.mark.parametrize(
    "y",
    [
        0.11 * ecg(10000, beats_at(10000), noise=0.0)[None],
        np.zeros((2, 10000), np.float32),
        np.full((2, 10000), np.nan, np.float32),
        np.full((2, 10000), 5.0, np.float32),
    ],
    ids=["QRS under 0.15 mV", "flat", "missing", "saturated"],
)
def test_no_beats_where_there_is_no_qrs(y):
    assert len(detect(y)[0]) == 0


def test_a_lead_may_fall_off_and_return():
    at = beats_at(30000)
    y = np.stack([ecg(30000, at), ecg(30000, at, seed=1)])
    y[0, 5000:12000] = np.nan
    y[1, 15000:20000] = 0
    y[:, 22000:22850] = np.nan
    found, _ = detect(y)
    seen = at[(at < 21900) | (at > 23300)]
    assert missed_and_extra(found, seen)[0] == 0
    assert missed_and_extra(found, at)[1] <= 2  # where a lead returns with a step


def test_beats_go_on_through_jumps_of_amplitude_by_five():
    at = beats_at(30000)
    y = ecg(30000, at, noise=0.005)[None].copy()
    y[0, 10000:20000] *= 5
    found, _ = detect(y)
    lost, extra = missed_and_extra(found, at)
    assert lost <= 3
    assert extra <= 2


def test_a_fast_rhythm_that_lasts_does_not_move_the_r_peaks_to_another_lead():
    patient = Patient("bed", [("sinus", 30), ("svt", 40, {"hr": 185})], seed=1)
    y = (patient.render(0, 70 * 250)[:2] / 200).astype(np.float32)
    at, _ = detect(y)
    truth = np.array(patient.truth(0, 70 * 250).sample)
    svt = at[at > 32 * 250]
    offset = svt - truth[np.abs(svt[:, None] - truth).argmin(axis=1)]
    assert svt.size > 110
    assert np.ptp(offset) <= 2


def test_a_pause_is_a_pause_and_beats_return_after_it():
    at = np.concatenate([beats_at(6000), beats_at(15000, first=8500)])
    found, _ = detect(ecg(15000, at)[None])
    assert missed_and_extra(found, at) == (0, 0)


def test_an_irregular_rhythm_keeps_its_beats():
    rng = np.random.default_rng(5)
    at = 120 + np.cumsum(rng.integers(90, 300, 120))
    found, _ = detect(ecg(int(at[-1]) + 200, at)[None])
    assert missed_and_extra(found, at) == (0, 0)


@pytest.mark.parametrize("fs", [100.0, 128.0, 200.0, 250.0, 360.0, 500.0, 1000.0])
def test_the_rate_of_the_source_does_not_matter(fs):
    at = beats_at(10000)
    t = np.arange(int(40 * fs)) / fs
    x = np.interp(t * 250, np.arange(10000), ecg(10000, at))
    found, _ = detect(resampled(x, fs))
    assert missed_and_extra(found, at, 3) == (0, 0)


@pytest.mark.parametrize("fs", [250.0, 360.0, 500.0, 1000.0])
def test_a_beat_is_out_250_ms_of_signal_after_its_peak(fs):
    stage = Resampler(1, 1)
    stage.configure(0, fs)
    assert (DELAY + stage.delay(0)) * 4 <= 250


# Irregular rhythms of IEC 60601-2-27, 201.7.9.2.9.101 b) 4): what a monitor shows after 20 s.
@pytest.mark.parametrize(
    ("gaps", "bpm", "wide"),
    [((150, 225), 80, (1,)), ((175, 325), 60, (1,)), ((105, 145), 120, (1,)), ((167, 166), 90, (0, 1))],
    ids=["3a bigeminy", "3b slow alternating", "3c rapid alternating", "3d bidirectional"],
)
def test_the_heart_rate_of_an_irregular_rhythm_is_told_as_the_standard_asks(gaps, bpm, wide):
    at = 120 + np.cumsum(np.tile(gaps, 40))
    at = at[at < 40 * 250 - 100]
    y = turned_beats(40 * 250, at, wide)
    found, _ = detect(y[None])
    assert missed_and_extra(found, at, 12) == (0, 0)
    shown = rates(found)
    assert all(abs(shown[t] - bpm) <= max(5, 0.1 * bpm) for t in shown if t > 20 * 250)


@pytest.mark.parametrize("to", [120, 40])
def test_a_step_of_the_rate_is_shown_within_10_s(to):
    before, after = np.arange(120, 30 * 250, 60 * 250 // 80), np.arange(30 * 250, 60 * 250, 60 * 250 // to)
    found, decided = detect(ecg(60 * 250, np.concatenate([before, after]))[None])
    shown = rates(found, decided)
    late = [bpm for t, bpm in shown.items() if t >= 40 * 250]
    assert abs(late[0] - to) <= max(5, 0.1 * to)
    assert all(abs(bpm - to) <= max(5, 0.1 * to) for bpm in late)


@settings(max_examples=15, deadline=None)
@given(
    gaps=st.lists(st.integers(110, 350), min_size=12, max_size=40),
    size=st.floats(0.5, 5.0),
    n_leads=st.integers(1, 4),
)
def test_beats_of_any_rhythm_and_size_are_found_once_and_in_time(gaps, size, n_leads):
    at = 120 + np.cumsum(gaps)
    y = np.stack([ecg(int(at[-1]) + 200, at, 0.01 * size, c, size) for c in range(n_leads)])
    found, decided = detect(y)
    assert missed_and_extra(found, at, 4) == (0, 0)
    assert (decided - found).max() <= DELAY


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 900), max_size=10), first=st.integers(0, 10**7), seed=st.integers(0, 9))
def test_chunks_and_company_change_nothing(cuts, first, seed):
    y = np.stack([ecg(4000, beats_at(4000), 0.05, seed), ecg(4000, beats_at(4000), 0.2, seed + 1)])
    y[0, 1500:1900] = np.nan
    y[1, 1700:1750] = np.nan
    one = PeriodDetector(1, 2)
    one.reset(np.array([0]), np.array([first]))
    expected = one.push(np.array([0]), y[None], np.array([4000]))
    many = PeriodDetector(4, 2)
    many.reset(np.array([1, 3]), np.array([17, first]))
    edges = [0, *np.clip(np.cumsum(cuts), 0, 4000).tolist(), 4000]
    parts = []
    for i, (start, stop) in enumerate(itertools.pairwise(edges)):
        rows = np.array([3, 1]) if i % 2 else np.array([3])
        chunk = np.stack([y[:, start:stop], y[::-1, start:stop]])[: len(rows)]
        found = many.push(rows, chunk, np.full(len(rows), stop - start))
        mine = found.row == 3
        parts.append([column[mine] for column in found[1:]])
        state, many = many.state_dict(), PeriodDetector(4, 2)
        many.load_state_dict(state)
    for k, column in enumerate(expected[1:]):
        np.testing.assert_array_equal(np.concatenate([p[k] for p in parts]), column)


@pytest.mark.recordings
@pytest.mark.parametrize(
    ("name", "sensitivity", "precision"), [("119", 0.999, 0.999), ("203", 0.98, 0.98), ("208", 0.99, 0.99)]
)
def test_real_beats_are_found(recordings: Path, name, sensitivity, precision):
    import wfdb

    record = wfdb.rdrecord(str(recordings / "mitdb" / name))
    marks = wfdb.rdann(str(recordings / "mitdb" / name), "atr")
    is_beat = np.isin(marks.symbol, list("NLRBAaJSVrFejnE/fQ?"))
    at = marks.sample[is_beat] / 360 * 250
    stage = Resampler(1, 2)
    stage.configure(0, 360.0)
    x = record.p_signal.T.astype(np.float32)[None]
    y, m, _ = stage.push(np.array([0]), x, np.array([x.shape[2]]))
    found, decided = detect(y[0, :, : m[0]])
    assert (decided - found).max() <= DELAY
    found, at = found[found > 75000], at[at > 75000]
    near = np.abs(np.searchsorted(at, found + 37) - np.searchsorted(at, found - 37)) > 0
    seen = np.abs(np.searchsorted(found, at + 37) - np.searchsorted(found, at - 37)) > 0
    assert seen.mean() >= sensitivity
    assert near.mean() >= precision
