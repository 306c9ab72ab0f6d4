"""MQTT 5, by aiomqtt. Topics, below `root` (`ecg`) and the ward's unit; names are percent-encoded in them:

    <bed>/event             every alert event, QoS 1, not retained: a retained one would come back as a ghost
    <bed>/alert/<alert_id>  where an alert stands, QoS 1, retained; taken away (empty) when it is over, and by its
                            expiry where we are gone. A client that comes late reads here what is active
    <bed>/numeric/hr, …     the newest value, QoS 0, retained for a minute
    <bed>/beat, <bed>/profile   what streams, QoS 0
    <bed>/wave/<lead>       samples, int16 little-endian, QoS 0; user properties say first, rate, gain, baseline, unit
    <bed>/status            the bed is watched: retained, with an expiry
    status                  the gateway itself: retained heartbeat, `offline` as its last will

A broker that is killed may have acknowledged what it had not on its disk, so alerts of the last seconds
before a connection broke are sent again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from stream.bridges.bridge import (
    MEANINGS,
    Bridge,
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
    tls,
    token,
)
from stream.wire import AlertEvent, BeatJudgement, Numeric, Waves, WindowJudgement

if TYPE_CHECKING:
    from aiomqtt import Client
    from paho.mqtt.properties import Properties

KEEPALIVE_S = 10
NUMERIC_EXPIRY_S = 60
STATUS_EXPIRY_S = 30
MOST_TOLD = 10_000
_FOR_NOW = frozenset({0x80, 0x83, 0x97})  # unspecified, implementation specific, quota: tried again
_CREDENTIALS = ("not authorized", "bad user name", "bad username", "bad authentication")
_PLAIN_TOPIC = r"^[^\x00+#$/][^\x00+#]*$"
MEANINGS[_PLAIN_TOPIC] = "without wildcards (+, #) that does not begin with $ or /"
Root = Annotated[str, Meta(pattern=_PLAIN_TOPIC, max_length=200)]


class MqttSettings(NetworkSettings, frozen=True, kw_only=True, tag="mqtt"):
    """`root`: first part of all topics. `client_id`: by which the broker knows us again. `state_expiry_s`: a
    retained alert goes after so long without the gateway."""

    url: is_url("mqtt", "mqtts") = "mqtt://127.0.0.1:1883"  # type: ignore[valid-type]
    root: Root = "ecg"
    client_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    state_expiry_s: Annotated[int, Meta(ge=30, le=86_400)] = 120


class MqttBridge(Bridge):
    """See the module."""

    overlap_s: ClassVar[float] = 3.0

    def __init__(self, name: str, settings: MqttSettings, ward: Ward) -> None:
        self._settings, self._ward = settings, ward
        self._client_id = settings.client_id or f"wardbeat-{token(ward.name, 40)}-{name}"
        self._base = f"{settings.root.rstrip('/')}/{token(ward.unit)}"
        self._client: Client | None = None
        self._acks: dict[int, asyncio.Future[int]] = {}
        self._told: dict[str, int] = {}  # by alert, the `seq` that the broker retains or has dropped
        self._refresh_ns = 0
        need("aiomqtt", "mqtt")

    async def open(self) -> None:
        self._client = client = self._new_client(self._client_id, will=True)
        await _enter(client)
        # aiomqtt does not tell why a broker refused a message, so its acknowledgements are read here.
        self._acks = {}
        client._client.on_publish = self._acked
        self._refresh_ns = 0
        await self._publish(f"{self._base}/status", b'{"state":"online"}', retain=True)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if client._connected.done() and not client._disconnected.done():
            with contextlib.suppress(Exception):  # an orderly end, told to whoever reads the status
                await self._publish_by(client, f"{self._base}/status", b'{"state":"offline"}', retain=True)
            await client.__aexit__(None, None, None)
        else:
            _drop(client)

    async def lost(self) -> None:
        assert self._client is not None
        async for _ in self._client.messages:  # none come; it ends with an error when the connection does
            pass

    async def alert(self, event: AlertEvent) -> None:
        self._remember(event)
        bed = f"{self._base}/{token(event.bed)}"
        await asyncio.gather(self._publish(f"{bed}/event", body(event)), self._state(event))

    def _remember(self, event: AlertEvent) -> None:
        self._told.pop(event.alert_id, None)
        self._told[event.alert_id] = event.seq
        while len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]

    async def _state(self, event: AlertEvent) -> None:
        topic = f"{self._base}/{token(event.bed)}/alert/{token(event.alert_id)}"
        if event.state == "inactive":
            await self._publish(topic, b"", retain=True)
        else:
            await self._publish(topic, body(event), retain=True, expiry_s=self._settings.state_expiry_s)

    async def heartbeat(self, beat: Heartbeat) -> None:
        standing = list(beat.standing)
        status = {"state": "online", "at_ns": beat.at_ns, "beds": len(beat.beds), "standing": len(standing)}
        sent = [self._publish(f"{self._base}/status", _json({**status, "simulated": True}), retain=True)]
        for bed in beat.beds:
            n = sum(event.bed == bed for event in standing)
            told = _json({"state": "watched", "bed": bed, "at_ns": beat.at_ns, "standing": n, "simulated": True})
            topic = f"{self._base}/{token(bed)}/status"
            sent.append(self._publish(topic, told, qos=0, retain=True, expiry_s=STATUS_EXPIRY_S))
        await asyncio.gather(*sent)
        if beat.at_ns - self._refresh_ns > self._settings.state_expiry_s * 1e9 / 3:
            self._refresh_ns = beat.at_ns
            for event in standing:
                # One that changed meanwhile must not come back as it was.
                if self._told.get(event.alert_id, -1) <= event.seq:
                    self._remember(event)
                    await self._state(event)

    async def numeric(self, numeric: Numeric) -> None:
        for key, unit in (("hr", "bpm"), ("pvc_per_min", "/min")):
            told = {"value": getattr(numeric, key), "unit": unit, "bed": numeric.bed, "at": numeric.at}
            told |= {"published_ns": numeric.stamps.published, "simulated": True}
            topic = f"{self._base}/{token(numeric.bed)}/numeric/{key}"
            await self._publish(topic, _json(told), qos=0, retain=True, expiry_s=NUMERIC_EXPIRY_S)

    async def judgement(self, message: BeatJudgement | WindowJudgement) -> None:
        what = "beat" if isinstance(message, BeatJudgement) else "profile"
        await self._publish(f"{self._base}/{token(message.bed)}/{what}", body(message), qos=0)

    async def wave(self, waves: Waves) -> None:
        told = {"first": waves.first, "rate": waves.rate, "n": waves.n, "epoch": waves.epoch, "simulated": "true"}
        for signal, row in zip(waves.signals, waves.samples(), strict=True):
            scale = {"gain": signal.gain, "baseline": signal.baseline, "unit": signal.unit}
            user = [(key, str(value)) for key, value in {**told, **scale}.items()]
            topic = f"{self._base}/{token(waves.bed)}/wave/{token(signal.name)}"
            await self._publish(topic, row.tobytes(), qos=0, user=user)

    async def check(self) -> str:
        client = self._new_client(f"{self._client_id}-check")
        await _enter(client)
        await client.__aexit__(None, None, None)
        return f"{self._settings.url} takes us; topics begin with {self._base}/"

    async def tail(self) -> AsyncIterator[str]:
        client = self._new_client(f"{self._client_id}-tail")
        await _enter(client)
        try:
            await client.subscribe(f"{self._base}/#", qos=1)
            async for message in client.messages:
                payload = bytes(message.payload) if isinstance(message.payload, bytes | bytearray) else b""
                mark = " (retained)" if message.retain else ""
                yield f"{message.topic}{mark} {payload.decode(errors='replace') or '(taken away)'}"
        finally:
            await client.__aexit__(None, None, None)

    def _new_client(self, client_id: str, *, will: bool = False) -> "Client":
        import aiomqtt
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        own = self._settings
        secure = own.url.startswith("mqtts:")
        host, port = place(own.url, 8883 if secure else 1883)
        keep = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        keep.SessionExpiryInterval = 3600
        client = aiomqtt.Client(
            host,
            port,
            username=own.username,
            password=secret(own.password),
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=not will,
            properties=keep if will else None,
            keepalive=KEEPALIVE_S,
            will=aiomqtt.Will(f"{self._base}/status", b'{"state":"offline"}', 1, True) if will else None,
            tls_context=tls(own, secure),
            timeout=0.9 * own.timeout_s,
            max_inflight_messages=4 * self.window,  # the broker may want fewer, and says so
        )
        client.pending_calls_threshold = 10_000
        client._client.connect_timeout = 0.9 * own.timeout_s
        return client

    def _acked(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        waiting = self._acks.pop(mid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(int(getattr(reason, "value", 0)))

    async def _publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
        user: Sequence[tuple[str, str]] = (),
    ) -> None:
        assert self._client is not None
        await self._publish_by(self._client, topic, payload, qos=qos, retain=retain, expiry_s=expiry_s, user=user)

    async def _publish_by(
        self,
        client: "Client",
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
        user: Sequence[tuple[str, str]] = (),
    ) -> None:
        properties = _properties(expiry_s, tuple(user))
        try:
            info = client._client.publish(topic, payload, qos, retain, properties)
        except ValueError as error:  # a topic that is too long, a payload over 256 MB
            raise Rejected(str(error)) from None
        if info.rc != 0:
            raise ConnectionError(f"the broker is away (code {int(info.rc)})")
        if qos == 0:
            return
        waiting = self._acks[info.mid] = asyncio.get_running_loop().create_future()
        try:
            code = await waiting
        finally:
            self._acks.pop(info.mid, None)
        if code >= 0x80:
            raise (NotNow if code in _FOR_NOW else Rejected)(f"the broker refused {topic} with reason {code:#x}")


def _drop(client: "Client") -> None:
    """Close the socket of a client that never came to be connected: aiomqtt leaves it open."""
    client._client.disconnect()
    client._client._sock_close()


async def _enter(client: "Client") -> None:
    """Connect; what no retry will mend is told as what it is."""
    try:
        await client.__aenter__()
    except BaseException as error:
        _drop(client)
        text = str(error)
        if any(words in text.lower() for words in _CREDENTIALS):
            raise BusError(f"username, password: the broker does not take them ({text}); set what it knows") from None
        raise


@lru_cache(maxsize=256)
def _properties(expiry_s: int | None, user: tuple[tuple[str, str], ...]) -> "Properties":
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = "application/octet-stream" if user else "application/json"
    if user:
        properties.UserProperty = list(user)
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    return properties


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
