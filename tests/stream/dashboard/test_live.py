"""A whole ward, its page in a browser, and things that are made to happen to it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.gateway.journal import Journal
from stream.wire import Action
from tests.stream.dashboard.station import free_port
from tests.stream.dashboard.test_page import tile, until

pytestmark = pytest.mark.chromium
ROOT = Path(__file__).parents[3]
START_S = 120.0


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Four simulated patients with nothing wrong; where the page is, and the journal. Without spares: a worker whose
    spare takes over is back before there is anything to see."""
    ports = {
        name: free_port() for name in ("shard", "worker", "bind", "publish", "control", "super", "producer", "page")
    }
    address = {name: f'"tcp://127.0.0.1:{port}"' for name, port in ports.items()}
    beds = "".join(f'[beds.bed{n}]\nsource = "sim:sinus,seed={n}"\n' for n in (1, 2, 3, 7))
    (tmp_path / "ward.toml").write_text(
        f"[shards.a]\nbind = {address['shard']}\n[worker]\nbind = {address['worker']}\n"
        f"[gateway]\nbind = {address['bind']}\npublish = {address['publish']}\ncontrol = {address['control']}\n"
        f"[supervisor]\ncontrol = {address['super']}\nspares = false\n[producer]\ncontrol = {address['producer']}\n"
        f"[dashboard]\nport = {ports['page']}\n{beds}"
    )
    command = [
        sys.executable,
        str(ROOT / "run_pipeline.py"),
        "run",
        "--config",
        str(tmp_path / "ward.toml"),
        "--headless",
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            yield f"http://127.0.0.1:{ports['page']}/", tmp_path / "var" / "journal.sqlite"
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.timeout(400)
def test_things_that_are_made_to_happen_are_seen_and_can_be_acknowledged(page: Any, ward: tuple[str, Path]) -> None:
    """VF turns its tile red within ten seconds; acknowledged, it is quiet and in the journal; a worker that is killed
    shows as a technical alarm, a network that is cut as tiles without a wave, until it is back; a killed gateway
    says so before it goes, and the page comes back."""
    url, journal_path = ward
    for _ in range(round(START_S * 4)):
        try:
            page.goto(url)
            break
        except Exception:
            time.sleep(0.25)
    until(lambda: page.evaluate("window.wardbeat?.store.beds.size ?? 0") == 4, START_S)
    until(lambda: tile(page, "bed7").locator(".hr").inner_text() not in {"", "-?-"})
    page.evaluate("wardbeat.happen = (m) => wardbeat.link.ask(m)")

    done = page.evaluate("wardbeat.happen({t: 'fault', what: 'rhythm', bed: 'bed7', rhythm: 'vf', for_s: 30})")
    began = time.monotonic()
    assert done["ok"], done
    until(lambda: tile(page, "bed7").get_attribute("data-priority") == "high", 10)
    print(f"VF made to happen to the tile red: {time.monotonic() - began:.1f} s")
    until(lambda: tile(page, "bed7").locator(".alarm").inner_text().startswith("*** VENT FIB"))
    # From the onset in the signal to the disk within ten seconds too.
    with Journal(journal_path, read_only=True) as journal:
        event = next(e for e in journal.query("bed7", None, "VFIB") if e.phase == "start")
    needed_s = (event.stream_time.sample - event.onset.sample) / event.onset.fs
    assert needed_s + (event.stamps.committed - event.stamps.received) / 1e9 <= 10.0

    assert page.evaluate("wardbeat.sound.loudest") == 0
    tile(page, "bed7").get_by_role("button", name="Ack").click()
    until(lambda: tile(page, "bed7").get_attribute("data-quiet") is not None)

    def acknowledged() -> list[Action]:
        with Journal(journal_path, read_only=True) as journal:
            return [action for action in journal.actions("bed7", kind="acknowledge") if action.sample is not None]

    until(acknowledged)  # with the sample at which the shard has applied it
    assert [action.who for action in acknowledged()] == ["station"]

    assert page.evaluate("wardbeat.happen({t: 'kill', role: 'worker'})")["ok"]
    began = time.monotonic()
    stalled = "[...wardbeat.store.beds.get('bed1').technical].some((e) => e.code === 'MODEL_STALLED')"
    until(lambda: page.evaluate(stalled) and tile(page, "bed1").locator(".inop").is_visible())
    print(f"worker killed to its technical alarm: {time.monotonic() - began:.1f} s")

    assert page.evaluate("wardbeat.happen({t: 'fault', what: 'loss', for_s: 5})")["ok"]
    began = time.monotonic()
    until(lambda: tile(page, "bed2").get_attribute("data-stale") is not None)
    print(f"network cut to STALE: {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 4.5  # 3 s, what was on the way, and what the test takes to look
    until(lambda: tile(page, "bed2").get_attribute("data-stale") is None)

    page.goto(f"{url}#/engineering")
    page.get_by_role("button", name="Kill the gateway").click()
    until(lambda: page.locator("#toast").inner_text() == "Kill the gateway: this page comes back by itself")
    until(lambda: page.locator("#link").get_attribute("data-away") is not None)
    until(lambda: page.locator("#link").inner_text() == "live")
