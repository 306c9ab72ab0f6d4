"""The journal: every transition of every alert and every action of an operator, on disk, in order.

SQLite in WAL mode with synchronous=FULL: what `append` has returned survives kill -9 and a power
cut. One `append` is one transaction, so a burst pays for one fsync. Rows are numbered in the order
in which they were committed and numbers are never used twice: a bus bridge keeps the last number
that it has delivered as its cursor. docs/journal.md shows the tables and how to read them.

    >>> import tempfile, pathlib
    >>> with Journal(pathlib.Path(tempfile.mkdtemp()) / "journal.sqlite") as journal:
    ...     journal.append([]), journal.active()
    (([], []), [])
"""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from stream.wire import Action, AlertEvent, Strip, WireError, decode, encode

SCHEMA = 2
APPLICATION_ID = 0x57424A31  # "WBJ1" in the file's header: SQLite's own mark of whose file it is
BUSY_TIMEOUT_S = 0.2  # the gateway serves meanwhile nobody, so it gives up soon and is asked again
NEVER_NS = 2**63 - 1
_SLICE = 2000  # rows deleted at once, so that retention never holds the gateway up for long

_STRIPS = """
CREATE TABLE strips (
    id TEXT PRIMARY KEY,
    bed TEXT NOT NULL,
    committed_ns INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX strips_by_time ON strips (committed_ns);
"""
_UPGRADES = {1: _STRIPS}  # what makes a journal of a schema one of the next

