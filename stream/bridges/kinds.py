"""The kinds of bridges there are: a new one is one file, and one line here."""

from collections.abc import Callable
from typing import Any

from stream.bridges.bridge import Bridge, BridgeSettings, Ward
from stream.bridges.jsonl import JsonlBridge, JsonlSettings
from stream.bridges.mqtt import MqttBridge, MqttSettings

AnySettings = MqttSettings | JsonlSettings
KINDS: dict[type[BridgeSettings], Callable[[str, Any, Ward], Bridge]] = {
    MqttSettings: MqttBridge,
    JsonlSettings: JsonlBridge,
}


def bridge_of(name: str, settings: BridgeSettings, ward: Ward) -> Bridge:
    """The bridge that these settings ask for. Raises BusError where they cannot be used here."""
    return KINDS[type(settings)](name, settings, ward)
