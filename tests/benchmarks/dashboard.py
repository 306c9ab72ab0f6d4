"""What the central station costs: frames per second in headless Chromium, the server's share of a core, slow browsers.

    python -m tests.benchmarks.dashboard --beds 64 --clients 20 --seconds 20

Starts a ward of simulated patients (two leads at 250 Hz each), shows all of it in one headless Chromium, then to more
clients at once, of which one stops reading. The server's share is the CPU time of its thread, which serves the page and
takes in what the gateway publishes; memory is that of the gateway's process.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import structlog
from playwright.async_api import Page, async_playwright
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from simulators.ward import default_ward
from tests.stream.dashboard.station import LEAD_II, V1, Station

ROOT = Path(__file__).parents[2]
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
FRAMES = """(ms) => new Promise((done) => {
  const gaps = []; let last = performance.now(); const end = last + ms;
  requestAnimationFrame(function look() {
    const now = performance.now(); gaps.push(now - last); last = now;
    if (now < end) requestAnimationFrame(look); else done(gaps.slice(1));
  });
})"""
DRAWN = """(n) => wardbeat.page.tiles.length === n && wardbeat.page.tiles.every((tile) => tile.sweep.drawn > 0)"""


def _ward(folder: Path) -> int:
    ports = []
    for _ in range(8):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    at = [f'"tcp://127.0.0.1:{port}"' for port in ports]
    (folder / "ward.toml").write_text(
        f"[shards.a]\nbind = {at[0]}\n[worker]\nbind = {at[1]}\n"
        f"[gateway]\nbind = {at[2]}\npublish = {at[3]}\ncontrol = {at[4]}\n"
        f"[supervisor]\ncontrol = {at[5]}\n[producer]\ncontrol = {at[6]}\n[dashboard]\nport = {ports[7]}\n"
    )
    return ports[7]


class Client:
    """One browser's socket without the browser: takes everything, counts it, and looks at the numbers."""

    def __init__(self) -> None:
        self.n: Counter[str] = Counter()
        self.figures: dict[str, Any] = {}
        self.holes = 0
        self.closed = ""

    async def run(self, url: str, beds: list[str], *, frozen: bool = False) -> None:
        """Until it is closed; `frozen`: reads nothing after it has said what it shows."""
        options: dict[str, Any] = {
            "max_size": None,
            "max_queue": 4 if frozen else 64,
            "ping_interval": None,
            "open_timeout": 60,
        }
        try:
            async with connect(url, proxy=None, **options) as socket:
                await socket.send(json.dumps({"t": "view", "beds": beds, "every": False}))
                if frozen:
                    await self._until_closed(socket)
                seq = 0
                async for message in socket:
                    if isinstance(message, bytes):
                        self.n["wave bytes"] += len(message)
                        self.n["waves"] += 1
                        continue
                    told = json.loads(message)
                    self.holes += told["seq"] != seq + 1
                    seq = told["seq"]
                    for item in told["items"]:
                        self.n[item["k"]] += 1
                        if item["k"] == "flow":
                            self.figures = item
        except ConnectionClosed as error:
            self.closed = f"{error.rcvd.code} {error.rcvd.reason}" if error.rcvd else "cut off"

    async def _until_closed(self, socket: ClientConnection) -> None:
        await asyncio.sleep(3600)


async def _frames(page: Page, seconds: float) -> str:
    """Frames in a time, and what a frame cost: processor time that the browser's processes took, which tells what
    others on the machine do not change."""
    before = _browser_cpu_s()
    gaps = np.array(await page.evaluate(FRAMES, round(1000 * seconds)))
    cost_ms = 1000 * (_browser_cpu_s() - before) / len(gaps)
    p95, longest = np.percentile(gaps, 95), gaps.max()
    rate = f"{1000 / gaps.mean():.1f} frames/s (p95 of the time between two {p95:.0f} ms, longest {longest:.0f} ms)"
    return f"{rate}, {cost_ms:.1f} ms of processor a frame"


