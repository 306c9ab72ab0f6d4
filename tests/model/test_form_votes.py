"""Beats of a form are judged together."""

import numpy as np
import pytest

from model.form_votes import LEAST, FormVotes


def _probs(v: float, s: float = 0.0) -> np.ndarray:
    return np.array([1 - v - s, s, v, 0, 0], np.float32)


def test_a_doubtful_beat_is_judged_as_its_like_before_it() -> None:
    votes = FormVotes(2)
    for _ in range(10):
        votes.vote(0, 3, _probs(0.95))
    assert votes.vote(0, 3, _probs(0.3)).argmax() == 2
    assert votes.vote(1, 3, _probs(0.3)).argmax() == 0  # another bed's form
    assert votes.vote(0, 4, _probs(0.3)).argmax() == 0  # another form


def test_votes_leave_alone_a_beat_without_form_the_first_of_a_form_and_the_share_of_early_beats() -> None:
    votes = FormVotes(1)
    for _ in range(5):
        np.testing.assert_array_equal(votes.vote(0, 0, _probs(0.4)), _probs(0.4))
    for i in range(LEAST + 3):
        got = votes.vote(0, 1, _probs(0.1, 0.6))
        assert got.sum() == pytest.approx(1.0, abs=1e-5)
        assert got[1] / got[0] == pytest.approx(2.0, rel=1e-3)
        assert i >= LEAST - 1 or np.array_equal(got, _probs(0.1, 0.6))


def test_votes_go_on_from_a_checkpoint_and_are_forgotten_with_the_bed() -> None:
    votes, again = FormVotes(1), FormVotes(1)
    for _ in range(10):
        votes.vote(0, 1, _probs(0.9))
    again.load_state_dict(votes.state_dict())
    np.testing.assert_array_equal(again.vote(0, 1, _probs(0.4)), votes.vote(0, 1, _probs(0.4)))
    votes.reset(np.array([0]))
    np.testing.assert_array_equal(votes.vote(0, 1, _probs(0.4)), _probs(0.4))
