"""Each bus as a test sees it: a broker or receiver of the test's own, and a consumer that writes down what arrives.

All have the same handles, so one test runs on every bus: `settings`, `start`, `stop`, `kill`, `restart`, `got`
and `standing` (what a consumer that comes now is told to be active).
"""

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import hl7
import hl7.mllp
import pytest

from stream.bridges.amqp import AmqpSettings
from stream.bridges.bridge import BridgeSettings
from stream.bridges.fhir import FhirSettings
from stream.bridges.hl7 import Hl7Settings
from stream.bridges.jsonl import JsonlSettings
from stream.bridges.mqtt import MqttSettings
from stream.bridges.nats import NatsSettings
from tests.stream.bridges.proxy import Proxy

QUICK: dict[str, Any] = {"backoff_s": 0.02, "backoff_cap_s": 0.2, "timeout_s": 3.0, "heartbeat_s": 0.5}
UNIT = "unit-7"


class Got(NamedTuple):
    """An alert event as it arrived."""

    event_id: str
    alert_id: str
    bed: str
    phase: str
    state: str
    at_ns: int

    @property
    def told_again(self) -> bool:
        return re.search(r"\.c[0-9a-f]+$", self.event_id) is not None


class Bus:
    """What the buses share. `port`: gives free ports; the bridge speaks to `proxy`, the consumer to the broker."""

    kind = ""
    survives = True  # what the broker has taken is on its disk soon: slow, and what a test of kills needs
    n_kills = 10

    def __init__(self, folder: Path, port: Callable[[], int]) -> None:
        self.folder, self.port = folder, port()
        self.proxy = Proxy(port(), self.port)
        self.got: list[Got] = []
        self.texts: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def settings(self, **changes: Any) -> BridgeSettings:
        raise NotImplementedError

    async def start(self) -> None:
        await self.proxy.start()
        await self.restart()
        await self.begin_to_consume()

    async def begin_to_consume(self) -> None:
        self.tasks.append(asyncio.create_task(self.consume()))

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.proxy.stop()
        await self.kill()
        await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """End the broker at once, without a word."""

    async def restart(self) -> None:
        """Start it (again), with what it had on its disk."""

    @property
    def n_links(self) -> int:
        """Connections that the bridge has to the broker now."""
        return self.proxy.n_open

    def n_connects(self, counts: Mapping[str, int]) -> int:
        """How often the bridge has connected, by its own account."""
        return counts.get("connects", 0)

    async def consume(self) -> None:
        """Write down what arrives, through restarts of the broker."""

    async def standing(self) -> set[str]:
        """Ids of the alerts that a consumer is told to be active which comes now."""
        raise NotImplementedError

    def took(self, event: dict[str, Any]) -> None:
        names = ("event_id", "alert_id", "bed", "phase", "state")
        self.got.append(Got(*(event[name] for name in names), time.time_ns()))


