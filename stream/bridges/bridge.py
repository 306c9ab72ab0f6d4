"""What every bridge is: settings, a mapping of our events, and a thin client of one bus.

A new bridge is one file with a settings class and a subclass of `Bridge`, and one line in `kinds`.
The courier calls it and does all the rest: order, retries, dead letters, reconnecting. docs/buses.md
shows how.
"""

import asyncio
import hashlib
import importlib
import os
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta, Struct

from stream.wire import AlertEvent, BeatJudgement, Numeric, Waves, WindowJudgement

Class = Literal["alerts", "numerics", "beats", "profile", "waves"]
FilePath = Annotated[str, Meta(min_length=1, max_length=1000)]
Credential = Annotated[str, Meta(min_length=1, max_length=1000)]


MEANINGS: dict[str, str] = {}
"""What patterns of settings ask for, in words, by pattern."""


class BusError(ValueError):
    """A bus that cannot be used as it is set up; the text names the setting, its value and the mend."""


class Rejected(Exception):
    """The bus will never take this message: it becomes a dead letter at once."""


class NotNow(Exception):
    """The bus does not take this message now: it is tried again, and a dead letter after `tries`.

    Anything else that a bridge raises means that its connection is not to be used any more."""


class BridgeSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    """What all bridges have. `classes`: what goes out. `numerics_s`, `heartbeat_s`: how often. `timeout_s`: how
    long the bus may take to acknowledge. `tries`: how often a message that the bus does not take is
    offered. `backoff_s`, `backoff_cap_s`: the first and the longest pause between tries; pauses double."""

    classes: tuple[Class, ...] = ("alerts", "numerics")
    numerics_s: Annotated[float, Meta(ge=0.2, le=60)] = 1.0
    heartbeat_s: Annotated[float, Meta(ge=0.5, le=10)] = 5.0
    timeout_s: Annotated[float, Meta(ge=0.2, le=60)] = 5.0
    tries: Annotated[int, Meta(ge=1, le=100)] = 8
    backoff_s: Annotated[float, Meta(ge=0.01, le=10)] = 0.2
    backoff_cap_s: Annotated[float, Meta(ge=0.1, le=300)] = 30.0

    paths: ClassVar[tuple[str, ...]] = ()  # fields that are paths, taken from the folder of ward.toml


class NetworkSettings(BridgeSettings, frozen=True, kw_only=True):
    """Of a bus over a network. `ca`, `cert`, `key`: PEM files for TLS, which the scheme of `url` asks for.
    `password`: as it is, or `env:NAME`, or `file:PATH`, which keep it out of ward.toml."""

    ca: FilePath | None = None
    cert: FilePath | None = None
    key: FilePath | None = None
    username: Credential | None = None
    password: Credential | None = None

    paths: ClassVar[tuple[str, ...]] = ("ca", "cert", "key")


class Ward(NamedTuple):
    """How the ward is called, from [ward] of ward.toml."""

    name: str
    unit: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What is said at most 10 s apart, so that silence is never read as calm: when (ns since 1970 UTC),
    the beds that are monitored, and all alerts that stand as far as this bus was told."""

    at_ns: int
    beds: Sequence[str]
    standing: Sequence[AlertEvent]


class Bridge(ABC):
    """One bus. All methods run in one event loop; `alert` may be called `window` times at once, for different beds."""

    window: ClassVar[int] = 64
    overlap_s: ClassVar[float] = 0.0
    """Alerts acknowledged so shortly before a connection broke go out again: for a bus that acknowledges
    what it has not on its disk."""

    @abstractmethod
    async def open(self) -> None:
        """Connect. Raises BusError where the settings are wrong, anything else where the bus is away."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect, and say that this is meant."""

    async def lost(self) -> None:
        """Raise as soon as the connection is seen to be broken; one that cannot tell waits for ever."""
        await asyncio.Event().wait()

    @abstractmethod
    async def alert(self, event: AlertEvent) -> None:
        """Deliver an alert event; returns once the bus has acknowledged it. Raises Rejected or NotNow."""

    @abstractmethod
    async def heartbeat(self, beat: Heartbeat) -> None:
        """Say that the ward is watched."""

    @abstractmethod
    async def numeric(self, numeric: Numeric) -> None:
        """Send the newest numeric of a bed. Not repeated where it fails."""

    async def judgement(self, message: BeatJudgement | WindowJudgement) -> None:
        """Send a judged beat or the profile of a window. Not repeated where it fails."""
        raise BusError(f"{type(self).__name__} carries no {type(message).__name__}")

    async def wave(self, waves: Waves) -> None:
        """Send a block of samples. Not repeated where it fails."""
        raise BusError(f"{type(self).__name__} carries no waves")

    @abstractmethod
    async def check(self) -> str:
        """Try the bus without sending any alert, and say what was found. Raises BusError or what `open` does."""

    @abstractmethod
    def tail(self) -> AsyncIterator[str]:
        """What arrives at a consumer of this bus, a line for each message, decoded."""


