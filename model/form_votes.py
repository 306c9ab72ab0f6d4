"""What the beats of a form were judged to be, together: a beat's judgement is drawn to that of its like before it."""

import numpy as np
import numpy.typing as npt

from model.labels import BEATS
from model.pool import Pool
from model.segments import Int, State

Probs = npt.NDArray[np.float32]

N_KEPT = 16  # forms of a row; a bed has N_FORMS at a time, and what is judged lags behind what is cut
WEIGHT = 0.7  # of the form's mean against the beat's own
SLOWEST = 1.0 / 100.0
LEAST = 3  # beats of a form before it has a say
_SV, _V = 1, BEATS.index("V")  # N and S count as one: by shape they are alike


class FormVotes:
    """Running mean, per row and form, of the log probabilities of N or S, V, F, Q; causal, beat by beat.

    The weight and the pace were chosen on folds of mitdb DS1 (docs/model.md).
    """

    def __init__(self, n_rows: int) -> None:
        self._number = np.zeros((n_rows, N_KEPT), np.int64)
        self._count = np.zeros((n_rows, N_KEPT), np.int64)
        self._mean = np.zeros((n_rows, N_KEPT, len(BEATS) - 1), np.float32)

    def reset(self, rows: Int) -> None:
        """Forget the forms of these rows."""
        self._number[rows] = 0

    def vote(self, row: int, form: int, probs: Probs) -> Probs:
        """The next beat of a row: form as `model.segments.CutBeats` has it, and its probs (5,). Gives probs (5,).

        The share of S in N and S stays the beat's own."""
        if form == 0:
            return probs
        either = probs[0] + probs[_SV]
        own = np.log(np.maximum(np.concatenate([either[None], probs[_V:]]), 1e-4))
        slot = form % N_KEPT
        if self._number[row, slot] != form:
            self._number[row, slot], self._count[row, slot] = form, 0
        self._count[row, slot] += 1
        mean = self._mean[row, slot]
        mean += max(SLOWEST, 1.0 / self._count[row, slot]) * (own - mean)
        if self._count[row, slot] < LEAST:
            return probs
        joint = np.exp((1 - WEIGHT) * own + WEIGHT * mean)
        joint /= joint.sum()
        early = probs[_SV] / max(either, 1e-9)
        out: Probs = np.concatenate([[joint[0] * (1 - early), joint[0] * early], joint[1:]]).astype(np.float32)
        return out

    def state_dict(self) -> State:
        """Arrays, rows first, that `load_state_dict` takes back."""
        return {"number": self._number.copy(), "count": self._count.copy(), "mean": self._mean.copy()}

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict`."""
        for name in ("number", "count", "mean"):
            getattr(self, f"_{name}")[...] = state[name]


def voted(probs: Probs, pool: Pool, beats: Int) -> Probs:
    """Probs (k, 5) of beats of the pool, whole recordings in order, as the votes leave them."""
    votes = FormVotes(pool.source.size)
    row, form = pool.of_beat[beats].tolist(), pool.beat_form[beats].tolist()
    out: Probs = np.stack([votes.vote(r, f, p) for r, f, p in zip(row, form, probs, strict=True)])
    return out
