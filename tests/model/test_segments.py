"""What the model sees, however the signal came in."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.detection import DELAY
from model.kernels import BEAT_AFTER, BEAT_BEFORE, BEAT_SAMPLES, FIRST_SHAPE, LOOK_AHEAD
from model.segments import (
    CONTEXT,
    FEATURES,
    FIRST_FORM,
    HOP_SAMPLES,
    HOP_TICKS,
    SHAPE,
    BeatCutter,
    CompleteBeats,
    CutBeats,
    HopCutter,
    Templates,
    beat_start,
    choose_leads,
    cut_hops,
    hop_start,
    take,
)

Int = npt.NDArray[np.int64]
ROW = np.zeros(1, np.int64)
FAR = np.array([10**9])


class Beats(NamedTuple):
    row: Int
    at: Int
    decided: Int


def _beats(at: list[int] | Int, row: int = 0) -> Beats:
    ticks = np.asarray(at, np.int64)
    return Beats(np.full(ticks.size, row), ticks, ticks + 50)


def _feature(beats: CompleteBeats, name: str) -> npt.NDArray[np.float32]:
    return beats.features[:, FEATURES.index(name)]


def _ecg(at: Int, n: int, seed: int = 0, leads: int = 2) -> npt.NDArray[np.float32]:
    """A QRS at each tick of `at`, 125 Hz, (1, leads, n)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.01, (1, leads, n)).astype(np.float32)
    shape = np.exp(-0.5 * (np.arange(-8, 9) / 2.0) ** 2)
    for tick in at:
        j = tick // 2
        if 8 <= j < n - 9:
            x[0, :, j - 8 : j + 9] += shape
    return x


# beats


def test_rr_features_compare_a_beat_with_what_went_before() -> None:
    at = np.cumsum([300] + [200] * 20 + [100] + [300] + [200] * 3)
    beats = BeatCutter(1).push(ROW, FAR, _beats(at))
    early = 21
    assert _feature(beats, "rr_median")[early] == pytest.approx(np.log(0.5))
    assert _feature(beats, "rr_s")[early] == pytest.approx(np.log(0.4))
    assert _feature(beats, "next_median")[early] == pytest.approx(np.log(1.5))
    assert _feature(beats, "next_rr")[early] == pytest.approx(np.log(3.0))
    assert _feature(beats, "drr")[early] == pytest.approx(-0.5)
    assert _feature(beats, "previous_median")[early] == pytest.approx(0.0)
    assert _feature(beats, "irregular")[early - 1] == 0.0


def test_in_sustained_ectopy_the_upper_half_still_remembers_the_longer_rr() -> None:
    at = np.cumsum([300] + [250] * 30 + [125] * 25)
    beats = BeatCutter(1).push(ROW, FAR, _beats(at))
    assert _feature(beats, "rr_median")[-1] == pytest.approx(0.0)
    assert _feature(beats, "rr_upper")[-1] < -0.6


def test_the_first_beat_knows_no_rr_and_says_so() -> None:
    beats = BeatCutter(1).push(ROW, FAR, _beats([100, 300]))
    assert _feature(beats, "rr_unknown").tolist() == [1.0, 0.0]
    assert _feature(beats, "rr_median")[0] == 0.0


def test_a_beat_waits_for_the_next_one_and_for_its_samples() -> None:
    cutter = BeatCutter(1)
    assert cutter.push(ROW, np.array([500]), _beats([400])).at.size == 0
    assert cutter.push(ROW, np.array([700]), _beats([600]), np.array([400 + 2 * BEAT_AFTER - 1])).at.size == 0
    done = cutter.push(ROW, np.array([710]), _beats([]), np.array([400 + 2 * BEAT_AFTER]))
    assert done.at.tolist() == [400]
    assert done.ready.tolist() == [650]


