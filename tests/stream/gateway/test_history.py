"""The journal in a terminal: a row per transition or action, and no name that a terminal would obey."""

import io

from rich.console import Console
from rich.table import Table

from stream.gateway.history import clock, table, table_of_actions
from stream.wire import Action, Moment
from tests.stream.events import alert


def text(shown: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=200, color_system=None).print(shown)
    return out.getvalue()


def test_names_from_outside_are_neither_markup_nor_control() -> None:
    told = text(table([alert(bed="[/] \x1b[2J", text="[red]X", reason="[bold")], "title"))
    assert "[/] ?[2J" in told
    assert "[red]X" in told
    assert "\x1b" not in told


def test_a_suppressed_alert_says_by_what() -> None:
    told = text(table([alert(suppressed_by="abc", value=2.5, unit="s")], "title"))
    assert "suppressed by abc" in told
    assert "2.5 s" in told


def test_actions_tell_who_did_what_and_where_it_was_applied() -> None:
    limits = Action(
        id="1", bed="bed-1", kind="limits", who="nurse", at_ns=10**18, limits={"HR_HIGH": {"limit": 130}}, sample=4321
    )
    pause = Action(id="2", bed="bed-2", kind="audio_pause", who="doctor", at_ns=10**18, until_s=120.0)
    rows = text(table_of_actions([limits, pause], "title")).splitlines()
    (first,) = [row for row in rows if "bed-1" in row]
    assert all(part in first for part in ("2001-09-09 01:46:40.000", "nurse", '{"HR_HIGH":{"limit":130}}', "4321"))
    (second,) = [row for row in rows if "bed-2" in row]
    assert all(part in second for part in ("doctor", "audio_pause", "120 s", "not yet"))


def test_a_moment_is_told_as_time_since_the_start() -> None:
    assert clock(Moment(360 * 3725, 360.0)) == "1:02:05.0"
    assert clock(Moment(90, 360.0)) == "0:00:00.2"
