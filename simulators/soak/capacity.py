"""The most beds that hold the limits, found by trying: double until one is broken, then halve the step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from simulators.soak.plan import Plan
from simulators.soak.run import soak
from simulators.soak.stage import StageError

FINEST = 0.06  # of the number of beds: no step of the search is smaller
MOST = 20_000

Try = Callable[[Plan, Path], dict[str, Any]]


def find_capacity(
    plan: Plan, folder: Path, told: Callable[[str], None], attempt: Try = soak
) -> tuple[int, list[dict[str, Any]]]:
    """The largest number of beds tried that held every limit of `plan` (0 where its own did not), and each try: `beds`,
    `held`, `beds_per_core`, `cores` of all roles and the producer, and which limits were broken."""
    tries: list[dict[str, Any]] = []

    def holds(beds: int) -> bool:
        try:
            result = attempt(msgspec.structs.replace(plan, beds=beds), folder / f"{len(tries) + 1}-{beds}-beds")
        except StageError as error:  # so many that the ward does not come up
            tries.append({"beds": beds, "held": False, "broken": [str(error)]})
        else:
            cores = sum(p["cores"] for name, p in result["processes"].items() if name != "soak")
            broken = [one["name"] for one in result["limits"] if one["held"] is False]
            tries.append(
                {"beds": beds, "held": result["held"] and not result["interrupted"], "broken": broken,
                 "interrupted": result["interrupted"], "cores": cores, "beds_per_core": result["beds_per_core"]}
            )  # fmt: skip
        told(f"{beds} beds: {'held' if tries[-1]['held'] else 'broken: ' + ', '.join(tries[-1]['broken'])}")
        return bool(tries[-1]["held"])

    def stopped() -> bool:
        return bool(tries and tries[-1].get("interrupted"))

    good, beds = 0, plan.beds
    while not stopped() and beds <= MOST and holds(beds):
        good, beds = beds, 2 * beds
    bad = beds
    while not stopped() and good and bad - good > FINEST * good:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good, tries
