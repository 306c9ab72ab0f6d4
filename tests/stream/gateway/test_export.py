"""Exports read back as what was journalled, whatever the names hold."""

import csv
import io
import json

import msgspec
import pytest

from stream.gateway.export import export_actions, export_events, parse_since
from stream.gateway.journal import utc
from stream.wire import Action, AlertEvent
from tests.stream.events import alert

DAY_NS = 86_400 * 10**9


def test_an_export_as_jsonl_is_the_event_of_the_wire() -> None:
    events = [alert("a1", bed='Bett \u00e4, "3"\u2028'), alert("a1", seq=1, state="inactive", value=1.5)]
    out = io.StringIO()
    assert export_events(events, out, "jsonl") == 2
    lines = out.getvalue().rstrip("\n").split("\n")
    assert [msgspec.json.decode(line, type=AlertEvent) for line in lines] == events
    assert json.loads(lines[0])["onset"] == {"sample": 1000, "fs": 250.0}


def test_an_export_as_csv_reads_back_whatever_the_names_hold() -> None:
    out = io.StringIO()
    assert export_events([alert(bed='a,"b"; c'), alert(seq=1)], out, "csv") == 2
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [row["bed"] for row in rows] == ['a,"b"; c', "bed-1"]
    assert (rows[0]["onset_s"], rows[0]["code"], rows[0]["simulated"]) == ("4.0", "ASYSTOLE", "True")
    limits = Action(
        id="1", bed="bed-1", kind="limits", who="nurse", at_ns=2 * 10**9, sample=77, limits={"HR_HIGH": {"limit": 130}}
    )
    out = io.StringIO()
    assert export_actions([limits], out, "csv") == 1
    (row,) = csv.DictReader(io.StringIO(out.getvalue()))
    assert (row["at"], row["who"], row["sample"]) == ("1970-01-01T00:00:02.000000Z", "nurse", "77")
    assert json.loads(row["limits"]) == {"HR_HIGH": {"limit": 130}}
    out = io.StringIO()
    assert export_events([], out, "csv") == 0
    assert out.getvalue().startswith("emit_time,event_id,")


def test_since_is_an_age_or_a_time() -> None:
    now_ns = 1_800_000_000 * 10**9
    assert parse_since("90s", now_ns) == now_ns - 90 * 10**9
    assert parse_since("1.5h", now_ns) == now_ns - 5400 * 10**9
    assert parse_since("3d", now_ns) == now_ns - 3 * DAY_NS
    assert utc(parse_since("2026-11-22T12:00", now_ns)) == "2026-11-22T12:00:00.000000Z"
    assert utc(parse_since("2026-11-22T12:00+02:00", now_ns)) == "2026-11-22T10:00:00.000000Z"
    for wrong in ("yesterday", "-3h", "", "5 weeks"):
        with pytest.raises(ValueError, match="is no time; give 15m"):
            parse_since(wrong, now_ns)