def test_a_beat_that_none_follows_is_complete_after_the_look_ahead() -> None:
    cutter = BeatCutter(1)
    assert cutter.push(ROW, np.array([400 + LOOK_AHEAD - 1]), _beats([400]), FAR).at.size == 0
    done = cutter.push(ROW, np.array([400 + LOOK_AHEAD]), _beats([]), FAR)
    assert _feature(done, "next_unknown").tolist() == [1.0]
    assert _feature(done, "next_median").tolist() == [0.0]


def test_a_beat_later_than_the_look_ahead_is_as_good_as_none() -> None:
    late = BeatCutter(1).push(ROW, FAR, _beats([400, 400 + LOOK_AHEAD + 1]))
    assert _feature(late, "next_unknown")[0] == 1.0


def test_after_a_reset_no_rr_spans_the_gap() -> None:
    cutter = BeatCutter(1)
    cutter.push(ROW, FAR, _beats(np.arange(1, 10) * 200))
    cutter.reset(ROW)
    assert _feature(cutter.push(ROW, FAR, _beats([10_000, 10_200])), "rr_unknown").tolist() == [1.0, 0.0]


def test_a_flush_completes_what_waits_and_needs_no_tick_past_the_end() -> None:
    cutter = BeatCutter(2)
    cutter.push(
        np.array([0, 1]), np.array([400, 400]), Beats(np.array([0, 1]), np.array([400, 400]), np.array([450, 450]))
    )
    done = cutter.flush(ROW, np.array([500]))
    assert done.row.tolist() == [0]
    assert done.ready.tolist() == [500]
    assert cutter.flush(np.array([1]), np.array([9000])).ready.tolist() == [400 + LOOK_AHEAD + DELAY]


@st.composite
def _rhythms(draw: st.DrawFn) -> list[Int]:
    """R peaks of two beds, 0.2 to 3.2 s apart."""
    return [np.cumsum(draw(st.lists(st.integers(50, 800), min_size=1, max_size=40))) for _ in range(2)]


@settings(max_examples=60, deadline=None)
@given(rhythms=_rhythms(), cuts=st.lists(st.integers(1, 700), min_size=1, max_size=60), delay=st.integers(0, 40))
def test_beats_and_their_samples_do_not_depend_on_chunks_or_company(
    rhythms: list[Int], cuts: list[int], delay: int
) -> None:
    end = max(int(r[-1]) for r in rhythms) + 1000
    n = end // 2
    signal = np.concatenate([_ecg(r, n, seed) for seed, r in enumerate(rhythms)])
    lead = np.array([[0, 1]])

    def cut(templates: Templates, beats: CompleteBeats) -> CutBeats:
        return templates.cut(signal, beats, np.repeat(lead, beats.row.size, axis=0), beat_start(beats.at))

    whole = []
    for row, at in enumerate(rhythms):  # each bed alone, all at once
        cutter, templates = BeatCutter(2), Templates(2, 2)
        beats = cutter.push(np.array([row]), np.array([end]), _beats(at, row), np.array([end]))
        whole.append((beats.at, beats.ready, *cut(templates, beats)))
    cutter, templates = BeatCutter(2), Templates(2, 2)
    parts: list[list[tuple[Int, ...]]] = [[], []]
    edges = np.unique(np.append(np.cumsum(cuts).clip(max=end), end))
    for begin, until in zip(np.append(0, edges[:-1]), edges, strict=True):  # both beds, in pieces, through a checkpoint
        fresh, fresh_templates = BeatCutter(2), Templates(2, 2)
        fresh.load_state_dict(cutter.state_dict())
        fresh_templates.load_state_dict(templates.state_dict())
        cutter, templates = fresh, fresh_templates
        news = [r[(r + 50 >= begin) & (r + 50 < until)] for r in rhythms]
        new = Beats(np.repeat([0, 1], [len(x) for x in news]), np.concatenate(news), np.concatenate(news) + 50)
        both = np.array([0, 1])
        watermark = np.full(2, until - DELAY if until < end else end)
        done = cutter.push(both, watermark, new, np.full(2, until - delay if until < end else end))
        wave, features, form = cut(templates, done)
        for row in both:
            mine = done.row == row
            parts[row].append((done.at[mine], done.ready[mine], wave[mine], features[mine], form[mine]))
    for row in (0, 1):
        for expected, *got in zip(whole[row], *parts[row], strict=True):
            np.testing.assert_array_equal(np.concatenate(got), expected)


