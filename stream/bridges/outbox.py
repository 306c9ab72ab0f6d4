"""A bridge's outbox: how far the journal has been delivered, what is being retried, and dead letters.

It lives in the journal's file. Alert events are read there by the number of their row, so nothing can
be sent that was not committed before; what a bridge has delivered it notes as a cursor, and what the
process had not yet noted when it was killed goes out twice, with the same `event_id`.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from stream.gateway.journal import JournalError
from stream.wire import AlertEvent

BUSY_TIMEOUT_S = 0.05  # the loop of all bridges waits meanwhile; what was not written is written a little later

_TABLES = """
CREATE TABLE IF NOT EXISTS bridges (
    bridge TEXT PRIMARY KEY,
    cursor INTEGER NOT NULL,
    ahead TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bridge_tries (
    bridge TEXT NOT NULL,
    number INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (bridge, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    bridge TEXT NOT NULL,
    event_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    tries INTEGER NOT NULL,
    at_ns INTEGER NOT NULL,
    again INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (bridge, event_id)
) STRICT;
CREATE INDEX IF NOT EXISTS events_by_alert ON events (alert_id, number);
CREATE INDEX IF NOT EXISTS events_red ON events (number) WHERE priority = 'high';
"""

_event = msgspec.json.Decoder(AlertEvent)
_json = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Letter:
    """An event that a bus did not take: why, after how many tries, and whether it is to be tried again."""

    number: int
    bridge: str
    event: AlertEvent
    reason: str
    tries: int
    at_ns: int
    again: bool


class Outbox:
    """The outbox of one bridge. Raises JournalError where the file cannot be read or written now.

    Not for several threads. A bridge that is new begins at the journal's end: what is history is not sent."""

    def __init__(self, path: Path, bridge: str) -> None:
        self.path, self.bridge = Path(path), bridge
        if not self.path.is_file():
            raise JournalError(f"{path}: there is no journal; start a ward first, or give another path")
        self._db = sqlite3.connect(str(path), timeout=2.0, isolation_level=None, check_same_thread=False)
        # A cursor that a power cut takes back costs duplicates and nothing else, so it waits for no disk.
        self._run("PRAGMA synchronous = NORMAL")
        for statement in _TABLES.split(";"):
            self._run(statement)
        self._run("INSERT OR IGNORE INTO bridges SELECT ?, coalesce(max(number), 0), '[]' FROM events", (bridge,))
        self.cursor: int
        ((self.cursor, ahead),) = self._run("SELECT cursor, ahead FROM bridges WHERE bridge = ?", (bridge,))
        self.ahead: frozenset[int] = frozenset(msgspec.json.decode(ahead))
        """Numbers above the cursor that are delivered too."""
        self._run(f"PRAGMA busy_timeout = {int(1000 * BUSY_TIMEOUT_S)}")

    def close(self) -> None:
        self._db.close()

    def read(self, after: int, limit: int) -> list[tuple[int, AlertEvent]]:
        """Events after row number `after`, in the order of their commit."""
        rows = self._run("SELECT number, body FROM events WHERE number > ? ORDER BY number LIMIT ?", (after, limit))
        return [(number, _event.decode(text)) for number, text in rows]

    def head(self) -> int:
        """The number of the newest row."""
        ((number,),) = self._run("SELECT coalesce(max(number), 0) FROM events")
        return int(number)

    def standing(self) -> list[AlertEvent]:
        """The newest event of every alert that stands as far as it was delivered, oldest first."""
        rows = self._run(
            "SELECT body FROM events AS e WHERE number <= ?1 AND alert_id IN "
            "(SELECT alert_id FROM alerts WHERE state <> 'inactive' "
            "UNION SELECT alert_id FROM events WHERE number > ?1) "
            "AND number = (SELECT max(number) FROM events WHERE alert_id = e.alert_id AND number <= ?1) "
            "AND json_extract(body, '$.state') <> 'inactive' ORDER BY number",
            (self.cursor,),
        )
        standing = {event.alert_id: event for event in (_event.decode(text) for (text,) in rows)}
        for number in sorted(self.ahead):
            for (text,) in self._run("SELECT body FROM events WHERE number = ?", (number,)):
                event = _event.decode(text)
                standing.pop(event.alert_id, None)
                if event.state != "inactive":
                    standing[event.alert_id] = event
        return list(standing.values())

    def oldest(self, after: int, besides: Iterable[int], *, red: bool) -> int:
        """When the oldest event after `after` was committed, ns since 1970 UTC, or 0; of reds only where `red`."""
        skipped = set(besides)
        which = "AND priority = 'high'" if red else ""
        sql = f"SELECT number, committed_ns FROM events WHERE number > ? {which} ORDER BY number"
        for number, committed_ns in self._run(f"{sql} LIMIT {len(skipped) + 1}", (after,)):
            if number not in skipped:
                return int(committed_ns)
        return 0

    def advance(self, cursor: int, ahead: Iterable[int]) -> None:
        """Note that all up to `cursor` is delivered or dead, and those of `ahead` too."""
        above = sorted(number for number in ahead if number > cursor)
        values = (cursor, _json.encode(above).decode(), self.bridge)
        self._run("UPDATE bridges SET cursor = ?, ahead = ? WHERE bridge = ?", values)
        self._run("DELETE FROM bridge_tries WHERE bridge = ? AND number <= ?", (self.bridge, cursor))
        self.cursor, self.ahead = cursor, frozenset(above)

    def tried(self, number: int, reason: str) -> int:
        """Note one more try of an event that the bus did not take; returns how many there were."""
        ((tries,),) = self._run(
            "INSERT INTO bridge_tries VALUES (?, ?, 1, ?) ON CONFLICT (bridge, number) DO UPDATE SET "
            "tries = tries + 1, reason = excluded.reason RETURNING tries",
            (self.bridge, number, reason),
        )
        return int(tries)

    def bury(self, event: AlertEvent, reason: str, tries: int, at_ns: int) -> None:
        """Keep an event as a dead letter."""
        self._run(
            "INSERT INTO dead_letters (bridge, event_id, reason, tries, at_ns, again, body) "
            "VALUES (?, ?, ?, ?, ?, 0, ?) ON CONFLICT (bridge, event_id) DO UPDATE SET "
            "reason = excluded.reason, tries = tries + excluded.tries, at_ns = excluded.at_ns, again = 0",
            (self.bridge, event.event_id, reason[:1000], tries, at_ns, _json.encode(event).decode()),
        )

    def letters(self, *, again: bool = False) -> list[Letter]:
        """Dead letters, oldest first; only those to be tried again where `again`."""
        rows = self._run(
            "SELECT number, body, reason, tries, at_ns, again FROM dead_letters WHERE bridge = ? AND again >= ? "
            "ORDER BY number",
            (self.bridge, int(again)),
        )
        return [
            Letter(number, self.bridge, _event.decode(text), reason, tries, at_ns, bool(wanted))
            for number, text, reason, tries, at_ns, wanted in rows
        ]

    def n_letters(self) -> int:
        """How many dead letters there are."""
        ((n,),) = self._run("SELECT count(*) FROM dead_letters WHERE bridge = ?", (self.bridge,))
        return int(n)

    def replay(self) -> int:
        """Let all dead letters be tried again by the gateway that runs, or the next; returns how many."""
        return len(self._run("UPDATE dead_letters SET again = 1 WHERE bridge = ? RETURNING number", (self.bridge,)))

    def discard(self, letter: int | None = None) -> int:
        """Delete one dead letter, or all; returns how many."""
        sql = "DELETE FROM dead_letters WHERE bridge = ? AND (?2 IS NULL OR number = ?2) RETURNING number"
        return len(self._run(sql, (self.bridge, letter)))

    def _run(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: outbox of {self.bridge}: {error}; see that nothing locks it") from None
