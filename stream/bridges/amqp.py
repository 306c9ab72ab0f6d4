"""AMQP 0-9-1 (RabbitMQ), by aio-pika. A topic exchange, `exchange`; routing keys, in which names are percent-encoded:

    ward.<unit>.bed.<bed>.alert    every alert event, persistent, confirmed by the broker; a quorum queue
                                   `<exchange>.alerts` keeps them for a consumer. `message_id` is the event's id
    ward.<unit>.bed.<bed>.numeric, .beat, .profile    transient, for whoever binds a queue of its own
    ward.<unit>.heartbeat          at most 10 s apart, with all that stands: AMQP keeps no state, so this is what a
                                   consumer that comes late waits for

What the consumers of the quorum queue reject goes to the dead-letter exchange `<exchange>.dead` and its queue.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit

from msgspec import Meta

from stream.bridges.bridge import (
    Bridge,
    Broken,
    BusError,
    Heartbeat,
    NetworkSettings,
    NotNow,
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
from stream.wire import AlertEvent, BeatJudgement, Numeric, WindowJudgement

if TYPE_CHECKING:
    from aio_pika.abc import AbstractConnection

MOST_OF_NAME = 100  # a routing key has 255 bytes
HEARTBEAT_S = 10


class AmqpSettings(NetworkSettings, frozen=True, kw_only=True, tag="amqp"):
    """`url` may name a virtual host: `amqp://host:5672/ward`. `exchange`: its name, and how queues begin."""

    url: is_url("amqp", "amqps") = "amqp://127.0.0.1:5672"  # type: ignore[valid-type]
    exchange: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] = "ward"


class AmqpBridge(Bridge):
    """See the module."""

    def __init__(self, name: str, settings: AmqpSettings, ward: Ward) -> None:
        self._name, self._settings, self._ward = name, settings, ward
        self._unit = f"ward.{token(ward.unit, MOST_OF_NAME)}"
        self._connection: AbstractConnection | None = None
        self._broken = Broken()
        need("aio_pika", "amqp")

    async def open(self) -> None:
        connection = self._connection = await self._connect()
        self._confirmed = await connection.channel(publisher_confirms=True)
        self._transient = await connection.channel(publisher_confirms=False)
        await self._declare()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def lost(self) -> None:
        await self._broken.wait()

    async def _declare(self) -> None:
        from aio_pika import ExchangeType
        from aio_pika.exceptions import ChannelPreconditionFailed

        base, own = self._settings.exchange, self._confirmed
        try:
            self._exchange = await own.declare_exchange(base, ExchangeType.TOPIC, durable=True)
            dead = await own.declare_exchange(f"{base}.dead", ExchangeType.FANOUT, durable=True)
            await (await own.declare_queue(f"{base}.dead", durable=True)).bind(dead)
            arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-dead-letter-exchange": f"{base}.dead"}
            queue = await own.declare_queue(f"{base}.alerts", durable=True, arguments=arguments)
        except ChannelPreconditionFailed as error:
            raise BusError(f"exchange: {base} is there and is another kind ({error}); name another") from None
        await queue.bind(self._exchange, f"{self._unit}.bed.*.alert")
        self._loose = await self._transient.get_exchange(base, ensure=False)

    async def alert(self, event: AlertEvent) -> None:
        from aio_pika import DeliveryMode, Message
        from aio_pika.exceptions import DeliveryError, PublishError

        message = Message(
            body(event),
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=event.event_id,
            correlation_id=event.alert_id,
            type="alert",
            app_id="wardbeat",
            headers={"bed": event.bed, "seq": event.seq, "simulated": True},
        )
        try:
            await self._exchange.publish(message, self._key(event.bed, "alert"), mandatory=True)
        except PublishError as error:
            raise NotNow(f"no queue takes it ({error}); bind {self._settings.exchange}.alerts again") from None
        except DeliveryError as error:
            raise NotNow(f"the broker did not confirm it ({error})") from None

    async def heartbeat(self, beat: Heartbeat) -> None:
        if self._broken.error is not None:
            raise self._broken.error
        await self._say(f"{self._unit}.heartbeat", standing_body(beat, self._ward))

    async def numeric(self, numeric: Numeric) -> None:
        await self._say(self._key(numeric.bed, "numeric"), body(numeric))

    async def judgement(self, message: BeatJudgement | WindowJudgement) -> None:
        what = "beat" if isinstance(message, BeatJudgement) else "profile"
        await self._say(self._key(message.bed, what), body(message))

    def _key(self, bed: str, what: str) -> str:
        return f"{self._unit}.bed.{token(bed, MOST_OF_NAME)}.{what}"

    async def _say(self, key: str, payload: bytes) -> None:
        from aio_pika import Message

        await self._loose.publish(Message(payload, content_type="application/json"), key, mandatory=False)

    async def check(self) -> str:
        self._connection = await self._connect()
        try:
            from aio_pika.exceptions import ChannelNotFoundEntity

            channel = await self._connection.channel()
            try:
                await channel.declare_queue(f"{self._settings.exchange}.alerts", passive=True)
                said = "is there"
            except ChannelNotFoundEntity:
                said = "will be made"
            return f"{self._settings.url} takes us; queue {self._settings.exchange}.alerts {said}"
        finally:
            await self.close()

    async def tail(self) -> AsyncIterator[str]:
        from aio_pika import ExchangeType

        connection = await self._connect()
        async with connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange(self._settings.exchange, ExchangeType.TOPIC, durable=True)
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(exchange, f"{self._unit}.#")
            async with queue.iterator(no_ack=True) as messages:
                async for message in messages:
                    yield f"{message.routing_key} {message.body.decode(errors='replace')}"

    async def _connect(self) -> "AbstractConnection":
        import aio_pika
        from aiormq.exceptions import AuthenticationError, ProbableAuthenticationError

        own = self._settings
        secure = own.url.startswith("amqps:")
        host, port = place(own.url, 5671 if secure else 5672)
        broken = self._broken = Broken()
        try:
            connection = await aio_pika.connect(
                host=host,
                port=port,
                login=own.username or "guest",
                password=secret(own.password) or "guest",
                virtualhost=unquote(urlsplit(own.url).path.lstrip("/")) or "/",
                ssl=secure,
                ssl_context=tls(own, secure),
                timeout=own.timeout_s,
                client_properties={"connection_name": f"wardbeat {self._ward.name} {self._name}"},
                heartbeat=HEARTBEAT_S,
            )
        except (AuthenticationError, ProbableAuthenticationError) as error:
            text = f"username, password: the broker does not take them ({error}); set what it knows"
            raise BusError(text) from None

        def closed(_: Any, error: BaseException | None = None) -> None:
            broken.tell(ConnectionError(f"the connection was closed ({error})"))

        connection.close_callbacks.add(closed)
        return connection
