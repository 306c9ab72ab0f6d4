"""How much of a core the gateway needs, and how long an alert takes to disk and to a subscriber.

    python -m tests.benchmarks.gateway --rate 3000 --seconds 10

A real gateway process, a shard that sends beats, windows, numerics and (one in a hundred) alerts in
blocks of 20 ms, as shards do, and one subscriber of all topics.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import zmq

from stream import wire
from stream.config import GatewaySettings, Settings, save
from stream.gateway.subscriber import Publication, Subscriber
from stream.wire import AlertEvent, Moment, Stamps

N_BEDS = 100
BLOCK_S = 0.02
AT = Moment(1, 250.0)
SERVE = (
    "import sys; from stream.config import load; from stream.roles import gateway; "
    "sys.exit(gateway.serve(load(sys.argv[1])))"
)


def main() -> int:
    """Measure, and print one line."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--rate", type=int, default=3000, help="messages a second")
    options.add_argument("--seconds", type=float, default=10.0)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        addresses = {name: f"tcp://127.0.0.1:{_free_port()}" for name in ("bind", "publish", "control")}
        own = GatewaySettings(journal=f"{folder}/journal.sqlite", **addresses)
        save(Settings(gateway=own), Path(folder, "settings.json"))
        child = subprocess.Popen([sys.executable, "-c", SERVE, f"{folder}/settings.json"], stdout=subprocess.DEVNULL)
        try:
            print(_measure(own, child.pid, given.rate, given.seconds))
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait()
    return 0


def _measure(own: GatewaySettings, pid: int, rate: int, seconds: float) -> str:
    shard = zmq.Context.instance().socket(zmq.DEALER)
    shard.connect(own.bind)
    latencies: list[float] = []
    n_sent = n_alerts = n_got = 0

    def take(subscriber: Subscriber) -> int:
        items = [item for item in subscriber.poll() if isinstance(item, Publication) and item.topic != "gateway"]
        now_ns, alerts = time.time_ns(), [one.message for one in items if isinstance(one.message, AlertEvent)]
        latencies.extend((now_ns - alert.stamps.decided) / 1e6 for alert in alerts)
        return len(items)

    with Subscriber(own.publish, own.control) as subscriber:
        while not subscriber.joined:
            subscriber.poll(0.1)
        cpu_s, began = _cpu_s(pid), time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            block = []
            while n_sent < int(elapsed * rate):
                message = _message(n_sent)
                if isinstance(message, AlertEvent):
                    message = wire.Alerts(shard="a", session="bench", first=n_alerts, events=(message,))
                    n_alerts += 1
                block.append(wire.encode(message))
                n_sent += 1
            if block:
                shard.send_multipart(block)
            until = time.monotonic() + BLOCK_S
            while time.monotonic() < until:
                n_got += take(subscriber)
                time.sleep(0.001)
            while shard.poll(0):
                shard.recv()
        cpu_s = _cpu_s(pid) - cpu_s
        until = time.monotonic() + 2
        while n_got < n_sent and time.monotonic() < until:
            n_got += take(subscriber)
    shard.close(0)
    ordered = sorted(latencies)
    p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return (
        f"{n_sent / seconds:.0f} messages/s, {n_got} of {n_sent} published: {100 * cpu_s / seconds:.0f} % of a core; "
        f"alert decided to subscriber p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {ordered[-1]:.1f} ms"
    )


def _message(number: int) -> wire.AnyMessage:
    bed, now_ns = f"bed{number % N_BEDS}", time.time_ns()
    stamps = Stamps(device=now_ns, received=now_ns, judged=now_ns, decided=now_ns)
    common = {"bed": bed, "epoch": "e", "stamps": stamps}
    if number % 100 == 99:
        return AlertEvent(
            alert_id=f"a{number}", event_id=f"a{number}-0", seq=0, code="PAUSE", mdc="", text="PAUSE", phase="start",
            state="inactive", inactivation=(), priority="medium", kind="physiological", latching=False, onset=AT,
            stream_time=AT, emit_time="", **common,
        )  # fmt: skip
    if number % 10 < 6:
        return wire.BeatJudgement(at=AT, label="N", confidence=0.9, rr_ms=800.0, gates=(0.25,) * 4, **common)
    if number % 10 < 8:
        rhythms = dict.fromkeys(("N", "AF", "AFL", "SVT", "VT", "VF", "ASYS", "PACED", "NOISE", "OTHER"), 0.1)
        return wire.WindowJudgement(
            at=AT, rhythm="N", confidence=0.9, rhythms=rhythms, shockable=0.1, quality=0.9, gates=(0.25,) * 4, **common
        )
    return wire.Numeric(at=AT, hr=70.0, pvc_per_min=1.0, rhythm="N", confidence=0.9, quality=(0.9, 0.9), **common)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    sys.exit(main())