_TABLES = (
    """
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    alert_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    bed TEXT NOT NULL,
    epoch TEXT NOT NULL,
    code TEXT NOT NULL,
    priority TEXT NOT NULL,
    phase TEXT NOT NULL,
    onset_sample INTEGER NOT NULL,
    stream_sample INTEGER NOT NULL,
    fs REAL NOT NULL,
    committed_ns INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_time ON events (committed_ns);
CREATE INDEX events_by_bed ON events (bed, committed_ns);
CREATE TABLE alerts (
    alert_id TEXT PRIMARY KEY,
    bed TEXT NOT NULL,
    state TEXT NOT NULL,
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX alerts_active ON alerts (number) WHERE state <> 'inactive';
CREATE INDEX alerts_by_number ON alerts (number);
CREATE TABLE actions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    bed TEXT NOT NULL,
    epoch TEXT NOT NULL,
    kind TEXT NOT NULL,
    who TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    sample INTEGER,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX actions_by_bed ON actions (bed, number);
CREATE TABLE sessions (
    session TEXT PRIMARY KEY,
    until INTEGER NOT NULL,
    seen_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""
    + _STRIPS
)

_event = msgspec.json.Decoder(AlertEvent)
_action = msgspec.json.Decoder(Action)
_json = msgspec.json.Encoder()


class JournalError(ValueError):
    """The journal cannot be opened, read or written now; the text names the file and the mend."""


def check(message: AlertEvent | Action) -> None:
    """Raise WireError where a message cannot be kept: its free parts hold what JSON has no form for."""
    if isinstance(message, Action):
        free: dict[str, Any] = {"limits": message.limits}
    else:
        free = {"evidence": message.evidence, "ack": message.ack}
    for name, part in free.items():
        try:
            _json.encode(part)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            shown = repr(part)[:60]
            mend = "send text, numbers, lists and maps"
            raise WireError("field", f"{name}: {shown} cannot be kept as JSON ({error}); {mend}") from None


class Journal:
    """A journal file. Not for several threads at once; any number of processes may read."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the journal, and make it where there is none (unless `read_only`).

        Raises JournalError where the file is no journal, or one of a newer version."""
        self.path = Path(path)
        if read_only and not self.path.is_file():
            raise JournalError(f"{self.path}: there is no journal; start a ward first, or give another path")
        try:
            if not read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                f"file:{quote(str(self.path.absolute()))}?mode={'ro' if read_only else 'rwc'}",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"{self.path}: cannot be opened ({error}); set gateway.journal to a file") from None
        try:
            self._prepare(read_only)
            self._inode = self.path.stat().st_ino
        except sqlite3.Error as error:
            self._db.close()
            raise JournalError(f"{self.path}: cannot be used ({error}); move it away or free it") from None
        except JournalError:
            self._db.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What was appended is on disk already."""
        self._db.close()

    def append(
        self,
        events: Sequence[AlertEvent],
        actions: Sequence[Action] = (),
        until: Mapping[str, int] | None = None,
        strips: Sequence[Strip] = (),
        now_ns: int = 0,
    ) -> tuple[list[AlertEvent], list[Action]]:
        """Commit events, operator actions and strips in one transaction; return the events and actions that were new.

        An event whose `event_id` is here already is passed over. An action is new as well where it
        now has the sample that it was applied at. `until`: number, by shard session, before which
        all alert events of that session are here with this commit. `now_ns` (UTC) is noted of strips.
        Raises JournalError, with nothing of it kept, where the file cannot be written now."""
        until = until or {}
        if not (events or actions or until or strips):
            return [], []
        if not self._in_place():
            raise JournalError(f"{self.path}: was moved or deleted while open; put it back or start the gateway again")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            new_events = self._add_events(events)
            new_actions = self._add_actions(actions)
            self._db.executemany(
                "INSERT INTO strips VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                [(strip.id, strip.bed, now_ns, zlib.compress(encode(strip), 1)) for strip in strips],
            )
            self._db.executemany(
                "INSERT INTO sessions VALUES (?, ?, ?) ON CONFLICT (session) DO UPDATE SET "
                "until = max(until, excluded.until), seen_ns = excluded.seen_ns",
                [
                    (session, number, max((e.stamps.committed for e in events), default=0))
                    for session, number in until.items()
                ],
            )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise JournalError(f"{self.path}: not written ({error}); free the disk or the file's lock") from None
        return new_events, new_actions

    def active(self) -> list[AlertEvent]:
        """The newest event of every alert that is active or latched, oldest first."""
        sql = "SELECT body FROM alerts JOIN events USING (number) WHERE state <> 'inactive' ORDER BY number"
        return [_event.decode(body) for (body,) in self._read(sql)]

    def query(
        self,
        bed: str | None = None,
        since_ns: int | None = None,
        code: str | None = None,
        limit: int | None = None,
    ) -> Iterator[AlertEvent]:
        """Events in the order of their commit; `limit`: only the newest so many. `since_ns`: UTC."""
        where, values = _where(bed=bed, code=code)
        if since_ns is not None:
            where, values = [*where, "committed_ns >= ?"], [*values, since_ns]
        for body in self._newest("events", where, values, limit):
            yield _event.decode(body)

    def history(self, alert_id: str) -> list[AlertEvent]:
        """Every event of the alerts whose id begins with `alert_id`, in the order of their commit."""
        sql = "SELECT body FROM events WHERE substr(alert_id, 1, ?) = ? ORDER BY number"
        return [_event.decode(body) for (body,) in self._read(sql, (len(alert_id), alert_id))]

    def strip(self, strip_id: str) -> Strip | None:
        """The strip of that id; None where there is none, or none yet."""
        if self._own_version() < 2:
            return None
        for (body,) in self._read("SELECT body FROM strips WHERE id = ?", (strip_id,)):
            strip = decode(zlib.decompress(body))
            assert isinstance(strip, Strip)
            return strip
        return None

    def actions(
        self,
        bed: str | None = None,
        since_ns: int | None = None,
        kind: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Action]:
        """What operators did, limit changes included, in order, with who, when and at which sample."""
        where, values = _where(bed=bed, kind=kind)
        if since_ns is not None:
            where, values = [*where, "at_ns >= ?"], [*values, since_ns]
        for body in self._newest("actions", where, values, limit):
            yield _action.decode(body)

    def actions_after(self, bed: str, epoch: str, sample: int, pending_since_ns: int) -> list[Action]:
        """What a shard whose alarm state reaches `sample` of `epoch` has to be told of a bed again.

        That is every change of limits there was (they outlive an epoch, and as a whole and in order
        they do no harm twice), the actions applied after that sample, and those which no shard has
        confirmed, unless they are older than `pending_since_ns`: a pause must not begin hours late."""
        sql = (
            "SELECT body FROM actions WHERE bed = ? AND (kind = 'limits' OR (epoch = ? AND sample > ?) "
            "OR (sample IS NULL AND at_ns >= ?)) ORDER BY number"
        )
        return [_action.decode(body) for (body,) in self._read(sql, (bed, epoch, sample, pending_since_ns))]

    def sessions(self) -> dict[str, int]:
        """By shard session, the number before which all its alert events are here."""
        return dict(self._read("SELECT session, until FROM sessions"))

    def size_bytes(self) -> int:
        """Bytes in use, without those that deleted rows left free."""
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def retain(self, max_age_s: float, max_bytes: float, now_ns: int) -> int:
        """Delete a slice of what is older than `max_age_s`, or of the oldest while the file is over
        `max_bytes`. Events and strips of an active or latched alert and changes of limits stay.

        Returns how many rows went: call again soon where it is not 0. Raises JournalError."""
        oldest_ns = now_ns - int(max_age_s * 1e9)
        ended = (
            "SELECT number FROM events WHERE NOT EXISTS "
            "(SELECT 1 FROM alerts WHERE alerts.alert_id = events.alert_id AND state <> 'inactive')"
        )
        old_strips = (
            "SELECT id FROM strips WHERE NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.alert_id = strips.id AND "
            f"state <> 'inactive') AND committed_ns <= ? ORDER BY committed_ns LIMIT {_SLICE // 10}"
        )
        try:
            self._db.execute("BEGIN IMMEDIATE")
            doomed = self._db.execute(
                f"{ended} AND committed_ns < ? ORDER BY committed_ns LIMIT {_SLICE}", (oldest_ns,)
            ).fetchall()
            strips = self._db.execute(old_strips, (oldest_ns - 1,)).fetchall()
            if not (doomed or strips) and self.size_bytes() > max_bytes:  # a strip goes before its alert
                (until_ns,) = self._db.execute(
                    f"SELECT max(committed_ns) FROM ({ended.replace('number', 'committed_ns', 1)} ORDER BY number "
                    f"LIMIT {_SLICE})"
                ).fetchone()
                strips = self._db.execute(old_strips, (NEVER_NS if until_ns is None else until_ns,)).fetchall()
                if not strips:
                    doomed = self._db.execute(f"{ended} ORDER BY number LIMIT {_SLICE}").fetchall()
            self._db.executemany("DELETE FROM strips WHERE id = ?", strips)
            self._db.executemany("DELETE FROM events WHERE number = ?", doomed)
            self._db.executemany("DELETE FROM alerts WHERE number = ?", doomed)
            n_actions = self._db.execute(
                "DELETE FROM actions WHERE at_ns < ? AND kind <> 'limits'", (oldest_ns,)
            ).rowcount
            self._db.execute("DELETE FROM sessions WHERE seen_ns < ?", (oldest_ns,))
            self._db.execute("COMMIT")
            if doomed or strips:
                self._db.executescript("PRAGMA incremental_vacuum")  # `execute` would give back one page
        except sqlite3.Error as error:
            self._roll_back()
            raise JournalError(f"{self.path}: not cleaned ({error}); free the disk or the file's lock") from None
        return len(doomed) + len(strips) + n_actions

    def _in_place(self) -> bool:
        """SQLite would go on writing into a file that nobody can open any more."""
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def _prepare(self, read_only: bool) -> None:
        version = self._own_version()
        if read_only:
            return
        if version == 0:
            # Before the first table, or it has no effect: lets retention give pages back.
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        mode = self._db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise JournalError(f"{self.path}: this file system has no WAL; set gateway.journal to a local disk")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("BEGIN IMMEDIATE")
        if self._own_version() == 0:  # still, now that nobody else can make the tables
            for statement in _TABLES.split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {SCHEMA}")
        while (version := self._own_version()) < SCHEMA:
            for statement in _UPGRADES[version].split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {version + 1}")
        self._db.execute("COMMIT")

    def _own_version(self) -> int:
        """The schema's version; 0 where the file is empty. Raises JournalError where it is not ours."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (owner,) = self._db.execute("PRAGMA application_id").fetchone()
        (n_tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if owner != APPLICATION_ID and (owner or n_tables):
            raise JournalError(f"{self.path}: is a database of something else; set gateway.journal to another file")
        if version > SCHEMA:
            raise JournalError(
                f"{self.path}: was written by a newer version (schema {version}, known here: up to {SCHEMA}); "
                "update this program or set gateway.journal to another file"
            )
        return int(version)

    def _add_events(self, events: Sequence[AlertEvent]) -> list[AlertEvent]:
        ids = _json.encode([event.event_id for event in events]).decode()
        seen = {
            row[0]
            for row in self._db.execute("SELECT event_id FROM events, json_each(?) WHERE event_id = value", (ids,))
        }
        new = []
        for event in events:
            if event.event_id not in seen:
                seen.add(event.event_id)
                new.append(event)
        (last,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'").fetchone()
        self._db.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(number, *_columns(e), _json.encode(e).decode()) for number, e in enumerate(new, last + 1)],
        )
        self._db.executemany(
            "INSERT INTO alerts VALUES (?, ?, ?, ?, ?) ON CONFLICT (alert_id) DO UPDATE SET "
            "state = excluded.state, seq = excluded.seq, number = excluded.number WHERE excluded.seq > seq",
            [(e.alert_id, e.bed, e.state, e.seq, number) for number, e in enumerate(new, last + 1)],
        )
        return new

    def _add_actions(self, actions: Iterable[Action]) -> list[Action]:
        return [
            a
            for a in actions
            if self._db.execute(
                "INSERT INTO actions (id, bed, epoch, kind, who, at_ns, sample, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, sample = excluded.sample, body = excluded.body "
                "WHERE sample IS NULL AND excluded.sample IS NOT NULL",
                (a.id, a.bed, a.epoch, a.kind, a.who, a.at_ns, a.sample, _json.encode(a).decode()),
            ).rowcount
        ]

    def _newest(self, table: str, where: list[str], values: list[Any], limit: int | None) -> Iterator[str]:
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        sql = f"SELECT body FROM {table} {condition} ORDER BY number"
        if limit is not None:
            newest = f"SELECT number, body FROM {table} {condition} ORDER BY number DESC LIMIT {int(limit)}"
            sql = f"SELECT body FROM ({newest}) ORDER BY number"
        for (body,) in self._read(sql, values):
            yield body

    def _read(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            # Not `yield from`: that would close the cursor with the generator, after the journal's end too.
            for row in self._db.execute(sql, values):  # noqa: UP028
                yield row
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: cannot be read ({error}); see that nothing locks it") from None

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:  # SQLite has rolled back by itself, as it does when the disk is full
            return


def utc(ns: int) -> str:
    """ISO 8601 in UTC with microseconds, of ns since 1970: how `emit_time` is written."""
    return (
        datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        + f"{ns // 1000 % 1_000_000:06d}Z"
    )


def _columns(e: AlertEvent) -> tuple[Any, ...]:
    moments = (e.onset.sample, e.stream_time.sample, e.stream_time.fs, e.stamps.committed)
    return (e.event_id, e.alert_id, e.seq, e.bed, e.epoch, e.code, e.priority, e.phase, *moments)


def _where(**equal: str | None) -> tuple[list[str], list[Any]]:
    given = {name: value for name, value in equal.items() if value is not None}
    return [f"{name} = ?" for name in given], list(given.values())
