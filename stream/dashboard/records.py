"""What a page asks for by HTTP: alerts and actions of the journal, the limits of a bed with their ranges."""

import contextlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stream.alarms.conditions import Limit, ProfileError
from stream.config import Settings, profile_of
from stream.gateway import export
from stream.gateway.journal import Journal
from stream.wire import AlertEvent

MOST_EVENTS = 5000


def alerts(settings: Settings, bed: str | None, since_ns: int | None, limit: int) -> list[dict[str, Any]]:
    """The newest alerts of the journal, each as its last event with when it started and ended (ISO 8601, UTC), newest
    first. Raises JournalError."""
    with Journal(Path(settings.gateway.journal), read_only=True) as journal:
        return _lives(journal.query(bed, since_ns, None, MOST_EVENTS))[:limit]


def exported(settings: Settings, bed: str | None, since_ns: int | None, priority: str | None) -> str:
    """The same events as CSV, of one priority where it is given. Raises JournalError."""
    out = io.StringIO()
    with Journal(Path(settings.gateway.journal), read_only=True) as journal:
        events = (e for e in journal.query(bed, since_ns) if priority in {None, e.priority})
        export.export_events(events, out, "csv")
    return out.getvalue()


def limits(settings: Settings, bed: str) -> list[dict[str, Any]]:
    """A row for each condition that has limits, and what belongs to none: what is set, and the range it may be set in.
    Raises JournalError."""
    profile = profile_of(settings, bed)
    with Journal(Path(settings.gateway.journal), read_only=True) as journal:
        for action in journal.actions(bed, kind="limits"):
            with contextlib.suppress(ProfileError):  # it fitted the limits as they were set up then
                profile = profile.with_changes(action.limits)
    rows = [
        {
            "code": row.code, "words": row.words, "kind": row.kind, "priority": profile.priority(row.code),
            "priorities": row.priorities, "enabled": profile.enabled(row.code), "can_be_off": row.can_be_off,
            "limits": _limits(row.limits, profile.limits(row.code)),
        }
        for row in profile.table.rows.values()
        if not row.code.startswith("PACER")
    ]  # fmt: skip
    general = [
        {"code": code, "words": code.capitalize(), "kind": "general", "limits": _limits(known, profile.limits(code))}
        for code, known in profile.table.general.items()
    ]
    return rows + general


def strip(settings: Settings, alert_id: str) -> dict[str, Any] | None:
    """The strip of an alert that the journal keeps: `samples` are rows of int16, -32768 where there is none; None where
    there is none, or none yet. Raises JournalError."""
    with Journal(Path(settings.gateway.journal), read_only=True) as journal:
        kept = journal.strip(alert_id)
    if kept is None:
        return None
    return {
        "bed": kept.bed, "first": kept.first, "decided": kept.decided.sample, "onset": kept.onset.sample,
        "rate": kept.rate, "signals": kept.signals, "samples": kept.samples().tolist(),
        "beats": kept.beats, "labels": kept.labels,
    }  # fmt: skip


def _limits(known: Any, now: dict[str, float]) -> list[dict[str, Any]]:
    def row(name: str, limit: Limit) -> dict[str, Any]:
        return {"name": name, "value": now[name], "default": limit.default, "low": limit.low, "high": limit.high,
                "unit": limit.unit}  # fmt: skip

    return [row(name, limit) for name, limit in known.items()]


def _lives(events: Iterable[AlertEvent]) -> list[dict[str, Any]]:
    lives: dict[str, dict[str, Any]] = {}
    for event in events:
        life = lives.setdefault(event.alert_id, {"started": event.emit_time, "ended": None})
        life["event"] = event
        if event.phase == "end":
            life["ended"] = event.emit_time
    return list(reversed(lives.values()))
