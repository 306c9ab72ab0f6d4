"""The journal as people read it: one line per transition of an alert."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from stream.gateway.journal import Journal, JournalError, utc
from stream.views.bedside import clean, mark, words
from stream.wire import Action, AlertEvent, Moment

SHORT_ID = 8  # of an alert's id is enough to find it
_STYLE = {"high": "bold red", "medium": "yellow", "low": "cyan"}


def table(events: Iterable[AlertEvent], title: str) -> Table:
    """A row per event, in the order given; what does not fit here is in the exports."""
    shown = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("id", no_wrap=True, min_width=SHORT_ID)  # `alerts show` asks for it
    for name in ("UTC", "bed", "at", "code", "phase"):
        shown.add_column(name, no_wrap=True)
    for name in ("alert", "note"):
        shown.add_column(name, overflow="fold")
    for event in events:
        why = f"suppressed by {event.suppressed_by}" if event.suppressed_by else event.reason
        note = ", ".join(word for word in ("latched" if event.state == "latched" else "", why) if word)
        emitted = event.emit_time[5:19].replace("T", " ")
        named = (event.alert_id[:SHORT_ID], emitted, event.bed, clock(event.stream_time), event.code, event.phase)
        cells = [Text(clean(cell)) for cell in named]
        cells.append(Text(f"{mark(event)} {words(event)}", _STYLE[event.priority]))
        shown.add_row(*cells, Text(clean(note)))
    return shown


def one(journal: Journal, alert_id: str) -> list[AlertEvent]:
    """Every event of the alert of this id, or of an id that begins so, oldest first.

    Raises JournalError where there is none, or more than one."""
    events = journal.history(alert_id)
    ids = list(dict.fromkeys(event.alert_id for event in events))
    if not ids:
        raise JournalError(f"{alert_id}: no alert of {journal.path} has an id that begins so; `alerts` lists them")
    if len(ids) > 1:
        raise JournalError(
            f"{alert_id}: {len(ids)} alerts have ids that begin so; give more of it: {', '.join(ids[:5])}"
        )
    return events


def story(events: Sequence[AlertEvent]) -> Table:
    """An alert from its beginning to its end, a row per event: what happened, when, and what it rested on."""
    first = events[0]
    title = f"{mark(first)} {first.code}, bed {first.bed}, alert {first.alert_id}, began at {clock(first.onset)}"
    shown = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("UTC", "at", "phase", "state"):
        shown.add_column(name, no_wrap=True)
    for name in ("alert", "why", "shown as", "evidence"):
        shown.add_column(name, overflow="fold")
    for event in events:
        by = event.ack and event.ack.get("by")
        marks = [*event.inactivation, *([f"acknowledged by {by}"] if by else [])]
        marks += [f"suppressed by {event.suppressed_by[:SHORT_ID]}"] if event.suppressed_by else []
        why = [event.reason, f"supersedes {event.supersedes[:SHORT_ID]}" if event.supersedes else ""]
        told = (
            event.emit_time[5:23].replace("T", " "), clock(event.stream_time), event.phase, event.state,
            words(event), ", ".join(filter(None, why)), ", ".join(marks) or "announced",
            " ".join(f"{name}={value}" for name, value in event.evidence.items()),
        )  # fmt: skip
        shown.add_row(*(Text(clean(cell)) for cell in told))
    return shown


def table_of_actions(actions: Iterable[Action], title: str) -> Table:
    """A row per action of an operator, in the order given."""
    columns = ("at (UTC)", "who", "bed", "action", "what", "applied at sample")
    shown = Table(*columns, title=title, title_justify="left")
    for action in actions:
        what = action.alert_id or ("" if action.until_s is None else f"{action.until_s:g} s")
        what = msgspec.json.encode(action.limits).decode() if action.limits else what
        applied = "not yet" if action.sample is None else str(action.sample)
        at = utc(action.at_ns)[:23].replace("T", " ")
        shown.add_row(*(Text(clean(cell)) for cell in (at, action.who, action.bed, action.kind, what, applied)))
    return shown


def clock(moment: Moment) -> str:
    """A moment of a recording as h:mm:ss.t since its start."""
    tenths = round(moment.sample / moment.fs * 10)
    return f"{tenths // 36_000}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"


def newest_journal(folder: Path) -> Path | None:
    """The journal of the last run that left one in a subfolder of `folder`."""
    found = [path for path in folder.glob("*/journal.sqlite") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
