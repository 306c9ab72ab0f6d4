"""A producer and a subscriber as somebody else would write them, from docs/wire.md: nothing but pyzmq and msgpack.

They stand at the sockets of a real shard and a real gateway; nothing of Wardbeat is imported here.
"""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

ROOT = Path(__file__).parents[2]
RATE = 250
N = 25
START_S = 150.0  # a shard compiles its kernels at the first start on a machine
Frame = dict[str, Any]


class Producer:
    """One bed, one epoch. Keeps all that it has sent until it is durable."""

    def __init__(self, endpoint: str, session: str) -> None:
        self.session, self.shard = session, ""
        self.sent = self.credit = 0
        self.hello_due = 0.0
        self.kept: list[Frame] = []  # in order; frames before `at` have been sent
        self.at = 0
        self.durable = 0
        self.refused: list[Frame] = []
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, f"foreign:{session}".encode())
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)

    def send(self, *frames: Frame) -> bool:
        try:
            self.socket.send_multipart([msgpack.packb({"v": 1} | frame) for frame in frames], zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def step(self, timeout_ms: int = 5) -> None:
        if time.monotonic() >= self.hello_due:
            hello = {"t": "hello", "source": "foreign", "session": self.session, "speed": 0, "sent": self.sent}
            if self.send(hello):
                self.hello_due = time.monotonic() + 1
        while self.at < len(self.kept) and (self.sent < self.credit or self.kept[self.at]["t"] != "wave"):
            if not self.send(self.kept[self.at]):
                break
            self.sent += self.kept[self.at]["t"] == "wave"
            self.at += 1
        while self.socket.poll(timeout_ms):
            for frame in self.socket.recv_multipart():
                self.hear(msgpack.unpackb(frame))
            timeout_ms = 0

    def hear(self, message: Frame) -> None:
        if message["t"] == "ack" and message["session"] == self.session:
            self.credit = message["credit"]
            for _bed, _epoch, sample in message["durable"]:
                self.durable = max(self.durable, sample)
            if message["shard"] != self.shard:
                if self.shard:
                    self.back(self.durable)
                self.shard = message["shard"]
        elif message["t"] == "resend":
            self.back(message["first"])
        elif message["t"] == "probe":
            now = time.time_ns()
            self.send({"t": "probe_reply", "id": message["id"], "received_ns": now, "sent_ns": now})
        elif message["t"] == "refused":
            self.refused.append(message)
            if message["cause"] == "hello":
                self.hello_due = 0.0

    def back(self, sample: int) -> None:
        first = next(
            i for i, frame in enumerate(self.kept) if frame["t"] == "end" or frame["first"] + frame["n"] > sample
        )
        self.at = min(self.at, first)


class Subscriber:
    """Everything that is published since it came, and what was active then."""

    def __init__(self, publish: str, control: str) -> None:
        context = zmq.Context.instance()
        self.stream = context.socket(zmq.SUB)
        self.stream.subscribe(b"")
        self.stream.connect(publish)
        self.control = context.socket(zmq.REQ)
        self.control.connect(control)
        self.numbers: list[int] = []
        self.heard: list[tuple[str, Frame]] = []

    def snapshot(self) -> list[Frame]:
        self.control.send(msgpack.packb({"t": "snapshot_request", "v": 1}))
        assert self.control.poll(20_000), "no snapshot"
        return [msgpack.unpackb(frame) for frame in self.control.recv_multipart()]

    def poll(self, timeout_ms: int = 0) -> None:
        while self.stream.poll(timeout_ms):
            topic, number, frame = self.stream.recv_multipart()
            self.numbers.append(int.from_bytes(number, "big"))
            self.heard.append((topic.decode(), msgpack.unpackb(frame)))
            timeout_ms = 0

    def of(self, topic: str) -> list[Frame]:
        return [message for heard, message in self.heard if heard == topic]

    def close(self) -> None:
        self.stream.close(0)
        self.control.close(0)


def ecg(at: int, silent: range) -> int:
    """A beat a second, 1 mV at a gain of 200, on a baseline that breathes; no beat at the samples of `silent`."""
    baseline = round(12 * math.sin(at / RATE * 1.6) + 4 * math.sin(at / RATE * 23))
    if at in silent:
        return baseline
    phase = (at % RATE) / RATE - 0.4
    return baseline + round(200 * math.exp(-((phase / 0.016) ** 2)) + 40 * math.exp(-(((phase - 0.25) / 0.06) ** 2)))


def epoch(bed: str, seconds: int, silent: range) -> list[Frame]:
    """All frames of an epoch, its end included; written byte by byte as the page says."""
    signal = {"name": "II", "kind": "ecg", "unit": "mV", "gain": 200, "baseline": 0}
    frames: list[Frame] = []
    for seq in range(seconds * RATE // N):
        samples = [ecg(at, silent) for at in range(seq * N, seq * N + N)]
        data = b"".join(value.to_bytes(2, "little", signed=True) for value in samples)
        place = {"bed": bed, "epoch": "first", "seq": seq, "first": seq * N, "rate": RATE, "n": N}
        frames.append({"t": "wave", **place, "signals": [signal], "data": data, "device_ns": time.time_ns()})
    frames.append({"t": "end", "bed": bed, "epoch": "first", "n_samples": seconds * RATE})
    return frames


class Ward:
    """A shard and a gateway without a worker, as processes: detector alarms need no model."""

    def __init__(self, folder: Path, port: Callable[[], int]) -> None:
        self.source, gateway, self.publish, self.control = (f"tcp://127.0.0.1:{port()}" for _ in range(4))
        self.toml = folder / "ward.toml"
        self.toml.write_text(
            f'[shards.a]\nbind = "{self.source}"\ngateway = "{gateway}"\nworker = "tcp://127.0.0.1:{port()}"\n'
            f'state_dir = "{folder}/a"\ncheckpoint_s = 0.5\n'
            f'[gateway]\nbind = "{gateway}"\npublish = "{self.publish}"\ncontrol = "{self.control}"\n'
            f'journal = "{folder}/journal.sqlite"\n'
        )
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *role: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "run_pipeline.py"), *role, "--config", str(self.toml)]
        process = subprocess.Popen(command, cwd=self.toml.parent, env=os.environ | {"OMP_NUM_THREADS": "1"})
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def ward(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Ward]:
    made = Ward(tmp_path, free_port)
    yield made
    made.stop()


