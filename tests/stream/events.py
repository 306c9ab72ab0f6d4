"""Alert events for the tests of journal, gateway, subscriber and view."""

from typing import Any

from stream.wire import AlertEvent, Moment, Signal, Stamps, Strip

FS = 250.0


def alert(alert: str = "a1", seq: int = 0, state: str = "active", bed: str = "bed-1", **changes: Any) -> AlertEvent:
    """A transition of an alert; its phase follows from `seq` and `state`."""
    phase = "start" if seq == 0 else {"active": "update", "latched": "end", "inactive": "reset"}[state]
    fields: dict[str, Any] = {
        "epoch": "epoch-1",
        "code": "ASYSTOLE",
        "mdc": "199684^MDC_EVT_ECG_ASYSTOLE^MDC",
        "text": "ASYSTOLE",
        "inactivation": (),
        "priority": "high",
        "kind": "physiological",
        "latching": True,
        "onset": Moment(1000, FS),
        "stream_time": Moment(2000 + seq, FS),
        "emit_time": "",
        "stamps": Stamps(received=1_000, decided=2_000),
    }
    return AlertEvent(
        alert_id=alert, event_id=f"{alert}.{seq}", seq=seq, bed=bed, phase=phase, state=state, **(fields | changes)
    )


def strip(name: str = "a1", n: int = 2000, **changes: Any) -> Strip:
    """A strip of zeros, of one lead."""
    fields: dict[str, Any] = {
        "bed": "bed-1", "epoch": "epoch-1", "code": "ASYSTOLE", "text": "***ASYSTOLE", "priority": "high",
        "onset": Moment(0, FS), "decided": Moment(1, FS), "rate": FS, "first": 0,
        "signals": (Signal("II", "ecg", "mV", 200.0),), "data": memoryview(bytes(2 * n)),
    }  # fmt: skip
    return Strip(id=name, n=n, **(fields | changes))
