"""A bus that is away, behind or refuses is told as a technical alarm of the ward, and that alarm ends by itself."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stream.alarms.conditions import Profile
from stream.bridges import courier
from stream.bridges.alarms import BusAlarms
from stream.bridges.courier import Account, continued
from stream.wire import AlertEvent
from tests.stream.bridges.buses import QUICK
from tests.stream.bridges.ward import Writer
from tests.stream.events import alert
from tests.stream.test_gateway import Bench

NS = 1_800_000_000_000_000_000


def stands(events: list[AlertEvent], active: dict[str, AlertEvent]) -> dict[str, AlertEvent]:
    for event in events:
        (active.pop if event.state == "inactive" else active.setdefault)(event.alert_id, event)
    return active


def test_an_alarm_begins_once_ends_by_itself_and_is_taken_over_by_the_next_gateway() -> None:
    alarms = BusAlarms("ICU 3", "session-1", Profile({"BUS_DOWN": {"priority": "medium"}}))
    down = {"hl7": {"BUS_DOWN": "no route"}, "mq": {}}
    (start,) = alarms.step(down, [], NS)
    assert (start.bed, start.code, start.phase, start.state) == ("ICU 3", "BUS_DOWN", "start", "active")
    assert (start.kind, start.priority, start.reason) == ("technical", "medium", "no route")
    assert start.text == "!! BUS UNREACHABLE hl7"
    active = stands([start], {})
    assert alarms.step(down, active.values(), NS + 1) == []
    other = BusAlarms("ICU 3", "session-2", Profile())  # a gateway that started again
    assert other.step(down, active.values(), NS + 2) == []
    (end,) = other.step({"hl7": {}}, active.values(), NS + 10**9)
    assert (end.alert_id, end.phase, end.state) == (start.alert_id, "end", "inactive")
    assert end.seq > start.seq and end.event_id != start.event_id
    assert stands([end], active) == {}
    (again,) = other.step(down, [], NS + 2 * 10**9)
    assert again.alert_id != start.alert_id


def test_one_that_was_not_journalled_is_told_again_and_one_that_was_acknowledged_is_not() -> None:
    alarms = BusAlarms("w", "s", Profile())
    down = {"hl7": {"BUS_DOWN": "x"}}
    assert len(alarms.step(down, [], NS)) == 1
    (start,) = alarms.step(down, [], NS + 10**9)  # the first never came to stand
    assert alarms.step(down, [start], NS + 2 * 10**9) == []
    assert alarms.step(down, [], NS + 3 * 10**9) == []  # acknowledged, and so reset
    assert alarms.step({}, [], NS + 4 * 10**9) == []
    assert len(alarms.step(down, [], NS + 5 * 10**9)) == 1


def test_the_gateway_journals_and_publishes_them(tmp_path: Path, free_port: Callable[[], int]) -> None:
    bench = Bench(tmp_path, free_port)
    told = {"hl7": Account({"delivered": 3}, {"committed>hl7": (1.0, 2.0)}, {"BUS_DOWN": "no route"})}
    taken: list[Any] = []
    bench.gateway._bridges = SimpleNamespace(  # type: ignore[assignment]
        accounts=lambda: told, take=taken.append, wake=lambda: taken.append("rung"), wants_waves=False
    )
    bench.later_ns += 2 * 10**9
    news = bench.settle()
    assert [(topic, event.code, event.phase) for topic, event in news] == [("alert.ward", "BUS_DOWN", "start")]
    assert [event.code for event in bench.journal.active()] == ["BUS_DOWN"]
    assert "rung" in taken
    account = bench.published[-1][2]
    assert bench.gateway.register.active[news[0][1].alert_id].evidence == {"bridge": "hl7"}
    told["hl7"] = told["hl7"]._replace(alarms={})
    bench.later_ns += 2 * 10**9
    assert [event.phase for _, event in bench.settle()] == ["end"]
    assert bench.journal.active() == []
    assert account is not None
    bench.close()


def test_a_courier_says_that_its_bus_is_away_and_that_a_red_alert_waits(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stream.bridges.hl7 import Hl7Settings

    monkeypatch.setattr(courier, "DOWN_S", 0.3)
    monkeypatch.setattr(courier, "LATE_NS", 500_000_000)
    settings = Hl7Settings(url=f"mllp://127.0.0.1:{free_port()}", **QUICK)
    writer = Writer(tmp_path, hl7=settings)
    writer.write(alert("yellow", priority="medium", bed="b2"), alert("red"))
    until = time.monotonic() + 10
    alarms: dict[str, str] = {}
    while len(alarms) < 2 and time.monotonic() < until:
        alarms = writer.runner.accounts()["hl7"].alarms
        time.sleep(0.05)
    writer.close()
    assert set(alarms) == {"BUS_DOWN", "BUS_BEHIND"}
    assert "a red alert of over 10 s ago is not delivered" in alarms["BUS_BEHIND"]
    assert "onnect" in alarms["BUS_DOWN"]


def test_what_is_told_again_has_an_id_of_its_own_and_the_newest_state() -> None:
    event = alert(seq=2, state="latched")
    again = continued(event, NS)
    assert (again.phase, again.state, again.seq, again.alert_id) == ("continue", "latched", 2, event.alert_id)
    assert again.event_id not in {event.event_id, continued(event, NS + 10**9).event_id}
    assert len(continued(alert("x" * 60), NS).event_id) <= 64