class Process(Bus):
    """A broker that is a process of the test's own."""

    process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    async def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    async def restart(self) -> None:
        with open(self.folder / "broker.log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            await asyncio.sleep(0.02)
        raise AssertionError((self.folder / "broker.log").read_text())


class Mqtt(Process):
    kind = "mqtt"
    extra = ""

    async def begin_to_consume(self) -> None:
        """Until it has subscribed: the broker keeps nothing for a consumer that it has never seen."""
        self.subscribed = asyncio.Event()
        await super().begin_to_consume()
        await asyncio.wait_for(self.subscribed.wait(), 30)

    def command(self) -> list[str]:
        path = self.folder / "mosquitto.conf"
        path.write_text(
            f"listener {self.port} 127.0.0.1\npersistence true\npersistence_location {self.folder}/\n"
            f"autosave_interval {1 if self.survives else 10_000_000}\nautosave_on_changes true\n"
            f"max_queued_messages 0\nmax_inflight_messages 1000\nuser root\n"
            f"{self.extra or 'allow_anonymous true'}\n"
        )
        return [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(path)]

    def settings(self, **changes: Any) -> BridgeSettings:
        return MqttSettings(url=f"mqtt://127.0.0.1:{self.proxy.port}", **(QUICK | changes))

    def client(self, name: str, clean: bool) -> Any:
        import aiomqtt
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        keep = Properties(PacketTypes.CONNECT)
        keep.SessionExpiryInterval = 600
        five = aiomqtt.ProtocolVersion.V5
        return aiomqtt.Client(
            "127.0.0.1", self.port, identifier=name, protocol=five, clean_start=clean, properties=keep, timeout=5
        )

    async def consume(self) -> None:
        import aiomqtt

        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with self.client("consumer", False) as client:
                    await client.subscribe("ecg/#", qos=1)
                    self.subscribed.set()
                    async for message in client.messages:
                        self.texts.append(f"{message.topic} {message.payload.decode()}")
                        if str(message.topic).endswith("/event"):
                            self.took(json.loads(message.payload))
            await asyncio.sleep(0.05)

    async def standing(self) -> set[str]:
        found = set()
        async with self.client(f"late-{secrets.token_hex(4)}", True) as client:
            await client.subscribe(f"ecg/{UNIT}/+/alert/+", qos=1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    async for message in client.messages:
                        found.add(json.loads(message.payload)["alert_id"])
        return found


class Nats(Process):
    kind = "nats"

    def command(self) -> list[str]:
        server = shutil.which("nats-server") or "/usr/sbin/nats-server"
        return [server, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "jetstream")]

    def settings(self, **changes: Any) -> BridgeSettings:
        return NatsSettings(url=f"nats://127.0.0.1:{self.proxy.port}", **(QUICK | changes))

    async def connect(self) -> Any:
        import nats

        async def quiet(error: Exception) -> None:
            pass

        return await nats.connect(
            f"nats://127.0.0.1:{self.port}", reconnect_time_wait=0.1, max_reconnect_attempts=-1, error_cb=quiet
        )

    async def consume(self) -> None:
        import nats.errors
        import nats.js.errors

        client = await self.connect()
        try:
            js = client.jetstream()
            subscription = None
            while subscription is None:
                with contextlib.suppress(nats.js.errors.NotFoundError, nats.errors.Error, TimeoutError):
                    subscription = await js.pull_subscribe("ward.*.bed.*.alert", durable="consumer", stream="WARD")
                    break
                await asyncio.sleep(0.05)
            while True:
                try:
                    for message in await subscription.fetch(100, timeout=0.5):
                        self.took(json.loads(message.data))
                        await message.ack()
                except (nats.errors.Error, nats.js.errors.Error, TimeoutError, ConnectionError):
                    await asyncio.sleep(0.02)
        finally:
            await client.close()

    async def standing(self) -> set[str]:
        import nats.errors
        from nats.js.api import ConsumerConfig, DeliverPolicy

        client = await self.connect()
        late = await client.jetstream().subscribe(
            f"ward.{UNIT}.bed.*.standing.*",
            stream="WARD-standing",
            config=ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT),
        )
        found = set()
        with contextlib.suppress(nats.errors.TimeoutError):
            while True:
                found.add(json.loads((await late.next_msg(timeout=0.4)).data)["alert_id"])
        await client.close()
        return found


