import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.quality import REASONS, Quality


def ecg(n, rng, noise=0.005):
    t = np.arange(n)
    beat = (t % 200) - 100
    x = np.exp(-0.5 * (beat / 4) ** 2) + 0.2 * np.exp(-0.5 * ((beat - 60) / 15) ** 2)
    return (x + rng.normal(scale=noise, size=n)).astype(np.float32)


def judge(x):
    report = Quality(1, x.shape[0]).push(np.array([0]), x[None], np.array([x.shape[1]]))
    return report, [[REASONS[r] for r in second] for second in report.reason]


def test_each_lead_gets_its_own_reason():
    rng = np.random.default_rng(0)
    n = 2500
    clean, off, flat, noisy = ecg(n, rng), np.full(n, np.nan), np.full(n, 0.3), ecg(n, rng, 0.3)
    railed = np.clip(4 * np.sin(np.arange(n) / 20), -2, 2)
    report, reasons = judge(np.stack([clean, off, flat, railed, noisy]).astype(np.float32))
    assert reasons[-1] == ["ok", "off", "flat", "saturated", "noisy"]
    assert report.quality[-1, 0] > 0.7
    assert report.quality[-1, 1:].max() < 0.3
    np.testing.assert_array_equal(report.at, np.arange(1, 11) * 250)


def test_quality_of_a_full_size_signal_does_not_depend_on_gain():
    x = ecg(2500, np.random.default_rng(1), 0.01)
    qualities = [judge(np.float32(gain) * x[None])[0].quality[2:] for gain in (1, 2, 5)]
    assert qualities[0].min() > 0.3
    np.testing.assert_allclose(qualities[0], qualities[1], atol=1e-3)
    np.testing.assert_allclose(qualities[2], qualities[1], atol=1e-3)


def test_asystole_with_a_little_noise_is_not_called_noisy():
    x = np.random.default_rng(6).normal(scale=0.01, size=(1, 2500)) + 0.05 * np.sin(np.arange(2500) / 100)
    _, reasons = judge(x.astype(np.float32))
    assert {r[0] for r in reasons} == {"ok"}


def test_a_lead_that_returns_is_ok_within_two_seconds():
    x = ecg(2500, np.random.default_rng(2))[None].copy()
    x[0, 500:1250] = np.nan
    _, reasons = judge(x)
    assert [r[0] for r in reasons[2:5]] == ["off"] * 3
    assert reasons[6][0] == "ok"


def test_a_pause_of_one_second_is_not_flat():
    x = np.random.default_rng(3).normal(scale=0.004, size=(1, 2500)).astype(np.float32)
    x[0, ::300] = 1
    x[0, 1000:2200] = x[0, 2401]
    _, reasons = judge(x)
    assert "flat" not in {r[0] for r in reasons[:4]}
    assert reasons[7][0] == "flat"


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 600), max_size=8), first=st.integers(0, 600))
def test_chunks_and_company_change_nothing(cuts, first):
    rng = np.random.default_rng(4)
    x = np.stack([ecg(2000, rng), ecg(2000, rng, 0.2)])
    x[1, 300:900] = np.nan
    one = Quality(1, 2)
    one.reset(np.array([0]), np.array([first]))
    expected = one.push(np.array([0]), x[None], np.array([2000]))
    many = Quality(3, 2)
    many.reset(np.array([1, 2]), np.array([5, first]))
    edges = [0, *np.clip(np.cumsum(cuts), 0, 2000).tolist(), 2000]
    parts = []
    for i, (start, stop) in enumerate(itertools.pairwise(edges)):
        rows = np.array([2, 1]) if i % 2 else np.array([2])
        report = many.push(rows, np.repeat(x[None, :, start:stop], len(rows), 0), np.full(len(rows), stop - start))
        mine = report.row == 2
        parts.append((report.at[mine], report.quality[mine], report.reason[mine]))
        state, many = many.state_dict(), Quality(3, 2)
        many.load_state_dict(state)
    for k, column in enumerate((expected.at, expected.quality, expected.reason)):
        np.testing.assert_array_equal(np.concatenate([p[k] for p in parts]), column)
