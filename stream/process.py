"""What each role's process needs: to be asked to stop, to bind its socket or say why not, a fresh id."""

import contextlib
import ctypes
import gc
import os
import secrets
import signal
import sys
from types import FrameType
from typing import Any

import zmq

from stream.wire import MAX_FRAME_BYTES

MAX_WAITING_MESSAGES = 10_000
STAND_BY = "WARDBEAT_STAND_BY"  # set by the supervisor in the environment of a spare process


class BindError(ValueError):
    """An address that cannot be bound: one line with the setting, the value and the mend."""


class Stop:
    """`asked` becomes true at SIGINT or SIGTERM. Used as a context, in the main thread."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def bind(kind: int, setting: str, address: str) -> zmq.Socket[bytes]:
    """A socket bound to `address`, which refuses frames over the wire's limit unread.

    Raises BindError where the port is taken or the address is none."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.LINGER, 200)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.SNDHWM, MAX_WAITING_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, MAX_WAITING_MESSAGES)
    if kind == zmq.ROUTER:  # a peer that is back before its old connection is seen to be gone takes over
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close(0)
        mend = (
            "stop what holds it, or set another port" if error.errno == zmq.EADDRINUSE else "see docs/configuration.md"
        )
        raise BindError(f"{setting}: {address} cannot be bound ({error.strerror}); {mend}") from None
    return socket


def connect(address: str, identity: str = "") -> zmq.Socket[bytes]:
    """A DEALER connected to `address`; it reconnects by itself and is never waited for.

    `identity`: what it is known by again after a broken connection; without, it is a stranger then."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    if identity:
        socket.setsockopt(zmq.ROUTING_ID, identity.encode())
    socket.setsockopt(zmq.LINGER, 200)
    socket.setsockopt(zmq.SNDHWM, MAX_WAITING_MESSAGES)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    socket.connect(address)
    return socket


def die_with(parent: int) -> None:
    """In a child of process `parent`: die when it dies, even by SIGKILL. Linux only (PR_SET_PDEATHSIG), where the
    signal comes with the end of the *thread* that started this process: start it in the main thread."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        raise SystemExit(1)


def stand_by() -> None:
    """In a spare process: wait, all loaded and nothing bound, until its supervisor says that its turn has come."""
    if os.environ.get(STAND_BY) and not sys.stdin.buffer.readline():
        raise SystemExit(0)  # not needed any more


def steady_heap() -> None:
    """Before a role begins: what memory is given back to the system. Pieces of 4 MiB are, whole: by itself the C
    library's limit grows, and its heap with holes. Smaller ones are not: to have their pages again for each call costs
    a fifth of the model's time. With glibc alone, and not where MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_ says
    otherwise."""
    m_trim_threshold, m_mmap_threshold = -1, -3
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
            mallopt(m_mmap_threshold, 4 << 20)
        if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
            mallopt(m_trim_threshold, 64 << 20)


def settle_memory() -> None:
    """Once a role is ready: what is there now stays, so the garbage collector is not to look through it again, which
    takes a tenth of a second in which nothing goes out. Hardly anything of a role's messages is in a cycle, so it is to
    look seldom at all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def fresh_id() -> str:
    """An id for a session of this process."""
    return f"{os.getpid():x}-{secrets.token_hex(4)}"
