"""A gateway and its dashboard in the test's process, and a shard that says what the test wants it to say."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zmq

from stream import wire
from stream.config import (
    BedSettings,
    DashboardSettings,
    GatewaySettings,
    ProducerSettings,
    Settings,
    SupervisorSettings,
    UserSettings,
)
from stream.dashboard.server import Dashboard
from stream.gateway.journal import Journal
from stream.process import bind
from stream.roles.gateway import Gateway
from stream.wire import Moment, Signal

FS = 250.0
LEAD_II = Signal("II", "ecg", "mV", 200.0)
V1 = Signal("V1", "ecg", "mV", 200.0)
Waveform = Callable[[np.ndarray], np.ndarray]  # sample indices, in to mV; NaN where there is no sample


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Station:
    """See the module. `users`: of the dashboard. `sources`: of beds, for a ward that plays them itself; nothing plays
    them here, and nobody is at the control addresses unless a test is. Use it as a context."""

    def __init__(
        self, folder: Path, users: dict[str, UserSettings] | None = None, sources: dict[str, str] | None = None
    ) -> None:
        ports = [f"tcp://127.0.0.1:{free_port()}" for _ in range(5)]
        own = GatewaySettings(bind=ports[0], publish=ports[1], control=ports[2], journal=str(folder / "journal.sqlite"))
        self.port = free_port()
        self.settings = Settings(
            gateway=own,
            dashboard=DashboardSettings(port=self.port, users=users or {}),
            supervisor=SupervisorSettings(control=ports[3]),
            producer=ProducerSettings(control=ports[4]),
            beds={bed: BedSettings(shard="a", source=source) for bed, source in (sources or {}).items()},
        )
        self.url = f"http://127.0.0.1:{self.port}/"
        self.actions: list[wire.Action] = []
        self.watched: tuple[str, ...] = ()
        self._over = threading.Event()
        self._restart = threading.Event()
        self._lock = threading.Lock()
        self._played: dict[str, tuple[Waveform, tuple[Signal, ...], int]] = {}
        self._number = 0
        self._threads: list[threading.Thread] = []
        self._shard: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)

    def __enter__(self) -> "Station":
        self._shard.setsockopt(zmq.ROUTING_ID, b"shard:a")
        self._shard.setsockopt(zmq.LINGER, 0)
        self._shard.connect(self.settings.gateway.bind)
        self._threads = [threading.Thread(target=run) for run in (self._gateway, self._speak)]
        for thread in self._threads:
            thread.start()
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        raise AssertionError("the dashboard did not come up")

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)
        self._shard.close(0)

    def play(self, bed: str, waveform: Waveform, signals: tuple[Signal, ...] = (LEAD_II,)) -> None:
        """From here on the bed sends, live: samples, and each second a numeric and an account."""
        with self._lock:
            self._played[bed] = waveform, signals, 0

    def cut(self, bed: str) -> None:
        """The bed sends nothing any more."""
        with self._lock:
            del self._played[bed]

    def say(self, *messages: wire.AnyMessage) -> None:
        """What the shard says besides."""
        with self._lock:
            self._send(*messages)

    def alert(self, *events: wire.AlertEvent) -> None:
        """Alert events, numbered as a shard's."""
        with self._lock:
            self._send(wire.Alerts(shard="a", session="s", first=self._number, events=events))
            self._number += len(events)

    def restart(self) -> None:
        """The gateway and its dashboard go and come again."""
        self._restart.set()
        while self._restart.is_set():
            time.sleep(0.02)

    def journal(self) -> Journal:
        return Journal(Path(self.settings.gateway.journal), read_only=True)

    def _gateway(self) -> None:
        while not self._over.is_set():
            own = self.settings.gateway
            with (
                Journal(Path(own.journal)) as journal,
                bind(zmq.ROUTER, "a", own.bind) as shards,
                bind(zmq.XPUB, "b", own.publish) as publish,
                bind(zmq.ROUTER, "c", own.control) as control,
            ):
                gateway = Gateway(self.settings, journal, shards, publish, control)
                dashboard = Dashboard(self.settings)
                while not dashboard.start():
                    time.sleep(0.1)
                while not (self._over.is_set() or self._restart.is_set()):
                    gateway.step(20)
                dashboard.stop()
            time.sleep(0.3 if self._restart.is_set() else 0)
            self._restart.clear()

    def _speak(self) -> None:
        due = time.monotonic()
        tick = 0
        while not self._over.is_set():
            with self._lock:
                self._packet(tick % 10 == 0)
                while self._shard.poll(0):
                    for frame in self._shard.recv_multipart():
                        self._hear(wire.decode(frame))
            tick += 1
            due += 0.1
            time.sleep(max(0.0, due - time.monotonic()))

    def _hear(self, message: wire.AnyMessage) -> None:
        if isinstance(message, wire.Action):
            self.actions.append(message)
        elif isinstance(message, wire.Watch):
            self.watched = message.beds

    def _packet(self, second: bool) -> None:
        n = round(FS / 10)
        for bed, (waveform, signals, first) in list(self._played.items()):
            mv = waveform(np.arange(first, first + n))
            digital = np.where(np.isnan(mv), wire.MISSING, np.nan_to_num(mv) * 200).astype("<i2")
            data = np.stack([digital] * len(signals)).data.cast("B")
            self._send(wire.Waves(bed=bed, epoch="epoch-1", first=first, rate=FS, n=n, signals=signals, data=data))
            self._played[bed] = waveform, signals, first + n
            if second:
                at = Moment(first + n, FS)
                self._send(
                    wire.BedStatus(shard="a", bed=bed, epoch="epoch-1", at=at, counts={"received": first // n},
                                   age_ms=90.0, clock_offset_ms=0.0, clock_drift_ppm=0.0),
                    wire.Numeric(bed=bed, epoch="epoch-1", at=at, hr=72.0, pvc_per_min=0.0, rhythm="N", confidence=0.9,
                                 quality=(1.0,)),
                )  # fmt: skip
        if second:
            beds = tuple((bed, "epoch-1", 0) for bed in self._played)
            self._send(wire.Greeting(shard="a", session="s", beds=beds))

    def _send(self, *messages: wire.AnyMessage) -> None:
        self._shard.send_multipart([wire.encode(message) for message in messages], zmq.NOBLOCK)


def sinus(at: np.ndarray) -> np.ndarray:
    """A spike of 1 mV each 0.8 s."""
    return np.where(at % 200 < 8, 1.0, 0.0)
