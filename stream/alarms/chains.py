"""Which alert is announced: chains, reds over yellows, time-outs and the refractory time.

Rules of clinical.md 1.3. A red keeps back every yellow, and every red of a lower chain. Of the active
yellows of a chain the highest is announced. After a yellow is announced, the same or lower ones of its
chain are kept back for a time that depends on its level; a higher one is announced all the same and
starts its own. Events of single beats are not announced twice within the refractory time. What is
kept back is still told, with `suppressed_by`: the alert that keeps it back.
"""

from collections.abc import Iterable
from typing import Any

from stream.alarms.alert import Alert
from stream.alarms.conditions import CONDITIONS, TICK_HZ, Profile

WITHHELD = "W"  # the chain of what is told and never announced: reds withheld on evidence of the pulse


class Chains:
    """The time-outs of a bed that are running, and who is kept back by whom."""

    __slots__ = ("refractory", "timeouts")

    def __init__(self) -> None:
        self.timeouts: dict[str, list[Any]] = {}  # chain: [until tick, rank, alert_id]
        self.refractory: dict[str, list[Any]] = {}  # code: [until tick, alert_id]

    def suppressor(self, alert: Alert, others: Iterable[Alert], tick: int) -> str | None:
        """The alert_id of what keeps `alert` from being announced at `tick`, or None."""
        if alert.technical:
            return None
        if CONDITIONS[alert.code].chain == WITHHELD:
            return "pulse"
        best: Alert | None = None
        for other in others:
            if other is not alert and _over(other, alert) and (best is None or _rank(other) < _rank(best)):
                best = other
        if best is not None:
            return best.alert_id
        if alert.red or alert.announced:
            return None
        if alert.muted_until == 0:
            self._mute(alert, tick)
        return alert.muted_by if alert.muted_until > tick else None

    def announced(self, alert: Alert, tick: int, profile: Profile) -> None:
        """Nothing keeps it back now. The first time its time-outs begin."""
        if alert.announced:
            return
        alert.announced = True
        row = CONDITIONS[alert.code]
        if row.level and not alert.red:
            until = tick + round(profile.limit("TIMEOUTS", f"level_{row.level}_s") * TICK_HZ)
            self.timeouts[row.chain] = [until, row.rank, alert.alert_id]
        if row.refractory:
            until = tick + round(profile.limit("TIMEOUTS", "refractory_s") * TICK_HZ)
            self.refractory[alert.code] = [until, alert.alert_id]

    def _mute(self, alert: Alert, tick: int) -> None:
        """Once, when it could first be announced: does it fall into a time-out or the refractory time?"""
        row = CONDITIONS[alert.code]
        if row.kind == "advisory":
            return
        until, rank, by = self.timeouts.get(row.chain, (0, 0, ""))
        if until > tick and row.rank >= rank:
            alert.muted_by, alert.muted_until = by, until
        until, by = self.refractory.get(alert.code, (0, ""))
        if until > max(tick, alert.muted_until):
            alert.muted_by, alert.muted_until = by, until

    def state(self) -> dict[str, Any]:
        return {
            "timeouts": {chain: list(entry) for chain, entry in self.timeouts.items()},
            "refractory": {code: list(entry) for code, entry in self.refractory.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.timeouts = {chain: list(entry) for chain, entry in state["timeouts"].items()}
        self.refractory = {code: list(entry) for code, entry in state["refractory"].items()}


def _over(other: Alert, alert: Alert) -> bool:
    if other.latched or other.technical:
        return False
    if other.red:
        return not alert.red or other.order() < alert.order()
    same = CONDITIONS[other.code].chain == CONDITIONS[alert.code].chain
    return same and not alert.red and other.order() < alert.order()


def _rank(alert: Alert) -> tuple[bool, tuple[int, int, int]]:
    return not alert.red, alert.order()
