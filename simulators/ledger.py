"""What a producer has sent, kept in a file as it goes, so that it is known even of one that was killed.

A ledger is two files: NAME.json, who the beds are, and NAME.i64, a mapped array that outlives its process.
"""

import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_COLUMNS = 3  # epochs begun, samples of the newest epoch, samples of all epochs


@dataclass(frozen=True, slots=True)
class Sent:
    """Of a bed: `n_epochs` that were begun, samples in the newest of them, and in all."""

    n_epochs: int
    n_newest: int
    n_samples: int


class Ledger:
    """The writing end. Beds are known by their place. epoch: what epoch ids begin with."""

    def __init__(self, path: Path, beds: Sequence[str], epoch: str) -> None:
        self._path, self._beds, self._epoch = path, list(beds), epoch
        self._file = path.with_suffix(".i64").open("w+b")
        self._file.truncate(8 * _COLUMNS * max(1, len(beds)))
        self._map = mmap.mmap(self._file.fileno(), 0)
        self._rows = memoryview(self._map).cast("q")
        self.begin(0, [0.0] * len(beds))

    def begin(self, start_ns: int, phases_s: Sequence[float]) -> None:
        """The stream starts: `start_ns` is the UTC of its second 0, `phases_s` the second at which each bed begins."""
        about = {"beds": self._beds, "epoch": self._epoch, "start_ns": start_ns, "phases_s": list(phases_s)}
        self._path.with_suffix(".json").write_text(json.dumps(about))

    def write(self, index: int, n_epochs: int, n_newest: int, n_samples: int) -> None:
        """Bed `index` has handed over so much."""
        at = _COLUMNS * index
        self._rows[at], self._rows[at + 1], self._rows[at + 2] = n_epochs, n_newest, n_samples

    def write_all(self, indices: Ints, n_epochs: Ints, n_newest: Ints, n_samples: Ints) -> None:
        """The same of many beds."""
        table = np.frombuffer(self._rows, np.int64).reshape(-1, _COLUMNS)
        table[indices] = np.stack([n_epochs, n_newest, n_samples], axis=1)

    def close(self) -> None:
        """Let go of the file."""
        self._rows.release()
        self._map.close()
        self._file.close()


@dataclass(frozen=True, slots=True)
class Read:
    """A ledger as it stands. `epoch`, `start_ns`, `phases_s`: as they were written; `beds`: what was sent of each."""

    epoch: str
    start_ns: int
    phases_s: dict[str, float]
    beds: dict[str, Sent]

    @classmethod
    def of(cls, path: Path) -> "Read":
        """Read the ledger at `path`. Raises OSError where there is none."""
        about = json.loads(path.with_suffix(".json").read_text())
        rows = np.fromfile(path.with_suffix(".i64"), np.int64).reshape(-1, _COLUMNS)
        beds = about["beds"]
        return cls(
            about["epoch"],
            about["start_ns"],
            dict(zip(beds, about["phases_s"], strict=True)),
            {bed: Sent(*row) for bed, row in zip(beds, rows.tolist(), strict=False)},
        )
