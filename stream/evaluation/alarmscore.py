"""Alarms of a record against the reference: episodes found and how late, false reds, alarms per bed and day.

EC57 sets no time within which an alarm must come; here the delay is from the reference's onset to the sample that the
decision needed, on the sample clock. An alert that was up already counts as no delay. What a chain or time-out kept
silent is told apart from what was announced.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from model.ec57.episodes import Episodes

EARLY_S = 2.0  # an alert may begin this much before the reference's mark of the onset
LATE_S = 10.0  # and after its end: a short run is over when it can be judged
REDS = ("VFIB", "ASYSTOLE", "VTACH", "X_TACHY", "X_BRADY")
# An alarm must hold this long before it may go off; a rate that touches its limit for less is a matter of rounding.
LEAST_S: Mapping[str, float] = {"AFIB": 60.0, "VFIB": 4.0, "X_TACHY": 5.0, "X_BRADY": 5.0}
LONG_S = 10.0
RELATED: Mapping[str, tuple[str, ...]] = {
    "VFIB": ("VTACH",),
    "VTACH": ("VFIB",),
    "X_TACHY": ("near X_TACHY", "VTACH", "VFIB"),
    "ASYSTOLE": ("X_BRADY",),
    "X_BRADY": ("near X_BRADY", "ASYSTOLE"),
}

Verdict = Literal["true", "related", "false", "unknown"]


class AlertLogError(ValueError):
    """A file of alerts that cannot be read: file, line and mend in one line."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert, in samples of its record. `announced`: when it was first not suppressed, None if never; `ended`: None
    where its condition held to the end; `kept_back_by`: the id of what kept it silent when it was decided."""

    id: str
    code: str
    priority: str
    kind: str
    onset: int
    decided: int
    announced: int | None
    ended: int | None
    model_version: str = ""
    kept_back_by: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A reference episode and the first alert of its kind that meets it; delays in s, None where none does.

    `delay_s`: to the announcement; `detected_s`: to the decision, alerts that were kept silent included; `told_s`: to
    the decision or announcement, where an alert counts that is kept back by a red which was announced by then;
    `any_red`: whether any announced red alert meets it.
    """

    code: str
    onset: int
    end: int
    delay_s: float | None
    detected_s: float | None
    told_s: float | None
    any_red: bool


@dataclass(frozen=True, slots=True)
class AlarmScore:
    """Alarms of one record. `reds`: each announced physiological red alert with its verdict."""

    found: tuple[Found, ...]
    reds: tuple[tuple[Alert, Verdict], ...]
    counts: dict[str, tuple[int, int]]  # by priority and kind: alerts in all, and announced


def read_alerts(path: Path, fs: float) -> list[Alert]:
    """Alerts of a RECORD.alerts.jsonl, in order of decision, in samples of the record's rate `fs`.

    Raises AlertLogError for a line that is no event; a missing file is FileNotFoundError.
    """
    events: dict[str, list[dict[str, Any]]] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                event = json.loads(line)
                events.setdefault(event["alert_id"], []).append(event)
            except (ValueError, KeyError, TypeError) as error:
                raise AlertLogError(
                    f"{path}, line {number}: no alert event ({error!r}); annotate the record again"
                ) from None
    try:
        alerts = [_alert(list_of, fs) for list_of in events.values()]
    except (KeyError, TypeError) as error:
        raise AlertLogError(f"{path}: an event lacks {error}; annotate the record again") from None
    return sorted(alerts, key=lambda alert: (alert.decided, alert.onset, alert.code))


