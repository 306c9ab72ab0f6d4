"""The kinds of bridges there are: a new one is one file, and one line here."""

from collections.abc import Callable
from typing import Any

from stream.bridges.amqp import AmqpBridge, AmqpSettings
from stream.bridges.bridge import Bridge, BridgeSettings, Ward
from stream.bridges.fhir import FhirBridge, FhirSettings
from stream.bridges.hl7 import Hl7Settings
from stream.bridges.jsonl import JsonlBridge, JsonlSettings
from stream.bridges.mllp import Hl7Bridge
from stream.bridges.mqtt import MqttBridge, MqttSettings
from stream.bridges.nats import NatsBridge, NatsSettings

AnySettings = MqttSettings | NatsSettings | AmqpSettings | Hl7Settings | FhirSettings | JsonlSettings
KINDS: dict[type[BridgeSettings], Callable[[str, Any, Ward], Bridge]] = {
    MqttSettings: MqttBridge,
    NatsSettings: NatsBridge,
    AmqpSettings: AmqpBridge,
    Hl7Settings: Hl7Bridge,
    FhirSettings: FhirBridge,
    JsonlSettings: JsonlBridge,
}


def bridge_of(name: str, settings: BridgeSettings, ward: Ward) -> Bridge:
    """The bridge that these settings ask for. Raises BusError where they cannot be used here."""
    return KINDS[type(settings)](name, settings, ward)
