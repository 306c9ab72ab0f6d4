"""A shard's checkpoint: one small file, replaced in one step, that a killed shard goes on from.

The file is one msgpack map: arrays as extension 1 (dtype, shape, bytes), wire frames as bytes. It is
written beside the old one, flushed to the disk, and put in its place, so there is always a whole one.

Packing the state of a thousand beds takes half a second and more, in which no judgement would go out. So a
`Scribe` does it in a child process, which has the memory as it was at the fork and shares it until one of
the two writes to it (as Redis does; copy-on-write).
"""

import gc
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from stream.process import die_with

VERSION = 4
NAME = "checkpoint.msgpack"  # of its file, in the shard's folder
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


class Scribe:
    """Saves to `path`, one at a time, while the process goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid = 0

    @property
    def busy(self) -> bool:
        """Whether a save is under way."""
        return self._pid != 0

    def begin(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save what `state` gives, as of now. Raises OSError where there can be no child."""
        assert not self.busy
        parent = os.getpid()
        with warnings.catch_warnings():  # of threads, in Python 3.12: those of ZeroMQ run no Python
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid:
            return
        code = 1
        try:  # the child: it touches no socket and no log, and ends without cleaning up what is its parent's
            die_with(parent)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            gc.disable()
            os.nice(10)  # judgements of now go before a state of a moment ago
            save(self._path, state())
            code = 0
        except OSError as error:
            code = error.errno or 1
        finally:
            os._exit(code)

    def done(self) -> str | None:
        """Empty once the save is on disk, else why it failed; None while it is under way, or none is."""
        if not self._pid:
            return None
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            return None
        self._pid = 0
        code = os.waitstatus_to_exitcode(status)
        return "" if code == 0 else os.strerror(code) if code > 0 else f"killed by signal {-code}"

    def stop(self) -> None:
        """Give up what is under way; the file that is there stays."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0


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
