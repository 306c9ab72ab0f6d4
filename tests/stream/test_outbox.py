"""The outbox: nothing is lost and memory is bounded, whoever is away and whenever the shard is killed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import checkpoint
from stream.outbox import ALERTS_TIMES, EVENT_BYTES, MAX_BYTES_AT_ONCE, Outbox
from stream.wire import Alerts, Committed, Strip
from tests.stream.events import alert, strip

MEMORY = 20 * EVENT_BYTES


def ids(outbox: Outbox) -> list[str]:
    """What goes out when the gateway takes all that it is sent."""
    taken: list[str] = []
    while messages := outbox.unsent():
        for message in messages:
            taken += [getattr(item, "event_id", "") or getattr(item, "id", "") for item in message.events]
            outbox.committed(Committed(session=outbox.session, until=message.first + len(message.events)))
    return taken


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_comes_is_kept_in_order_and_committed_once_over_kills_and_absences(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A shard adds numbered events, is killed and goes on from its last checkpoint by adding again what came since;
    the gateway is there or is not, and knows events by id."""
    folder = tmp_path_factory.mktemp("outbox")
    outbox, saved, added, session = Outbox("a", "s", folder, MEMORY), None, 0, 0
    committed: list[str] = []
    saved_added = 0
    for step in data.draw(st.lists(st.sampled_from(["add", "many", "gateway", "checkpoint", "kill"]), max_size=30)):
        if step in ("add", "many"):
            n = 1 if step == "add" else 100
            outbox.add(alert(f"a{i}") for i in range(added, added + n))
            added += n
        elif step == "gateway":
            for message in outbox.unsent()[: data.draw(st.integers(1, 3))]:
                committed += [event.event_id for event in message.events]
                outbox.committed(Committed(session=outbox.session, until=message.first + len(message.events)))
            outbox.send_again()
        elif step == "checkpoint":
            outbox.saving()
            checkpoint.save(folder / "c", {"outbox": outbox.state()})
            if data.draw(st.booleans(), "killed right after it was written, else"):
                outbox.saved()
            saved, saved_added = folder / "c", added
        else:
            session += 1
            outbox = Outbox("a", f"s{session}", folder, MEMORY)
            state = checkpoint.load(saved) if saved else None
            if state is not None:
                outbox.restore(state["outbox"])
            outbox.add(alert(f"a{i}") for i in range(saved_added, added))
        assert len(outbox._items) <= ALERTS_TIMES * MEMORY // EVENT_BYTES, "memory is bounded"
    committed += ids(outbox)
    assert list(dict.fromkeys(committed)) == [f"a{i}.0" for i in range(added)]
    assert len(outbox) == 0


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_shard_saved_in_parts_loses_no_alert_and_tells_each_beds_in_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Three beds in three parts that are saved in turn; each bed adds again what came after its own part was saved."""
    folder = tmp_path_factory.mktemp("outbox")
    outbox, session = Outbox("a", "s", folder, MEMORY), 0
    added, saved_added, turn = [0, 0, 0], [0, 0, 0], 0
    arrived: list[str] = []

    def take(messages: list[Alerts]) -> None:
        for message in messages:
            arrived.extend(event.event_id for event in message.events)
            outbox.committed(Committed(session=outbox.session, until=message.first + len(message.events)))

    def kill() -> Outbox:
        again = Outbox("a", f"s{session}", folder, MEMORY)
        states = {int(path.stem[-1]): checkpoint.load(path) or {} for path in checkpoint.paths(folder)}
        for part, state in sorted(states.items(), key=lambda item: item[1]["number"]):
            again.restore(state["outbox"], part)
        for bed in range(3):
            again.add(alert(f"b{bed}-{i}", bed=f"b{bed}") for i in range(saved_added[bed], added[bed]))
        return again

    steps = st.sampled_from(["add", "many", "some", "all", "save", "save", "kill"])
    for step in [*data.draw(st.lists(steps, max_size=40)), "kill"]:
        killed = step == "kill"
        if step in ("add", "many"):
            bed, n = data.draw(st.integers(0, 2)), 1 if step == "add" else 100
            outbox.add(alert(f"b{bed}-{i}", bed=f"b{bed}") for i in range(added[bed], added[bed] + n))
            added[bed] += n
        elif step == "some":
            take(outbox.unsent()[:1])
            outbox.send_again()
        elif step == "all":
            while messages := outbox.unsent():
                take(messages)
        elif step == "save":
            part, turn = turn % 3, turn + 1
            outbox.saving()
            state = {"number": turn, "outbox": outbox.state(lambda bed, part=part: bed == f"b{part}")}
            checkpoint.save(checkpoint.path_of(folder, part), state, outbox.spill_path)
            saved_added[part] = added[part]
            killed = data.draw(st.booleans(), "killed right after it was written")
            if not killed:
                outbox.saved(part)
        if killed:
            session += 1
            outbox = kill()
    while messages := outbox.unsent():
        take(messages)
    once = list(dict.fromkeys(arrived))
    for bed in range(3):
        assert [name for name in once if name.startswith(f"b{bed}-")] == [f"b{bed}-{i}.0" for i in range(added[bed])]
    assert len(outbox) == 0


def test_hours_without_a_gateway_wait_on_disk_and_the_files_go_when_they_are_read(tmp_path: Path) -> None:
    outbox = Outbox("a", "s", tmp_path, MEMORY)
    for i in range(3000):
        outbox.add([alert(f"a{i}")])
        outbox.unsent()
        if i % 500 == 0:
            outbox.send_again()
            assert len(outbox.unsent()) == 1, "to a gateway that may be away goes one message"
            outbox.saving()
            outbox.saved()
    assert (len(outbox), len(outbox._items)) == (3000, 20 * ALERTS_TIMES)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3000 * EVENT_BYTES
    outbox.send_again()
    assert ids(outbox) == [f"a{i}.0" for i in range(3000)]
    outbox.saving()
    assert list(tmp_path.iterdir()), "the checkpoint before needs it"
    outbox.saved()
    assert not list(tmp_path.iterdir()), "a checkpoint later nothing is left"


def test_strips_that_wait_on_disk_do_not_keep_alerts_from_being_shown(tmp_path: Path) -> None:
    """A gateway that cannot write its journal shows what it is sent: an alert must not wait behind old strips."""
    outbox = Outbox("a", "s", tmp_path, MEMORY)
    outbox.add(strip(f"s{i}") for i in range(100))
    assert outbox.n_spilled
    outbox.add([alert("late"), strip("last")])
    sent = [item for message in outbox.unsent() for item in message.events]
    assert "late.0" in [getattr(item, "event_id", "") for item in sent]
    outbox.saving()
    again = Outbox("a", "s", tmp_path, MEMORY)
    again.restore(outbox.state())
    again.add([alert("later")])
    assert again._items[-1] == alert("later")
    for one in (outbox, again):
        one.send_again()
        got = ids(one)
        assert [name for name in got if name.startswith("s") or name == "last"] == [f"s{i}" for i in range(100)] + [
            "last"
        ]
        assert [name for name in got if name.startswith("late")] == ["late.0", "later.0"][: 1 + (one is again)]


def test_a_checkpoint_finds_what_it_names_though_all_was_sent_since(tmp_path: Path) -> None:
    outbox = Outbox("a", "s", tmp_path, MEMORY)
    outbox.add(alert(f"a{i}") for i in range(100))
    outbox.saving()
    state = outbox.state()
    outbox.saved()
    ids(outbox)
    again = Outbox("a", "s", tmp_path, MEMORY)
    again.restore(state)
    assert ids(again) == [f"a{i}.0" for i in range(100)]


def test_a_message_of_strips_stays_far_below_the_wires_limit() -> None:
    outbox = Outbox("a", "s")
    outbox.add(strip(f"s{i}", 40_000) for i in range(60))
    messages = outbox.unsent()
    assert sum(len(message.events) for message in messages) == 60
    assert (
        max(sum(item.data.nbytes for item in message.events if isinstance(item, Strip)) for message in messages)
        <= MAX_BYTES_AT_ONCE
    )


def test_an_alert_is_kept_in_memory_where_the_disk_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox("a", "s", tmp_path / "a file", MEMORY)
    (tmp_path / "a file").write_text("no folder")
    outbox.add(alert(f"a{i}") for i in range(50))
    assert ids(outbox) == [f"a{i}.0" for i in range(50)]
