"""The gateway's process is killed at random moments, with a bridge to each kind of bus."""

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from stream import wire
from stream.config import GatewaySettings, Settings, WardSettings, save
from stream.process import connect
from tests.stream.bridges.buses import BUSES, UNIT, Amqp, Bus, Fhir, Hl7, Jsonl, Mqtt, Nats, need_brokers
from tests.stream.bridges.ward import life, verdict

ROOT = Path(__file__).resolve().parents[3]
N_KILLS = 5
MOST_WAITING = 30  # a slow machine is given no more work for being slow
N_BEDS = 6


class Shard:
    """Hands alerts to the gateway as a shard does: again and again until they are committed."""

    def __init__(self, address: str) -> None:
        self.socket = connect(address)
        self.events: list[wire.AlertEvent] = []
        self.until = 0
        self._sent_at = 0.0

    def turn(self) -> None:
        while self.socket.poll(0):
            for frame in self.socket.recv_multipart():
                message = wire.decode(frame)
                if isinstance(message, wire.Committed):
                    self.until = max(self.until, message.until)
        waiting = tuple(self.events[self.until : self.until + 200])
        if waiting and time.monotonic() - self._sent_at > 0.05:
            self._sent_at = time.monotonic()
            message = wire.Alerts(shard="a", session="s1", first=self.until, events=waiting)
            with contextlib.suppress(zmq.Again):
                self.socket.send(wire.encode(message), zmq.NOBLOCK)


@pytest.mark.brokers
# A server of the test learns late that the gateway at the other end was killed: the collector closes its sockets.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_gateway_that_is_killed_loses_no_alert_and_changes_no_order_on_any_bus(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    need_brokers()
    chance = random.Random(3)
    own = GatewaySettings(
        bind=f"tcp://127.0.0.1:{free_port()}",
        publish=f"tcp://127.0.0.1:{free_port()}",
        control=f"tcp://127.0.0.1:{free_port()}",
        journal=str(tmp_path / "journal.sqlite"),
    )
    buses: list[Bus] = []
    for kind in (Mqtt, Nats, Amqp, Hl7, Fhir, Jsonl):
        folder = tmp_path / kind.kind
        folder.mkdir()
        buses.append(kind(folder, free_port))
    assert {type(bus) for bus in buses} == set(BUSES)

    async def play() -> list[wire.AlertEvent]:
        for bus in buses:
            await bus.start()
        settings = Settings(
            ward=WardSettings(unit=UNIT), gateway=own, bridges={bus.kind: bus.settings(timeout_s=3.0) for bus in buses}
        )
        save(settings, tmp_path / "settings.json")
        shard = Shard(own.bind)
        lives = {f"bed-{i}": [e for n in range(N_KILLS * 4) for e in life(f"bed-{i}", n)] for i in range(N_BEDS)}

        async def turn(seconds: float, done: Callable[[], bool] = lambda: False, *, write: bool = True) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end and not done():
                if write and any(lives.values()) and len(shard.events) - shard.until < MOST_WAITING:
                    bed = chance.choice([bed for bed, rest in lives.items() if rest])
                    shard.events.append(lives[bed].pop(0))
                shard.turn()
                await asyncio.sleep(0.02)

        def gateway() -> subprocess.Popen[bytes]:
            log = open(tmp_path / "gateway.log", "ab")  # noqa: SIM115
            command = [sys.executable, str(ROOT / "run_pipeline.py"), "gateway", "-c", str(tmp_path / "settings.json")]
            with log:
                return subprocess.Popen(command, stdout=log, stderr=log)

        for _ in range(N_KILLS):
            process = gateway()
            before = shard.until
            await turn(60, lambda before=before: shard.until > before)  # type: ignore[misc]
            await turn(chance.uniform(0.0, 0.8))
            process.send_signal(signal.SIGKILL)
            process.wait()
        process = gateway()

        def arrived() -> bool:
            ids = {event.event_id for event in shard.events}
            return all(ids <= {one.event_id for one in bus.got} for bus in buses)

        for _ in range(100):
            await turn(0.6, write=False)
            if shard.until == len(shard.events) and arrived():
                break
        await asyncio.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        shard.socket.close(0)
        for bus in buses:
            await bus.stop()
        return shard.events

    sent = asyncio.run(play())
    assert len(sent) > 50
    for bus in buses:
        got = [one for one in bus.got if one.bed.startswith("bed-")]
        result = verdict(sent, got)
        print(f"{bus.kind}: {len(sent)} sent, {N_KILLS} kills, {result}")
        assert result[:2] == (0, 0), bus.kind
        assert result.ghosts == 0, bus.kind
