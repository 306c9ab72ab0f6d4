"""The whole ward with its real processes: any speed and packet gives the same alerts, and a kill costs nothing."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream import config
from stream.config import BedSettings, Settings
from stream.gateway.journal import Journal
from stream.gateway.subscriber import Publication, Subscriber
from stream.roles.child import Role
from stream.roles.run import in_folder
from stream.roles.supervisor import Supervisor
from stream.views.tally import Tally
from stream.wire import AlertEvent

READY_S = 150.0
ROLES = ("worker", "gateway", "shard.a")


@pytest.fixture
def ward(tmp_path: Path, free_port: Callable[[], int]) -> Settings:
    """A ward of its own ports and folder."""

    def tcp() -> str:
        return f"tcp://127.0.0.1:{free_port()}"

    worker, gateway = tcp(), tcp()
    raw = {
        "worker": {"bind": worker},
        "gateway": {"bind": gateway, "publish": tcp(), "control": tcp()},
        "supervisor": {"control": tcp()},
        "shards": {"a": {"bind": tcp(), "worker": worker, "gateway": gateway, "checkpoint_s": 1.0}},
    }
    return in_folder(config.build(raw), tmp_path)


class Ward:
    """A running ward, what it published, and its producers."""

    def __init__(self, settings: Settings, producers: dict[str, tuple[dict[str, BedSettings], list[str]]]) -> None:
        folder = Path(settings.supervisor.state_dir)
        config.save(settings, folder / "settings.json")
        given = ("--config", str(folder / "settings.json"))
        roles = [Role("worker", ("worker", *given)), Role("gateway", ("gateway", *given))]
        roles.append(Role("shard.a", ("shard", "a", *given)))
        for name, (beds, options) in producers.items():
            path = folder / f"{name}.json"
            config.save(msgspec.structs.replace(settings, beds=beds), path)
            account = ("--account", str(folder / f"{name}.sent.json"))
            roles.append(Role(name, ("produce", "--config", str(path), *account, *options), once=True))
        self.tally = Tally()
        self._folder = folder
        self._supervisor = Supervisor(roles, folder)
        self._news = Subscriber(settings.gateway.publish, settings.gateway.control)
        self._journal = Path(settings.gateway.journal)

    def __enter__(self) -> "Ward":
        self._supervisor.start(*ROLES)
        assert self._supervisor.wait_ready(ROLES, READY_S), self._supervisor.given_up
        return self

    def __exit__(self, *_: object) -> None:
        self._supervisor.stop()
        self._supervisor.__exit__(None, None, None)
        self._news.close()

    def run(self, until: Callable[[], bool], within_s: float) -> None:
        """Look after the ward until `until` holds."""
        deadline = time.monotonic() + within_s
        while not until():
            assert time.monotonic() < deadline, f"not within {within_s} s: {self._supervisor.status()}"
            assert not self._supervisor.given_up, self._supervisor.given_up
            self._supervisor.poll(0.02)
            for item in self._news.poll():
                if isinstance(item, Publication):
                    self.tally.take(item.message, 0.0)

    def start(self, *producers: str) -> None:
        self._supervisor.start(*producers)

    def settled(self, *producers: str) -> bool:
        """Whether these producers have ended, and every sample that they sent is accounted for."""
        if not all(self._supervisor.finished(name) for name in producers):
            return False
        known = self.tally.samples()
        return all(sum(known.get(bed, (0, 0))) == n for bed, n in self.sent(*producers).items())

    def sent(self, *producers: str) -> dict[str, int]:
        """Samples sent, by bed."""
        sent: dict[str, int] = {}
        for name in producers:
            sent |= json.loads((self._folder / f"{name}.sent.json").read_text())
        return sent

    def journal(self) -> list[AlertEvent]:
        """Every event of the journal, oldest first."""
        with Journal(self._journal, read_only=True) as journal:
            return list(journal.query())

    def standing(self) -> set[str]:
        """Codes of the alerts that are active now."""
        with Journal(self._journal, read_only=True) as journal:
            return {event.code for event in journal.active() if event.state == "active"}

    def strips(self, bed: str, before_s: float) -> dict[tuple[str, int], tuple[Any, ...]]:
        """All that each strip of a bed holds, by code and decision, of those that end before a time of the record."""
        with Journal(self._journal, read_only=True) as journal:
            named = [event.strip for event in journal.query(bed=bed) if event.phase == "start" and event.strip]
            kept = [strip for name in named if (strip := journal.strip(name)) is not None]
        assert len({strip.id for strip in kept}) == len(kept)
        return {
            (s.code, s.decided.sample): (s.first, s.onset.sample, s.samples().tobytes(), s.beats, s.labels)
            for s in kept
            if s.first + s.n + 2 * s.rate < before_s * s.rate  # the model has judged its beats by then
        }

    def kill(self, role: str) -> None:
        """SIGKILL a role, as a crash would."""
        pid = self._supervisor.status()[role].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def restarts(self, role: str) -> int:
        return self._supervisor.status()[role].restarts


def told(events: list[AlertEvent], bed: str, before_s: float) -> set[tuple[str, int, int]]:
    """(code, onset, stream_time) of the physiological alerts and those of the signal, up to a time of the record."""
    return {
        (event.code, event.onset.sample, event.stream_time.sample)
        for event in events
        if event.bed == bed
        and event.stream_time.sample < before_s * event.stream_time.fs
        and event.code not in WATCHDOGS
        and event.reason != "announced"
    }


# Of the wall clock, outside the promise.
WATCHDOGS = {"STREAM_LATE", "MODEL_STALLED", "MODEL_OVERLOADED", "CLOCK_UNSYNC", "SIGNAL_LOST"}


@pytest.mark.recordings
@pytest.mark.timeout(400)
def test_a_recording_gives_the_same_alerts_at_any_speed_and_in_any_packets(ward: Settings, recordings: Path) -> None:
    shown_s = {"1": 40, "20": 300, "max": 300}
    producers = {}
    for speed, stop_s in shown_s.items():
        for packet_ms in (20, 100, 1000):
            name = f"at-{speed}-in-{packet_ms}-ms"
            beds = {name: BedSettings(shard="a", source=str(recordings / "vfdb" / "421"))}
            producers[name] = (beds, ["--speed", speed, "--packet-ms", str(packet_ms), "--stop", str(stop_s)])
    with Ward(ward, producers) as running:
        running.start(*producers)
        running.run(lambda: running.settled(*producers), 300.0)
        time.sleep(1.0)
        events = running.journal()
        strips = {name: running.strips(name, shown_s[name.split("-")[1]] - 5.0) for name in producers}
    reference = told(events, "at-max-in-100-ms", 295)
    assert len({code for code, _, _ in reference}) >= 3, f"too quiet a record to show anything: {reference}"
    for name in producers:
        before_s = shown_s[name.split("-")[1]] - 5.0  # at its cut a record ends, so what hangs on the future differs
        assert told(events, name, before_s) == {t for t in reference if t[2] < before_s * 250}, name
        whole = strips["at-max-in-100-ms"]
        assert strips[name] == {key: whole[key] for key in strips[name]}, name
        assert len(strips[name]) == sum((key[1] / 250 + 7) < before_s for key in whole), name
    assert len(whole) >= 3


@pytest.mark.timeout(300)
def test_killing_the_worker_and_then_the_shard_loses_no_sample_and_no_alert(ward: Settings) -> None:
    sources = {"ASYSTOLE": "sim:asystole,seed=7", "VFIB": "sim:vf,seed=8", "HR_HIGH": "sim:tachy,seed=9"}
    killed = {f"killed-{code}": BedSettings(shard="a", source=source) for code, source in sources.items()}
    spared = {f"spared-{code}": BedSettings(shard="a", source=source) for code, source in sources.items()}
    stop = ["--stop", "48", "--packet-ms", "100"]
    producers = {"live": (killed, ["--speed", "1", *stop]), "replay": (spared, ["--speed", "max", *stop])}
    with Ward(ward, producers) as running:
        running.start("live")
        began = time.monotonic()
        running.run(lambda: time.monotonic() > began + 14, 60)
        running.kill("worker")
        running.run(lambda: {"VFIB", "HR_HIGH"} <= running.standing(), 150)  # in the middle of two long episodes
        running.kill("shard.a")
        running.run(lambda: running.settled("live"), 120)
        assert (running.restarts("worker"), running.restarts("shard.a")) == (1, 1)
        running.start("replay")
        running.run(lambda: running.settled("replay"), 120)
        time.sleep(1.0)
        events = running.journal()
        strips = {bed: running.strips(bed, 48.0) for bed in (*killed, *spared)}
        sent, known = running.sent("live", "replay"), running.tally.samples()
    assert {bed: known[bed] for bed in sent} == {bed: (n, 0) for bed, n in sent.items()}, "judged, missing"
    for code in sources:
        expected = told(events, f"spared-{code}", 48)
        assert code in {name for name, _, _ in expected}
        assert told(events, f"killed-{code}", 48) == expected
        assert starts(events, f"killed-{code}") == starts(events, f"spared-{code}")
        assert code in {name for name, _ in strips[f"killed-{code}"]}
        assert strips[f"killed-{code}"] == strips[f"spared-{code}"], "a strip that the kill fell into"


def starts(events: list[AlertEvent], bed: str) -> Counter[tuple[str, int]]:
    """How often each episode began: once, if no alert is doubled."""
    return Counter(
        (event.code, event.onset.sample)
        for event in events
        if event.bed == bed and event.phase == "start" and event.code not in WATCHDOGS
    )
