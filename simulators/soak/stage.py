"""The processes of a soak: the ward under its supervisor, the producer, and what stands in the way of both.

    with Stage(plan, folder) as stage:
        stage.start()
        stage.kill("worker")
        stage.finish()

The ward is started by its command line, told by its control socket, and known by its `status`.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from simulators.control import Fault, Finish, Status, Told, tell
from simulators.ledger import Read
from simulators.soak.faults import FullDisk
from simulators.soak.plan import Plan, PlanError, beds_of
from stream.roles.supervisor import ask

DOOR = Path(__file__).resolve().parents[2] / "run_pipeline.py"
READY_S = 240.0
PATIENCE_S = 10.0  # with a process that has too little of the machine
DISK_MB = 256  # of the journal, in memory: an hour of 200 beds takes 60


class StageError(RuntimeError):
    """A process of the soak did not do what it must; with its last words."""


@dataclass(slots=True)
class Session:
    """One life of the producer. `killed_ns`: UTC, 0 where it was not killed."""

    ledger: Path
    process: "subprocess.Popen[bytes]"
    killed_ns: int = 0
    told: Told | None = None

    def read(self) -> Read:
        """What it has sent."""
        return Read.of(self.ledger)


@dataclass(slots=True)
class Laid:
    """A fault on a bed's signal: samples first <= s < end of an epoch."""

    kind: str
    bed: str
    epoch: str
    first: int
    end: int


@dataclass(slots=True)
class _Later:
    """What is to be undone when its time comes."""

    due: float
    undo: Callable[[], None]
    done: bool = field(default=False)