def score_alarms(
    alerts: Iterable[Alert], truths: Mapping[str, Episodes], fs: float, n: int, from_sample: int = 0
) -> AlarmScore:
    """Alarms of a record of `n` samples against the episodes that its reference has (`alarm_truths`).

    What is over before `from_sample` is not judged.
    """
    every = list(alerts)
    announced = [alert for alert in every if alert.announced is not None]
    reds = [a for a in announced if a.priority == "high" and a.kind == "physiological"]
    found = [
        _found(code, onset, end, every, reds, fs, n)
        for code, episodes in truths.items()
        if not code.startswith("near")
        for onset, end in episodes.tolist()
        if end > from_sample
    ]
    verdicts = [(a, verdict(a, truths, fs, n)) for a in reds if (n if a.ended is None else a.ended) >= from_sample]
    counts: dict[str, tuple[int, int]] = {}
    for alert in every:
        key = alert.priority if alert.kind == "physiological" else alert.kind
        total, heard = counts.get(key, (0, 0))
        counts[key] = (total + 1, heard + (alert.announced is not None))
    return AlarmScore(tuple(found), tuple(verdicts), counts)


def verdict(alert: Alert, truths: Mapping[str, Episodes], fs: float, n: int) -> Verdict:
    """Whether the reference bears an alert out: by its kind, by a related one, or not; unknown where it cannot tell."""
    if alert.code in truths and _meets(alert, truths[alert.code], fs, n):
        return "true"
    if any(kind in truths and _meets(alert, truths[kind], fs, n) for kind in RELATED.get(alert.code, ())):
        return "related"
    return "false" if alert.code in truths else "unknown"


def delay_figures(
    delays_s: "npt.NDArray[np.float64] | list[float]", n_asked: int | None = None
) -> dict[str, float | int | None]:
    """p50, p95, p99 and max of delays in s, and the share within 10 s of those there are, and of `n_asked`."""
    delays = np.asarray(delays_s, dtype=np.float64)
    asked = delays.size if n_asked is None else n_asked
    if delays.size == 0:
        return {"n": 0, "asked": asked, "p50": None, "p95": None, "p99": None, "max": None, "within_10_s": 0}
    p50, p95, p99 = (float(v) for v in np.quantile(delays, [0.5, 0.95, 0.99]))
    within = int((delays <= LATE_S).sum())
    return {
        "n": delays.size,
        "asked": asked,
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "max": float(delays.max()),
        "within_10_s": within,
    }


def _alert(events: list[dict[str, Any]], fs: float) -> Alert:
    first = events[0]
    heard = next((e for e in events if e.get("suppressed_by") is None and e["state"] == "active"), None)
    over = next((e for e in events if e["state"] != "active"), None)
    return Alert(
        first["alert_id"],
        first["code"],
        first["priority"],
        first["kind"],
        _sample(first["onset"], fs),
        _sample(first["stream_time"], fs),
        None if heard is None else _sample(heard["stream_time"], fs),
        None if over is None else _sample(over["stream_time"], fs),
        first.get("model_version", ""),
        first.get("suppressed_by"),
    )


def _sample(moment: Mapping[str, Any], fs: float) -> int:
    return round(float(moment["sample"]) * fs / float(moment["fs"]))


def _found(code: str, onset: int, end: int, alerts: list[Alert], reds: list[Alert], fs: float, n: int) -> Found:
    span = np.array([[onset, end]], dtype=np.int64)
    own = [alert for alert in alerts if alert.code == code and _meets(alert, span, fs, n)]
    heard = [alert.announced for alert in own if alert.announced is not None]
    sounding = {red.id: red.announced for red in reds if red.announced is not None}
    under = [a.decided for a in own if a.kept_back_by and sounding.get(a.kept_back_by, n + 1) <= a.decided]
    return Found(
        code,
        onset,
        end,
        max(0.0, (min(heard) - onset) / fs) if heard else None,
        max(0.0, (min(alert.decided for alert in own) - onset) / fs) if own else None,
        max(0.0, (min(heard + under) - onset) / fs) if heard or under else None,
        any(_meets(alert, span, fs, n) for alert in reds),
    )


def _meets(alert: Alert, episodes: Episodes, fs: float, n: int) -> bool:
    """Whether an alert's condition overlaps one of the episodes, with what is allowed before and after."""
    if len(episodes) == 0:
        return False
    last = n if alert.ended is None else alert.ended
    early, late = round(EARLY_S * fs), round(LATE_S * fs)
    return bool(((alert.onset <= episodes[:, 1] + late) & (last >= episodes[:, 0] - early)).any())