# samples


def test_a_cut_has_the_r_peak_at_its_place_and_missing_samples_as_nan() -> None:
    signal = np.arange(400, dtype=np.float32).reshape(1, 2, 200)
    out = take(signal, ROW, np.array([[1, -1]]), beat_start(np.array([20])), BEAT_SAMPLES)
    assert np.isnan(out[0, 1]).all()
    assert np.isnan(out[0, 0, : BEAT_BEFORE - 10]).all()
    assert out[0, 0, BEAT_BEFORE] == 210


def test_a_mirrored_ring_and_a_whole_record_give_the_same_cut() -> None:
    record = np.random.default_rng(0).normal(size=(1, 2, 3000)).astype(np.float32)
    capacity = 1024
    ring = np.empty((1, 2, 2 * capacity), np.float32)
    for j in range(3000):
        ring[:, :, j % capacity] = ring[:, :, j % capacity + capacity] = record[:, :, j]
    lead, start = np.array([[1, 0]]), hop_start(np.array([5500]))
    np.testing.assert_array_equal(
        take(ring, ROW, lead, start % capacity, HOP_SAMPLES), take(record, ROW, lead, start, HOP_SAMPLES)
    )


def test_a_hop_tells_how_much_of_it_was_there() -> None:
    signal = np.ones((1, 2, 1000), np.float32)
    signal[0, 0, 250:375] = np.nan
    wave, mask = cut_hops(signal, ROW, np.array([[0, -1]]), hop_start(np.array([1000])))
    assert mask.tolist() == [[0.75, 0.0]]
    assert np.isfinite(wave).all()
    assert wave[0, 0, 251] == 0.0


def test_gain_changes_no_beat() -> None:
    at = np.arange(1, 30) * 210
    beats = BeatCutter(1).push(ROW, FAR, _beats(at))
    signal, lead = _ecg(at, 3500), np.tile([[0, 1]], (at.size, 1))
    once = Templates(1, 2).cut(signal, beats, lead, beat_start(beats.at))
    twice = Templates(1, 2).cut(signal * 4, beats, lead, beat_start(beats.at))
    np.testing.assert_allclose(twice[0], once[0], atol=1e-4)
    np.testing.assert_allclose(twice[1], once[1], atol=2e-3)


def test_a_wide_beat_stands_out_from_the_template_and_leaves_it_as_it_was() -> None:
    at = np.arange(1, 30) * 210
    signal = _ecg(at, 3500)
    odd = 20
    j = int(at[odd]) // 2
    signal[0, :, j - 20 : j + 21] = -2.0 * np.hanning(41)
    beats = BeatCutter(1).push(ROW, FAR, _beats(at))
    wave, features, _ = Templates(1, 2).cut(signal, beats, np.tile([[0, 1]], (at.size, 1)), beat_start(beats.at))
    named = {name: features[:, i] for i, name in enumerate(FEATURES)}
    assert named["correlation"][odd] < 0.3
    assert named["width_change"][odd] > 0.5
    assert named["correlation"][odd + 1] > 0.95
    assert np.abs(wave[odd + 1, 1]).max() < 0.3 < np.abs(wave[odd, 1]).max()