def _browser_cpu_s() -> float:
    """Processor time of all processes of the browser so far, in s."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "--type=renderer" in process.cmdline() or "--type=gpu-process" in process.cmdline():
                total += sum(process.cpu_times()[:2])
    return total


async def _shares(client: Client, seconds: float) -> list[float]:
    shares = []
    until = time.monotonic() + seconds
    seen = 0.0
    while time.monotonic() < until:
        await asyncio.sleep(0.2)
        if client.figures and client.figures["utc_ms"] != seen:
            seen = client.figures["utc_ms"]
            shares.append(client.figures["server_cpu"])
    return shares


async def _measure(port: int, n_beds: int, n_clients: int, seconds: float, gateway: psutil.Process) -> None:
    url = f"ws://127.0.0.1:{port}/ws"
    beds = [f"bed{n + 1}" for n in range(n_beds)]
    watcher = Client()
    tasks = [asyncio.create_task(watcher.run(url, []))]
    shares = (await _shares(watcher, 5))[1:]
    print(f"server, nobody shows anything: {100 * np.mean(shares):.1f} % of a core")
    path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        page = await browser.new_page(viewport={"width": 1920, "height": 1080})
        await page.goto(f"http://127.0.0.1:{port}/")
        loaded = await page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        await page.wait_for_function(DRAWN, arg=n_beds, timeout=60_000)
        counting = asyncio.create_task(_shares(watcher, seconds))
        frames = await _frames(page, seconds)
        shares = (await counting)[1:]
        print(f"page loaded in {loaded:.0f} ms; {n_beds} tiles x 2 leads at 250 Hz: {frames}")
        print(f"server, one Chromium: {100 * np.mean(shares):.1f} % of a core, {100 * max(shares):.1f} % in one second")
        print(f"received to published, ms: p50 {_delay(watcher, 50):.0f}, p99 {_delay(watcher, 99):.0f}")
        before_mb = gateway.memory_info().rss / 1e6
        others = [Client() for _ in range(n_clients - 2)]
        frozen = Client()
        tasks += [asyncio.create_task(client.run(url, beds)) for client in others]
        tasks.append(asyncio.create_task(frozen.run(url, beds, frozen=True)))
        while not all(client.n["waves"] for client in others):
            await asyncio.sleep(0.2)
        first = [Counter(client.n) for client in others]
        began = time.monotonic()
        counting = asyncio.create_task(_shares(watcher, seconds))
        frames = await _frames(page, seconds)
        shares = (await counting)[1:]
        took_s = time.monotonic() - began
        got = [client.n - before for client, before in zip(others, first, strict=True)]
        rates = [n["waves"] / took_s for n in got]
        kb = sum(n["wave bytes"] for n in got) / took_s / len(got) / 1000
        seen = watcher.figures["clients"]
        print(f"{n_clients} clients, one frozen: Chromium {frames}")
        print(f"  {len(others)} others: {min(rates):.1f} to {max(rates):.1f} wave messages/s and {kb:.0f} kB/s each,")
        print(f"  {sum(c.holes for c in others)} messages missing, {sum(bool(c.closed) for c in others)} closed")
        print(f"  server: {100 * np.mean(shares):.1f} % of a core, {100 * max(shares):.1f} % in one second")
        print(f"  waves dropped {sum(c['dropped']['waves'] for c in seen)}, {len(seen)} browsers there at the end,")
        print(f"  the most that waits for one: {max(c['waiting'] for c in seen)} bytes")
        print(f"  gateway's memory: {before_mb:.0f} MB before, {gateway.memory_info().rss / 1e6:.0f} MB after")
        await browser.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _delay(client: Client, q: float) -> float:
    figures = client.figures
    if "received>published" not in figures["stages"]:
        return float("nan")
    return figures["stages"]["received>published"][figures["quantiles"].index(q)]


def _gateway_of(parent: int) -> psutil.Process:
    return next(p for p in psutil.Process(parent).children(recursive=True) if "gateway" in p.cmdline())


def _without_pipeline(n_beds: int, n_clients: int, seconds: float) -> None:
    """A gateway and its dashboard alone, in this process, so that nothing but they and the browser is measured."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder, Station(Path(folder)) as station:
        for n, patient in enumerate(default_ward(n_beds)):
            wave = patient.render(0, 15_000)[0] / 200
            station.play(f"bed{n + 1}", lambda at, wave=wave: wave[at % len(wave)], (LEAD_II, V1))
        time.sleep(2)
        asyncio.run(_measure(station.port, n_beds, n_clients, seconds, psutil.Process()))


@click.command()
@click.option("--beds", default=64, show_default=True)
@click.option("--clients", default=20, show_default=True)
@click.option("--seconds", default=15.0, show_default=True)
@click.option("--pipeline/--no-pipeline", default=True, show_default=True, help="Without: waves from nowhere.")
def main(beds: int, clients: int, seconds: float, pipeline: bool) -> None:
    """See the module."""
    if not pipeline:
        _without_pipeline(beds, clients, seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        port = _ward(Path(folder))
        run = [sys.executable, str(ROOT / "run_pipeline.py"), "run", "--config", f"{folder}/ward.toml", "--headless"]
        with (Path(folder) / "log").open("wb") as log:
            ward = subprocess.Popen([*run, "--source", "sim:default", "--beds", str(beds)], stdout=log, stderr=log)
        try:
            until = time.monotonic() + 120
            while time.monotonic() < until and not (Path(folder) / "var" / "producer.ready").exists():
                time.sleep(0.2)
            time.sleep(15)  # what came while the worker loaded has been judged by then
            asyncio.run(_measure(port, beds, clients, seconds, _gateway_of(ward.pid)))
        finally:
            ward.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                ward.wait(20)
            if ward.poll() is None:
                ward.kill()


if __name__ == "__main__":
    main()