def until(done: Callable[[], bool], step: Callable[[], None], within_s: float, what: Callable[[], object]) -> None:
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, what()
        step()


@pytest.mark.timeout(600)
def test_a_client_written_from_the_page_feeds_a_ward_and_hears_its_alarm(ward: Ward) -> None:
    """Forty seconds of heartbeats with an asystole in the middle; the shard is killed and started again while
    they are sent, and not a sample is missing."""
    bed, seconds = "icu-7", 40
    silent = range(20 * RATE, 30 * RATE)
    frames = epoch(bed, seconds, silent)
    ward.start("gateway")
    shard = ward.start("shard", "a")
    subscriber = Subscriber(ward.publish, ward.control)
    producer = Producer(ward.source, "one")

    def step() -> None:
        producer.step()
        subscriber.poll()

    def account() -> Frame:
        status = subscriber.of(f"status.{bed}")
        return status[-1]["counts"] if status else {}

    def all_told() -> object:
        return account(), producer.refused, producer.credit, producer.sent, producer.at

    try:
        producer.kept = frames[:150]
        until(lambda: producer.durable > 0, step, START_S, all_told)
        producer.kept = frames[:250]
        until(lambda: producer.at == 250, step, START_S, all_told)
        shard.kill()
        shard.wait()
        ward.start("shard", "a")
        producer.kept = frames
        until(lambda: producer.durable == seconds * RATE, step, START_S, all_told)
        until(lambda: account().get("delivered") == seconds * RATE, step, START_S, all_told)
        assert account()["gap"] == 0
        assert {refused["cause"] for refused in producer.refused} <= {"hello"}

        starts = [alert for alert in subscriber.of(f"alert.{bed}") if alert["phase"] == "start"]
        (asystole,) = [alert for alert in starts if alert["code"] == "ASYSTOLE"]
        assert asystole["simulated"] and asystole["kind"] == "physiological" and asystole["priority"] == "high"
        assert asystole["stream_time"]["fs"] == RATE
        assert asystole["stream_time"]["sample"] in range(silent.start, silent.stop)
        ids = [alert["event_id"] for alert in subscriber.of(f"alert.{bed}")]
        assert len(set(ids)) == len(ids)
        assert subscriber.numbers == list(range(subscriber.numbers[0], subscriber.numbers[0] + len(subscriber.numbers)))

        snapshot = subscriber.snapshot()
        assert {part["t"] for part in snapshot} == {"snapshot"}
        assert snapshot[-1]["published"] >= subscriber.numbers[-1]
        assert any(numeric["bed"] == bed for part in snapshot for numeric in part["numerics"])
    finally:
        producer.socket.close(0)
        subscriber.close()


def test_what_a_client_does_wrong_is_said_to_it(ward: Ward) -> None:
    ward.start("shard", "a")
    producer = Producer(ward.source, "one")
    good = epoch("icu-7", 1, range(0))
    try:
        until(lambda: producer.credit > 0, producer.step, START_S, lambda: producer.refused)
        producer.socket.send(b"not msgpack")
        producer.send(good[0] | {"v": 7})
        producer.send(good[0] | {"rate": 0})
        producer.send(good[0])
        producer.send(good[1] | {"rate": 500})
        producer.send({"t": "committed", "session": "x", "until": 1})
        causes = ["changed", "field", "garbage", "unexpected", "version"]
        heard = lambda: sorted(refused["cause"] for refused in producer.refused)  # noqa: E731
        until(lambda: len(producer.refused) >= len(causes), producer.step, 20, heard)
        assert heard() == causes
        texts = {refused["cause"]: refused["text"] for refused in producer.refused}
        assert "rate: 0" in texts["field"] and "v: 7" in texts["version"] and "new epoch" in texts["changed"]
    finally:
        producer.socket.close(0)