def test_a_lasting_change_of_shape_becomes_the_template() -> None:
    at = np.arange(1, 60) * 210
    signal = _ecg(at, 6500)
    signal[:, :, int(at[20]) // 2 - 40 :] *= -1
    beats = BeatCutter(1).push(ROW, FAR, _beats(at))
    _, features, _ = Templates(1, 2).cut(signal, beats, np.tile([[0, 1]], (at.size, 1)), beat_start(beats.at))
    same = features[:, FEATURES.index("correlation")]
    assert same[22] < 0
    assert same[-1] > 0.95


def test_wide_early_beats_that_come_first_and_often_do_not_stay_the_template() -> None:
    at = np.cumsum(np.tile([140, 280], 40)) + 200  # bigeminy, and the first of all is a wide one
    signal = _ecg(at[1::2], 9000)
    for tick in at[::2]:
        signal[0, :, tick // 2 - 20 : tick // 2 + 21] = -2.0 * np.hanning(41)
    beats = BeatCutter(1).push(ROW, FAR, _beats(at))
    _, features, _ = Templates(1, 2).cut(signal, beats, np.tile([[0, 1]], (at.size, 1)), beat_start(beats.at))
    same = features[:, FEATURES.index("correlation")]
    assert same[0] > 0.99
    assert (same[41::2] > 0.95).all()
    assert (same[40::2] < 0.5).all()


def test_an_off_centre_peak_is_as_like_the_template_as_a_centred_one() -> None:
    at = np.arange(1, 30) * 210
    found = at.copy()
    found[20] += 6
    lead = np.tile([[0, 1]], (at.size, 1))
    beats = BeatCutter(1).push(ROW, FAR, _beats(found))
    wave, features, _ = Templates(1, 2).cut(_ecg(at, 3500), beats, lead, beat_start(beats.at))
    assert features[20, FEATURES.index("correlation")] > 0.95
    assert np.abs(wave[20, 1, 8:-8]).max() < 0.3


def test_a_short_interval_says_less_in_an_irregular_rhythm() -> None:
    steady, wild = np.full(60, 200), np.tile([120, 260, 190, 230], 15)
    z = []
    for intervals in (steady, wild):
        rr = intervals.copy()
        rr[50] = 130
        z.append(_feature(BeatCutter(1).push(ROW, FAR, _beats(np.cumsum(rr))), "rr_z")[50])
    assert z[0] == -8.0
    assert -2.0 < z[1] < -0.5


def test_what_needs_samples_is_zero_until_they_are_cut() -> None:
    assert SHAPE == FIRST_SHAPE
    beats = BeatCutter(1).push(ROW, FAR, _beats(np.cumsum([200, 190, 210, 130, 270, 200])))
    assert not beats.features[:, SHAPE : CONTEXT.start].any()
    assert not beats.features[:, FIRST_FORM:].any()
    assert beats.features[1:, CONTEXT].any(axis=1).all()


def test_the_context_holds_the_rrs_one_by_one_and_a_slow_mean_that_a_run_hardly_moves() -> None:
    at = np.cumsum([300] + [200] * 80 + [100] * 40)
    beats = BeatCutter(1).push(ROW, FAR, _beats(at))
    assert _feature(beats, "rr_0_ago")[81] == pytest.approx(np.log(0.5))
    assert _feature(beats, "rr_1_ago")[81] == pytest.approx(0.0)
    assert _feature(beats, "rr_following")[80] == pytest.approx(np.log(0.5))
    assert _feature(beats, "rr_median")[-1] == pytest.approx(0.0)
    assert _feature(beats, "rr_slow")[-1] < -0.45
    assert _feature(beats, "no_following")[-1] == 1.0


def test_beats_of_one_shape_are_of_one_form_whatever_their_gain_and_come_back_to_it() -> None:
    at = np.arange(1, 60) * 210
    wide = np.isin(np.arange(at.size), [20, 21, 22, 23, 40])
    signal = _ecg(at, 6500)
    for tick in at[wide]:
        signal[0, :, tick // 2 - 20 : tick // 2 + 21] = -2.0 * np.hanning(41)
    beats, lead = BeatCutter(1).push(ROW, FAR, _beats(at)), np.tile([[0, 1]], (at.size, 1))
    once, twice = (Templates(1, 2).cut(signal * k, beats, lead, beat_start(beats.at)) for k in (1, 3))
    assert once.form[:2].tolist() == [0, 0]
    assert set(once.form[2:][~wide[2:]]) == {1}
    assert once.form[wide].tolist() == [0, 0, 2, 2, 2]
    np.testing.assert_array_equal(once.form, twice.form)
    assert _feature(beats._replace(features=once.features), "form_usual")[30:].tolist() == (~wide[30:]).tolist()
    assert _feature(beats._replace(features=once.features), "form_width")[40] > 0.5
    assert _feature(beats._replace(features=once.features), "form_since")[40] == pytest.approx(np.log(18.0))


def test_a_form_not_seen_for_long_gives_its_place_to_a_new_one_and_the_usual_one_stays() -> None:
    rng = np.random.default_rng(1)
    at = np.arange(1, 120) * 210
    signal = _ecg(at, 13_000)
    for tick in at[60:100:2]:
        signal[0, :, tick // 2 - 20 : tick // 2 + 21] = np.convolve(rng.normal(0, 2, 49), np.ones(9) / 9, "valid")
    beats, lead = BeatCutter(1).push(ROW, FAR, _beats(at)), np.tile([[0, 1]], (at.size, 1))
    _, features, form = Templates(1, 2).cut(signal, beats, lead, beat_start(beats.at))
    assert set(form[100:]) == {1}
    assert (features[61:99:2, FEATURES.index("form_usual")] == 1).all()
    assert np.isfinite(features).all()


def test_a_beat_without_samples_has_a_wave_of_zeros_and_no_quality() -> None:
    beats = BeatCutter(1).push(ROW, FAR, _beats([400, 600]))
    signal = np.full((1, 2, 500), np.nan, np.float32)
    wave, features, _ = Templates(1, 2).cut(signal, beats, np.tile([[0, 1]], (2, 1)), beat_start(beats.at))
    assert not wave.any()
    assert np.isfinite(features).all()
    assert (features[:, FEATURES.index("quality")] == 0).all()


# leads and hops


def test_the_best_lead_is_the_first_unless_another_is_clearly_better() -> None:
    quality = np.array([[0.9, 0.95], [0.2, 0.9], [0.0, 0.0], [1.0, np.nan], [np.nan, np.nan], [0.0, 0.5]], np.float32)
    assert choose_leads(quality).tolist() == [[0, 1], [1, 0], [0, -1], [0, -1], [-1, -1], [1, -1]]


def test_one_lead_is_enough() -> None:
    assert choose_leads(np.array([[0.5]], np.float32)).tolist() == [[0, -1]]


def test_hops_lie_on_the_absolute_grid_from_the_first_with_two_seconds() -> None:
    cutter = HopCutter(2)
    cutter.reset(np.array([0, 1]), np.array([0, 777]))
    hops = cutter.push(np.array([0, 1]), np.array([2100, 2100]))
    assert hops.row.tolist() == [0, 0, 0, 0, 1, 1]
    assert hops.end.tolist() == [500, 1000, 1500, 2000, 1500, 2000]


@given(cuts=st.lists(st.integers(1, 3000), min_size=1, max_size=20), first=st.integers(0, 5000))
def test_hops_do_not_depend_on_chunks(cuts: list[int], first: int) -> None:
    whole, pieces = HopCutter(1), HopCutter(1)
    whole.reset(ROW, np.array([first]))
    pieces.reset(ROW, np.array([first]))
    edges = first + np.cumsum(cuts)
    got = np.concatenate([pieces.push(ROW, np.array([edge])).end for edge in edges])
    expected = whole.push(ROW, edges[-1:]).end
    np.testing.assert_array_equal(got, expected)
    assert (expected % HOP_TICKS == 0).all()
    assert (expected - first >= HOP_TICKS).all()
