"""What is left out while the worker has too much to do: in the order that is stated, and taken back."""

import numpy as np

from model.segments import HOP_TICKS
from stream.relief import BEATS, ONE_IN, OVERLOADED_S, RELIEVED_S, REST_S, STEP_S, Relief

SECOND = 1_000_000_000
CALM, URGENT = np.zeros(8, np.bool_), np.ones(8, np.bool_)
ENDS = np.arange(1, 9) * HOP_TICKS


def strained(relief: Relief, oldest_s: float, seconds: float, start_ns: int = 0) -> int:
    """Look five times a second; the time after it."""
    ns = start_ns
    for _ in range(round(5 * seconds)):
        relief.look(oldest_s, ns)
        ns += SECOND // 5
    return ns


def test_calm_windows_thin_out_first_and_beats_of_calm_beds_last() -> None:
    relief, levels, ns = Relief(), [], 10 * SECOND
    assert relief.hops(ENDS, CALM).all()
    for _ in range(5):
        if relief.look(OVERLOADED_S + 0.1, ns):
            levels.append((int(relief.hops(ENDS, CALM).sum()), bool(relief.beats(CALM).all())))
        ns += round(STEP_S * SECOND)
    assert levels == [(4, True), (2, True), (2, False)]


def test_what_is_urgent_is_never_left_out() -> None:
    relief = Relief()
    strained(relief, 100.0, 10.0, SECOND)
    assert relief.level == BEATS == len(ONE_IN) - 1
    assert relief.hops(ENDS, URGENT).all()
    assert relief.beats(URGENT).all()


def test_nothing_is_left_out_while_the_worker_keeps_up() -> None:
    relief = Relief()
    strained(relief, OVERLOADED_S - 0.01, 60.0)
    assert relief.level == 0


def test_each_step_is_taken_back_once_the_worker_has_kept_up_for_a_while() -> None:
    relief = Relief()
    ns = strained(relief, 5.0, 3.0, SECOND)
    ns = strained(relief, (OVERLOADED_S + RELIEVED_S) / 2, 20.0, ns)
    assert relief.level == BEATS  # neither better nor worse
    ns = strained(relief, 0.0, REST_S + 0.4, ns)
    assert relief.level == BEATS - 1
    strained(relief, 0.0, 3 * REST_S, ns)
    assert relief.level == 0


def test_which_window_is_judged_hangs_on_its_place_in_time_alone() -> None:
    relief = Relief()
    relief.look(5.0, SECOND)
    whole = relief.hops(ENDS, CALM)
    parts = [relief.hops(ENDS[i : i + 1], CALM[:1])[0] for i in range(8)]
    assert whole.tolist() == parts
