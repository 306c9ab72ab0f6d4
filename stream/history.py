"""The journal as people read it: one line per transition of an alert."""

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from stream.wire import AlertEvent, Moment

_STYLE = {"high": "bold red", "medium": "yellow", "low": "cyan"}


def table(events: Iterable[AlertEvent], title: str) -> Table:
    """A row per event, in the order given."""
    columns = ("emitted (UTC)", "bed", "at", "code", "priority", "phase", "state", "text", "value", "reason")
    shown = Table(*columns, title=title, title_justify="left")
    for event in events:
        value = "" if event.value is None else f"{event.value:g} {event.unit}".strip()
        why = f"suppressed by {event.suppressed_by}" if event.suppressed_by else event.reason
        shown.add_row(
            event.emit_time[:23].replace("T", " "),
            event.bed,
            clock(event.stream_time),
            event.code,
            f"[{_STYLE[event.priority]}]{event.priority}[/]",
            event.phase,
            event.state,
            event.text,
            value,
            why,
        )
    return shown


def clock(moment: Moment) -> str:
    """A moment of a recording as h:mm:ss.t since its start."""
    tenths = round(moment.sample / moment.fs * 10)
    return f"{tenths // 36_000}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"


def newest_journal(folder: Path) -> Path | None:
    """The journal of the last run that left one in a subfolder of `folder`."""
    found = [path for path in folder.glob("*/journal.sqlite") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
