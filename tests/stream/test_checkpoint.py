"""Checkpoints come back as they were, are replaced whole, and refuse what is torn or foreign."""

import os
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest

from stream import checkpoint


def test_arrays_and_plain_values_come_back_as_they_were(tmp_path: Path) -> None:
    state = {
        "x": np.arange(12, dtype=np.float32).reshape(3, 4),
        "none": np.zeros((0, 5), np.int64),
        "deep": {"list": [1, "two", b"three", None, True, 2.5], "flag": np.array([True, False])},
        "by_id": {7: [1], 8: [2]},
    }
    checkpoint.save(tmp_path / "c", state)
    back = checkpoint.load(tmp_path / "c")
    assert back is not None
    np.testing.assert_array_equal(back["x"], state["x"])
    assert back["none"].shape == (0, 5)
    assert back["none"].dtype == np.int64
    assert back["deep"]["list"] == [1, "two", b"three", None, True, 2.5]
    assert back["by_id"] == {7: [1], 8: [2]}
    back["x"][0] = 5  # writable: state is gone on from, not only looked at


def test_there_is_always_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, {"n": 1})
    path.with_suffix(".new").write_bytes(b"a write that a crash cut off")
    assert checkpoint.load(path) == {"version": checkpoint.VERSION, "n": 1}
    checkpoint.save(path, {"n": 2})
    assert checkpoint.load(path) == {"version": checkpoint.VERSION, "n": 2}


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "none") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", msgpack.packb([1]), msgpack.packb({"version": 99}), msgpack.packb({"n": 1})],
    ids=["empty", "garbage", "no-map", "of-another-version", "without-a-version"],
)
def test_what_cannot_be_gone_on_from_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c"
    path.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=r"/c: .*move it away"):
        checkpoint.load(path)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, {"x": np.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(checkpoint.CheckpointError):
        checkpoint.load(path)


def finished(scribe: checkpoint.Scribe) -> str:
    deadline = time.monotonic() + 20
    while (said := scribe.done()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return said


def test_a_scribe_saves_the_state_as_it_was_while_its_process_goes_on(tmp_path: Path) -> None:
    state = {"x": np.zeros(5)}
    scribe = checkpoint.Scribe(tmp_path / "c")
    scribe.begin(lambda: (time.sleep(0.2), state)[1])
    state["x"][:] = 1
    assert scribe.busy
    assert finished(scribe) == ""
    back = checkpoint.load(tmp_path / "c")
    assert back is not None
    assert back["x"].tolist() == [0] * 5
    assert not scribe.busy
    assert scribe.done() is None


def test_a_scribe_says_why_nothing_was_saved_and_saves_again(tmp_path: Path) -> None:
    scribe = checkpoint.Scribe(tmp_path / "not" / "there")
    scribe.begin(dict)
    assert finished(scribe) == "No such file or directory"
    (tmp_path / "not").mkdir()
    scribe.begin(dict)
    assert finished(scribe) == ""


def test_a_scribe_that_is_stopped_leaves_the_old_file_and_no_process(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, {"n": 1})
    scribe = checkpoint.Scribe(path)
    scribe.begin(lambda: {"n": time.sleep(60)})
    child = scribe._pid
    scribe.stop()
    assert checkpoint.load(path) == {"version": checkpoint.VERSION, "n": 1}
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
