"""Checkpoints come back as they were, are replaced whole, and refuse what is torn or foreign."""

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