class Broken:
    """Whether a connection broke: told once, by whoever sees it first, to all who wait."""

    def __init__(self) -> None:
        self._seen = asyncio.Event()
        self.error: Exception | None = None

    def tell(self, error: Exception) -> None:
        self.error = self.error or error
        self._seen.set()

    async def wait(self) -> None:
        """Raises what was told, once it was."""
        await self._seen.wait()
        assert self.error is not None
        raise self.error


def token(name: str, most: int = 200) -> str:
    """A name as one level of a topic, subject or routing key, without what has a meaning there.

    Percent-encoded UTF-8, `.` too; where that takes over `most` characters, its head and a digest."""
    encoded = quote(name, safe="").replace(".", "%2E").replace("~", "%7E")
    if len(encoded) <= most:
        return encoded
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return f"{encoded[: most - 17].rpartition('%')[0] or encoded[: most - 17]}~{digest}"


def body(message: Struct) -> bytes:
    """The message as JSON: the fields of the wire, with `t` and `v`."""
    return msgspec.json.encode(message)


def standing_body(beat: Heartbeat, ward: Ward) -> bytes:
    """A heartbeat as JSON, with what stands."""
    return msgspec.json.encode(
        {
            "t": "heartbeat", "v": 1, "ward": ward.name, "unit": ward.unit, "at_ns": beat.at_ns,
            "beds": list(beat.beds), "standing": list(beat.standing), "simulated": True,
        }
    )  # fmt: skip


def secret(text: str | None) -> str | None:
    """A password as it is, or from where `env:NAME` or `file:PATH` says. Raises BusError where that is not there."""
    if text is None:
        return None
    kind, _, where = text.partition(":")
    if kind == "env":
        if where not in os.environ:
            raise BusError(f"password: the environment has no {where}; set it, or give file:PATH")
        return os.environ[where]
    if kind == "file":
        try:
            return Path(where).expanduser().read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BusError(f"password: {where} cannot be read ({error}); name a text file") from None
    return text


def place(url: str, port: int) -> tuple[str, int]:
    """Host and port of a URL. Raises BusError where the port is none."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or port
    except ValueError as error:
        raise BusError(f"url: {url}: {error}; give a port of 1 to 65535") from None


def tls(settings: NetworkSettings, on: bool) -> ssl.SSLContext | None:
    """The TLS that the settings ask for: the broker's name is checked always. Raises BusError for a bad file."""
    if not on:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca)
    except (OSError, ssl.SSLError) as error:
        raise BusError(f"ca: {settings.ca} cannot be used ({error}); give a PEM file of certificates") from None
    if settings.cert:
        try:
            context.load_cert_chain(settings.cert, settings.key)
        except (OSError, ssl.SSLError) as error:
            raise BusError(f"cert: {settings.cert} cannot be used ({error}); give PEM files as cert and key") from None
    return context


def need(library: str, extra: str) -> None:
    """Raise BusError where the library of a bus is not installed."""
    try:
        importlib.import_module(library)
    except ImportError:
        raise BusError(f"kind: {library} is not installed; pip install -c constraints.txt -e '.[{extra}]'") from None


def is_url(*schemes: str) -> Any:
    """The type of a `url` with one of these schemes; credentials have settings of their own."""
    pattern = rf"^({'|'.join(schemes)})://[^\s/:@]+(:[0-9]{{1,5}})?(/[^\s@]*)?$"
    MEANINGS[pattern] = f"like {' or '.join(f'{scheme}://host:port' for scheme in schemes)}, without credentials"
    return Annotated[str, Meta(pattern=pattern, max_length=500)]
