"""The stages in a row: what is found does not depend on the pushes, and comes with the tick it says it needs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.patients import Patient
from stream.analysis import Analysis, Findings

SECONDS = 30


def signal(fs: float) -> np.ndarray:
    patient = Patient("bed", [("sinus", 10, {"pvc_per_min": 20}), ("vt", 6), ("vf", 8), ("af", 6)], seed=11, fs=fs)
    return (patient.render(0, int(SECONDS * fs)) / 200.0).astype(np.float32)


def found(x: np.ndarray, fs: float, sizes: list[int]) -> tuple[Analysis, list[tuple[int, Findings]]]:
    analysis = Analysis(2, 2)
    row = np.array([1])
    analysis.start(1, fs)
    pushes, at = [], 0
    cuts = iter(sizes)
    size = 1
    while at < x.shape[1]:
        size = next(cuts, size)
        part = x[None, :, at : at + size]
        pushes.append((0, analysis.push(row, part, np.array([part.shape[2]]))))
        pushes[-1] = (int(analysis.head[1]), pushes[-1][1])
        at += size
    return analysis, pushes


@pytest.mark.parametrize("fs", [250.0, 360.0])
def test_a_beat_or_hop_comes_with_the_tick_it_needs_and_not_before(fs: float) -> None:
    """The order in which items get their turn rests on this, and that it is the same for all packets."""
    _, pushes = found(signal(fs), fs, [1])
    n = 0
    for head, push in pushes:
        for ready in (*push.complete.ready.tolist(), *push.hop_ready.tolist()):
            assert head - 2 <= ready <= head
            n += 1
    assert n > SECONDS


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=60))
def test_pushes_of_any_size_find_the_same(sizes: list[int]) -> None:
    x = signal(360.0)
    _, whole = found(x, 360.0, [1440])
    _, parts = found(x, 360.0, [*sizes, 36])
    assert any((push.hop_vf > 0.5).any() for _, push in whole)
    for name in ("wave", "features", "form", "hop_row", "hop_end", "hop_ready", "hop_wave", "hop_mask", "hop_vf"):
        one, other = (np.concatenate([getattr(push, name) for _, push in pushes]) for pushes in (whole, parts))
        n = min(len(one), len(other))
        np.testing.assert_array_equal(one[:n], other[:n], err_msg=name)
        assert n >= len(one) - 1


def test_an_epoch_after_another_finds_what_it_would_have_found_as_the_first() -> None:
    x = signal(250.0)
    analysis, row, n = Analysis(1, 2), np.array([0]), np.array([250])
    epochs: list[list[Findings]] = []
    for _ in range(2):
        analysis.start(0, 250.0)
        epochs.append([analysis.push(row, x[None, :, at : at + 250], n) for at in range(0, 20 * 250, 250)])
    for once, again in zip(*epochs, strict=True):
        for name in ("wave", "hop_end", "hop_wave"):
            np.testing.assert_array_equal(getattr(once, name), getattr(again, name), err_msg=name)


def test_the_last_hop_of_a_signal_has_the_vf_index_and_the_leads_of_its_end() -> None:
    """A flush may cut a hop that ends a tick after the signal does."""
    seconds, row = 26, np.array([0])
    x = signal(250.0)[None, :, : seconds * 250 - 1]
    analysis = Analysis(1, 2)
    analysis.start(0, 250.0)
    for at in range(0, x.shape[2], 250):
        part = x[:, :, at : at + 250]
        before = analysis.push(row, part, np.array([part.shape[2]]))
    last = analysis.flush(row)
    assert last.hop_end.tolist() == [seconds * 250]
    assert last.hop_vf.tolist() == before.vf.index[-1:].tolist()
    assert last.hop_mask.tolist() == [[1.0, 1.0]]
