import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.rails import HOLD, STILL, Rails

N = 7500


def ecg(n=N):
    """Beats without any noise: a constant level between them."""
    beat = (np.arange(n) % 200) - 100
    return np.where(abs(beat) < 40, np.exp(-0.5 * (beat / 4) ** 2), 0.0).astype(np.float32)


def jumping(n=N, seed=0):
    """From rail to rail, every second or so."""
    rng = np.random.default_rng(seed)
    edges = np.cumsum(rng.integers(150, 400, 60))
    return np.where(np.searchsorted(edges, np.arange(n), "right") % 2, 2.5, -2.5).astype(np.float32)


def passed(*leads, sizes=(N,)):
    x = np.stack(leads)[None].copy()
    rails, at = Rails(2, len(leads)), 0
    for size in [*sizes, *[sizes[-1]] * (N // sizes[-1])]:
        part = x[:, :, at : at + size].copy()
        rails.push(np.array([1]), part, np.array([part.shape[2]]))
        x[:, :, at : at + size] = part
        at += size
    return x[0]


def test_a_lead_that_jumps_from_rail_to_rail_is_taken_out_and_the_other_left_alone():
    good, bad = passed(ecg(), jumping())
    np.testing.assert_array_equal(good, ecg())
    assert np.isfinite(bad[:STILL]).all() and np.isnan(bad[1000:]).all()


def test_it_is_there_again_ten_seconds_after_the_last_jump():
    signal = np.concatenate([jumping(2000), ecg(N - 2000)])
    _, back = passed(ecg(), signal)
    assert np.isnan(back[1500:2000]).all() and np.isfinite(back[2000 + 400 + HOLD :]).all()


def test_a_level_between_beats_without_noise_is_no_rail():
    for one, was in zip(passed(ecg(), 3 * ecg()), (ecg(), 3 * ecg()), strict=True):
        np.testing.assert_array_equal(one, was)


def test_no_lead_is_taken_out_where_no_other_is_left():
    np.testing.assert_array_equal(passed(jumping())[0], jumping())
    for other in (np.full(N, np.nan, np.float32), np.zeros(N, np.float32), jumping(seed=1)):
        _, bad = passed(other, jumping())
        assert np.isfinite(bad[STILL + 500 :]).mean() > 0.8


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=20))
def test_pushes_of_any_size_give_the_same(sizes):
    np.testing.assert_array_equal(passed(ecg(), jumping()), passed(ecg(), jumping(), sizes=sizes))
