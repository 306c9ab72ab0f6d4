"""How a bus keeps up: alert transitions at a rate, from a journal through a bridge to a consumer that counts them.

    python -m tests.benchmarks.bridges --bus mqtt --rate 1000 --seconds 60

Prints one line of JSON: what was committed, delivered and is missing, the order, the latency from journal entry to
consumer, the memory of the process, and for a bus that falls behind, its technical alarm and how long it took to
drain. The ward is 100 beds; broker, consumer, bridge and writer share the machine's cores.
"""

import argparse
import asyncio
import json
import resource
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.stream.bridges.buses import BUSES, Bus
from tests.stream.bridges.ward import Writer, life, verdict

N_BEDS = 100
TURN_S = 0.02


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def memory_mb() -> float:
    """What this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


async def measure(bus: Bus, rate: float, seconds: float, drain_s: float) -> dict[str, object]:
    """Write at `rate` for so long, wait until all has arrived, and say what came of it."""
    await bus.start()
    writer = Writer(bus.folder, bus=bus.settings(timeout_s=20.0, heartbeat_s=5.0))
    beds = [
        iter([e for n in range(int(rate * seconds / N_BEDS / 5) + 2) for e in life(f"bed-{i}", n)])
        for i in range(N_BEDS)
    ]
    began, alarms, behind = time.monotonic(), set(), 0.0
    first_mb = most_mb = memory_mb()
    n = 0
    account = writer.runner.accounts()["bus"]

    def look() -> None:
        nonlocal most_mb, behind, account
        most_mb = max(most_mb, memory_mb())
        account = writer.runner.accounts()["bus"]
        alarms.update(account.alarms)
        behind = max(behind, account.counts.get("oldest_ms", 0) / 1000)

    while (elapsed := time.monotonic() - began) < seconds:
        due = int(rate * elapsed) - n
        if due > 0:
            writer.write(*(next(beds[(n + i) % N_BEDS]) for i in range(due)))
            n += due
        look()
        await asyncio.sleep(TURN_S)
    written_s = time.monotonic() - began
    while time.monotonic() - began < seconds + drain_s:
        look()
        if account.counts.get("delivered", 0) >= n and len(bus.got) >= n:
            break
        await asyncio.sleep(0.1)
    drained_s = time.monotonic() - began - written_s
    await asyncio.sleep(1.0)
    look()
    alarms_after = sorted(account.alarms)
    await asyncio.to_thread(writer.close)
    await bus.stop()
    committed = {event.event_id: event.stamps.committed for event in writer.sent}
    seen: set[str] = set()
    delays = [
        (one.at_ns - committed[one.event_id]) / 1e6
        for one in bus.got
        if one.event_id in committed and not (one.event_id in seen or seen.add(one.event_id))
    ]
    p50, p99 = np.percentile(delays, [50, 99]) if delays else (0.0, 0.0)
    result = verdict(writer.sent, bus.got)
    return {
        "bus": bus.kind, "committed": n, "per_s": round(n / written_s), "arrived": len(seen), **result._asdict(),
        "p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1), "max_ms": round(max(delays, default=0.0), 1),
        "told_by_the_bridge_ms": account.latency_ms, "oldest_undelivered_s": round(behind, 1),
        "alarms": sorted(alarms), "alarms_after": alarms_after, "drained_after_s": round(drained_s, 1),
        "memory_mb": [round(first_mb), round(most_mb)], "connects": account.counts.get("connects"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds: dict[str, Callable[[Path, Callable[[], int]], Bus]] = {bus.kind: bus for bus in BUSES}
    parser.add_argument("--bus", choices=kinds, required=True)
    parser.add_argument("--rate", type=float, default=1000.0, help="alert transitions a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--drain", type=float, default=180.0, help="seconds to wait until all has arrived")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bus = kinds[given.bus](Path(folder), free_port)
        bus.survives = False
        print(json.dumps(asyncio.run(measure(bus, given.rate, given.seconds, given.drain))))


if __name__ == "__main__":
    main()
