"""Starts the roles of a ward on this machine, starts those again that die, and stops them all.

    shard.a   died ─▶ its spare takes over; where none stands by yet, started again after 0.2, 0.4, ... 5 s;
                      five times at once, and it is given up

The control socket takes `status`, `kill ROLE` and `stop`; `ask` is its client. docs/architecture.md
shows the processes; `child.py` is one of them.
"""

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Literal, Self

import msgspec
import structlog
import zmq
from msgspec import Struct

from stream import process
from stream.roles.child import DOOR, WRONG_USAGE, Child, Role, RoleStatus

STOP_S = 1.5  # what roles get between SIGTERM and SIGKILL; all together stay under 3 s


class Command(Struct, frozen=True, tag_field="t", tag="command", forbid_unknown_fields=True):
    """What a client of the control socket asks."""

    id: str
    command: Literal["status", "kill", "stop"]
    role: str = ""


class Answer(Struct, frozen=True, tag_field="t", tag="answer"):
    """What it is told: done, or why not, and how all roles are."""

    id: str
    ok: bool
    text: str
    roles: dict[str, RoleStatus]


class Supervisor:
    """The parent of `roles`; use it as a context, in the main thread, and call `poll` often.

    `control`: the address of the control socket, None for none. `echo`: gets what roles log.
    Raises process.BindError where the control address is taken: another supervisor runs here."""

    def __init__(
        self,
        roles: Iterable[Role],
        state_dir: str | os.PathLike[str],
        *,
        control: str | None = None,
        echo: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        program: tuple[str, ...] = (sys.executable, str(DOOR)),
    ) -> None:
        self.stop_asked = False
        self._log = structlog.get_logger()
        self._socket = process.bind(zmq.ROUTER, "supervisor.control", control) if control else None
        state = Path(state_dir)
        (state / "logs").mkdir(parents=True, exist_ok=True)
        self._children = {role.name: Child(role, state, program=program, echo=echo, clock=clock) for role in roles}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for child in self._children.values():
            child.close()
        if self._socket is not None:
            self._socket.close(0)

    def start(self, *names: str) -> None:
        """Start these roles, in this order."""
        for name in names:
            self._children[name].start()

    def poll(self, timeout_s: float = 0.0) -> None:
        """Answer the control socket, see who has died and start it again; waits `timeout_s` at most."""
        if self._socket is None:
            time.sleep(timeout_s)
        elif self._socket.poll(round(timeout_s * 1000)):
            self._answer(*self._socket.recv_multipart()[:2])
        for child in self._children.values():
            child.poll()

    def wait_ready(self, names: Iterable[str], timeout_s: float, asked: Callable[[], bool] = lambda: False) -> bool:
        """Poll until these roles are ready; False if that took over `timeout_s`, one gave up, or a stop was asked."""
        names, until = tuple(names), time.monotonic() + timeout_s
        while not all(self._children[name].state == "ready" for name in names):
            if self.given_up or self.stop_asked or asked() or time.monotonic() > until:
                return False
            self.poll(0.02)
        return True

    def finish(self, name: str) -> None:
        """Ask a role that runs once to end now, as if by itself."""
        self._children[name].signal(signal.SIGTERM)

    def stop(self) -> None:
        """Stop all roles: SIGTERM, and SIGKILL for those that are still there after 1.5 s."""
        for child in self._children.values():
            child.dismiss_spare()
        alive = [child for child in self._children.values() if child.alive]
        for child in alive:
            child.signal(signal.SIGTERM)
        until = time.monotonic() + STOP_S
        while any(child.alive for child in alive) and time.monotonic() < until:
            time.sleep(0.01)
        for child in alive:
            if child.alive:
                self._log.warning("role_killed", name=child.role.name, after_s=STOP_S)
                child.signal(signal.SIGKILL)
            child.wait()

    def status(self) -> dict[str, RoleStatus]:
        """How each role is."""
        return {name: child.status() for name, child in self._children.items()}

    def finished(self, name: str) -> bool:
        """Whether a role that runs once has ended."""
        return self._children[name].state == "finished"

    def exit_code(self, name: str) -> int:
        """With which exit code a role last ended; 0 where it never did."""
        return self._children[name].code

    def last_line(self, name: str) -> str:
        """The last that a role wrote."""
        return self._children[name].last_line

    @property
    def given_up(self) -> str:
        """The first role that was given up, with its last line and how it died; empty where none was."""
        for child in self._children.values():
            if child.state == "given_up":
                return f"{child.role.name}: {child.last_line or 'no word of why'} ({child.died})"
        return ""

    @property
    def wrong_usage(self) -> bool:
        """Whether a role was given up because its settings cannot be used."""
        return any(child.state == "given_up" and child.code == WRONG_USAGE for child in self._children.values())

    def _answer(self, client: bytes, frame: bytes) -> None:
        assert self._socket is not None
        try:
            asked = msgspec.msgpack.decode(frame, type=Command)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            answer = Answer("", False, f"not a command: {error}", {})
        else:
            ok, text = self._do(asked)
            answer = Answer(asked.id, ok, text, self.status())
        self._socket.send_multipart([client, msgspec.msgpack.encode(answer)], zmq.NOBLOCK)

    def _do(self, asked: Command) -> tuple[bool, str]:
        if asked.command == "stop":
            self.stop_asked = True
        elif asked.command == "kill":
            child = self._children.get(asked.role)
            if child is None or not child.alive:
                return False, f"role {asked.role!r}: not running; known: {', '.join(self._children)}"
            child.signal(signal.SIGKILL)
        return True, "done"


def ask(address: str, command: Literal["status", "kill", "stop"], role: str = "", timeout_s: float = 2.0) -> Answer:
    """Ask the supervisor at `address`. Raises TimeoutError where none answers."""
    question = Command(id=secrets.token_hex(4), command=command, role=role)
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    with socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address)
        socket.send(msgspec.msgpack.encode(question))
        if not socket.poll(round(timeout_s * 1000)):
            raise TimeoutError(
                f"supervisor.control: nobody answers at {address} within {timeout_s} s; is a ward running?"
            )
        return msgspec.msgpack.decode(socket.recv(), type=Answer)