class Amqp(Bus):
    """The machine's RabbitMQ, through the proxy, with an exchange of the test's own. It takes ten seconds to start,
    so here a broker that is killed is a path that is cut and refused."""

    kind = "amqp"
    exchange = ""

    def __init__(self, folder: Path, port: Callable[[], int]) -> None:
        super().__init__(folder, port)
        self.port = self.proxy.target = 5672
        self.url = "amqp://guest:guest@127.0.0.1:5672/"
        self.exchange = f"ward-test-{secrets.token_hex(4)}"
        self.beats: list[dict[str, Any]] = []
        self.consuming = asyncio.Event()

    def settings(self, **changes: Any) -> BridgeSettings:
        return AmqpSettings(url=f"amqp://127.0.0.1:{self.proxy.port}", exchange=self.exchange, **(QUICK | changes))

    async def kill(self) -> None:
        self.proxy.target = 1  # nobody listens there
        self.proxy.cut()

    async def restart(self) -> None:
        self.proxy.target = 5672

    async def consume(self) -> None:
        """Again and again: RabbitMQ 3.10 ends, with an error of its own, the connection of one who consumes from a
        quorum queue in the moment in which another, here the bridge, declares it."""
        import aio_pika

        while True:
            try:
                await self._consume_once()
            except (OSError, aio_pika.exceptions.AMQPError) as fault:
                print(f"the consumer lost RabbitMQ: {fault!r}")  # shown where the test fails
            await asyncio.sleep(0.2)

    async def _consume_once(self) -> None:
        import aio_pika

        connection = await aio_pika.connect(self.url)
        async with connection:
            channel = await connection.channel()
            await channel.set_qos(200)
            exchange = await channel.declare_exchange(self.exchange, aio_pika.ExchangeType.TOPIC, durable=True)
            beats = await channel.declare_queue(exclusive=True)
            await beats.bind(exchange, "ward.*.heartbeat")

            async def beat(message: Any) -> None:
                self.beats.append(json.loads(message.body))

            await beats.consume(beat, no_ack=True)
            queue = await channel.declare_queue(
                f"{self.exchange}.alerts",
                durable=True,
                arguments={"x-queue-type": "quorum", "x-dead-letter-exchange": f"{self.exchange}.dead"},
            )
            async with queue.iterator() as messages:
                self.consuming.set()
                async for message in messages:
                    self.took(json.loads(message.body))
                    await message.ack()

    async def standing(self) -> set[str]:
        n = len(self.beats)
        while len(self.beats) < n + 2:  # the next that is made from now on
            await asyncio.sleep(0.02)
        return {event["alert_id"] for event in self.beats[-1]["standing"]}

    async def stop(self) -> None:
        import aio_pika

        await super().stop()
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            for queue in (f"{self.exchange}.alerts", f"{self.exchange}.dead"):
                await channel.queue_delete(queue)
            for exchange in (self.exchange, f"{self.exchange}.dead"):
                await channel.exchange_delete(exchange)


