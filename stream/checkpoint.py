"""A shard's checkpoint: one small file, replaced in one step, that a killed shard goes on from.

The file is one msgpack map: arrays as extension 1 (dtype, shape, bytes), wire frames as bytes. It is
written beside the old one, flushed to the disk, and put in its place, so there is always a whole one.
"""

import os
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

VERSION = 1
_ARRAY = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be gone on from."""


def save(path: Path, state: dict[str, Any]) -> int:
    """Write `state` (maps, lists, numbers, strings, bytes, arrays) to `path`. The bytes written."""
    data: bytes = msgpack.packb({"version": VERSION, **state}, default=_pack)
    fresh = path.with_suffix(".new")
    with open(fresh, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    return len(data)


def load(path: Path) -> dict[str, Any] | None:
    """The state at `path`; None where there is none.

    Raises CheckpointError where the file is torn or of another version."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        state = msgpack.unpackb(data, ext_hook=_unpack, strict_map_key=False, use_list=True)
        version = state["version"]
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
        raise CheckpointError(f"checkpoint {path}: not readable ({error}); move it away to start afresh") from None
    if version != VERSION:
        raise CheckpointError(f"checkpoint {path}: version {version}, not {VERSION}; move it away to start afresh")
    return dict(state)


def _pack(value: object) -> object:
    if isinstance(value, np.ndarray):
        header = msgpack.packb([value.dtype.str, value.shape])
        return msgpack.ExtType(_ARRAY, header + np.ascontiguousarray(value).tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a checkpoint holds no {type(value).__name__}")


def _unpack(code: int, data: bytes) -> object:
    if code != _ARRAY:
        return msgpack.ExtType(code, data)
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    dtype, shape = unpacker.unpack()
    return np.frombuffer(data, np.dtype(dtype), offset=unpacker.tell()).reshape(shape).copy()
