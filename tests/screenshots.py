"""Takes the pictures of docs/screenshots: a simulated ward in headless Chromium, with things made to happen to it.

python -m tests.screenshots                    # a minute and a half; needs Chromium, on the path or in CHROMIUM
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.stream.dashboard.conftest import FLAGS
from tests.stream.dashboard.station import free_port

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "screenshots"
READY_S = 120.0


def _ward(folder: Path, n_beds: int) -> tuple[str, subprocess.Popen[bytes]]:
    names = ("shards.a.bind", "worker.bind", "gateway.bind", "gateway.publish", "gateway.control",
             "supervisor.control", "producer.control")  # fmt: skip
    lines = [f'{name} = "tcp://127.0.0.1:{free_port()}"' for name in names]
    port = free_port()
    about = ['ward.name = "ICU 3"', 'ward.unit = "simulated patients"', f"dashboard.port = {port}"]
    (folder / "ward.toml").write_text("\n".join([*about, *lines]))
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "run", "--config", str(folder / "ward.toml")]
    options = ["--headless", "--source", "sim:default", "--beds", str(n_beds)]
    with (folder / "log").open("wb") as log:
        return f"http://127.0.0.1:{port}/", subprocess.Popen([*command, *options], stdout=log, stderr=log)


def _open(page: Page, url: str, n_beds: int) -> None:
    until = time.monotonic() + READY_S
    while True:
        try:
            page.goto(url)
            break
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
    page.wait_for_function("(n) => window.wardbeat?.store.beds.size === n", arg=n_beds, timeout=READY_S * 1000)


def _keep(page: Page, name: str) -> None:
    """The page as a PNG of 256 colours: a third of the bytes."""
    path = OUT / f"{name}.png"
    page.screenshot(path=str(path))
    Image.open(path).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}  {path.stat().st_size // 1000} kB")


def _happen(page: Page, **fault: Any) -> None:
    answer = page.evaluate("(m) => wardbeat.link.ask({t: 'fault', ...m})", fault)
    assert answer["ok"], answer


@click.command()
@click.option("--beds", default=16, show_default=True)
@click.option("--seconds", default=45.0, show_default=True, help="Of signal before the first picture.")
def main(beds: int, seconds: float) -> None:
    """See the module."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        url, ward = _ward(Path(folder), beds)
        try:
            browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
            page = browser.new_page(viewport={"width": 1600, "height": 900}, reduced_motion="reduce")
            _open(page, url, beds)
            page.wait_for_timeout(1000 * seconds)
            _happen(page, what="rhythm", bed="bed9", rhythm="vf", for_s=40)
            _happen(page, what="lead_off", bed="bed12", for_s=60)
            page.evaluate("wardbeat.link.ask({t: 'action', bed: 'bed11', kind: 'alarms_off', until_s: 3600})")
            page.evaluate("wardbeat.link.ask({t: 'action', bed: 'bed7', kind: 'acknowledge', who: 'Anna'})")
            page.wait_for_timeout(14_000)
            _keep(page, "overview")
            page.goto(f"{url}#/bed/bed2")
            page.wait_for_timeout(12_000)
            page.set_viewport_size({"width": 1600, "height": 1240})
            page.wait_for_timeout(12_000)
            _keep(page, "bed")
            page.set_viewport_size({"width": 1600, "height": 900})
            page.goto(f"{url}#/alarms")
            page.locator(".alarmtable select").nth(1).select_option("high")
            page.wait_for_timeout(1500)
            for button in page.get_by_role("button", name="Show the strip").all()[:3]:
                button.click()
                page.wait_for_timeout(300)
            _keep(page, "alarms")
            page.goto(f"{url}#/engineering")
            page.set_viewport_size({"width": 1600, "height": 1240})
            page.wait_for_timeout(3000)
            _keep(page, "engineering")
            browser.close()
        finally:
            ward.send_signal(signal.SIGINT)
            ward.wait(20)


if __name__ == "__main__":
    main()