class Stage:
    """See the module. `sources`: what each bed plays. `sessions`, `laid`: what has been played so far."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder.resolve()
        self.sources = beds_of(plan)
        self.sessions: list[Session] = []
        self.laid: list[Laid] = []
        self.notes: list[str] = []
        self._ports = _ports(plan.port, 7 + plan.shards)
        names = [chr(ord("a") + i) if i < 26 else f"s{i}" for i in range(plan.shards)]
        self.publish, self.control = self._address(0), self._address(1)
        self._producer_control = self._address(2)
        capacity = -(-plan.beds // plan.shards)
        ward: dict[str, Any] = {
            "ward": {"name": plan.name[:64]},
            "supervisor": {"control": self.control, "state_dir": str(self.folder)},
            "worker": {"bind": self._address(3)},
            "gateway": {
                "bind": self._address(4),
                "publish": self.publish,
                "control": self._address(5),
                "journal": str(self.folder / "journal" / "journal.sqlite"),
            },
            "shards": {
                name: {
                    "bind": self._address(7 + i),
                    "state_dir": str(self.folder / f"shard-{name}"),
                    "capacity": capacity,
                    "n_leads": 2,
                }
                for i, name in enumerate(names)
            },
        }
        self.ward = _merged(ward, plan.ward)
        beds = {
            bed: {"source": source, "shard": names[i % len(names)]}
            for i, (bed, source) in enumerate(self.sources.items())
        }
        self._producing = self.ward | {"beds": beds}
        self._ward_process: subprocess.Popen[bytes] | None = None
        self._mounted: Path | None = None
        self._dawdlers: list[zmq.Socket[bytes]] = []
        self._later: list[_Later] = []

    def __enter__(self) -> "Stage":
        (self.folder / "journal").mkdir(parents=True, exist_ok=True)
        if any(isinstance(fault, FullDisk) for fault in self.plan.fault) or any(
            choice.get("kind") == "full_disk" for draw in self.plan.random for choice in draw.choose
        ):
            self._mount(self.folder / "journal")
        (self.folder / "ward.json").write_text(json.dumps(self.ward, indent=1))
        (self.folder / "beds.json").write_text(json.dumps(self._producing, indent=1))
        return self

    def __exit__(self, *_: object) -> None:
        for later in self._later:
            if not later.done:
                later.undo()
        for session in self.sessions:
            _end(session.process, 3.0)
        if self._ward_process is not None:
            _end(self._ward_process, 15.0)
        if self._mounted is not None:
            for path in self._mounted.glob("journal.sqlite*"):  # with what is in its log still
                shutil.copy(path, self.folder)
            subprocess.run(["umount", "-l", str(self._mounted)], check=False)

    def start(self, asked: Callable[[], bool] = lambda: False) -> bool:
        """Start ward and producer, and wait until both are ready; False where a stop was asked meanwhile.
        Raises StageError where they do not come up."""
        given = ["run", "--config", str(self.folder / "ward.json"), "--headless"]
        self._ward_process = self._run(given, "ward.log")
        until = time.monotonic() + READY_S
        while not self._ready():
            if asked():
                return False
            if self._ward_process.poll() is not None or time.monotonic() > until:
                raise StageError(f"the ward is not ready: {_last_line(self.folder / 'ward.log')}")
            time.sleep(0.1)
        self._produce()
        while self._told() is None:
            if asked():
                return False
            if self.sessions[-1].process.poll() is not None or time.monotonic() > until:
                raise StageError(f"the producer is not ready: {_last_line(self.folder / 'producer-1.log')}")
            time.sleep(0.1)
        return True

    def turn(self) -> None:
        """Undo what is due. Raises StageError where the ward or the producer has ended by itself."""
        for later in self._later:
            if not later.done and time.monotonic() >= later.due:
                later.done = True
                later.undo()
        if self._ward_process is not None and self._ward_process.poll() is not None:
            raise StageError(f"the ward has ended: {_last_line(self.folder / 'ward.log')}")
        if self.sessions[-1].process.poll() is not None:
            raise StageError(
                f"the producer has ended: {_last_line(self.folder / f'producer-{len(self.sessions)}.log')}"
            )

    def roles(self) -> dict[str, int]:
        """Name to pid of all processes that run: the roles, their spares, their supervisor, the producer."""
        pids = {"producer": self.sessions[-1].process.pid} if self.sessions else {}
        assert self._ward_process is not None
        pids["supervisor"] = self._ward_process.pid
        with contextlib.suppress(TimeoutError):
            told = ask(self.control, "status").roles
            pids |= {name: role.pid for name, role in told.items() if role.pid}
            pids |= {f"{name} spare": role.spare for name, role in told.items() if role.spare}
        return pids

    def restarts(self) -> dict[str, int]:
        """How often each role was started again."""
        try:
            return {name: role.restarts for name, role in ask(self.control, "status").roles.items()}
        except TimeoutError:
            return {}

    def status(self) -> Told | None:
        """How the producer is."""
        told = self._told()
        if told is not None:
            self.sessions[-1].told = told
        return told

    # What faults are done to: see `faults.Stage`.

    def tell(self, fault: Fault) -> None:
        told = tell(self._producer_control, fault, PATIENCE_S)
        if not told.ok:
            raise StageError(f"fault {fault.kind}: {told.text}")
        self.laid += [Laid(fault.kind, *where) for where in told.where]

    def kill(self, role: str) -> None:
        answer = ask(self.control, "kill", role, PATIENCE_S)
        if not answer.ok:
            self.notes.append(f"kill {role}: {answer.text}")

    def kill_producer(self) -> None:
        self.status()
        session = self.sessions[-1]
        session.process.kill()
        session.process.wait()
        session.killed_ns = time.time_ns()
        self._produce()

    def dawdle(self, for_s: float) -> None:
        subscriber: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, 10), (zmq.RCVBUF, 4096)):
            subscriber.setsockopt(option, value)
        subscriber.subscribe(b"")
        subscriber.connect(self.publish)
        self._later.append(_Later(time.monotonic() + for_s, lambda: subscriber.close(0)))

    def fill_disk(self, for_s: float) -> None:
        assert self._mounted is not None
        ballast = self._mounted / "ballast"
        try:
            with ballast.open("ab", buffering=0) as file:
                while True:
                    file.write(b"\0" * (1 << 16))
        except OSError:
            pass  # full
        self._later.append(_Later(time.monotonic() + for_s, lambda: ballast.unlink(missing_ok=True)))

    def some_beds(self, n: int, rng: random.Random) -> list[str]:
        simulated = [bed for bed, source in self.sources.items() if source.startswith("sim:")]
        return rng.sample(simulated, min(n, len(simulated)))

    def finish(self) -> None:
        """Have the producer come to its end."""
        until = time.monotonic() + 6 * PATIENCE_S  # one that was just started has to draw its patients first
        while time.monotonic() < until and not self.finished():
            with contextlib.suppress(TimeoutError):
                self.sessions[-1].told = tell(self._producer_control, Finish())
                return
        self.notes.append("the producer did not answer when it was to finish")

    def finished(self) -> bool:
        """Whether the producer has ended."""
        return self.sessions[-1].process.poll() is not None

    def stop(self) -> None:
        """Stop the ward."""
        try:
            ask(self.control, "stop")
        except TimeoutError:
            self.notes.append("the supervisor did not answer when it was to stop")
        assert self._ward_process is not None
        try:
            self._ward_process.wait(60)
        except subprocess.TimeoutExpired:
            self.notes.append("the ward did not stop within 60 s")

    def _produce(self) -> None:
        number = len(self.sessions) + 1
        ledger = self.folder / f"sent-{number}"
        given = ["produce", "--config", str(self.folder / "beds.json"), "--packet-ms", str(self.plan.packet_ms)]
        given += ["--spread", "--loop", "--control", self._producer_control, "--ledger", str(ledger)]
        self.sessions.append(Session(ledger, self._run(given, f"producer-{number}.log")))
        self._let_go_first(self.sessions[-1].process.pid)

    def _let_go_first(self, pid: int) -> None:
        """The producer stands for monitors, which have processors of their own: it waits for none where that may be
        had (CAP_SYS_NICE, on Linux), else its lateness is in part that of a busy machine."""
        try:
            os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
        except (AttributeError, OSError):
            note = "the producer may not go before the ward in the queue for processors, so its lateness is theirs too"
            if note not in self.notes:
                self.notes.append(note)

    def _run(self, arguments: list[str], log: str) -> "subprocess.Popen[bytes]":
        with (self.folder / log).open("wb") as output:
            return subprocess.Popen(
                [sys.executable, str(DOOR), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {"WARDBEAT_LOG": "json", "WARDBEAT_SUPERVISOR": str(os.getpid()), "OMP_NUM_THREADS": "1"},
                process_group=0,  # Ctrl-C is for the soak, which then ends them in order
            )

    def _ready(self) -> bool:
        try:
            roles = ask(self.control, "status", timeout_s=0.5).roles
        except TimeoutError:
            return False
        return bool(roles) and all(role.state == "ready" for role in roles.values())

    def _told(self) -> Told | None:
        try:
            return tell(self._producer_control, Status(), timeout_s=0.5)
        except TimeoutError:
            return None

    def _mount(self, folder: Path) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PlanError(
                f"fault full_disk: {DISK_MB} MB cannot be mounted at {folder} ({done.stderr.strip()}); "
                "run as root on Linux, or leave full_disk out of the plan"
            )
        self._mounted = folder

    def _address(self, place: int) -> str:
        return f"tcp://127.0.0.1:{self._ports[place]}"


def _ports(first: int, n: int) -> list[int]:
    if first:
        return list(range(first, first + n))
    probes = [socket.socket() for _ in range(n)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _merged(one: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `one`, table by table."""
    merged = dict(one)
    for key, value in over.items():
        merged[key] = _merged(merged[key], value) if isinstance(value, Mapping) and key in merged else value
    return merged


def _end(process: "subprocess.Popen[bytes]", within_s: float) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no word of why"
