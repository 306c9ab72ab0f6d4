"""What the journal holds, written for others: JSON lines for programs, CSV for spreadsheets."""

import csv
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import IO, Any, Literal

import msgspec

from stream.gateway.journal import utc
from stream.wire import Action, AlertEvent

_json = msgspec.json.Encoder()


def export_events(events: Iterable[AlertEvent], out: IO[str], form: Literal["jsonl", "csv"]) -> int:
    """Write alert events to an open text file; returns how many there were.

    A line of JSONL is the event as on the wire. CSV has the columns that a spreadsheet wants, and
    neither evidence nor stamps."""
    return _export(events, out, form, _EVENT)


def export_actions(actions: Iterable[Action], out: IO[str], form: Literal["jsonl", "csv"]) -> int:
    """Write what operators did, likewise."""
    return _export(actions, out, form, _ACTION)


def parse_since(text: str, now_ns: int) -> int:
    """The time, ns since 1970 UTC, that `90s`, `15m`, `2h`, `3d` ago or an ISO 8601 time means.

    A time without a zone is UTC. Raises ValueError where the text is neither."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if ago:
        return now_ns - int(float(ago[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[ago[2]] * 1e9)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no time; give 15m, 2h, 3d or 2026-01-31T12:00") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e9)


_Columns = dict[str, Callable[[Any], object]]


def _named(*names: str) -> _Columns:
    return {name: lambda row, name=name: getattr(row, name) for name in names}  # type: ignore[misc]


_EVENT: _Columns = {
    **_named("emit_time", "event_id", "alert_id", "seq", "bed", "epoch", "code", "text", "phase", "state", "priority"),
    **_named("kind", "value", "unit"),
    "onset_s": lambda e: e.onset.sample / e.onset.fs,
    "stream_s": lambda e: e.stream_time.sample / e.stream_time.fs,
    "onset_sample": lambda e: e.onset.sample,
    "stream_sample": lambda e: e.stream_time.sample,
    "fs": lambda e: e.stream_time.fs,
    **_named("reason", "suppressed_by", "supersedes", "model_version", "simulated"),
}
_ACTION: _Columns = {
    "at": lambda a: utc(a.at_ns),
    **_named("id", "bed", "epoch", "sample", "kind", "who", "alert_id", "until_s"),
    "limits": lambda a: _json.encode(a.limits).decode(),
}


def _export(rows: Iterable[AlertEvent | Action], out: IO[str], form: Literal["jsonl", "csv"], columns: _Columns) -> int:
    n_rows = 0
    writer = csv.writer(out, lineterminator="\n")
    if form == "csv":
        writer.writerow(columns)
    for row in rows:
        n_rows += 1
        if form == "csv":
            writer.writerow([read(row) for read in columns.values()])
        else:
            out.write(_json.encode(row).decode() + "\n")
    return n_rows
