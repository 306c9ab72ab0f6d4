"""What the central station knows of the ward, and how it is told to a browser: JSON fragments, each with its kind `k`.

No sockets and no clients. A fragment is made once, however many browsers get it; what comes many times a second is
told by a function, so that nothing is made where nobody looks.
"""

import struct
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from statistics import fmean, median, quantiles
from typing import Any

import msgspec
import numpy as np

from stream.wire import Action, AlertEvent, BeatJudgement, BedStatus, Numeric, Waves, WindowJudgement

TREND_EVERY_S = 5.0
TREND_N = round(8 * 3600 / TREND_EVERY_S)
RING_S = 20.0  # of waves: for who comes late, and for strips
LATE_S = 10.0  # of them who comes late to a bed's page is shown
TILE_LATE_S = 3.0  # and on a tile, of which there are many
PROFILE_N = 30  # windows, a minute of them
N_BEATS = 60
RIBBON_N = 2000  # windows, an hour of them
FEW_LEADS = 2
_HEAD = struct.Struct("<HBBHHd")  # id, leads, 0, samples, 0, first

encode = msgspec.json.Encoder().encode
Told = Callable[[], bytes]


class Ribbon:
    """The rhythms of the last `RIBBON_N` windows of a bed; its memory is there from the start, so that a ward's does
    not grow for an hour."""

    __slots__ = ("_at", "_n", "_rhythms")

    def __init__(self) -> None:
        self._at = array("d", bytes(8 * RIBBON_N))
        self._rhythms = [""] * RIBBON_N
        self._n = 0

    def add(self, at_s: float, rhythm: str) -> None:
        """A window that came at `at_s` (s since 1970, UTC)."""
        place = self._n % RIBBON_N
        self._at[place], self._rhythms[place] = at_s, sys.intern(rhythm)
        self._n += 1

    def __iter__(self) -> Iterator[tuple[float, str]]:
        for i in range(max(0, self._n - RIBBON_N), self._n):
            yield self._at[i % RIBBON_N], self._rhythms[i % RIBBON_N]


@dataclass(slots=True)
class Station:
    """One bed. `alerts`: those that stand, by id. `off`: (kind, until UTC ns) of a pause or of alarms off."""

    name: str
    numeric: Numeric | None = None
    status: BedStatus | None = None
    window: WindowJudgement | None = None
    alerts: dict[str, AlertEvent] = field(default_factory=dict)
    off: tuple[str, int] | None = None
    beats: deque[BeatJudgement] = field(default_factory=lambda: deque(maxlen=N_BEATS))
    profile: deque[WindowJudgement] = field(default_factory=lambda: deque(maxlen=PROFILE_N))
    waves: deque[Waves] = field(default_factory=deque)
    stream: bytes = b""  # the fragment that says what its waves are
    ribbon: Ribbon = field(default_factory=Ribbon)
    trend_s: array = field(default_factory=lambda: array("d"))  # type: ignore[type-arg]
    trend_hr: array = field(default_factory=lambda: array("f"))  # type: ignore[type-arg]
    _rates: list[float] = field(default_factory=list)

    def rate(self, hr: float | None, utc_s: float) -> None:
        """Take a heart rate into the trend: the mean of each five seconds, NaN where there was none."""
        if hr is not None:
            self._rates.append(hr)
        if self.trend_s and utc_s - self.trend_s[-1] < TREND_EVERY_S:
            return
        self.trend_s.append(utc_s)
        self.trend_hr.append(fmean(self._rates) if self._rates else float("nan"))
        self._rates.clear()
        if len(self.trend_s) > 2 * TREND_N:
            del self.trend_s[:TREND_N], self.trend_hr[:TREND_N]


