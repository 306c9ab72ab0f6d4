"""A TCP proxy in the test's loop: it cuts the path, slows it down, or swallows what is sent."""

import asyncio
import contextlib


class Proxy:
    """From `port` to `target`, both of 127.0.0.1. `slow_s`: each piece waits so long. `deaf`: nothing passes."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.slow_s = 0.0
        self.deaf = False
        self.n_connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def n_open(self) -> int:
        """Connections that go through now."""
        return len(self._writers) // 2

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.sleep(0.05)

    def cut(self) -> None:
        """End all connections at once, as a pulled cable and a reset would."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        ends = {writer}
        try:
            from_there, there = await asyncio.open_connection("127.0.0.1", self.target)
            ends.add(there)
            self._writers |= ends
            await asyncio.gather(self._pump(reader, there), self._pump(from_there, writer))
        except OSError:
            pass
        finally:  # also where the loop ends first
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self.slow_s:
                    await asyncio.sleep(self.slow_s)
                while self.deaf:
                    await asyncio.sleep(0.02)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
