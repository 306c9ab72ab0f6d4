"""Frames that wait on disk for their turn: a line of them in a file, first in, first out.

The shard's checkpoint says, part by part, from where to where the file is to be read, so a shard that is killed goes on
with what waited then; what was added later comes of the samples that it asks for again. A file is given up once it
has been read to its end, and is deleted when no checkpoint needs it any more.
"""

from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger()

_LENGTH = 4  # bytes that say how long a frame is


class Spill:
    """A line of frames below `folder`. Raises OSError from `put` where the disk takes no more."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = ""
        self._named: dict[int, str] = {}  # the file that the newest checkpoint of each part needs
        self._next_named = ""  # and the one being made
        self._read = self._written = 0
        self._n = 0

    def __len__(self) -> int:
        """Frames that wait."""
        return self._n

    def put(self, frame: bytes) -> None:
        """Let a frame wait behind the others."""
        if not self._name:
            self._folder.mkdir(parents=True, exist_ok=True)
            taken = {int(path.stem.rpartition("-")[2]) for path in self._folder.glob("spill-*.frames")}
            self._name, self._read, self._written = f"spill-{max(taken, default=0) + 1}.frames", 0, 0
            log.warning("alerts_spill", path=str(self.path), mend="see why the gateway does not take them")
        with open(self.path, "r+b" if self.path.exists() else "x+b") as file:
            file.seek(self._written)
            file.truncate()  # of a frame that the disk took in part
            file.write(len(frame).to_bytes(_LENGTH, "big") + frame)
        self._written += _LENGTH + len(frame)
        self._n += 1

    def take(self) -> bytes:
        """The frame whose turn it is. There must be one."""
        with open(self.path, "rb") as file:
            file.seek(self._read)
            frame = file.read(int.from_bytes(file.read(_LENGTH), "big"))
        self._read += _LENGTH + len(frame)
        self._n -= 1
        if not self._n:
            self._name = ""
        return frame

    def state(self) -> list[Any]:
        """What a checkpoint says of it."""
        return [self._name, self._read, self._written, self._n]

    def saving(self) -> None:
        """A checkpoint is made of what is here now."""
        self._next_named = self._name

    def saved(self, part: int = 0) -> None:
        """That checkpoint, of a part of the shard, is on the disk: files that no part needs any more go."""
        self._named[part] = self._next_named
        for path in self._folder.glob("spill-*.frames"):
            if path.name not in (*self._named.values(), self._name):
                path.unlink()

    def restore(self, state: list[Any], part: int = 0) -> list[bytes]:
        """Go on from a `state` of a part of the shard, after those of parts that were saved before it: with all that
        waited by any of them. What is not there as it says is lost, and logged.

        Returns frames that wait no more, for they are in a file before the one that is gone on with."""
        name, read, written, n = state
        if not n:
            return []
        path = self._folder / name
        if not path.is_file() or path.stat().st_size < written:
            log.error("spill_lost", path=str(path), frames=n, mend="none: somebody deleted or cut the file")
            return []
        self._named[part] = name
        if name == self._name:
            read, written = min(read, self._read), max(written, self._written)
            before: list[bytes] = []
        else:
            before = [self.take() for _ in range(self._n)]
        self._name, self._read, self._written = name, read, written
        self._n = self._count()
        return before

    def _count(self) -> int:
        """Frames that are to be read."""
        n, at = 0, self._read
        with open(self.path, "rb") as file:
            while at < self._written:
                file.seek(at)
                at += _LENGTH + int.from_bytes(file.read(_LENGTH), "big")
                n += 1
        return n

    @property
    def path(self) -> Path:
        """The file of those that wait."""
        return self._folder / self._name