class Ward:
    """All beds. `utc_ns`: for ages and pauses."""

    def __init__(self, utc_ns: Callable[[], int]) -> None:
        self.stations: dict[str, Station] = {}
        self._utc_ns = utc_ns
        self._ids: dict[tuple[Any, ...], int] = {}

    def station(self, bed: str) -> Station:
        """The bed of that name, made where it is new."""
        return self.stations.get(bed) or self.stations.setdefault(bed, Station(bed))

    def settle(self, event: AlertEvent) -> bytes:
        """Take an alert event; the fragment that tells it."""
        alerts = self.station(event.bed).alerts
        alerts.pop(event.alert_id, None)
        if event.state != "inactive":
            alerts[event.alert_id] = event
        return encode({"k": "alert", "e": event})

    def forget_alerts(self) -> None:
        """What stands is about to be told anew."""
        for station in self.stations.values():
            station.alerts.clear()

    def act(self, action: Action) -> bytes:
        """Take an operator's action; the fragment that tells it, and what is off now."""
        station = self.station(action.bed)
        if action.kind == "alarms_on":
            station.off = None
        elif action.kind in {"audio_pause", "alarm_pause", "alarms_off"}:
            until_s = 3600.0 if action.until_s is None else action.until_s
            station.off = action.kind, action.at_ns + round(until_s * 1e9)
        return encode({"k": "action", "a": action, "off": self._off(station)})

    def count(self, numeric: Numeric) -> Told:
        """Take a numeric; what tells it."""
        station = self.station(numeric.bed)
        station.numeric = numeric
        station.rate(numeric.hr, self._utc_ns() / 1e9)
        return lambda: encode(_numeric(numeric))

    def account(self, status: BedStatus) -> Told:
        """Take a bed's account; what tells it."""
        self.station(status.bed).status = status
        return lambda: encode(_status(status))

    def window(self, window: WindowJudgement) -> Told:
        """Take a window; what tells the rhythm, and the profile smoothed over a minute."""
        station = self.station(window.bed)
        if station.window is not None and station.window.epoch != window.epoch:
            station.profile.clear()
        station.window = window
        station.profile.append(window)
        station.ribbon.add(self._utc_ns() / 1e9, window.rhythm)
        return lambda: encode(_window(window, profile_of(station.profile)))

    def beat(self, beat: BeatJudgement) -> Told:
        """Take a beat; what tells it."""
        self.station(beat.bed).beats.append(beat)
        return lambda: encode(_beat(beat))

    def wave(self, waves: Waves) -> bytes | None:
        """Keep waves for who comes late; the fragment that says what they are, where that is new."""
        station = self.station(waves.bed)
        kept = station.waves
        if kept and kept[-1].epoch != waves.epoch:
            kept.clear()
        kept.append(waves)
        while kept[0].first + kept[0].n < waves.first + waves.n - RING_S * waves.rate:
            kept.popleft()
        key = (waves.bed, waves.epoch, waves.signals, waves.rate)
        if key in self._ids:
            return None
        if len(self._ids) > 20_000:
            self._ids.clear()
        number = self._ids[key] = (max(self._ids.values(), default=0) + 1) & 0xFFFF
        station.stream = encode(
            {"k": "signals", "id": number, "bed": waves.bed, "epoch": waves.epoch, "rate": waves.rate,
             "signals": waves.signals}
        )  # fmt: skip
        return station.stream

    def block(self, waves: Waves, every_lead: bool) -> bytes:
        """Waves as a browser takes them: a head of 16 bytes, then int16 of one lead after the other, little-endian.

        Not every lead: the first `FEW_LEADS` ECG leads, all signals where there is none."""
        number = self._ids[waves.bed, waves.epoch, waves.signals, waves.rate]
        rows = list(range(len(waves.signals)))
        if not every_lead:
            rows = few(waves)
        data = bytes(waves.data)
        size = 2 * waves.n
        parts = [data] if len(rows) == len(waves.signals) else [data[row * size : (row + 1) * size] for row in rows]
        return b"".join([_HEAD.pack(number, len(rows), every_lead, waves.n, 0, waves.first), *parts])

    def late(self, bed: str, every_lead: bool) -> Iterator[bytes]:
        """The blocks of a bed's waves that who comes late is shown."""
        station = self.stations.get(bed)
        if station is not None and station.waves:
            newest = station.waves[-1]
            since = newest.first - (LATE_S if every_lead else TILE_LATE_S) * newest.rate
            yield from (self.block(waves, every_lead) for waves in station.waves if waves.first > since)

    def beats(self, bed: str) -> Iterator[bytes]:
        """The last beats of a bed, for its page."""
        station = self.stations.get(bed)
        yield from (encode(_beat(beat)) for beat in (station.beats if station is not None else ()))

    def snapshot(self) -> list[dict[str, Any]]:
        """All that stands of all beds."""
        return [self._bed(station) for station in self.stations.values()]

    def trend(self, bed: str) -> dict[str, Any]:
        """Of a bed: `t` and `hr`, times (s since 1970, UTC) and mean heart rates, None where there was none; `ribbon`,
        the rhythm of each window with its time, where it is another than the one before or 6 s have passed."""
        station = self.stations.get(bed)
        if station is None:
            return {"t": [], "hr": [], "ribbon": []}
        rates = [None if np.isnan(hr) else round(hr, 1) for hr in station.trend_hr[-TREND_N:]]
        ribbon: list[tuple[float, str]] = []
        for at_s, rhythm in station.ribbon:
            if not ribbon or ribbon[-1][1] != rhythm or at_s - ribbon[-1][0] > 6:
                ribbon.append((round(at_s, 1), rhythm))
        return {"t": list(station.trend_s[-TREND_N:]), "hr": rates, "ribbon": ribbon}

    def _bed(self, station: Station) -> dict[str, Any]:
        told: dict[str, Any] = {"bed": station.name, "alerts": list(station.alerts.values()), "off": self._off(station)}
        if station.numeric is not None:
            told["numeric"] = _numeric(station.numeric)
        if station.status is not None:
            told["status"] = _status(station.status)
        if station.window is not None:
            told["window"] = _window(station.window, profile_of(station.profile))
        if station.stream:
            told["signals"] = msgspec.Raw(station.stream)
        return told

    def _off(self, station: Station) -> tuple[str, float] | None:
        if station.off is not None and station.off[1] < self._utc_ns():
            station.off = None
        return None if station.off is None else (station.off[0], station.off[1] / 1e6)


