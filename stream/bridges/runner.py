"""All bridges of a ward, in one thread of the gateway's process: an asyncio loop with a courier for each bus.

The gateway's own loop never waits for it: it hands over references, rings a bell after each commit, and
once a second takes what is told of each bridge.
"""

import asyncio
import contextlib
import contextvars
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from stream.bridges.bridge import Bridge, BridgeSettings, BusError, Ward
from stream.bridges.courier import Account, Courier
from stream.bridges.feed import Feed
from stream.bridges.kinds import bridge_of
from stream.bridges.outbox import Outbox
from stream.wire import AnyMessage

log = structlog.get_logger()

LOOK_S = 0.25
SWITCH_S = 0.0005
SILENT_NS = 10_000_000_000
DRAIN_S = 0.7  # the supervisor gives a role 1.5 s to stop


class Runner:
    """See the module. `bridges`: settings by name. Raises BusError where one cannot be made, JournalError for
    a journal that cannot be used; a bus that is away is no error."""

    def __init__(self, bridges: Mapping[str, BridgeSettings], ward: Ward, journal: Path) -> None:
        self._feed = Feed()
        made: dict[str, Bridge] = {}
        for name, settings in bridges.items():
            try:
                made[name] = bridge_of(name, settings, ward)
            except BusError as error:
                raise BusError(f"bridges.{name}.{error}") from None
        outboxes = {name: Outbox(journal, name) for name in bridges}
        self._couriers = [
            Courier(name, bridge, bridges[name], outboxes[name], self._feed) for name, bridge in made.items()
        ]
        self._outboxes = list(outboxes.values())
        self.wants_waves = any("waves" in settings.classes for settings in bridges.values())
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._alive_ns = time.monotonic_ns()
        context = contextvars.copy_context()  # what every log event of this process carries
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="bridges", daemon=True)

    def start(self) -> None:
        # A thread that comes back from a socket waits so long for one that computes: 5 ms, by default, each time.
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()

    def stop(self) -> None:
        """Deliver what can be delivered at once, take leave of every bus, and end the thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(3 * DRAIN_S)

    def take(self, message: AnyMessage) -> None:
        """What the gateway publishes."""
        self._feed.take(message)

    def wake(self) -> None:
        """Events were committed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ring)

    def accounts(self) -> dict[str, Account]:
        """What is known of each bridge; where the thread itself is stuck or dead, that every bus is down."""
        if time.monotonic_ns() - self._alive_ns > SILENT_NS:
            dead = {"BUS_DOWN": "the bridges have stopped"}
            return {courier.name: courier.account._replace(alarms=dead) for courier in self._couriers}
        return {courier.name: courier.account for courier in self._couriers}

    def _ring(self) -> None:
        for courier in self._couriers:
            courier.wake()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except Exception:
            log.exception("bridges_failed")
        finally:
            for outbox in self._outboxes:
                outbox.close()
            self._loop.close()

    async def _serve(self) -> None:
        tasks = [asyncio.create_task(courier.run(), name=courier.name) for courier in self._couriers]
        while not self._stop.is_set():
            self._look(tasks)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._stop.wait()
        until = self._loop.time() + DRAIN_S
        while self._loop.time() < until and any(c.connected and not c.idle for c in self._couriers):
            await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=DRAIN_S) if tasks else None
        for courier in self._couriers:
            courier.look()
        await asyncio.sleep(0.05)  # sockets that are being closed are closed by the loop
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for left in rest:  # of a client library that was cut short
            left.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _look(self, tasks: list[asyncio.Task[None]]) -> None:
        for courier, task in zip(self._couriers, tasks, strict=True):
            courier.look()
            if task.done() and not task.cancelled():
                log.error("bridge_failed", bridge=courier.name, error=repr(task.exception()))
        if not any(task.done() for task in tasks):
            self._alive_ns = time.monotonic_ns()
