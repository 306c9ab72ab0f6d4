import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.datasets import physical, read
from model.vf import VfIndex, _tree_log_odds
from simulators.ward import patient_of


def fibrillation(n, rng):
    """A wandering oscillation of 4 to 6 Hz with waxing amplitude, as in coarse VF."""
    frequency = 5 + np.cumsum(rng.normal(scale=0.02, size=n))
    frequency = np.clip(frequency, 3.5, 6.5)
    size = 0.6 + 0.25 * np.sin(2 * np.pi * np.arange(n) / 400)
    return (size * np.sin(2 * np.pi * np.cumsum(frequency) / 250)).astype(np.float32)


def sinus(n, rng, noise=0.01):
    beat = (np.arange(n) % 200) - 100
    x = np.exp(-0.5 * (beat / 4) ** 2) + 0.25 * np.exp(-0.5 * ((beat - 60) / 15) ** 2)
    return (x + rng.normal(scale=noise, size=n)).astype(np.float32)


def index(x):
    return VfIndex(1, x.shape[0]).push(np.array([0]), x[None], np.array([x.shape[1]]))


def test_fibrillation_is_told_from_a_rhythm_within_seconds():
    rng = np.random.default_rng(0)
    x = np.concatenate([sinus(5000, rng), fibrillation(5000, rng), sinus(5000, rng)])[None]
    report = index(x)
    on, off = report.changes
    assert on.on and not off.on
    assert 5000 < on.decided <= 5000 + 1500
    assert abs(on.onset - 5000) <= 750
    assert 10000 < off.decided <= 10000 + 1750
    np.testing.assert_array_equal(report.at, np.arange(125, 15001, 125))


@pytest.mark.parametrize("what", ["flat", "asystole with drift", "missing", "white noise"])
def test_what_is_no_rhythm_at_all_is_no_fibrillation(what):
    rng = np.random.default_rng(1)
    t = np.arange(5000) / 250
    x = {
        "flat": np.zeros(5000),
        "asystole with drift": 0.3 * np.sin(2 * np.pi * 0.15 * t) + rng.normal(scale=0.01, size=5000),
        "missing": np.full(5000, np.nan),
        "white noise": rng.normal(scale=0.3, size=5000),
    }[what]
    report = index(x.astype(np.float32)[None])
    assert report.changes == []
    seen = report.index[report.at >= 1000]
    assert np.isnan(seen).all() if what == "missing" else seen.max() < 0.5


def test_a_rhythm_that_stops_and_comes_back_is_no_fibrillation():
    rng = np.random.default_rng(5)
    x = sinus(10000, rng)
    x[3000:6000] = rng.normal(scale=0.015, size=3000)
    report = index(np.stack([x, 0.6 * x]))
    assert report.changes == []
    assert report.index[report.at >= 1000].max() < 0.5
    # No second of the window may be silent: this is what tells asystole at once, whatever stands before or after.
    silent = (report.at >= 3500) & (report.at < 6750)
    assert not report.index[silent].any()


def test_where_no_lead_has_been_there_for_the_window_there_is_no_index():
    rng = np.random.default_rng(12)
    x = np.stack([sinus(6000, rng), np.full(6000, np.nan, np.float32)])
    x[0, 3000:3010] = np.nan
    report = index(x)
    whole = ((report.at >= 1000) & (report.at <= 3000)) | (report.at >= 3010 + 1000)
    np.testing.assert_array_equal(np.isnan(report.index), ~whole)


@pytest.mark.parametrize("seed", [7, 40])
def test_simulated_asystole_is_no_fibrillation(seed):
    patient = patient_of(f"sim:asystole,seed={seed}", "b")
    x = (patient.render(0, patient.n_script)[:2] / 200).astype(np.float32)
    report = index(x)
    assert report.changes == []
    assert report.index[report.at >= 1000].max() < 0.5


def test_slow_broad_waves_that_repeat_are_no_fibrillation():
    t = np.arange(7500) / 250
    wave = np.sin(2 * np.pi * 1.5 * t) + 0.4 * np.sin(2 * np.pi * 3 * t + 1)
    report = index((0.6 * wave).astype(np.float32)[None])
    assert report.changes == []


@pytest.mark.recordings
def test_fibrillation_of_a_recording_is_found_and_the_beats_before_it_are_not(recordings):
    record = physical(read(recordings / "cudb" / "cu09", start_s=150, duration_s=145))
    report = index(record.astype(np.float32))
    turns = [c.decided / 250 for c in report.changes if c.on]
    assert any(90 < at < 100 for at in turns)
    assert not report.index[(report.at > 20000 - 2500) & (report.at < 20000)].max() > 0.5


def test_a_dead_lead_does_not_hide_fibrillation_in_the_other():
    rng = np.random.default_rng(2)
    x = np.stack([np.full(5000, np.nan, np.float32), fibrillation(5000, rng)])
    assert index(x).changes[0].on


