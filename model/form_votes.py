"""What the beats of a form were judged to be, together: a beat's judgement is drawn to that of its like before it."""

import numpy as np
import numpy.typing as npt
from numba import njit, types

from model.labels import BEATS
from model.pool import Pool
from model.rows import Rows
from model.segments import Int

Probs = npt.NDArray[np.float32]

N_KEPT = 16  # forms of a row; a bed has N_FORMS at a time, and what is judged lags behind what is cut
WEIGHT = 0.7  # of the form's mean against the beat's own
SLOWEST = 1.0 / 100.0
LEAST = 3  # beats of a form before it has a say
_SV, _V = 1, BEATS.index("V")  # N and S count as one: by shape they are alike


class FormVotes(Rows):
    """Running mean, per row and form, of the log probabilities of N or S, V, F, Q; causal, beat by beat.

    The weight and the pace were chosen on folds of mitdb DS1 (docs/model.md).
    """

    STATE = ("_number", "_count", "_mean")

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
        out: Probs = np.empty(len(BEATS), np.float32)
        _vote(self._number[row], self._count[row], self._mean[row], form, probs, out)
        return out


_VOTE = types.void(
    types.int64[::1], types.int64[::1], types.float32[:, ::1], types.int64,
    types.Array(types.float32, 1, "A", readonly=True), types.float32[::1],
)  # fmt: skip


@njit(_VOTE, cache=True)
def _vote(number, count, mean, form, probs, out):  # type: ignore[no-untyped-def]
    slot = form % N_KEPT
    if number[slot] != form:
        number[slot], count[slot] = form, 0
    count[slot] += 1
    pace = max(SLOWEST, 1.0 / count[slot])
    either = probs[0] + probs[_SV]
    joint = np.zeros(mean.shape[1])
    total = 0.0
    for j in range(joint.size):
        own = np.log(max(either if j == 0 else probs[_V + j - 1], 1e-4))
        mean[slot, j] += pace * (own - mean[slot, j])
        joint[j] = np.exp((1 - WEIGHT) * own + WEIGHT * mean[slot, j])
        total += joint[j]
    if count[slot] < LEAST:
        out[:] = probs
        return
    early = probs[_SV] / max(either, 1e-9)
    out[0], out[_SV] = joint[0] / total * (1 - early), joint[0] / total * early
    for j in range(1, joint.size):
        out[_V + j - 1] = joint[j] / total


def voted(probs: Probs, pool: Pool, beats: Int) -> Probs:
    """Probs (k, 5) of beats of the pool, whole recordings in order, as the votes leave them."""
    votes = FormVotes(pool.source.size)
    row, form = pool.of_beat[beats].tolist(), pool.beat_form[beats].tolist()
    out: Probs = np.stack([votes.vote(r, f, p) for r, f, p in zip(row, form, probs, strict=True)])
    return out
