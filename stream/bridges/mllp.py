"""HL7 over MLLP: one message in flight on a socket, each answered by an acknowledgement that names it.

Enhanced mode: CA and AA are good; CE and AE mean try again; CR and AR never. An acknowledgement of
another message, or a second one, is passed over and counted. Without one in time the socket is closed
and the same message, with the same MSH-10, goes out on a new one: on the old its answer could still
come, and be taken for the next's. Numerics have a socket of their own, so alerts never wait for them.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from typing import ClassVar, NamedTuple

from stream.bridges.bridge import Bridge, Broken, BusError, Heartbeat, NotNow, Rejected, Ward, place, tls
from stream.bridges.codes import Codes
from stream.bridges.hl7 import Hl7Settings, alert_message, escaped, heartbeat_message, numeric_message
from stream.wire import AlertEvent, Numeric

BEGIN, END = b"\x0b", b"\x1c\x0d"
MAX_ANSWER = 65_536


class Answer(NamedTuple):
    """MSA of an acknowledgement: its code, the MSH-10 that it is for, and what else it says."""

    code: str
    control: str
    text: str


def answer_of(message: bytes) -> Answer | None:
    """The acknowledgement in a message; None where there is no MSA."""
    text = message.decode(errors="replace")
    separator = text[3:4] if text.startswith("MSH") else "|"
    for segment in text.replace("\n", "\r").split("\r"):
        fields = segment.split(separator or "|")
        if fields[0] == "MSA" and len(fields) > 2:
            return Answer(fields[1].strip(), fields[2].strip(), " ".join(fields[3:])[:300])
    return None


class Mllp:
    """One connection. `broken` is told as soon as the other end is seen to have closed."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._host, self._port, self._context = host, port, context
        self._turn = asyncio.Lock()
        self._waiting: tuple[str, asyncio.Future[Answer]] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self.counts: Counter[str] = Counter()
        self.broken = Broken()

    async def connect(self) -> None:
        """Raises OSError or ssl.SSLError."""
        reader, self._writer = await asyncio.open_connection(
            self._host, self._port, ssl=self._context, server_hostname=self._host if self._context else None
        )
        with contextlib.suppress(OSError):
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._reading = asyncio.create_task(self._read(reader))

    async def send(self, message: bytes, control: str) -> Answer:
        """Send a message and wait for its acknowledgement. Whoever gives up waiting closes the connection with it."""
        async with self._turn:
            if self._writer is None or self.broken.error is not None:
                raise self.broken.error or ConnectionError("not connected")
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self._waiting = control, answer
            try:
                self._writer.write(BEGIN + message + END)
                await self._writer.drain()
                return await answer
            except asyncio.CancelledError:
                self.close("no acknowledgement in time")
                raise
            finally:
                self._waiting = None

    def close(self, why: str = "closed") -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        self._break(ConnectionError(why))

    def _break(self, error: Exception) -> None:
        self.broken.tell(error)
        if self._waiting is not None and not self._waiting[1].done():
            self._waiting[1].set_exception(error)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        kept = b""
        try:
            while data := await reader.read(4096):
                kept += data
                while END in kept:
                    frame, _, kept = kept.partition(END)
                    self._take(frame.rpartition(BEGIN)[2])
                if len(kept) > MAX_ANSWER:
                    raise ConnectionError(f"an answer of over {MAX_ANSWER} bytes without an end")
            raise ConnectionError("the receiver closed the connection")
        except (OSError, asyncio.IncompleteReadError) as error:
            if self._writer is not None:
                self._writer.transport.abort()
            self._break(error)

    def _take(self, frame: bytes) -> None:
        answer = answer_of(frame)
        if answer is None or self._waiting is None or answer.control != self._waiting[0]:
            self.counts["answers_unexpected"] += 1
        elif not self._waiting[1].done():
            self._waiting[1].set_result(answer)


class Hl7Bridge(Bridge):
    """See the module."""

    window: ClassVar[int] = 1

    def __init__(self, name: str, settings: Hl7Settings, ward: Ward) -> None:
        self._settings, self._ward = settings, ward
        self._codes = Codes(settings.codes, pending=settings.pending_codes)
        self._alerts: Mllp | None = None
        self._numerics: Mllp | None = None

    async def open(self) -> None:
        self._alerts = await self._connect()

    async def close(self) -> None:
        for line in (self._alerts, self._numerics):
            if line is not None:
                line.close()
        self._alerts = self._numerics = None

    async def lost(self) -> None:
        assert self._alerts is not None
        await self._alerts.broken.wait()

    async def alert(self, event: AlertEvent) -> None:
        assert self._alerts is not None
        message = alert_message(event, self._settings, self._codes, self._ward)
        _judge(await self._alerts.send(message, escaped(event.event_id)))

    async def heartbeat(self, beat: Heartbeat) -> None:
        assert self._alerts is not None
        message = heartbeat_message(beat.at_ns, self._settings, self._ward)
        with contextlib.suppress(NotNow, Rejected):  # whatever it thinks of heartbeats, it is there
            _judge(await self._alerts.send(message, _control(message)))

    async def numeric(self, numeric: Numeric) -> None:
        if self._numerics is None or self._numerics.broken.error is not None:
            self._numerics = await self._connect()
        message = numeric_message(numeric, self._settings, self._ward)
        _judge(await self._numerics.send(message, _control(message)))

    async def check(self) -> str:
        (await self._connect()).close()
        return f"{self._settings.url} takes a connection; nothing was sent over it"

    async def tail(self) -> AsyncIterator[str]:
        host, port = place(self._settings.url, 2575)
        arrived: asyncio.Queue[str] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    frame = (await reader.readuntil(END))[: -len(END)].rpartition(BEGIN)[2]
                    arrived.put_nowait(frame.decode(errors="replace").replace("\r", "\n"))
                    writer.write(BEGIN + acknowledgement(frame) + END)
                    await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, host, port):
            while True:
                yield await arrived.get()

    async def _connect(self) -> Mllp:
        own = self._settings
        secure = own.url.startswith("mllps:")
        host, port = place(own.url, 2575)
        line = Mllp(host, port, tls(own, secure))
        try:
            async with asyncio.timeout(own.timeout_s):
                await line.connect()
        except ssl.SSLCertVerificationError as error:
            raise BusError(f"url: {own.url}: the certificate does not fit: {error.verify_message}") from None
        except TimeoutError:
            raise TimeoutError(f"{own.url} takes no connection within {own.timeout_s:g} s") from None
        return line


def acknowledgement(message: bytes, code: str = "CA") -> bytes:
    """The answer to a message, as a receiver gives it."""
    control = _control(message)
    return f"MSH|^~\\&|||||||ACK^R40^ACK|{control}-ack|D|2.6\rMSA|{code}|{control}\r".encode()


def _control(message: bytes) -> str:
    """MSH-10 of a message."""
    fields = message.partition(b"\r")[0].split(b"|")
    return fields[9].decode() if len(fields) > 9 else ""


def _judge(answer: Answer) -> None:
    if answer.code in {"CA", "AA"}:
        return
    said = f"{answer.code} {answer.text}".strip()
    if answer.code in {"CE", "AE"}:
        raise NotNow(f"the receiver answered {said}")
    raise Rejected(f"the receiver answered {said}")