def leaping(x, start, stop):
    """A loose electrode: the lead is thrown from rail to rail, and back, once a second."""
    y = x.copy()
    for at in range(start, stop, 250):
        y[at : at + 40] = 5.0
        y[at + 40 : at + 90] = -5.0
    return y


def test_an_electrode_loose_for_two_seconds_changes_no_judgement():
    rng = np.random.default_rng(6)
    vf = index(leaping(fibrillation(7500, rng), 3750, 4250)[None])
    assert [c.on for c in vf.changes] == [True]
    calm = index(leaping(sinus(7500, rng), 3750, 4250)[None])
    assert calm.changes == []
    assert calm.index[calm.at >= 1000].max() < 0.5
    during = (calm.at > 3750) & (calm.at <= 5000)
    assert np.unique(calm.index[during]).size == 1


def test_a_lead_that_leaps_is_not_heard_beside_one_that_does_not():
    rng = np.random.default_rng(7)
    quiet = sinus(7500, rng)
    alone, both = index(quiet[None]), index(np.stack([quiet, leaping(quiet, 3750, 4250)]))
    during = (alone.at > 4250) & (alone.at <= 5000)  # once no report from before is in the mean
    np.testing.assert_array_equal(both.index[during], alone.index[during])


def test_a_lead_with_pacing_spikes_is_heard_in_time_beside_one_of_noise():
    rng = np.random.default_rng(9)
    spiky = np.concatenate([sinus(2500, rng), fibrillation(7500, rng)])
    spiky[2500::208] += 3.0
    x = np.stack([spiky, rng.normal(0, 0.1, 10_000)])
    assert any(c.on and c.decided <= 2500 + 3000 for c in index(x).changes)


def test_vf_whose_lead_leaps_is_told_though_packets_are_lost():
    rng = np.random.default_rng(10)
    x = np.concatenate([sinus(2500, rng), fibrillation(10_000, rng)])
    x[2500::208] += 3.0
    for lost in range(3000, 12_000, 2250):
        x[lost : lost + 50] = np.nan
    found = index(x[None])
    assert any(c.on for c in found.changes)
    assert (found.index[found.at > 4000] > 0.6).mean() > 0.4


def test_vf_that_begins_while_all_leads_leap_is_told_all_the_same():
    rng = np.random.default_rng(8)
    x = np.concatenate([sinus(2500, rng), fibrillation(5000, rng)])
    x[2500::250] += 3.0  # a spike a second
    assert any(c.on and c.decided <= 2500 + 2500 for c in index(x[None]).changes)


def test_polarity_changes_little():
    rng = np.random.default_rng(3)
    x = np.concatenate([sinus(2500, rng), fibrillation(2500, rng)])[None]
    assert [c.decided for c in index(x).changes] == [c.decided for c in index(-x).changes]


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 900), max_size=8), first=st.integers(0, 999))
def test_chunks_and_company_change_nothing(cuts, first):
    rng = np.random.default_rng(4)
    x = np.stack([np.concatenate([sinus(1500, rng), fibrillation(2500, rng)]), sinus(4000, rng, 0.1)])
    x[0, 700:720] = np.nan
    x[:, 2000] += 4.0
    x[1, 2500:3900:100] += 4.0
    one = VfIndex(1, 2)
    one.reset(np.array([0]), np.array([first]))
    expected = one.push(np.array([0]), x[None], np.array([4000]))
    many = VfIndex(3, 2)
    many.reset(np.array([1, 2]), np.array([5, first]))
    edges = [0, *np.clip(np.cumsum(cuts), 0, 4000).tolist(), 4000]
    at, values, changes = [], [], []
    for i, (start, stop) in enumerate(itertools.pairwise(edges)):
        rows = np.array([2, 1]) if i % 2 else np.array([2])
        report = many.push(rows, np.repeat(x[None, :, start:stop], len(rows), 0), np.full(len(rows), stop - start))
        at.append(report.at[report.row == 2])
        values.append(report.index[report.row == 2])
        changes += [c._replace(row=0) for c in report.changes if c.row == 2]
        state, many = many.state_dict(), VfIndex(3, 2)
        many.load_state_dict(state)
    np.testing.assert_array_equal(np.concatenate(at), expected.at)
    np.testing.assert_array_equal(np.concatenate(values), expected.index)
    assert changes == expected.changes


def test_trees_go_left_at_their_bound_and_add_their_leaves():
    roots, feature = np.array([0, 3]), np.array([1, -1, -1, -1])
    bound, value = np.array([0.5, 0, 0, 0]), np.array([0, 1.0, 10.0, 100.0])
    left, right = np.array([1, 0, 0, 0]), np.array([2, 0, 0, 0])
    of = [_tree_log_odds(np.array([9.0, x]), roots, feature, bound, left, right, value) for x in (0.5, 0.6)]
    assert of == [101.0, 110.0]
