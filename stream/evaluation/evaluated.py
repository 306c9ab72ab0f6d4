"""One record with its scores, as an evaluation passes it on to its tables and its page."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model import challenge2015
from model.ec57.intervals import Rate
from model.ec57.marks import Marks
from model.ec57.scoring import RecordScore
from stream.evaluation.alarmscore import AlarmScore, Alert


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One record with its scores. `alerts` is None where there was no RECORD.alerts.jsonl.

    rhythm: its Challenge 2017 label; said_af: whether any AF was marked; delays_s: of the detector, float64, or None.
    """

    path: Path
    ref: Marks
    test: Marks
    score: RecordScore
    alerts: list[Alert] | None
    alarms: AlarmScore | None
    challenge: challenge2015.Outcome | None
    rhythm: str | None
    said_af: bool
    delays_s: npt.NDArray[np.float64] | None

    @property
    def name(self) -> str:
        return self.score.name


def rate_of(rate: Rate) -> dict[str, Any]:
    """A rate as JSON has it."""
    return asdict(rate)
