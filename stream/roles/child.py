"""One role's process as its supervisor sees it: started, ready, dead, started again, given up.

A role is a command line of run_pipeline.py in a process group of its own. It says that it can be used
with `stream.log.mark_ready`, which touches the file that is named in its environment
(`state_dir/ROLE.ready`). What it writes goes to `state_dir/logs/ROLE.log`. No role outlives its
supervisor, however that dies: see `follow_parent`. Of a role whose loading takes longer than it may be away, a
spare process stands by, loaded (`stream.process.stand_by`), and takes over at once when the first one dies.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Literal

import structlog
from msgspec import Struct

from stream.log import READY_FILE
from stream.process import STAND_BY, die_with

BACKOFF_S, MAX_BACKOFF_S = 0.2, 5.0
AT_ONCE_S = 5.0  # a role that dies sooner than this after its start, or before it is ready, died at once
MAX_DEATHS_AT_ONCE = 5
SPARE_AGAIN_S = 60.0  # after a spare has died
WRONG_USAGE = 2
PARENT = "WARDBEAT_SUPERVISOR"
# Of the environment of a role, where it has no others. A role has its own `threads`: BLAS must not take all cores.
DEFAULTS = {"OMP_NUM_THREADS": "1"}
DOOR = Path(__file__).resolve().parents[2] / "run_pipeline.py"

State = Literal["waiting", "starting", "ready", "finished", "given_up"]


class Role(Struct, frozen=True):
    """`arguments`: of run_pipeline.py. `once`: it ends by itself and for good: with exit code 0, or, once it was
    ready, with any; not by a signal. `spare_after_s`: how long after it is ready a spare is started; None for none."""

    name: str
    arguments: tuple[str, ...]
    once: bool = False
    spare_after_s: float | None = None


class RoleStatus(Struct, frozen=True):
    """`restarts`: how often it was started again. `died`: how it last ended, empty where it did not.
    `spare`: the process that stands by for it."""

    pid: int | None
    state: State
    restarts: int
    died: str
    spare: int | None = None


class Child:
    """The lives of one role. Nothing happens by itself: `poll` reads its log, sees its death and starts it again.

    `program`: what stands before the role's arguments. `echo`: gets what the role writes, line by line.
    `clock`: monotonic, in s."""

    def __init__(
        self,
        role: Role,
        state_dir: Path,
        *,
        program: tuple[str, ...] = (sys.executable, str(DOOR)),
        echo: IO[str] | None = None,
        clock: Callable[[], float],
    ) -> None:
        self.role = role
        self.state: State = "waiting"
        self.died = ""
        self.code = 0
        self._program, self._clock = program, clock
        self._log = structlog.get_logger()
        self._ready_file = state_dir / f"{role.name}.ready"
        self._output = (state_dir / "logs" / f"{role.name}.log").open("wb")
        self._tail = Tail(state_dir / "logs" / f"{role.name}.log", echo)
        self._process: subprocess.Popen[bytes] | None = None
        self._spare: subprocess.Popen[bytes] | None = None
        self._spare_due = math.inf
        self._restarts = self._deaths_at_once = 0
        self._was_ready = False
        self._started = self._due = 0.0

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def last_line(self) -> str:
        """The last that it wrote."""
        return self._tail.last

    def start(self) -> None:
        """Start its process, or let the spare take over where one stands by."""
        self._ready_file.unlink(missing_ok=True)
        spare, self._spare = self._spare, None
        self._process = process = spare if spare is not None and _your_turn(spare) else self._open()
        self.state, self._started = "starting", self._clock()
        self._log.info("role_started", name=self.role.name, pid=process.pid, spare=process is spare)

    def _open(self, spare: bool = False) -> subprocess.Popen[bytes]:
        environment = DEFAULTS | os.environ | {PARENT: str(os.getpid()), READY_FILE: str(self._ready_file)}
        environment |= {STAND_BY: "1"} if spare else {}
        return subprocess.Popen(
            [*self._program, *self.role.arguments],
            stdin=subprocess.PIPE if spare else subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,  # Ctrl-C in the terminal is for the supervisor, which then stops them in order
        )

    def poll(self) -> None:
        """Look after it once."""
        self._tail.read()
        now = self._clock()
        if self._process is None:
            if self._restarts and self.state == "waiting" and now >= self._due:
                self.start()
            return
        if self.state == "starting" and self._ready_file.exists():
            self.state, self._was_ready = "ready", True
            self._log.info("role_ready", name=self.role.name, after_s=round(now - self._started, 2))
            if self.role.spare_after_s is not None:
                self._spare_due = now + self.role.spare_after_s
        if not self.alive:
            self._bury(self._process.returncode, now)
        elif self._spare is not None and self._spare.poll() is not None:
            self._log.warning("spare_died", name=self.role.name, code=self._spare.returncode)
            self.dismiss_spare()
            self._spare_due = now + SPARE_AGAIN_S
        elif self._spare is None and self.state == "ready" and now >= self._spare_due:
            self._spare = self._open(spare=True)

    def signal(self, number: int) -> None:
        """Send a signal to its process group, where it runs."""
        if self._process is not None and self.alive:
            os.killpg(self._process.pid, number)

    def status(self) -> RoleStatus:
        """How it is."""
        pid = self._process.pid if self._process is not None and self.alive else None
        spare = self._spare.pid if self._spare is not None and self._spare.poll() is None else None
        return RoleStatus(pid, self.state, self._restarts, self.died, spare)

    def dismiss_spare(self) -> None:
        """End the process that stands by, where one does."""
        spare, self._spare, self._spare_due = self._spare, None, math.inf
        if spare is not None:
            spare.kill()
            spare.wait()
            _hang_up(spare)

    def wait(self) -> None:
        """Wait for the process that was stopped, and read its last words."""
        if self._process is not None:
            self._process.wait(1.0)
        self._tail.read()

    def close(self) -> None:
        """Let go of its log."""
        self._tail.close()
        self._output.close()

    def _bury(self, code: int, now: float) -> None:
        at_once = self.state != "ready" or now - self._started < AT_ONCE_S
        self._deaths_at_once = self._deaths_at_once + 1 if at_once else 0
        self._process, self.code = None, code
        self.died = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._tail.read()
        self._spare_due = math.inf
        if self.role.once and (code == 0 or (code > 0 and self._was_ready)):
            self.state = "finished"
            self._log.info("role_finished", name=self.role.name, died=self.died)
        elif self._deaths_at_once >= MAX_DEATHS_AT_ONCE or (code == WRONG_USAGE and not self._was_ready):
            self.state = "given_up"
            self.dismiss_spare()
            self._log.error("role_given_up", name=self.role.name, died=self.died, last_line=self.last_line)
        else:
            backoff_s = min(BACKOFF_S * 2 ** max(0, self._deaths_at_once - 1), MAX_BACKOFF_S)
            wait_s = backoff_s if self._spare is None else 0.0
            self.state, self._due = "waiting", now + wait_s
            self._restarts += 1
            self._log.warning(
                "role_restarted", name=self.role.name, died=self.died, after_s=wait_s, restarts=self._restarts
            )


def _your_turn(spare: subprocess.Popen[bytes]) -> bool:
    """Tell a spare to take over; False where it is dead."""
    assert spare.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        spare.stdin.write(b"\n")
    _hang_up(spare)
    return spare.poll() is None


def _hang_up(spare: subprocess.Popen[bytes]) -> None:
    assert spare.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        spare.stdin.close()


def follow_parent(environment: Mapping[str, str] = os.environ) -> None:
    """In a role's process: die with the supervisor (`die_with`). Nothing is done where none started this process."""
    parent = environment.get(PARENT)
    if parent is not None:
        die_with(int(parent))


class Tail:
    """Follows a log file as it grows; `last` is its last line."""

    def __init__(self, path: Path, echo: IO[str] | None = None) -> None:
        self.last = ""
        self._echo = echo
        self._file = path.open("r", encoding="utf-8", errors="replace")
        self._part = ""

    def read(self) -> None:
        """Take what is new; whole lines go to the echo."""
        new = self._file.read()
        if not new:
            return
        *lines, self._part = (self._part + new).split("\n")
        self.last = next((line.strip() for line in reversed([*lines, self._part]) if line.strip()), self.last)
        if self._echo is not None and lines:
            self._echo.write("\n".join(lines) + "\n")
            self._echo.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
