"""NATS with JetStream, by nats-py. Subjects, in which names are percent-encoded:

    ward.<unit>.bed.<bed>.alert               every alert event, kept by the stream; `Nats-Msg-Id` is the event's id
    ward.<unit>.bed.<bed>.standing.<alert_id> where an alert stands, kept by a second stream, the newest of each
                                              alert, and purged when it is over: a consumer that comes late reads
                                              with `last_per_subject` exactly what is active
    ward.<unit>.bed.<bed>.numeric, .beat, .profile, .wave   not kept
    ward.<unit>.heartbeat                     not kept; with what stands

The streams are made where they are missing; one that is there is used where it takes our subjects and its
duplicate window is long enough, and refused otherwise.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from stream.bridges.bridge import (
    Bridge,
    Broken,
    BusError,
    Heartbeat,
    NetworkSettings,
    NotNow,
    Rejected,
    Ward,
    body,
    is_url,
    need,
    place,
    secret,
    standing_body,
    tls,
    token,
)
from stream.wire import AlertEvent, BeatJudgement, Numeric, Waves, WindowJudgement

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js.api import StreamConfig

PING_S = 5
StreamName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class NatsSettings(NetworkSettings, frozen=True, kw_only=True, tag="nats"):
    """`stream`: its name; that of what stands ends in `-standing`. `duplicate_window_s`: within which the server knows
    an event again. `max_age_s`, `max_mb`: what the stream keeps, where it is made here. `token`: in place of a user."""

    url: is_url("nats", "tls") = "nats://127.0.0.1:4222"  # type: ignore[valid-type]
    stream: StreamName = "WARD"
    duplicate_window_s: Annotated[float, Meta(ge=1, le=86_400)] = 600.0
    max_age_s: Annotated[float, Meta(ge=60, le=31_536_000)] = 604_800.0
    max_mb: Annotated[float, Meta(ge=1, le=1_000_000)] = 1024.0
    token: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None


class NatsBridge(Bridge):
    """See the module."""

    def __init__(self, name: str, settings: NatsSettings, ward: Ward) -> None:
        self._name, self._settings, self._ward = name, settings, ward
        self._unit = f"ward.{token(ward.unit)}"
        self._client: Client | None = None
        self._broken = Broken()
        need("nats", "nats")

    async def open(self) -> None:
        self._client = await self._connect()
        self._js = self._client.jetstream(timeout=self._settings.timeout_s)
        for config in self._streams():
            found = await self._found(config)
            if found is None:
                await self._js.add_stream(config)
            elif fault := self._fault(config, found):
                raise BusError(fault)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def lost(self) -> None:
        await self._broken.wait()

    async def alert(self, event: AlertEvent) -> None:
        import nats.errors
        import nats.js.errors as js

        subject = f"{self._unit}.bed.{token(event.bed)}"
        payload = body(event)
        try:
            await self._js.publish(f"{subject}.alert", payload, headers={"Nats-Msg-Id": event.event_id})
            standing = f"{subject}.standing.{token(event.alert_id)}"
            if event.state == "inactive":
                await self._js.purge_stream(f"{self._settings.stream}-standing", subject=standing)
            else:
                await self._js.publish(standing, payload)
        except nats.errors.MaxPayloadError:
            raise Rejected(f"the event takes {len(payload)} bytes, more than the server allows") from None
        except js.NoStreamResponseError:
            raise ConnectionError(f"no stream takes {subject}.alert; it was deleted, or JetStream is off") from None
        except (js.ServiceUnavailableError, js.NotFoundError):
            raise
        except js.APIError as error:
            refusal = Rejected if error.err_code == 10054 else NotNow  # 10054: larger than the stream allows
            raise refusal(f"the stream refused it: {error.description} ({error.err_code})") from None

    async def heartbeat(self, beat: Heartbeat) -> None:
        assert self._client is not None
        await self._client.publish(f"{self._unit}.heartbeat", standing_body(beat, self._ward))
        await self._client.flush(timeout=max(1, round(self._settings.timeout_s)))

    async def numeric(self, numeric: Numeric) -> None:
        await self._say(numeric.bed, "numeric", body(numeric))

    async def judgement(self, message: BeatJudgement | WindowJudgement) -> None:
        await self._say(message.bed, "beat" if isinstance(message, BeatJudgement) else "profile", body(message))

    async def wave(self, waves: Waves) -> None:
        await self._say(waves.bed, "wave", body(waves))

    async def _say(self, bed: str, what: str, payload: bytes) -> None:
        assert self._client is not None
        await self._client.publish(f"{self._unit}.bed.{token(bed)}.{what}", payload)

    async def check(self) -> str:
        self._client = await self._connect()
        try:
            self._js = self._client.jetstream(timeout=self._settings.timeout_s)
            await self._js.account_info()
            said = []
            for config in self._streams():
                found = await self._found(config)
                if found is not None and (fault := self._fault(config, found)):
                    raise BusError(fault)
                said.append(f"stream {config.name} {'is good' if found else 'will be made'}")
            return f"{self._settings.url} takes us; {', '.join(said)}"
        finally:
            await self.close()

    async def tail(self) -> AsyncIterator[str]:
        client = await self._connect()
        try:
            subscription = await client.subscribe(f"{self._unit}.>")
            async for message in subscription.messages:
                yield f"{message.subject} {message.data.decode(errors='replace')}"
        finally:
            await client.close()

    def _streams(self) -> "list[StreamConfig]":
        from nats.js.api import StreamConfig

        own = self._settings
        return [
            StreamConfig(
                name=own.stream,
                subjects=[f"{self._unit}.bed.*.alert"],
                duplicate_window=own.duplicate_window_s,
                max_age=max(own.max_age_s, own.duplicate_window_s),
                max_bytes=int(own.max_mb * 1e6),
            ),
            StreamConfig(
                name=f"{own.stream}-standing",
                subjects=[f"{self._unit}.bed.*.standing.*"],
                max_msgs_per_subject=1,
            ),
        ]

    async def _found(self, config: "StreamConfig") -> "StreamConfig | None":
        from nats.js.errors import NotFoundError

        try:
            return (await self._js.stream_info(config.name or "")).config
        except NotFoundError:
            return None

    def _fault(self, wanted: "StreamConfig", found: "StreamConfig") -> str:
        """Why a stream that is there cannot be used."""
        if not set(wanted.subjects or ()) <= set(found.subjects or ()):
            return (
                f"stream: {found.name} takes {found.subjects}, not {wanted.subjects}; name another, or add them to it"
            )
        if (found.duplicate_window or 0) < (wanted.duplicate_window or 0):
            return (
                f"duplicate_window_s: {found.name} has {found.duplicate_window:g} s, under our "
                f"{self._settings.duplicate_window_s:g} s; change the stream or this setting"
            )
        return ""

    async def _connect(self) -> "Client":
        from nats.aio.client import Client
        from nats.errors import NoServersError

        own = self._settings
        host, port = place(own.url, 4222)
        broken = self._broken = Broken()

        complaints: list[str] = []

        async def complain(error: Exception) -> None:
            text = str(error)
            complaints[:] = [text or type(error).__name__]
            if "permissions violation" in text.lower():
                broken.tell(BusError(f"username: the server denies it our subjects ({text}); allow them"))

        async def closed() -> None:
            broken.tell(ConnectionError("the server closed the connection"))

        given: dict[str, Any] = {"tls": tls(own, own.url.startswith("tls:"))}
        if given["tls"] is not None:
            given["tls_hostname"] = host
        client = Client()
        try:
            await client.connect(
                f"nats://{host}:{port}" if given["tls"] is None else f"tls://{host}:{port}",
                user=own.username,
                password=secret(own.password),
                token=secret(own.token),
                name=f"wardbeat {self._ward.name} {self._name}",
                allow_reconnect=False,
                connect_timeout=max(1, round(own.timeout_s)),
                reconnect_time_wait=0,  # these two: no pauses and no tries of the library's own
                max_reconnect_attempts=1,
                ping_interval=PING_S,
                max_outstanding_pings=1,
                error_cb=complain,
                disconnected_cb=closed,
                closed_cb=closed,
                **given,
            )
        except BaseException as error:
            transport = getattr(client, "_transport", None)  # nats-py leaves it open where connecting fails half-way
            if transport is not None:
                transport.close()
            if "authorization" in f"{error} {complaints}".lower():
                text = f"username, password, token: the server does not take them ({error}); set what it knows"
                raise BusError(text) from None
            if isinstance(error, NoServersError) and complaints:
                raise ConnectionError(complaints[0]) from None
            raise
        return client
