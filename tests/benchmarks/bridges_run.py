"""All buses at once, from `run` with simulated patients: how long an alert takes from its journal entry to a consumer.

    python -m tests.benchmarks.bridges_run --beds 8 --seconds 90

Prints one line of JSON for each bus, and one for all: events, latency in ms, what is missing, the order, and the load
of the machine before and after. Brokers, receivers, consumers and the ward share the machine's cores.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from stream.gateway.journal import Journal
from tests.benchmarks.bridges import free_port
from tests.stream.bridges.buses import BUSES, UNIT, Bus
from tests.stream.bridges.ward import verdict

SOURCES = ("sim:vf", "sim:default", "sim:vt", "sim:af")
ROLES = {
    "shards.a": ("bind",),
    "worker": ("bind",),
    "gateway": ("bind", "publish", "control"),
    "supervisor": ("control",),
}


def ward(folder: Path, buses: list[Bus], n_beds: int) -> Path:
    """Write a ward.toml with ports of its own, a bridge to each bus, and simulated patients."""
    lines = ["[ward]", 'name = "ICU 3"', f'unit = "{UNIT}"']
    for role, keys in ROLES.items():
        lines += [f"[{role}]", *(f'{key} = "tcp://127.0.0.1:{free_port()}"' for key in keys)]
        lines += {"gateway": ['journal = "journal.sqlite"'], "supervisor": ['state_dir = "state"']}.get(role, [])
    for bus in buses:
        settings = bus.settings()
        lines += [f"[bridges.{bus.kind}]", f'kind = "{bus.kind}"']
        given = ((key, getattr(settings, key, None)) for key in ("url", "path", "exchange"))
        lines += [f"{key} = {json.dumps(value)}" for key, value in given if value]
    for i in range(n_beds):
        lines += [f"[beds.bed{i}]", f'source = "{SOURCES[i % len(SOURCES)]}"']
    path = folder / "ward.toml"
    path.write_text("\n".join(lines))
    return path


async def measure(folder: Path, n_beds: int, seconds: float) -> None:
    load_before = os.getloadavg()[0]
    buses: list[Bus] = []
    for kind in BUSES:
        own = folder / kind.kind
        own.mkdir()
        buses.append(kind(own, free_port))
        buses[-1].survives = False
        await buses[-1].start()
    path = ward(folder, buses, n_beds)
    with open(folder / "run.log", "wb") as log:
        options = ("--config", str(path), "--duration", str(seconds), "--headless")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "run_pipeline.py", "run", *options, stdout=log, stderr=log
        )
        code = await process.wait()
    await asyncio.sleep(1.5)
    for bus in buses:
        await bus.stop()
    with Journal(folder / "journal.sqlite", read_only=True) as journal:
        sent = list(journal.query())
    committed = {event.event_id: event.stamps.committed for event in sent}
    for bus in buses:
        delays: dict[str, float] = {}
        for one in bus.got:
            if one.event_id in committed:
                delays.setdefault(one.event_id, (one.at_ns - committed[one.event_id]) / 1e6)
        p50, p99 = np.percentile(list(delays.values()), [50, 99]) if delays else (0.0, 0.0)
        told = {"bus": bus.kind, "arrived": len(delays), **verdict(sent, bus.got)._asdict()}
        slowest = max(delays.values(), default=0.0)
        print(json.dumps(told | {"p50_ms": round(p50, 1), "p99_ms": round(p99, 1), "max_ms": round(slowest, 1)}))
    n_red = sum(event.priority == "high" for event in sent)
    loads = [round(load, 1) for load in (load_before, os.getloadavg()[0])]
    print(json.dumps({"exit": code, "events": len(sent), "red": n_red, "beds": n_beds, "load": loads}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=90.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), given.beds, given.seconds))


if __name__ == "__main__":
    main()
