"""How `run` makes a ward out of sources and a folder. What it does then is in tests/test_command_line.py."""

from pathlib import Path

import pytest

from stream import config
from stream.config import SettingsError
from stream.roles.run import in_folder, with_beds

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
