"""Stages that keep the state of many beds as rows of arrays, and how it is taken and put back."""

from typing import Any, ClassVar

import numpy.typing as npt

ALL = slice(None)  # rows
State = dict[str, npt.NDArray[Any]]


class Rows:
    """A stage whose state is the arrays that `STATE` names, rows first."""

    STATE: ClassVar[tuple[str, ...]] = ()

    def state_dict(self, rows: slice = ALL) -> State:
        """Copies of the state of these rows, by name."""
        return {name: getattr(self, name)[rows].copy() for name in self.STATE}

    def load_state_dict(self, state: State, rows: slice = ALL) -> None:
        """Takes back what `state_dict` gave. Raises KeyError or ValueError for the state of another build or size."""
        for name in self.STATE:
            getattr(self, name)[rows] = state[name]
