"""Checkpoints come back as they were, are replaced whole, and refuse what is torn or foreign."""

import struct
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
    assert checkpoint.load(path) == {"n": 1}
    checkpoint.save(path, {"n": 2})
    assert checkpoint.load(path) == {"n": 2}


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "none") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        msgpack.packb({"version": 4, "more": bytes(100)}),
        struct.pack(">4sHQ", b"WbCp", 99, 1) + b"\x80",
        struct.pack(">4sHQ", b"WbCp", checkpoint.VERSION, 2) + msgpack.packb([1]),
        struct.pack(">4sHQ", b"WbCp", checkpoint.VERSION, 1),
    ],
    ids=["empty", "garbage", "of-before-version-5", "of-another-version", "no-map", "nothing-after-the-header"],
)
def test_what_cannot_be_gone_on_from_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c"
    path.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=r"/c: .*move it away"):
        checkpoint.load(path)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, {"x": np.zeros(1000), "y": np.zeros(3), "z": "z" * 300})
    whole = path.read_bytes()
    assert len(whole) > 8000
    for n in (5, 100, 500, 5000, len(whole) - 1):
        path.write_bytes(whole[:n])
        with pytest.raises(checkpoint.CheckpointError):
            checkpoint.load(path)


def test_many_and_large_arrays_are_written_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    state = {str(i): rng.integers(0, 99, size=(3, 500 + i), dtype=np.int32) for i in range(1500)}
    state["large"] = rng.normal(size=(100, 20_000)).astype(np.float32)
    state["turned"] = state["large"][:, :2000].T
    checkpoint.save(tmp_path / "c", state)
    back = checkpoint.load(tmp_path / "c")
    assert back is not None
    for name, array in state.items():
        np.testing.assert_array_equal(back[name], array)


def finished(scribe: checkpoint.Scribe) -> str:
    deadline = time.monotonic() + 20
    while (said := scribe.done()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return said


def test_a_scribe_saves_the_values_as_they_were_while_its_process_goes_on(tmp_path: Path) -> None:
    small = np.zeros(5)
    state = {"small": small, "list": [1, 2], "large": np.zeros(10_000)}
    scribe = checkpoint.Scribe()
    scribe.begin(tmp_path / "c", state)
    small[:] = 1
    state["list"].append(3)
    assert scribe.busy
    assert finished(scribe) == ""
    back = checkpoint.load(tmp_path / "c")
    assert back is not None
    assert back["small"].tolist() == [0] * 5
    assert back["list"] == [1, 2]
    assert not scribe.busy
    assert scribe.done() is None


def test_a_scribe_says_why_nothing_was_saved_and_saves_again(tmp_path: Path) -> None:
    scribe = checkpoint.Scribe()
    scribe.begin(tmp_path / "not" / "there", {})
    assert finished(scribe) == "No such file or directory"
    (tmp_path / "not").mkdir()
    scribe.begin(tmp_path / "not" / "there", {})
    assert finished(scribe) == ""


def test_a_scribe_that_is_stopped_has_written_what_it_had_begun(tmp_path: Path) -> None:
    scribe = checkpoint.Scribe()
    scribe.begin(tmp_path / "c", {"large": np.ones(1_000_000)})
    scribe.stop()
    assert scribe.done() == ""
    assert not scribe.busy
    back = checkpoint.load(tmp_path / "c")
    assert back is not None
    assert back["large"].sum() == 1_000_000
