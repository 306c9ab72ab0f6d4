"""Strips of alerts from the waves that a browser was shown: ten seconds before the decision to five after it."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from stream.dashboard.ward import Station
from stream.wire import MISSING, AlertEvent

BEFORE_S, AFTER_S = 10.0, 5.0
KEPT, WAITING = 300, 100


class Strips:
    """By alert id, the newest `KEPT`; a bed that nobody looked at has none."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._waiting: dict[str, AlertEvent] = {}

    def get(self, alert_id: str) -> dict[str, Any] | None:
        """The strip of an alert."""
        return self._kept.get(alert_id)

    def begin(self, event: AlertEvent) -> None:
        """An alert has begun: its strip is cut when the signal after it is here."""
        if event.phase == "start" and event.kind == "physiological" and len(self._waiting) < WAITING:
            self._waiting[event.alert_id] = event

    def cut(self, stations: Mapping[str, Station]) -> None:
        """Cut what can be cut now; give up what never can."""
        for alert_id, event in list(self._waiting.items()):
            station = stations.get(event.bed)
            waves = station.waves if station else None
            if not waves or waves[-1].epoch != event.epoch:
                del self._waiting[alert_id]
                continue
            until = event.stream_time.sample + round(AFTER_S * event.stream_time.fs)
            if waves[-1].first + waves[-1].n >= until:
                del self._waiting[alert_id]
                self._kept[alert_id] = _strip(event, station, until)
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)


def _strip(event: AlertEvent, station: Station | None, until: int) -> dict[str, Any]:
    assert station is not None
    head = station.waves[-1]
    first = max(0, event.stream_time.sample - round(BEFORE_S * head.rate))
    samples = np.full((len(head.signals), until - first), MISSING, np.int16)
    for block in station.waves:
        low, high = max(first, block.first), min(until, block.first + block.n)
        if low < high and block.signals == head.signals:
            samples[:, low - first : high - first] = block.samples()[:, low - block.first : high - block.first]
    return {
        "bed": event.bed, "first": first, "decided": event.stream_time.sample, "onset": event.onset.sample,
        "rate": head.rate, "signals": head.signals, "samples": samples.tolist(),
    }  # fmt: skip
