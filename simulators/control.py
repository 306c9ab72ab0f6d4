"""The producer's control socket: make a fault happen, ask how it goes, let it come to its end.

    tell("tcp://127.0.0.1:5641", Fault(kind="lead_off", bed="bed3", for_s=20))

One msgpack map each way. A question is a `fault` (its fields below), a `status` or a `finish` (send no more, and wait
until the shards have all on disk); the answer says whether it was done, where it fell in the signal of each bed, and
how the producer is.
"""

import secrets
from collections.abc import Callable
from typing import Literal

import msgspec
import zmq
from msgspec import Struct

FaultKind = Literal[
    "flat", "lead_off", "rhythm", "loss", "duplicate", "reorder", "jitter", "clock_step", "clock_drift"
]  # fmt: skip
OF_BEDS = ("flat", "lead_off", "rhythm")
OF_LINKS = ("loss", "duplicate", "reorder", "jitter")


class Fault(Struct, frozen=True, tag_field="t", tag="fault", forbid_unknown_fields=True, kw_only=True):
    """What is to happen from now on, for `for_s`.

    flat, lead_off: on ECG signal `lead` (-1: all) of `bed`. rhythm: `rhythm` (vf, asystole, ...) in place of what `bed`
    has. loss, duplicate, reorder: of `share` of all frames, both ways. jitter: messages are held back up to `ms`.
    clock_step: the source's clock steps by `ms`. clock_drift: it runs fast by `ppm`."""

    kind: FaultKind
    bed: str = ""
    for_s: float = 10.0
    lead: int = -1
    rhythm: str = ""
    share: float = 0.0
    ms: float = 0.0
    ppm: float = 0.0
    id: str = ""


class Status(Struct, frozen=True, tag_field="t", tag="status", forbid_unknown_fields=True, kw_only=True):
    """How is it?"""

    id: str = ""


class Finish(Struct, frozen=True, tag_field="t", tag="finish", forbid_unknown_fields=True, kw_only=True):
    """Come to the end."""

    id: str = ""


class Told(Struct, frozen=True, tag_field="t", tag="told", kw_only=True):
    """The answer. `where`: (bed, epoch, first sample, sample after the last) that a fault of a bed fell on. `sent`:
    samples taken over so far. `late_ms`: how late packets went out, mean, p99 and max. `link`: frames by what the link
    did to them. `resent`: packets. `clock_ms`: how far the source's clock is off."""

    id: str
    ok: bool
    text: str = ""
    where: tuple[tuple[str, str, int, int], ...] = ()
    sent: int = 0
    late_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)
    n_late: int = 0
    link: dict[str, int] = {}
    resent: int = 0
    clock_ms: float = 0.0


Question = Fault | Status | Finish
_questions = msgspec.msgpack.Decoder(Question)


class Control:
    """The socket in the producer's loop: `poll` answers with what `do` returns. Raises ValueError for an address that
    cannot be bound."""

    def __init__(self, address: str) -> None:
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 200)
        self.socket.setsockopt(zmq.MAXMSGSIZE, 1 << 16)
        try:
            self.socket.bind(address)
        except zmq.ZMQError as error:
            self.socket.close(0)
            raise ValueError(f"control: {address} cannot be bound ({error.strerror}); choose another port") from None

    def poll(self, do: Callable[[Question], Told]) -> None:
        """Answer all that has been asked."""
        while True:
            try:
                client, *frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                question = _questions.decode(frames[-1] if frames else b"")
                told = do(question)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
                told = Told(id="", ok=False, text=str(error)[:1000])
            self.socket.send_multipart([client, msgspec.msgpack.encode(told)], zmq.NOBLOCK)

    def close(self) -> None:
        """Let go of the address."""
        self.socket.close(200)


def tell(address: str, question: Question, timeout_s: float = 2.0) -> Told:
    """Ask the producer at `address`. Raises TimeoutError where none answers."""
    question = msgspec.structs.replace(question, id=secrets.token_hex(4))
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    with socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address)
        socket.send(msgspec.msgpack.encode(question))
        if not socket.poll(round(timeout_s * 1000)):
            raise TimeoutError(f"control: no producer answers at {address} within {timeout_s:g} s")
        return msgspec.msgpack.decode(socket.recv(), type=Told)
