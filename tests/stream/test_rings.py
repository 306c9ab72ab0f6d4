"""Mirrored rings: a window is what was pushed, in one piece, whatever the pushes were."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.rings import Rings


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.data())
def test_a_window_is_the_samples_that_were_pushed_and_no_copy(sizes: list[int], data: st.DataObject) -> None:
    rings = Rings(3, 2, 64)
    signal = np.arange(2 * sum(sizes), dtype=np.float32).reshape(2, -1)
    at = 0
    for size in sizes:
        rings.push(np.array([1]), signal[None, :, at : at + size], np.array([size]))
        at += size
    n = data.draw(st.integers(0, min(at, 64)))
    start = data.draw(st.integers(max(0, at - 64), at - n))
    window = rings.window(1, start, n)
    np.testing.assert_array_equal(window, signal[:, start : start + n])
    assert n == 0 or np.shares_memory(window, rings.x)


def test_a_push_longer_than_the_ring_keeps_the_newest() -> None:
    rings = Rings(1, 1, 8)
    rings.push(np.array([0]), np.arange(20, dtype=np.float32)[None, None], np.array([20]))
    assert rings.window(0, 12, 8)[0].tolist() == list(range(12, 20))


def test_a_gap_reads_as_missing_and_is_never_spliced() -> None:
    rings = Rings(1, 1, 16)
    rings.push(np.array([0]), np.ones((1, 1, 4), np.float32), np.array([4]))
    rings.skip_to(0, 9)
    rings.push(np.array([0]), np.ones((1, 1, 3), np.float32), np.array([3]))
    assert np.isnan(rings.window(0, 4, 5)).all()
    assert np.isfinite(rings.window(0, 9, 3)).all()
    rings.skip_to(0, 1000)
    assert np.isnan(rings.window(0, 990, 10)).all()


def test_what_is_not_held_is_refused_with_what_is() -> None:
    rings = Rings(1, 1, 8)
    rings.push(np.array([0]), np.zeros((1, 1, 20), np.float32), np.array([20]))
    with pytest.raises(ValueError, match=r"5\.\.9.*12\.\.20"):
        rings.window(0, 5, 4)


def test_what_is_recent_can_be_put_back() -> None:
    rings = Rings(2, 1, 16)
    rings.push(np.array([0, 1]), np.arange(60, dtype=np.float32).reshape(2, 1, 30), np.array([30, 17]))
    again = Rings(2, 1, 16)
    again.put_back(rings.recent(10), rings.head)
    for row, head in enumerate(rings.head):
        np.testing.assert_array_equal(again.window(row, head - 10, 10), rings.window(row, head - 10, 10))