class OwnRabbit(Amqp):
    """A RabbitMQ of the test's own, which really is killed. Ten seconds and more for each start: not for every run.

    RabbitMQ 3.10 writes down the name of a new quorum queue half a second late (ra's `names.dets`). Killed before
    that, it comes back with a queue that has no leader and never will, so the first kill waits until that is done."""

    process: subprocess.Popen[bytes] | None = None
    n_kills = int(os.environ.get("WARDBEAT_OWN_RABBITMQ") or 0)
    settle_s = 1.5

    def __init__(self, folder: Path, port: Callable[[], int]) -> None:
        super().__init__(folder, port)
        self.port = self.proxy.target = port()
        self.dist = port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def settings(self, **changes: Any) -> BridgeSettings:
        return super().settings(**({"timeout_s": 10.0} | changes))

    async def start(self) -> None:
        await super().start()
        await asyncio.wait_for(self.consuming.wait(), 30)
        await asyncio.sleep(self.settle_s)

    async def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    async def restart(self) -> None:
        import aio_pika

        name = f"ward{self.port}@localhost"
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        own = {"HOME": str(self.folder), "RABBITMQ_NODENAME": name, "RABBITMQ_DIST_PORT": str(self.dist)}
        own |= {"RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"), "RABBITMQ_CONFIG_FILES": "/nowhere"}
        own |= {f"RABBITMQ_{what}_BASE": str(self.folder / what.lower()) for what in ("MNESIA", "LOG")}
        own["RABBITMQ_ENABLED_PLUGINS_FILE"] = str(self.folder / "plugins")
        with open(self.folder / "broker.log", "ab") as log:
            command = ["/usr/lib/rabbitmq/bin/rabbitmq-server"]
            self.process = subprocess.Popen(
                command, env=os.environ | own, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with contextlib.suppress(OSError, aio_pika.exceptions.AMQPError):
                await (await aio_pika.connect(self.url, timeout=5)).close()
                return
            await asyncio.sleep(0.5)
        raise AssertionError((self.folder / "broker.log").read_text())

    async def stop(self) -> None:
        await Bus.stop(self)


class Receiver(Bus):
    """A receiver in the test's loop: killed, it drops all its connections and no longer listens."""

    def __init__(self, folder: Path, port: Callable[[], int]) -> None:
        super().__init__(folder, port)
        self._server: Any = None
        self._writers: set[Any] = set()

    async def kill(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            self._server = None
            await asyncio.sleep(0.02)

    @contextlib.contextmanager
    def _held(self, writer: Any) -> Iterator[None]:
        """While a connection is served: `kill` ends it, and the test's end leaves none open."""
        self._writers.add(writer)
        if self._server is None:  # accepted just before the kill
            writer.transport.abort()
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                yield
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


class Hl7(Receiver):
    """python-hl7's own MLLP server. What stands is what it was told to, as a receiver keeps it."""

    kind = "hl7"

    def settings(self, **changes: Any) -> BridgeSettings:
        return Hl7Settings(url=f"mllp://127.0.0.1:{self.proxy.port}", **(QUICK | changes))

    async def restart(self) -> None:
        self._server = await hl7.mllp.start_hl7_server(self._serve, host="127.0.0.1", port=self.port, encoding="utf-8")

    async def _serve(self, reader: Any, writer: Any) -> None:
        with contextlib.suppress(hl7.mllp.InvalidBlockError), self._held(writer):
            while not writer.is_closing():
                message = await reader.readmessage()
                self.texts.append(str(message))
                if str(message.segment("MSH")(9)) == "ORU^R40^ORU_R40" and "alive-" not in str(
                    message.segment("MSH")(10)
                ):
                    self.took(decoded(message))
                writer.writemessage(message.create_ack("CA"))
                await writer.drain()

    async def standing(self) -> set[str]:
        return standing_of(self.got)


class Fhir(Receiver):
    """As much of a FHIR server as the bridge needs: metadata, and transactions with conditional create and update."""

    kind = "fhir"

    def __init__(self, folder: Path, port: Callable[[], int]) -> None:
        super().__init__(folder, port)
        self.observations: dict[str, dict[str, Any]] = {}
        self.answer = 200
        self.n_accepted = 0

    def n_connects(self, counts: Mapping[str, int]) -> int:
        """As the server counts: HTTP has no session, so that a link lost between two posts is no news to the bridge."""
        return self.n_accepted

    def settings(self, **changes: Any) -> BridgeSettings:
        return FhirSettings(url=f"http://127.0.0.1:{self.proxy.port}/fhir", **(QUICK | changes))

    async def restart(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 20)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_accepted += 1
        with self._held(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = re.search(r"content-length: (\d+)", head.lower())
                content = await reader.readexactly(int(size[1])) if size else b""
                told = json.dumps(self._answer(head, content)).encode()
                writer.write(
                    f"HTTP/1.1 {self.answer} X\r\ncontent-type: application/fhir+json\r\n"
                    f"content-length: {len(told)}\r\n\r\n".encode()
                    + told
                )
                await writer.drain()

    def _answer(self, head: str, content: bytes) -> dict[str, Any]:
        if head.startswith("GET"):
            return {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}
        for entry in json.loads(content)["entry"] if self.answer == 200 else ():
            resource = entry["resource"]
            self.texts.append(json.dumps(resource))
            ids = {one["system"].rpartition(":")[2]: one["value"] for one in resource["identifier"]}
            if resource["resourceType"] == "Communication":
                assert unquote(entry["request"]["ifNoneExist"]) == f"identifier=urn:wardbeat:event|{ids['event']}"
                phase, state = resource["payload"][1]["contentString"].removeprefix("phase ").split(", ")
                bed = resource["subject"]["identifier"]["value"]
                self.took(
                    {"event_id": ids["event"], "alert_id": ids["alert"], "bed": bed, "phase": phase, "state": state}
                )
            elif "alert" in ids:
                self.observations[ids["alert"]] = resource
        return {"resourceType": "Bundle", "type": "transaction-response"}

    async def standing(self) -> set[str]:
        return {name for name, resource in self.observations.items() if resource["status"] == "preliminary"}


class Jsonl(Bus):
    kind = "jsonl"

    def settings(self, **changes: Any) -> BridgeSettings:
        return JsonlSettings(path=str(self.folder / "lines" / "alerts.jsonl"), **(QUICK | changes))

    n_moved = 0

    async def kill(self) -> None:
        """Move the file away, as logrotate does."""
        with contextlib.suppress(FileNotFoundError):
            new = self.folder / "lines" / f"alerts.{self.n_moved + 1:03d}.jsonl"
            (self.folder / "lines" / "alerts.jsonl").rename(new)
            self.n_moved += 1

    @property
    def n_links(self) -> int:
        return int((self.folder / "lines" / "alerts.jsonl").exists())

    def n_connects(self, counts: Mapping[str, int]) -> int:
        return self.n_moved + self.n_links

    async def consume(self) -> None:
        """What was added to each file since the last look; one that was moved away is known by its inode."""
        read: Counter[int] = Counter()
        while True:
            for path in sorted((self.folder / "lines").glob("*.jsonl")):  # `alerts.jsonl` is the last
                with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                    inode = os.fstat(file.fileno()).st_ino
                    file.seek(read[inode])
                    for line in file:
                        if not line.endswith(b"\n"):
                            break
                        read[inode] += len(line)
                        if (event := json.loads(line))["t"] == "alert":
                            self.took(event)
            await asyncio.sleep(0.05)

    async def standing(self) -> set[str]:
        await asyncio.sleep(0.1)
        return standing_of(self.got)


def standing_of(got: list[Got]) -> set[str]:
    """What stands according to what was told, in order; a repeated event changes nothing."""
    seen: set[str] = set()
    standing: set[str] = set()
    for one in got:
        if one.event_id not in seen:
            seen.add(one.event_id)
            (standing.discard if one.state == "inactive" else standing.add)(one.alert_id)
    return standing


def decoded(message: Any) -> dict[str, Any]:
    """An ORU^R40 by python-hl7, back into what it was made of."""
    obr = message.segment("OBR")
    ei = str(obr(29) if len(obr) > 29 else obr(3))
    facets = {str(obx(3)).split("^")[0]: str(obx(5)) for obx in message.segments("OBX") if len(obx) > 5}
    return {
        "event_id": message.unescape(str(message.segment("MSH")(10))),
        "alert_id": message.unescape(ei.split("^", maxsplit=1)[0]),
        "bed": message.unescape(str(message.segment("PV1")(3)).split("^")[2]),
        "phase": facets["68481"],
        "state": facets["68482"],
    }


BUSES: tuple[type[Bus], ...] = (Mqtt, Nats, Amqp, Hl7, Fhir, Jsonl)
KILLED_BUSES = (*BUSES, *((OwnRabbit,) if os.environ.get("WARDBEAT_OWN_RABBITMQ") else ()))


def need_brokers() -> None:
    """Skip where the brokers are not here."""
    import socket

    lacking = [
        name for name in ("mosquitto", "nats-server") if not (shutil.which(name) or Path(f"/usr/sbin/{name}").exists())
    ]
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 5672)) != 0:
            lacking.append("RabbitMQ on 127.0.0.1:5672")
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not here; install the brokers")


warnings.filterwarnings("ignore", message="datetime.datetime.utcnow", category=DeprecationWarning)
