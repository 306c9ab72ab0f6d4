"""A shard's checkpoint: small files, each replaced in one step, that a killed shard goes on from.

Each holds a part of the beds, of one moment, and they are saved in turn. So there is never long to wait for one, and
what cannot be read costs some of the beds.

A file is a header (magic, version, length of what follows), one msgpack map of the plain values, and the bytes of the
large arrays, which the map names by extension 1 (dtype, shape, where). It is written beside the old one, flushed to the
disk, and put in its place, so there is always a whole one.

It is taken between two rounds, by the thread that judges, for it must be of one moment. So that is kept short: plain
values are packed at once, arrays are the state's own copies, and a `Scribe` writes it in a thread, by calls that run
without the interpreter. (Once all was written by a child process that had the memory as of its fork. Copying each page
that was touched meanwhile held up the thread that judges, and the child took a processor from the other roles.)
"""

import os
import struct
import threading
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

VERSION = 7
LARGE = 4096  # bytes from which an array is not packed but written beside the map
_ARRAY = 1
_HEADER = struct.Struct(">4sHQ")  # magic, version, bytes of the map
_MAGIC = b"WbCp"
_AT_ONCE = 512  # buffers in one call, below any system's limit

Parts = list[bytes | memoryview]


class CheckpointError(ValueError):
    """A checkpoint that cannot be gone on from."""


def path_of(folder: Path, part: int) -> Path:
    """The file of a part, in a shard's folder."""
    return folder / f"checkpoint-{part}.msgpack"


def paths(folder: Path) -> list[Path]:
    """The files that are there, of builds before this one too."""
    return sorted(folder.glob("checkpoint*.msgpack"))


def take(state: dict[str, Any]) -> Parts:
    """The file of `state` (maps, lists, numbers, strings, bytes, arrays), to be written later: what is changed now is
    not in it, but for arrays of LARGE bytes or more, which must be the state's own."""
    large: list[memoryview] = []
    packed: bytes = msgpack.packb(state, default=partial(_pack, large, [0]))
    return [_HEADER.pack(_MAGIC, VERSION, len(packed)) + packed, *large]


def write(path: Path, parts: Parts, named: Path | None = None) -> None:
    """Write what `take` gave in place of the file at `path`; `named`: a file that it goes with, flushed before it."""
    if named is not None:
        with open(named, "rb") as file:
            os.fsync(file.fileno())
    fresh = path.with_suffix(".new")
    with open(fresh, "wb", buffering=0) as file:
        waiting = [memoryview(part) for part in parts]
        while waiting:
            n = os.writev(file.fileno(), waiting[:_AT_ONCE])
            while waiting and n >= waiting[0].nbytes:
                n -= waiting.pop(0).nbytes
            if n:
                waiting[0] = waiting[0][n:]
        os.fsync(file.fileno())
    os.replace(fresh, path)


def save(path: Path, state: dict[str, Any], named: Path | None = None) -> None:
    """Take the checkpoint of `state` and write it, at once."""
    write(path, take(state), named)


def load(path: Path) -> dict[str, Any] | None:
    """The state at `path`; None where there is none.

    Raises CheckpointError where the file is torn or of another version."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        magic, version, n = _HEADER.unpack_from(data)
        if magic == _MAGIC and version == VERSION:
            large = memoryview(data)[_HEADER.size + n :]
            packed = memoryview(data)[_HEADER.size : _HEADER.size + n]
            hook = partial(_unpack, large)
            return dict(msgpack.unpackb(packed, ext_hook=hook, strict_map_key=False, use_list=True))
    except (ValueError, KeyError, TypeError, struct.error, msgpack.UnpackException) as error:
        raise CheckpointError(f"checkpoint {path}: not readable ({error}); move it away to start afresh") from None
    raise CheckpointError(f"checkpoint {path}: not one of version {VERSION}; move it away to start afresh")


class Scribe:
    """Saves one at a time, while the process goes on."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error = ""

    @property
    def busy(self) -> bool:
        """Whether a save is under way, or done and not asked after."""
        return self._thread is not None

    def begin(self, path: Path, state: dict[str, Any], named: Path | None = None) -> None:
        """Save `state` to `path` as it is now, but for its large arrays, which are to be left alone."""
        assert not self.busy
        self._error = "not written"
        self._thread = threading.Thread(target=self._write, args=(path, take(state), named), name="checkpoint")
        self._thread.start()

    def done(self) -> str | None:
        """Empty once the save is on disk, else why it failed; None while it is under way, or none is."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        return self._error

    def stop(self) -> None:
        """Wait for what is under way; `done` tells what came of it."""
        if self._thread is not None:
            self._thread.join()

    def _write(self, path: Path, parts: Parts, named: Path | None) -> None:
        try:
            write(path, parts, named)
            self._error = ""
        except Exception as error:  # of any kind: what is not on disk must not pass for saved
            self._error = getattr(error, "strerror", None) or repr(error)


def _pack(large: list[memoryview], at: list[int], value: object) -> object:
    """What msgpack has no form for; `at`: bytes of the large arrays so far."""
    if isinstance(value, np.ndarray):
        if value.nbytes < LARGE:
            return msgpack.ExtType(_ARRAY, msgpack.packb([value.dtype.str, value.shape, value.tobytes()]))
        large.append(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        place = at[0]
        at[0] += value.nbytes
        return msgpack.ExtType(_ARRAY, msgpack.packb([value.dtype.str, value.shape, place]))
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a checkpoint holds no {type(value).__name__}")


def _unpack(large: memoryview, code: int, data: bytes) -> object:
    if code != _ARRAY:
        return msgpack.ExtType(code, data)
    dtype, shape, what = msgpack.unpackb(data)
    return np.ndarray(shape, np.dtype(dtype), large[what:] if isinstance(what, int) else what).copy()