def few(waves: Waves) -> list[int]:
    """The rows that a tile shows."""
    ecg = [i for i, signal in enumerate(waves.signals) if signal.kind == "ecg"][:FEW_LEADS]
    return ecg or list(range(len(waves.signals)))


def profile_of(windows: Iterable[WindowJudgement]) -> dict[str, Any]:
    """The paper's five tasks over a minute: the median of each, and how sure: for a number the spread (half the range
    of the middle four fifths), for a class the share of windows that say it."""
    windows = list(windows)
    told: dict[str, Any] = {}
    for name in ("rr_ms", "age_years", "male", "potassium_abnormal"):
        values = [value for w in windows if (value := getattr(w, name)) is not None]
        if values:
            low, *_, high = quantiles(values, n=10, method="inclusive") if len(values) > 1 else values * 2
            told[name] = [round(median(values), 3), round((high - low) / 2, 3)]
    kinds = [w.arrhythmia for w in windows if w.arrhythmia]
    if kinds:
        most = max(set(kinds), key=kinds.count)
        told["arrhythmia"] = [most, round(kinds.count(most) / len(kinds), 3)]
    return told


def _numeric(n: Numeric) -> dict[str, Any]:
    return {"k": "numeric", "bed": n.bed, "epoch": n.epoch, "at": n.at.sample, "hr": n.hr, "pvc": n.pvc_per_min,
            "rhythm": n.rhythm, "confidence": round(n.confidence, 3)}  # fmt: skip


def _status(s: BedStatus) -> dict[str, Any]:
    lost = {what: n for what, n in s.counts.items() if n and what.startswith("gap")}
    return {"k": "status", "bed": s.bed, "shard": s.shard, "epoch": s.epoch, "at": s.at.sample, "fs": s.at.fs,
            "age_ms": round(s.age_ms), "lost": lost}  # fmt: skip


def _window(w: WindowJudgement, profile: dict[str, Any]) -> dict[str, Any]:
    return {"k": "window", "bed": w.bed, "epoch": w.epoch, "at": w.at.sample, "fs": w.at.fs, "rhythm": w.rhythm,
            "confidence": round(w.confidence, 3), "shockable": round(w.shockable, 3), "quality": round(w.quality, 3),
            "gates": [round(g, 3) for g in w.gates], "profile": profile}  # fmt: skip


def _beat(b: BeatJudgement) -> dict[str, Any]:
    return {"k": "beat", "bed": b.bed, "epoch": b.epoch, "at": b.at.sample, "label": b.label,
            "confidence": round(b.confidence, 3), "rr": round(b.rr_ms),
            "gates": [round(g, 3) for g in b.gates]}  # fmt: skip
