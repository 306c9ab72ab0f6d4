"""What the detectors found, as calls of the alarms of each row."""

from collections.abc import Callable
from typing import Any

from stream.analysis import Findings

Told = tuple[int, str, tuple[Any, ...]]


def by_row(found: Findings, n_leads: Callable[[int], int]) -> dict[int, list[Told]]:
    """What the detectors told, as (tick, method of BedAlarms, arguments) by row; `n_leads`: leads of each row.

    Of one tick, reports come first: they tell of the ticks before theirs, a beat is decided with its tick."""
    told: dict[int, list[Told]] = {}
    for change in found.vf.changes:
        told.setdefault(change.row, []).append((change.decided, "vf", (change.on, change.onset, change.decided)))
    quality = found.quality
    for row, at, good, reason in zip(
        quality.row.tolist(), quality.at.tolist(), quality.quality.tolist(), quality.reason.tolist(), strict=True
    ):
        n = max(1, n_leads(row))
        told.setdefault(row, []).append((at, "quality", (at, good[:n], reason[:n])))
    for row, at, decided in zip(
        found.beats.row.tolist(), found.beats.at.tolist(), found.beats.decided.tolist(), strict=True
    ):
        told.setdefault(row, []).append((decided, "beat", (at, decided)))
    pulses = found.pulses
    for row, *arguments in zip(
        pulses.row.tolist(), pulses.signal.tolist(), pulses.at.tolist(), pulses.decided.tolist(), pulses.ratio.tolist(),
        pulses.likeness.tolist(), strict=True,
    ):  # fmt: skip
        told.setdefault(row, []).append((arguments[2], "pulse", tuple(arguments)))
    return told


def tick_of(told: Told) -> int:
    return told[0]
