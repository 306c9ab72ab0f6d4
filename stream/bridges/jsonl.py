"""A file of JSON lines: every message as it is on the wire. Because people ask.

A line counts as delivered when it is on the disk; alerts that wait at the same time share one fsync.
A torn last line of a process that was killed is cut off at the next start. The file may be moved away
(logrotate): within a second a new one is begun.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Annotated, ClassVar

from msgspec import Meta

from stream.bridges.bridge import Bridge, BridgeSettings, BusError, Heartbeat, Ward, body, standing_body
from stream.wire import AlertEvent, BeatJudgement, Numeric, Waves, WindowJudgement


class JsonlSettings(BridgeSettings, frozen=True, kw_only=True, tag="jsonl"):
    """`path`: the file, which is appended to."""

    path: Annotated[str, Meta(min_length=1, max_length=1000)]
    heartbeat_s: Annotated[float, Meta(ge=0.5, le=10)] = 10.0

    paths: ClassVar[tuple[str, ...]] = ("path",)


class JsonlBridge(Bridge):
    """See the module."""

    def __init__(self, name: str, settings: JsonlSettings, ward: Ward) -> None:
        self._path, self._ward = Path(settings.path), ward
        self._file: IO[bytes] | None = None
        self._synced: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Raises OSError where the file cannot be written."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "ab+")  # noqa: SIM115
        _cut_torn(self._file)

    async def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._synced = None

    async def alert(self, event: AlertEvent) -> None:
        self._write(body(event))
        if self._synced is None:
            self._synced = asyncio.ensure_future(self._sync())
        await asyncio.shield(self._synced)

    async def heartbeat(self, beat: Heartbeat) -> None:
        self._reopen()
        self._write(standing_body(beat, self._ward))

    async def numeric(self, numeric: Numeric) -> None:
        self._write(body(numeric))

    async def judgement(self, message: BeatJudgement | WindowJudgement) -> None:
        self._write(body(message))

    async def wave(self, waves: Waves) -> None:
        self._write(body(waves))

    async def check(self) -> str:
        if self._path.is_dir():
            raise BusError(f"path: {self._path} is a folder; name a file in it")
        there = next(path for path in (self._path, *self._path.absolute().parents) if path.exists())
        if not os.access(there, os.W_OK) or (there != self._path and not there.is_dir()):
            raise BusError(f"path: {there} is not a folder that can be written to; name another")
        return f"lines go to {self._path}"

    async def tail(self) -> AsyncIterator[str]:
        while not self._path.exists():
            await asyncio.sleep(0.2)
        with open(self._path, encoding="utf-8") as file:
            line = ""
            while True:
                line += file.readline()
                if line.endswith("\n"):
                    yield line.rstrip("\n")
                    line = ""
                else:
                    await asyncio.sleep(0.1)

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        self._file.write(line + b"\n")
        self._file.flush()

    async def _sync(self) -> None:
        """One fsync for all lines written until it begins."""
        await asyncio.sleep(0)
        self._synced = None  # what is written from here on needs the next
        assert self._file is not None
        await asyncio.to_thread(os.fsync, self._file.fileno())

    def _reopen(self) -> None:
        assert self._file is not None
        try:
            same = os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            same = False
        if not same:
            raise OSError(f"{self._path} was moved away; a new one is begun")


def _cut_torn(file: IO[bytes]) -> None:
    """Cut off what follows the last newline."""
    end = file.seek(0, os.SEEK_END)
    tail = b""
    at = end
    while at > 0 and b"\n" not in tail:
        step = min(at, 65_536)
        at -= step
        file.seek(at)
        tail = file.read(step) + tail
    keep = at + tail.rfind(b"\n") + 1
    if keep != end:
        file.truncate(keep)
