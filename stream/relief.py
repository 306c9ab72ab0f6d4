"""What is left out while the worker has more to do than it can, and when that is over.

Live beds cannot wait, so what the model is asked becomes less, in this order: calm windows thin out, one in two of a
bed and then one in four; at last beats of calm beds go without morphology (label `?`). Never left out is what looks
urgent (a fast or silent heart, a high VF index): its windows and beats; and asystole, rate and VF by the index need no
model. Each step is taken back, one after another, once the worker keeps up again.

The load is told by the age of the oldest item that is not answered. Nothing here reads a clock.
"""

import numpy as np
import numpy.typing as npt

from model.segments import HOP_TICKS

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

OVERLOADED_S = 0.75  # an item waits no longer where the worker keeps up: a batch of each class takes tenths
STEP_S = 0.5  # between two steps up: what was left out needs so long to be felt
RELIEVED_S, REST_S = 0.25, 2.0  # so young for so long, and a step is taken back
ONE_IN = (1, 2, 4, 4)  # calm windows that are judged, by level
BEATS = 3  # the level from which beats of calm beds are not judged
TOLD = (
    "",
    "one in two calm windows is judged",
    "one in four calm windows is judged",
    "one in four calm windows is judged, and no beat of a calm bed",
)


class Relief:
    """`level`: 0 nothing is left out, to 3."""

    def __init__(self) -> None:
        self.level = 0
        self._stepped_ns = self._strained_ns = 0

    def look(self, oldest_s: float, mono_ns: int) -> bool:
        """Take a step where one is due; True where the level is another than before. `oldest_s`: age of the oldest
        item that is not answered, 0 where there is none. Look several times a second."""
        before = self.level
        since_ns = mono_ns - self._stepped_ns
        if oldest_s > RELIEVED_S:
            self._strained_ns = mono_ns
        if oldest_s > OVERLOADED_S and since_ns >= STEP_S * 1e9:
            self.level = min(self.level + 1, BEATS)
        elif min(since_ns, mono_ns - self._strained_ns) >= REST_S * 1e9:
            self.level = max(self.level - 1, 0)
        if self.level != before:
            self._stepped_ns = mono_ns
        return self.level != before

    def hops(self, end: Ints, urgent: Bools) -> Bools:
        """Which hops that end at ticks `end` (k,) are judged, and with each its window."""
        kept: Bools = urgent | (end // HOP_TICKS % ONE_IN[self.level] == 0)
        return kept

    def beats(self, urgent: Bools) -> Bools:
        """Which beats are judged."""
        return urgent | (self.level < BEATS)
