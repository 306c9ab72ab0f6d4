"""What plays as a bed: samples by index."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.datasets import Annotations
from stream.wire import Signal


class Feed(Protocol):
    """Samples of a bed by index. `n_samples`: None for a feed without end."""

    @property
    def fs(self) -> float:
        """Samples per second."""

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What the rows of the samples are."""

    @property
    def n_samples(self) -> int | None:
        """Samples of the whole feed."""

    def read(self, first: int, n: int) -> npt.NDArray[np.int16]:
        """Samples first <= s < first + n, int16 (signals, n). Raises DatasetError where they cannot be decoded."""

    def at_hand(self, first: int) -> int:
        """How many samples from `first` on are best read at once."""

    def off_spans(self, first: int, n: int) -> list[tuple[int, int, int]]:
        """(start, end, signal bits) of signals that are off the patient, in order."""

    def truth(self, first: int, n: int) -> Annotations | None:
        """Reference annotations of these samples, at absolute samples."""
