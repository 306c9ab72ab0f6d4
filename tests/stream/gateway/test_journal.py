"""The journal: kept through kill -9, once each, and refused where it cannot be trusted."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from stream.gateway.journal import SCHEMA, Journal, JournalError
from stream.wire import Action, AlertEvent, Stamps
from tests.stream.events import alert, strip

DAY_NS = 86_400 * 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def committed(seconds: float, *args: object, **kwargs: object) -> AlertEvent:
    return msgspec.structs.replace(alert(*args, **kwargs), stamps=Stamps(committed=int(seconds * 1e9)))


def action(number: int = 1, kind: str = "acknowledge", **changes: object) -> Action:
    limits = {"HR_HIGH": {"limit": 130}} if kind == "limits" else {}
    fields = {"bed": "bed-1", "epoch": "epoch-1", "who": "nurse", "at_ns": number * 10**9, "limits": limits}
    return Action(id=f"action-{number}", kind=kind, **(fields | changes))


def test_an_event_is_there_as_it_was_given(path: Path) -> None:
    event = alert(evidence={"path": "detector", "leads": [1, 2]}, value=4.2, limits=(None, 4.0), ack={"by": "nurse"})
    with Journal(path) as journal:
        assert journal.append([event]) == ([event], [])
    with Journal(path) as journal:
        assert list(journal.query()) == [event]
        assert journal.active() == [event]


def test_an_event_sent_again_is_kept_once_also_within_one_batch(path: Path) -> None:
    first, second = alert(seq=0), alert(seq=1)
    with Journal(path) as journal:
        assert journal.append([first, first])[0] == [first]
        assert journal.append([first, second, second])[0] == [second]
        assert [event.event_id for event in journal.query()] == ["a1.0", "a1.1"]


@pytest.mark.parametrize(("last", "stands"), [("active", True), ("latched", True), ("inactive", False)])
def test_an_alert_stands_while_its_last_event_is_active_or_latched(path: Path, last: str, stands: bool) -> None:
    with Journal(path) as journal:
        journal.append([alert("a1"), alert("other")])
        end = alert("a1", seq=1, state=last)
        journal.append([end])
        assert (end in journal.active()) == stands
        assert alert("other") in journal.active()
        assert alert("a1") not in journal.active()


def test_an_older_event_that_comes_late_does_not_revive_an_alert(path: Path) -> None:
    with Journal(path) as journal:
        journal.append([alert(seq=2, state="inactive")])
        journal.append([alert(seq=1)])
        assert journal.active() == []
        assert len(list(journal.query())) == 2


def test_a_query_selects_by_bed_code_and_time_and_gives_the_newest_in_order(path: Path) -> None:
    with Journal(path) as journal:
        journal.append([committed(i, f"a{i}", bed=f"bed-{i % 2}", code=f"C{i % 3}") for i in range(12)])

        def ids(**wanted: object) -> list[int]:
            return [int(event.alert_id[1:]) for event in journal.query(**wanted)]

        assert ids(bed="bed-1") == [1, 3, 5, 7, 9, 11]
        assert ids(code="C2") == [2, 5, 8, 11]
        assert ids(bed="bed-1", code="C2") == [5, 11]
        assert ids(since_ns=9 * 10**9) == [9, 10, 11]
        assert ids(limit=2) == [10, 11]
        assert ids(bed="bed-0", limit=3) == [6, 8, 10]
        assert ids(bed="'; DROP TABLE events; --") == []


def test_actions_and_limit_changes_are_kept_with_who_and_when(path: Path) -> None:
    asked = [action(1), action(2, "limits", who="doctor")]
    with Journal(path) as journal:
        assert journal.append([], asked) == ([], asked)
        assert journal.append([], asked) == ([], [])
        applied = msgspec.structs.replace(asked[1], sample=5000)
        assert journal.append([], [applied]) == ([], [applied])
        assert journal.append([], [applied]) == ([], [])
        assert list(journal.actions()) == [asked[0], applied]
        assert list(journal.actions(kind="limits")) == [applied]
        assert list(journal.actions(since_ns=2 * 10**9)) == [applied]
        assert list(journal.actions(bed="bed-2")) == []


def test_a_shard_is_given_back_limits_all_what_came_after_its_sample_and_what_it_never_confirmed(path: Path) -> None:
    given = {
        "limits of an older epoch": action(1, "limits", epoch="epoch-0", sample=10),
        "before the sample": action(2, sample=100),
        "limits before the sample": action(3, "limits", sample=100),
        "after the sample": action(4, sample=300),
        "another bed": action(5, bed="bed-2", sample=300),
        "another epoch": action(6, epoch="epoch-0", sample=300),
        "never confirmed": action(7),
    }
    with Journal(path) as journal:
        journal.append([], list(given.values()))
        back = journal.actions_after("bed-1", "epoch-1", 200, pending_since_ns=0)
        names = [name for one in back for name, other in given.items() if one == other]
        assert names == ["limits of an older epoch", "limits before the sample", "after the sample", "never confirmed"]
        late = journal.actions_after("bed-1", "epoch-1", 200, pending_since_ns=10 * 10**9)
        assert given["never confirmed"] not in late


def test_how_far_a_session_came_is_committed_with_its_events(path: Path) -> None:
    with Journal(path) as journal:
        journal.append([alert()], until={"s1": 1})
        journal.append([], until={"s1": 5, "s2": 7})
        journal.append([], until={"s1": 3})
    with Journal(path) as journal:
        assert journal.sessions() == {"s1": 5, "s2": 7}


def test_a_locked_journal_refuses_says_so_and_keeps_nothing_of_the_batch(path: Path) -> None:
    with Journal(path) as journal:
        journal.append([alert("before")])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match=r"journal\.sqlite: not written \(database is locked\); free"):
            journal.append([alert("a1")], [action()], {"s": 1})
        other.execute("ROLLBACK")
        other.close()
        assert [event.alert_id for event in journal.query()] == ["before"]
        assert journal.append([alert("a1")])[0] == [alert("a1")]


def test_a_full_disk_refuses_says_so_and_goes_on_once_there_is_room(path: Path) -> None:
    with Journal(path) as journal:
        journal.append([alert("before")])
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages}")
        batch = [alert(f"a{i}", evidence={"text": "x" * 500}) for i in range(200)]
        with pytest.raises(JournalError, match="disk is full"):
            journal.append(batch)
        assert [event.alert_id for event in journal.query()] == ["before"]
        journal._db.execute(f"PRAGMA max_page_count = {pages * 100}")
        assert journal.append(batch)[0] == batch


def test_a_journal_that_was_deleted_while_open_takes_nothing_more_and_says_so(path: Path) -> None:
    with Journal(path) as journal:
        journal.append([alert("a1")])
        path.rename(path.with_suffix(".moved"))
        with pytest.raises(JournalError, match="was moved or deleted while open; put it back"):
            journal.append([alert("a2")])
        path.with_suffix(".moved").rename(path)
        assert journal.append([alert("a2")])[0] == [alert("a2")]


def test_a_journal_of_a_newer_version_is_refused(path: Path) -> None:
    Journal(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    db.close()
    for read_only in (False, True):
        with pytest.raises(JournalError, match=rf"newer version \(schema {SCHEMA + 1}, known here: up to {SCHEMA}\)"):
            Journal(path, read_only=read_only)


def test_what_is_no_journal_is_refused_and_left_alone(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"these are notes, not a database" * 100)
    with pytest.raises(JournalError, match="not a database"):
        Journal(path)
    assert path.read_bytes().startswith(b"these are notes")
    foreign = tmp_path / "foreign.sqlite"
    db = sqlite3.connect(foreign)
    db.execute("CREATE TABLE songs (title TEXT)")
    db.close()
    with pytest.raises(JournalError, match="database of something else"):
        Journal(foreign)
    with pytest.raises(JournalError, match="there is no journal; start a ward first"):
        Journal(tmp_path / "absent.sqlite", read_only=True)
    with pytest.raises(JournalError, match=r"set gateway\.journal to a file"):
        Journal(tmp_path)


def test_a_reader_reads_while_the_gateway_writes_and_cannot_write(path: Path) -> None:
    with Journal(path) as journal, Journal(path, read_only=True) as reader:
        journal.append([alert("a1")])
        assert reader.active() == [alert("a1")]
        journal._db.execute("BEGIN IMMEDIATE")
        assert list(reader.query()) == [alert("a1")]
        journal._db.execute("ROLLBACK")
        with pytest.raises(JournalError, match="readonly"):
            reader.append([alert("a2")])


def test_retention_by_age_spares_what_stands_and_changes_of_limits(path: Path) -> None:
    now_ns = 10 * DAY_NS
    with Journal(path) as journal:
        old = [committed(0, "over"), committed(1, "over", seq=1, state="inactive"), committed(2, "stands")]
        new = [committed(9.5 * 86_400, "new"), committed(9.5 * 86_400, "new", seq=1, state="inactive")]
        journal.append(old + new, [action(1), action(2, "limits")])
        assert journal.retain(86_400, 1e9, now_ns) == 3
        assert journal.retain(86_400, 1e9, now_ns) == 0
        assert list(journal.query()) == [old[2], *new]
        assert journal.active() == [old[2]]
        assert [one.kind for one in journal.actions()] == ["limits"]


def test_retention_by_size_takes_the_oldest_and_gives_the_pages_back(path: Path) -> None:
    with Journal(path) as journal:
        journal.append([committed(0, "stands")])
        for i in range(6):
            journal.append(
                [committed(i, f"a{i}-{k}", state="inactive", evidence={"text": "x" * 400}) for k in range(1000)]
            )
        limit = journal.size_bytes() / 2
        while journal.retain(1e9, limit, 10**9):
            pass
        assert journal.size_bytes() <= limit
        left = list(journal.query())
        assert left[0].alert_id == "stands"
        assert left[-1].alert_id == "a5-999"
        assert 1 < len(left) < 6001
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        assert pages * 4096 <= limit


def test_a_strip_is_kept_once_and_goes_with_its_alert(path: Path) -> None:
    with Journal(path) as journal:
        journal.append([committed(0, "over", state="inactive"), committed(0, "latched", state="latched")])
        for text in ("first", "again"):
            journal.append([], strips=[strip("over", text=text), strip("latched", text=text)], now_ns=1)
        kept = journal.strip("over")
        assert kept is not None and kept.text == "first" and kept.samples().shape == (1, 2000)
        assert journal.strip("other") is None
        assert journal.retain(0.0, 1e9, DAY_NS) == 2, "the event and its strip"
        assert journal.strip("over") is None
        assert journal.strip("latched") is not None


def test_where_the_journal_is_too_large_strips_go_before_their_alerts_and_the_oldest_first(path: Path) -> None:
    noise = random.Random(1).randbytes(40_000)
    with Journal(path) as journal:
        for day in range(300):
            event = committed(day, f"a{day}", state="inactive")
            large = strip(f"a{day}", 20_000, data=memoryview(noise))
            journal.append([event], strips=[large], now_ns=event.stamps.committed)
        while journal.retain(1e9, 5e6, DAY_NS):
            assert journal.size_bytes() < 300 * 45_000
        assert journal.size_bytes() < 5e6
        kept = [journal.strip(f"a{day}") is not None for day in range(300)]
        assert kept == sorted(kept) and any(kept)
        assert len(list(journal.query())) == 300


def test_a_journal_of_the_schema_before_gets_its_strips(path: Path) -> None:
    with Journal(path) as journal:
        journal.append([alert()])
        journal._db.executescript("DROP TABLE strips; PRAGMA user_version = 1")
    with Journal(path, read_only=True) as old:
        assert old.strip("a1") is None
    with Journal(path) as journal:
        journal.append([], strips=[strip("a1")], now_ns=1)
        assert journal.strip("a1") is not None
        assert len(list(journal.query())) == 1


def test_the_history_of_an_alert_is_found_by_the_beginning_of_its_id(path: Path) -> None:
    with Journal(path) as journal:
        journal.append([alert("abc1", 0), alert("abd2", 0), alert("abc1", 1, "latched"), alert("a%c", 0)])
        assert [(e.alert_id, e.seq) for e in journal.history("abc")] == [("abc1", 0), ("abc1", 1)]
        assert {e.alert_id for e in journal.history("ab")} == {"abc1", "abd2"}
        assert [e.alert_id for e in journal.history("a%")] == ["a%c"]


def test_numbers_of_events_are_never_used_twice(path: Path) -> None:
    def newest(journal: Journal) -> int:
        return int(journal._db.execute("SELECT max(number) FROM events").fetchone()[0])

    with Journal(path) as journal:
        journal.append([committed(0, f"a{i}", state="inactive") for i in range(5)])
        last = newest(journal)
        assert journal.retain(0, 1e9, DAY_NS) == 5
        journal.append([alert("next")])
        assert newest(journal) == last + 1


CHILD = """
import sys, itertools
from pathlib import Path
from stream.gateway.journal import Journal
from tests.stream.events import alert, strip
with Journal(Path(sys.argv[1])) as journal:
    print("open", flush=True)
    for n in itertools.count():
        events = [alert(f"{sys.argv[2]}-{n}-{k}", seq=k % 2) for k in range(1 + n % 7)]
        journal.append(events, until={sys.argv[2]: n + 1}, strips=[strip(event.alert_id) for event in events])
        print(" ".join(event.event_id for event in events), flush=True)
"""


def test_what_was_acknowledged_before_kill_9_is_there_once(path: Path) -> None:
    """Twenty-five writers in turn, each killed in the middle of its appends."""
    chance = random.Random(7)
    acknowledged: list[str] = []
    until: dict[str, int] = {}
    for run in range(25):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), f"run{run}"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        told = "".join(child.stdout.readline() for _ in range(chance.randrange(1, 15)))
        time.sleep(chance.uniform(0, 0.003))  # somewhere in the next append or two
        child.send_signal(signal.SIGKILL)
        lines = (told + child.stdout.read()).split("\n")[:-1]  # a line cut short was not acknowledged
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        acknowledged += " ".join(lines).split()
        until[f"run{run}"] = len(lines)
    assert len(acknowledged) > 25
    with Journal(path) as journal:
        found = [event.event_id for event in journal.query()]
        assert len(found) == len(set(found))
        assert set(acknowledged) <= set(found)
        assert len(found) - len(acknowledged) <= 25 * 7  # committed, and killed before it could say so
        assert len(journal.active()) == len(found)
        assert all(journal.strip(event.alert_id) is not None for event in journal.query())
        assert all(journal.sessions().get(run, 0) >= n for run, n in until.items())
        assert journal._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
