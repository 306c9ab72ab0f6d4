"""How `run` makes a ward out of sources and a folder, and how it accounts for what was sent. What it does with
processes is in tests/test_command_line.py."""

from pathlib import Path
from typing import Any

import pytest

from stream import config
from stream.config import SettingsError
from stream.gateway.subscriber import Publication
from stream.roles import run
from stream.roles.child import RoleStatus
from stream.roles.run import in_folder, with_beds
from stream.wire import BedStatus, Moment

TWO_SHARDS = {"shards": {"a": {"capacity": 1}, "b": {"bind": "ipc:///tmp/b", "capacity": 3}}}


def test_beds_have_the_names_of_their_records_and_each_its_own() -> None:
    sources = ["/db/mitdb/208", "sim:vf", "/db/mitdb/203", "/other/208"]
    beds = with_beds(config.build({}), sources).beds
    assert {name: bed.source for name, bed in beds.items()} == {
        "208": "/db/mitdb/208", "bed2": "sim:vf", "203": "/db/mitdb/203", "208#2": "/other/208",
    }  # fmt: skip


def test_sources_are_used_again_where_there_are_more_beds_and_cut_off_where_fewer() -> None:
    settings = config.build({})
    assert [bed.source for bed in with_beds(settings, ["sim:vf", "sim:af"], 3).beds.values()] == [
        "sim:vf", "sim:af", "sim:vf",
    ]  # fmt: skip
    assert len(with_beds(settings, ["sim:vf", "sim:af"], 1).beds) == 1


def test_beds_go_to_the_shards_in_turn_while_there_is_room() -> None:
    beds = with_beds(config.build(TWO_SHARDS), ["sim:default"] * 4).beds
    assert [bed.shard for bed in beds.values()] == ["a", "b", "b", "b"]


def test_more_beds_than_places_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"beds: 5 are over the 4 of shards\.\*\.capacity; raise it"):
        with_beds(config.build(TWO_SHARDS), ["sim:default"] * 5)


def test_sources_of_the_command_line_do_not_mix_with_those_of_the_file() -> None:
    settings = config.build({"beds": {"x": {"source": "sim:vf"}}})
    with pytest.raises(SettingsError, match="beds: the configuration names sources; leave out --source"):
        with_beds(settings, ["sim:af"])


def test_all_that_a_ward_writes_can_be_in_one_folder(tmp_path: Path) -> None:
    settings = in_folder(config.build(TWO_SHARDS), tmp_path)
    written = [settings.gateway.journal, settings.supervisor.state_dir]
    written += [shard.state_dir for shard in settings.shards.values()]
    assert all(Path(path).is_relative_to(tmp_path) for path in written)
    assert len(set(written)) == len(written)


class Stub:
    """Supervisor, subscriber and view of a ward in which the producer has sent 1000 samples and ended."""

    def __init__(self, account: Path, counts: dict[str, int], code: int = 0, busy: bool = False) -> None:
        self.account, self.counts, self.code, self.busy = account, counts, code, busy
        self.stop_asked, self.given_up = False, ""
        self.n_told = 0

    def status(self) -> dict[str, RoleStatus]:
        return {"worker": RoleStatus(1, "ready", 0, ""), "producer": RoleStatus(None, "finished", 0, "")}

    def start(self, *names: str) -> None:
        if names == ("producer",):
            self.account.write_text('{"bed1": 1000}')

    def wait_ready(self, *_: object) -> bool:
        return True

    def poll(self, *_: object) -> list[Publication]:
        self.n_told += 1
        counts = self.counts | ({"analysed": self.n_told} if self.busy else {})
        status = BedStatus(
            shard="a", bed="bed1", epoch="e", at=Moment(1000, 250.0), counts=counts, age_ms=0, clock_offset_ms=0,
            clock_drift_ppm=0,
        )  # fmt: skip
        return [Publication(self.n_told, "status", status)]

    def finished(self, name: str) -> bool:
        return True

    def exit_code(self, name: str) -> int:
        return self.code

    def last_line(self, name: str) -> str:
        return "record: cannot be read"

    watched: frozenset[str] = frozenset()

    def watch(self, beds: object) -> None: ...
    def take(self, item: object) -> None: ...
    def finish(self, name: str) -> None: ...
    def refresh(self) -> None: ...


def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, asked: bool = False, **made: Any) -> tuple[bool, str]:
    """Whether the ward fell short, and its closing lines."""
    monkeypatch.setattr(run, "QUIET_S", 0.02)
    monkeypatch.setattr(run, "SETTLE_S", 0.2)
    monkeypatch.setattr(run, "STOPPING_S", 0.2)
    stub: Any = Stub(tmp_path / "sent.json", **made)
    ward = run._Ward(stub, stub, stub, stub.account)
    ward.run(True, None, lambda: asked)
    return ward.fell_short, "\n".join(line for line in ward.closing() if isinstance(line, str))


def test_what_was_sent_is_judged_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short, said = closed(tmp_path, monkeypatch, counts={"delivered": 990, "analysed": 990, "gap": 10})
    assert not short
    assert "samples: 1000 sent, 990 judged, 10 missing, 0 unaccounted" in said
    assert "unjudged" not in said


def test_what_was_taken_in_and_then_lost_is_unaccounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short, said = closed(tmp_path, monkeypatch, counts={"delivered": 1000, "analysed": 900, "gap": 0, "unjudged": 4})
    assert short
    assert "samples: 1000 sent, 900 judged, 0 missing, 100 unaccounted" in said
    assert "bed1: 4 unjudged" in said


def test_a_run_that_never_settles_falls_short_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short, said = closed(tmp_path, monkeypatch, counts={}, busy=True)
    assert short
    assert "not all were judged after 0.2 s" in said


def test_a_run_that_was_stopped_does_not_fall_short_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short, said = closed(tmp_path, monkeypatch, counts={}, busy=True, asked=True)
    assert not short
    assert "stopped with judgements under way" in said


def test_a_producer_that_failed_makes_the_run_fall_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short, said = closed(tmp_path, monkeypatch, counts={"analysed": 1000}, code=1)
    assert short
    assert "producer failed: record: cannot be read" in said
