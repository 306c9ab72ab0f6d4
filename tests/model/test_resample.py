import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.resample import ModelRate, Resampler

RATES = (50.0, 100.0, 125.0, 128.0, 200.0, 250.0, 257.3, 300.0, 360.0, 500.0, 1000.0, 2000.0)


def whole(fs, x):
    stage = Resampler(1, x.shape[0])
    stage.configure(0, fs)
    y, m, first = stage.push(np.array([0]), x[None], np.array([x.shape[1]]))
    return y[0, :, : m[0]], int(first[0])


@pytest.mark.parametrize("fs", [100.0, 128.0, 250.0, 257.3, 360.0, 500.0, 1000.0])
@pytest.mark.parametrize("frequency", [1.0, 10.0, 25.0])
def test_a_sine_keeps_its_time_and_amplitude(fs, frequency):
    t = np.arange(int(fs * 8)) / fs
    y, first = whole(fs, np.sin(2 * np.pi * frequency * t).astype(np.float32)[None])
    at = (first + np.arange(y.shape[1])) / 250
    inner = slice(60, -60)
    assert np.abs(y[0] - np.sin(2 * np.pi * frequency * at))[inner].max() < 0.01


def test_what_250_hz_cannot_carry_is_taken_out():
    t = np.arange(8000) / 1000
    y, _ = whole(1000.0, np.sin(2 * np.pi * 230 * t).astype(np.float32)[None])
    assert np.abs(y[0, 60:-60]).max() < 0.01


def test_a_signal_at_250_hz_passes_unchanged_and_undelayed():
    x = np.random.default_rng(0).normal(size=(2, 777)).astype(np.float32)
    x[0, 100:130] = np.nan
    y, first = whole(250.0, x)
    assert first == 0
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("fs", [125.0, 360.0])
def test_a_gap_stays_as_wide_as_it_was(fs):
    x = np.ones((1, int(fs * 4)), np.float32)
    lost = slice(int(fs), int(2 * fs) + 1)
    x[0, lost] = np.nan
    y, _ = whole(fs, x)
    at = np.arange(y.shape[1]) * fs / 250
    missing = (at > lost.start - 1) & (at < lost.stop)
    np.testing.assert_array_equal(np.isnan(y[0]), missing)
    np.testing.assert_allclose(y[0, ~missing], 1, atol=1e-5)


def test_a_bed_that_starts_late_keeps_absolute_time():
    stage = Resampler(1, 1)
    stage.configure(0, 360.0)
    stage.reset(np.array([0]), np.array([3601]))
    t = (3601 + np.arange(720)) / 360
    y, m, first = stage.push(np.array([0]), np.sin(2 * np.pi * 5 * t).astype(np.float32)[None, None], np.array([720]))
    assert first[0] == 2501
    at = (first[0] + np.arange(m[0])) / 250
    np.testing.assert_allclose(y[0, 0, 20 : m[0] - 20], np.sin(2 * np.pi * 5 * at)[20:-20], atol=0.01)


@pytest.mark.parametrize("fs", [100.0, 250.0, 360.0])
def test_flush_gives_the_ticks_up_to_the_last_sample(fs):
    stage = Resampler(1, 1)
    stage.configure(0, fs)
    n = int(fs) + 1
    _, m, _ = stage.push(np.array([0]), np.ones((1, 1, n), np.float32), np.array([n]))
    y, extra, _ = stage.flush(np.array([0]))
    assert m[0] + extra[0] == 251
    assert not np.isnan(y[0, 0, : extra[0]]).any()


def test_a_rate_out_of_range_is_refused_by_name():
    with pytest.raises(ValueError, match=r"fs=20\.0 of row 1"):
        Resampler(2, 1).configure(1, 20.0)


@settings(max_examples=40, deadline=None)
@given(fs=st.sampled_from(RATES), cuts=st.lists(st.integers(0, 300), max_size=8), seed=st.integers(0, 99))
def test_chunks_and_company_change_nothing(fs, cuts, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 900)).astype(np.float32)
    x[0, 200:203] = np.nan
    expected, _ = whole(fs, x)
    stage = Resampler(4, 2)
    stage.configure(2, fs)
    stage.configure(0, 360.0)
    got = []
    edges = [0, *np.clip(np.cumsum(cuts), 0, 900).tolist(), 900]
    for i, (start, stop) in enumerate(itertools.pairwise(edges)):
        rows = np.array([0, 2]) if i % 2 else np.array([2])
        chunk = np.repeat(x[None, :, start:stop], len(rows), 0)
        y, m, _ = stage.push(rows, chunk, np.full(len(rows), stop - start))
        got.append(y[-1, :, : m[-1]])
        if i == 1:
            restored = Resampler(4, 2)
            restored.load_state_dict(stage.state_dict())
            stage = restored
    np.testing.assert_array_equal(np.concatenate(got, 1), expected)


def conditioned(y):
    stage = ModelRate(1, y.shape[0])
    z, m, first = stage.push(np.array([0]), y[None], np.array([y.shape[1]]))
    return z[0, :, : m[0]], int(first[0])


def test_the_model_rate_keeps_the_qrs_band_in_place_and_drops_baseline_and_hiss():
    t = np.arange(5000) / 250
    for frequency, low, high in ((10.0, 0.95, 1.05), (25.0, 0.9, 1.05), (0.05, 0.0, 0.05), (60.0, 0.0, 0.12)):
        z, first = conditioned(np.sin(2 * np.pi * frequency * t).astype(np.float32)[None])
        at = (first + np.arange(z.shape[1])) / 125
        inner = slice(1200, -20)
        share = 2 * np.mean(z[0, inner] * np.sin(2 * np.pi * frequency * at[inner]))
        quadrature = 2 * np.mean(z[0, inner] * np.cos(2 * np.pi * frequency * at[inner]))
        assert low <= np.hypot(share, quadrature) <= high
        if frequency == 10.0:
            assert abs(np.arctan2(quadrature, share)) / (2 * np.pi * frequency) < 0.002


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 200), max_size=8), first=st.integers(0, 5))
def test_the_model_rate_does_not_depend_on_chunks(cuts, first):
    y = np.random.default_rng(3).normal(size=(2, 700)).astype(np.float32)
    y[1, 150:190] = np.nan
    one, many = ModelRate(1, 2), ModelRate(3, 2)
    one.reset(np.array([0]), np.array([first]))
    many.reset(np.array([2]), np.array([first]))
    z, m, begin = one.push(np.array([0]), y[None], np.array([700]))
    assert begin[0] == (first + 1) // 2
    edges = [0, *np.clip(np.cumsum(cuts), 0, 700).tolist(), 700]
    parts = []
    for start, stop in itertools.pairwise(edges):
        part, n, _ = many.push(np.array([2]), y[None, :, start:stop], np.array([stop - start]))
        parts.append(part[0, :, : n[0]])
    np.testing.assert_array_equal(np.concatenate(parts, 1), z[0, :, : m[0]])
    tail, extra, at = one.flush(np.array([0]))
    assert at[0] == begin[0] + m[0]
    assert 2 * (at[0] + extra[0]) >= first + 700 > 2 * (at[0] + extra[0] - 1)
    assert tail.shape[2] == extra[0]
