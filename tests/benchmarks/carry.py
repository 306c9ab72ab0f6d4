"""What a ward costs: CPU microseconds per bed-second of each role, and how old judgements are when they are published.

    python -m tests.benchmarks.carry --beds 300 --seconds 20
    python -m tests.benchmarks.carry --beds 1000 --shards 2 --against /path/to/another/checkout

Real processes: producer, shards, worker and gateway by their command lines, and in this process a subscriber of all
beats, windows and alerts. CPU is what /proc counts of each process, user and system together, over the measured
seconds, which begin `--settle` seconds after the first publication. Latency is from the stamp `sent` of the last
sample that was needed (the producer sets it as the packet goes out, on the same clock) to `published`.
`--against` runs the roles of another checkout first and says by how much this one is cheaper.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import zmq

from stream import wire

HERE = Path(__file__).resolve().parents[2]
LATE_MS = {"beat": 250.0, "window": 500.0}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Carried(NamedTuple):
    """`cpu_us`: per bed-second by role. `ages_ms`: of each kind, from sent to published. `mb`: memory by role, at the
    begin and the end. `counts`: messages by kind."""

    cpu_us: dict[str, float]
    ages_ms: dict[str, np.ndarray]
    mb: dict[str, tuple[float, float]]
    counts: dict[str, int]


def main() -> int:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--beds", type=int, default=300)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--settle", type=float, default=15.0, help="seconds before it is measured")
    parser.add_argument("--source", default="sim:default")
    parser.add_argument("--packet-ms", type=float, default=100.0)
    parser.add_argument(
        "--spread", action=argparse.BooleanOptionalAction, default=True, help="beds begin at different times"
    )
    parser.add_argument("--port", type=int, default=6600, help="the first of 10 and one for each shard")
    parser.add_argument("--against", type=Path, help="another checkout, measured first")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--spy", help="a role: its profile by py-spy goes to /tmp/speed/ROLE.txt")
    given = parser.parse_args()
    runs = {}
    for where in [given.against, HERE] if given.against else [HERE]:
        runs[str(where)] = carried = carry(given, where)
        print(f"{where}: {given.beds} beds, {given.shards} shards, {given.seconds:g} s")
        print(text(carried, given.seconds), flush=True)
    if given.against:
        before, after = runs.values()
        for role in [*after.cpu_us, "all"]:
            was, now = (sum(r.cpu_us.values()) if role == "all" else r.cpu_us[role] for r in (before, after))
            print(f"{role:10} {was:7.0f} -> {now:7.0f} us per bed-second, {was / now:.2f} times less")
    if given.json:
        given.json.write_text(json.dumps({name: figures(run) for name, run in runs.items()}, indent=1))
    return 0


def carry(given: argparse.Namespace, where: Path) -> Carried:
    """Run the ward of checkout `where`."""
    folder = Path(tempfile.mkdtemp(prefix="carry-", dir=os.environ.get("TMPDIR")))
    roles: dict[str, subprocess.Popen[bytes]] = {}
    try:
        settings = _settings(given, folder)
        shards = [f"shard.{i}" for i in range(given.shards)]
        for role in ["worker", "gateway", *shards]:
            roles[role] = _start(role, role.replace(".", " ").split(), settings, where, folder)
        _wait_ready(roles, folder)
        stream = zmq.Context.instance().socket(zmq.SUB)
        stream.setsockopt(zmq.RCVHWM, 0)
        for topic in (b"beat.", b"window.", b"alert."):
            stream.subscribe(topic)
        stream.connect(f"tcp://127.0.0.1:{given.port + 2}")
        options = ["produce", "--packet-ms", str(given.packet_ms), *(["--spread"] if given.spread else [])]
        roles["producer"] = _start("producer", options, settings, where, folder)
        _wait_ready(roles, folder)
        while not stream.poll(1000):
            _alive(roles, folder)
        _take(stream, time.monotonic() + given.settle)
        before, mb = {role: _cpu_s(p.pid) for role, p in roles.items()}, {r: _mb(p.pid) for r, p in roles.items()}
        began = time.monotonic()
        spy = None
        if given.spy:
            out = f"/tmp/speed/{given.spy}.txt"
            spy = subprocess.Popen(
                [str(Path(sys.executable).parent / "py-spy"), "record", "-p", str(roles[given.spy].pid), "-d",
                 str(int(given.seconds)), "-r", "200", "-f", "raw", "-o", out],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        ages, counts = _take(stream, began + given.seconds)
        _alive(roles, folder)
        took = time.monotonic() - began
        cpu = {role: 1e6 * (_cpu_s(p.pid) - before[role]) / took / given.beds for role, p in roles.items()}
        if spy is not None:
            spy.wait()
        return Carried(cpu, ages, {r: (mb[r], _mb(p.pid)) for r, p in roles.items()}, counts)
    finally:
        for role in ("producer", *(r for r in roles if r != "producer")):
            if role in roles:
                roles[role].send_signal(signal.SIGTERM)
        for process in roles.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def text(run: Carried, seconds: float) -> str:
    """The figures as lines."""
    total = sum(run.cpu_us.values())
    lines = [
        f"  {role:10} {us:7.0f} us per bed-second  {run.mb[role][0]:6.0f} -> {run.mb[role][1]:.0f} MB"
        for role, us in run.cpu_us.items()
    ]
    lines.append(f"  {'all':10} {total:7.0f} us per bed-second: {1e6 / total:.0f} beds per core")
    for kind, ages in run.ages_ms.items():
        if ages.size:
            p50, p99, p999 = np.percentile(ages, [50, 99, 99.9])
            lines.append(
                f"  {kind:10} p50 {p50:.0f}, p99 {p99:.0f}, p99.9 {p999:.0f}, max {ages.max():.0f} ms;"
                f" p99.9/mean {p999 / ages.mean():.2f}, max/mean {ages.max() / ages.mean():.2f};"
                f" {ages.size / seconds:.0f}/s"
            )
    return "\n".join(lines)


def figures(run: Carried) -> dict[str, Any]:
    """The figures as JSON takes them."""
    ages = {
        kind: dict(
            zip(("p50", "p99", "p999", "max"), np.percentile(a, [50, 99, 99.9, 100]).round(1).tolist(), strict=True)
        )
        for kind, a in run.ages_ms.items()
        if a.size
    }
    return {"cpu_us": run.cpu_us, "ages_ms": ages, "mb": run.mb, "counts": run.counts}


def _settings(given: argparse.Namespace, folder: Path) -> Path:
    port = given.port
    capacity = -(-given.beds // given.shards)
    lines = [
        f'[worker]\nbind = "tcp://127.0.0.1:{port}"\ndevice = "cpu"',
        f'[gateway]\nbind = "tcp://127.0.0.1:{port + 1}"\npublish = "tcp://127.0.0.1:{port + 2}"'
        f'\ncontrol = "tcp://127.0.0.1:{port + 3}"\njournal = "journal.sqlite"',
        f'[supervisor]\ncontrol = "tcp://127.0.0.1:{port + 4}"\nstate_dir = "."\nlog_level = "warning"',
    ]
    for i in range(given.shards):
        lines += [f"[shards.{i}]", f'bind = "tcp://127.0.0.1:{port + 10 + i}"', f"capacity = {capacity}"]
        lines += ["n_leads = 2", f'state_dir = "shard-{i}"']
    for i in range(given.beds):
        lines += [f"[beds.bed{i + 1}]", f'shard = "{i % given.shards}"', f'source = "{given.source}"']
    path = folder / "ward.toml"
    path.write_text("\n".join(lines))
    return path


def _start(role: str, arguments: list[str], settings: Path, where: Path, folder: Path) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WARDBEAT_READY": str(folder / f"{role}.ready")}
    with (folder / f"{role}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, str(where / "run_pipeline.py"), *arguments, "--config", str(settings)],
            cwd=where, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


def _wait_ready(roles: dict[str, "subprocess.Popen[bytes]"], folder: Path) -> None:
    until = time.monotonic() + 180
    while not all((folder / f"{role}.ready").exists() for role in roles):
        _alive(roles, folder)
        if time.monotonic() > until:
            raise TimeoutError("not ready after 180 s")
        time.sleep(0.05)


def _alive(roles: dict[str, "subprocess.Popen[bytes]"], folder: Path) -> None:
    for role, process in roles.items():
        if process.poll() is not None:
            raise RuntimeError(f"{role} has ended: {(folder / f'{role}.log').read_text()[-2000:]}")


class _Stamped(msgspec.Struct):
    """What is read of a publication."""

    stamps: wire.Stamps


def _take(stream: "zmq.Socket[bytes]", until: float) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    decoder = msgspec.msgpack.Decoder(_Stamped)
    ages: dict[str, list[float]] = {"beat": [], "window": [], "alert": []}
    while (left := until - time.monotonic()) > 0:
        if not stream.poll(min(200, int(1000 * left) + 1)):
            continue
        while True:
            try:
                topic, _, frame = stream.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            stamps = decoder.decode(frame).stamps
            if stamps.sent:
                ages[topic.partition(b".")[0].decode()].append((stamps.published - stamps.sent) / 1e6)
        time.sleep(0.05)  # a subscriber that wakes for each message would take a core of its own
    return {kind: np.array(values) for kind, values in ages.items()}, {
        kind: len(values) for kind, values in ages.items()
    }


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (
        sum(map(int, fields[11:15])) / TICKS_PER_S
    )  # its own, and of children that have ended: who writes checkpoints


def _mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
