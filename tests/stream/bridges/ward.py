"""A ward for the tests of bridges: a journal that the test writes, and a runner that carries it to a bus."""

import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from stream.bridges.bridge import BridgeSettings, Ward
from stream.bridges.runner import Runner
from stream.gateway.journal import Journal, utc
from stream.wire import AlertEvent
from tests.stream.bridges.buses import UNIT, Got
from tests.stream.events import alert

WARD = Ward("ward", UNIT)


class Verdict(NamedTuple):
    """What came of what was sent, after taking each event id once; `ghosts`: alerts told again after their end."""

    missing: int
    wrong_order: int
    duplicates: int
    ghosts: int


class Writer:
    """A journal with the bridges of a gateway on it. `sent`: all that was committed."""

    def __init__(self, folder: Path, **bridges: BridgeSettings) -> None:
        self.path = folder / "journal.sqlite"
        self.journal = Journal(self.path)
        self.bridges = bridges
        self.sent: list[AlertEvent] = []
        self.runner = Runner(bridges, WARD, self.path)
        self.runner.start()

    def write(self, *events: AlertEvent) -> None:
        """Commit, as the gateway does, and ring."""
        now_ns = time.time_ns()
        stamped = [replace(e, emit_time=utc(now_ns), stamps=replace(e.stamps, committed=now_ns)) for e in events]
        self.journal.append(stamped)
        self.sent += stamped
        self.runner.wake()

    def restart(self) -> None:
        """Stop the bridges and begin with new ones."""
        self.runner.stop()
        self.runner = Runner(self.bridges, WARD, self.path)
        self.runner.start()

    def close(self) -> None:
        self.runner.stop()
        self.journal.close()


def life(bed: str, number: int) -> list[AlertEvent]:
    """An alert from its start to its end, in five transitions; every other one latches first."""
    name = f"{bed}-{number}"
    states = ["active", "active", "active", "latched" if number % 2 else "active", "inactive"]
    priority = "high" if number % 2 else "medium"
    return [alert(name, seq, state, bed=bed, priority=priority) for seq, state in enumerate(states)]


def verdict(sent: Sequence[AlertEvent], got: Iterable[Got]) -> Verdict:
    """Compare what was committed with what arrived."""
    times: Counter[str] = Counter()
    first: dict[str, list[str]] = defaultdict(list)
    over: set[str] = set()
    n_ghosts = 0
    for one in got:
        if one.told_again:
            n_ghosts += one.alert_id in over and not times[one.event_id]
            times[one.event_id] += 1
            continue
        if not times[one.event_id]:
            first[one.bed].append(one.event_id)
            if one.state == "inactive":
                over.add(one.alert_id)
        times[one.event_id] += 1
    wanted: dict[str, list[str]] = defaultdict(list)
    for event in sent:
        wanted[event.bed].append(event.event_id)
    n_missing = sum(event.event_id not in times for event in sent)
    place = {event.event_id: n for n, event in enumerate(sent)}
    n_wrong = sum(
        place.get(later, -1) < place.get(earlier, -1)
        for ids in first.values()
        for earlier, later in itertools.pairwise(ids)
    )
    return Verdict(n_missing, n_wrong, times.total() - len(times), n_ghosts)
