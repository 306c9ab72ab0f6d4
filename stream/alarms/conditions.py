"""The alarm conditions of a bed as data, and the profile that holds a bed's limits.

One row per condition: what it says on the ward, its code on the buses, its priority, whether it
latches, its place in a chain, how long it stays up after its last trigger, and its limits with the
range each may be set in. What makes a condition true is in `criteria`, `runs` and `rhythms`; what
becomes of it in `lifecycle`. Defaults are those of an adult profile and research choices, not a
maker's: `docs/alarms.md` says where each comes from.

    >>> profile = Profile({"HR_HIGH": {"limit": 130}})
    >>> profile.limit("HR_HIGH", "limit"), profile.extreme_high
    (130.0, 150.0)
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TICK_HZ = 250
"""The clock of all alarm decisions: ticks of 4 ms since the epoch's first sample."""

Priority = Literal["high", "medium", "low"]
Kind = Literal["physiological", "technical", "advisory"]


class ProfileError(ValueError):
    """A setting that is refused; the text names it, its value and what may stand there."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A number that can be set: its default and the range it must lie in, ends included."""

    default: float
    low: float
    high: float
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """A row of the table.

    `chain` and `rank`: of the active conditions of a chain the one with the lowest rank is announced.
    `level`: 1 or 2 for the yellow time-outs, 0 for none. `refractory`: an event of single beats, not
    announced again within the refractory time. `hold_s`: how long the condition stays after its last
    trigger; 0 where its criterion says itself when it ends. `can_be_off`: may be switched off alone.
    `priorities`: what the priority may be set to.
    """

    code: str
    words: str
    mdc: str
    priority: Priority
    chain: str
    rank: int = 0
    kind: Kind = "physiological"
    latching: bool = False
    level: int = 0
    refractory: bool = False
    hold_s: float = 0.0
    on: bool = True
    can_be_off: bool = True
    priorities: tuple[Priority, ...] = ()
    unit: str = ""
    limits: Mapping[str, Limit] = field(default_factory=dict)


def _mdc(number: int, name: str) -> str:
    return f"{number}^MDC_EVT_{name}^MDC"


def _pending(name: str) -> str:
    """A condition without a term of the standard: the form in use for codes that are pending."""
    return f"0^MDCX_EVT_{name}^MDC"


def _red(code: str, words: str, mdc: str, place: str, unit: str, limits: dict[str, Limit]) -> Condition:
    chain, rank = place[:2], int(place[3:])
    return Condition(code, words, mdc, "high", chain, rank, latching=True, can_be_off=False, unit=unit, limits=limits)


def _yellow(code: str, words: str, mdc: str, place: str, level: int = 0, **more: Any) -> Condition:
    return Condition(code, words, mdc, "medium", place[:2], int(place[3:]), level=level, **more)


def _short(code: str, words: str, mdc: str, place: str, level: int = 0, **more: Any) -> Condition:
    return Condition(code, words, mdc, "low", place[:2], int(place[3:]), level=level, **more)


def withheld(code: str) -> str:
    """The code of what tells that a red was withheld, on evidence of the pulse."""
    return f"{code}_WITHHELD"


def _withheld(rank: int, code: str, words: str) -> Condition:
    """Never announced: `chains` keeps it back for good."""
    mdc = _pending(f"{code}_WITHHELD")
    return Condition(withheld(code), words, mdc, "low", "W", rank, "advisory", can_be_off=False, hold_s=3.0)


def _tech(rank: int, code: str, words: str, mdc: str, hold_s: float = 0, **limits: Limit) -> Condition:
    may: tuple[Priority, ...] = ("medium", "low")
    return Condition(
        code, words, mdc, "low", "T", rank, "technical", can_be_off=False, hold_s=hold_s, priorities=may, limits=limits
    )


_BPM = "bpm"
_EVENT_S, _RHYTHM_S = 5.0, 10.0  # how long an event, and a pattern of beats, stays up
_SEEN = {"probability": Limit(0.7, 0.3, 1), "windows": Limit(2, 1, 10)}  # as the rhythm experts see it
_RATE = {"hysteresis": Limit(3, 0, 10, _BPM), "hold_s": Limit(5, 0, 60, "s")}
_LOWER: dict[str, Any] = {"priorities": ("medium", "low")}

# fmt: off
TABLE: tuple[Condition, ...] = (
    _red("VFIB", "VENT FIB", _pending("ECG_V_FIB"), "R1.0", "",
         {"time_s": Limit(4, 2, 10, "s"), "hold_s": Limit(3, 0, 30, "s"), **_SEEN}),
    _red("ASYSTOLE", "ASYSTOLE", _mdc(199684, "ECG_ASYSTOLE"), "R1.1", "s", {"time_s": Limit(4, 2.5, 10, "s")}),
    _red("VTACH", "VTACH", _mdc(199832, "ECG_V_TACHY"), "R2.0", _BPM,
         {"run": Limit(5, 3, 99), "rate": Limit(100, 20, 300, _BPM), "hold_s": Limit(5, 1, 60, "s"), **_SEEN}),
    _red("X_TACHY", "xTACHY", _mdc(199730, "ECG_TACHY_EXTREME"), "R3.0", _BPM,
         {"delta": Limit(20, 0, 50, _BPM), "clamp": Limit(200, 120, 300, _BPM)}),
    _red("X_BRADY", "xBRADY", _mdc(199694, "ECG_BRADY_EXTREME"), "R3.1", _BPM,
         {"delta": Limit(20, 0, 50, _BPM), "clamp": Limit(40, 15, 100, _BPM)}),
    # The two that need a pace channel: the ids are kept, nothing here can raise them.
    _yellow("PACER_NOT_CAPTURE", "PACER NOT CAPT", _mdc(199710, "ECG_PACING_NON_CAPT"), "Y0.0", on=False),
    _yellow("PACER_NOT_PACING", "PACER NOT PACE", _mdc(199790, "ECG_PACER_NOT_PACING"), "Y0.1", on=False),
    _yellow("PAUSE", "PAUSE", _mdc(199716, "ECG_PAUSE"), "Y1.0", 1, hold_s=_EVENT_S, unit="s",
            limits={"time_s": Limit(2, 1.5, 5, "s")}),
    _yellow("MISSED_BEAT", "MISSED BEAT", _mdc(199686, "ECG_BEAT_MISSED"), "Y1.1", 2, hold_s=_EVENT_S, unit="s",
            refractory=True, limits={"ratio": Limit(1.75, 1.5, 3)}),
    _yellow("NSVT", "NON-SUSTAIN VT", _mdc(199834, "ECG_V_TACHY_NON_SUST"), "Y2.0", 1, hold_s=_EVENT_S, unit=_BPM),
    _yellow("VENT_BRADY", "VENT BRADY", _pending("ECG_V_BRADY"), "Y2.1", 1, hold_s=_EVENT_S, unit=_BPM, on=False,
            priorities=("high", "medium"), limits={"run": Limit(5, 3, 99), "rate": Limit(40, 15, 60, _BPM)}),
    _yellow("VENT_RHYTHM", "VENT RHYTHM", _mdc(199828, "ECG_V_RHY"), "Y2.2", 1, hold_s=_EVENT_S, unit=_BPM,
            limits={"run": Limit(14, 3, 99)}),
    _yellow("RUN_PVC", "RUN PVCs", _mdc(199820, "ECG_V_P_C_RUN"), "Y2.3", 1, hold_s=_EVENT_S, unit=_BPM),
    _yellow("PAIR_PVC", "PAIR PVCs", _mdc(199818, "ECG_V_P_C_PAIR"), "Y2.4", 1, hold_s=_EVENT_S, unit="ms",
            refractory=True, limits={"coupling_ms": Limit(600, 200, 1200, "ms")}, **_LOWER),
    _yellow("R_ON_T", "R-ON-T PVCs", _mdc(199814, "ECG_V_P_C_RonT"), "Y2.5", 2, hold_s=_EVENT_S, unit="ms",
            refractory=True, limits={"ratio": Limit(1 / 3, 0.2, 0.6)}, **_LOWER),
    _short("BIGEMINY", "VENT BIGEMINY", _mdc(199690, "ECG_BIGEM"), "Y2.6", 2, hold_s=_RHYTHM_S,
           limits={"cycles": Limit(3, 2, 10)}),
    _short("TRIGEMINY", "VENT TRIGEMINY", _mdc(199844, "ECG_V_TRIGEM"), "Y2.7", 2, hold_s=_RHYTHM_S,
           limits={"cycles": Limit(3, 2, 10)}),
    _short("MULTIFORM_PVC", "MULTIFORM PVCs", _mdc(199816, "ECG_V_P_C_MULTIFORM"), "Y2.8", 2, hold_s=_RHYTHM_S,
           refractory=True, limits={"beats": Limit(15, 3, 31)}),
    _short("PVC_RATE", "PVCs/min", _mdc(199860, "ECG_V_P_C_RATE"), "Y2.9", 2, unit="/min",
           limits={"limit": Limit(10, 1, 99, "/min")}),
    _yellow("SVT", "SVT", _mdc(199800, "ECG_SV_TACHY"), "Y3.0", 1, hold_s=_EVENT_S, unit=_BPM,
            limits={"run": Limit(5, 3, 99), "rate": Limit(180, 100, 300, _BPM)}),
    _yellow("HR_HIGH", "HR", _mdc(196648, "HI"), "Y3.1", unit=_BPM,
            limits={"limit": Limit(120, 60, 300, _BPM), **_RATE}),
    _yellow("HR_LOW", "HR", _mdc(196670, "LO"), "Y3.2", unit=_BPM,
            limits={"limit": Limit(50, 15, 110, _BPM), **_RATE}),
    _yellow("AFIB", "AFIB", _mdc(199736, "ECG_ATR_FIB"), "Y4.0", 2,
            limits={"time_s": Limit(60, 10, 300, "s"), "probability": Limit(0.5, 0.3, 1)}, **_LOWER),
    _short("IRREGULAR_HR", "IRREGULAR HR", _mdc(199766, "ECG_CARD_BEAT_RATE_IRREG"), "Y4.1", 2,
           limits={"time_s": Limit(60, 10, 300, "s"), "irregularity": Limit(0.12, 0.03, 0.5)}),
    _short("END_AFIB", "END AFIB", _pending("ECG_ATR_FIB_END"), "Y4.2", kind="advisory", hold_s=_EVENT_S,
           limits={"delay_s": Limit(120, 0, 1800, "s")}),
    _short("END_IRREGULAR", "END IRREGULAR HR", _pending("ECG_CARD_BEAT_RATE_IRREG_END"), "Y4.3", kind="advisory",
           hold_s=_EVENT_S, limits={"delay_s": Limit(120, 0, 1800, "s")}),
    _withheld(0, "VFIB", "NO VENT FIB: PULSE"),
    _withheld(1, "ASYSTOLE", "NO ASYSTOLE: PULSE"),
    _withheld(2, "VTACH", "NO VTACH: PULSE"),
    _tech(0, "SIGNAL_LOST", "SIGNAL LOST", _pending("SIGNAL_LOST"), _EVENT_S),
    _tech(1, "LEADS_OFF", "ECG LEADS OFF", _mdc(196882, "LEADS_OFF")),
    _tech(2, "CANNOT_ANALYZE", "CANNOT ANALYZE ECG", _mdc(196992, "SIG_UNANALYZEABLE"), time_s=Limit(30, 10, 120, "s")),
    _tech(3, "NOISY_ECG", "NOISY ECG", _mdc(196682, "NOISY")),
    _tech(4, "LEAD_OFF", "LEAD OFF", _mdc(196876, "LEAD_DISCONN")),
    _tech(5, "MODEL_STALLED", "MODEL STALLED", _pending("MODEL_STALLED")),
    _tech(6, "STREAM_LATE", "STREAM LATE", _pending("STREAM_LATE")),
    _tech(7, "CLOCK_UNSYNC", "CLOCK UNSYNC", _pending("CLOCK_UNSYNC")),
    _tech(8, "BUS_DOWN", "BUS UNREACHABLE", _pending("BUS_DOWN")),
    _tech(9, "ALARMS_OFF", "ECG ALARMS OFF", _mdc(202790, "STAT_ECG_AL_ALL_OFF")),
    _tech(10, "SOME_ALARMS_OFF", "SOME ECG ALARMS OFF", _mdc(202792, "STAT_ECG_AL_SOME_OFF")),
    _tech(11, "LEARNING", "LEARNING ECG", _mdc(202832, "STAT_LEARN")),
    _tech(12, "BUS_BEHIND", "BUS BEHIND", _pending("BUS_BEHIND")),
    _tech(13, "BUS_REJECTED", "BUS REJECTS", _pending("BUS_REJECTED")),
)
# fmt: on

CONDITIONS: dict[str, Condition] = {row.code: row for row in TABLE}

# Settings that belong to no single condition, set in the same way.
GENERAL: dict[str, dict[str, Limit]] = {
    "TIMEOUTS": {
        "level_1_s": Limit(180, 0, 300, "s"),
        "level_2_s": Limit(600, 0, 900, "s"),
        "refractory_s": Limit(30, 0, 120, "s"),
    },
    "PAUSES": {
        "audio_s": Limit(120, 1, 600, "s"),
        "alarm_s": Limit(180, 1, 1800, "s"),
        "off_s": Limit(3600, 1, 86400, "s"),
    },
}


class Profile:
    """The limits of a bed: the adult defaults with changes on top. Not changed once made.

    `changes` maps a code to what is set otherwise, as a table of ward.toml does:
    `{"HR_HIGH": {"limit": 130}, "AFIB": {"enabled": False}, "PAIR_PVC": {"priority": "low"}}`.
    Raises ProfileError with the known names for an unknown code or setting, and with the range for a
    value outside it.
    """

    __slots__ = ("_enabled", "_limits", "_priority", "changes", "extreme_high", "extreme_low")

    def __init__(self, changes: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.changes: dict[str, dict[str, Any]] = {}
        self._limits = {row.code: {name: limit.default for name, limit in row.limits.items()} for row in TABLE}
        self._limits.update(
            {group: {name: limit.default for name, limit in limits.items()} for group, limits in GENERAL.items()}
        )
        self._enabled = {row.code: row.on for row in TABLE}
        self._priority: dict[str, Priority] = {row.code: row.priority for row in TABLE}
        for code, settings in (changes or {}).items():
            self._change(code, settings)
        high, low = self._limits["HR_HIGH"]["limit"], self._limits["HR_LOW"]["limit"]
        if low >= high:
            raise ProfileError(
                f"HR_LOW.limit: {low:g} is not below HR_HIGH.limit {high:g}; lower the one or raise the other"
            )
        tachy, brady = self._limits["X_TACHY"], self._limits["X_BRADY"]
        self.extreme_high = min(high + tachy["delta"], tachy["clamp"])
        self.extreme_low = max(low - brady["delta"], brady["clamp"])
        if self.extreme_low >= self.extreme_high:
            raise ProfileError(
                f"X_BRADY.clamp: {brady['clamp']:g} makes xBRADY {self.extreme_low:g}, "
                f"not below xTACHY {self.extreme_high:g}; set it lower"
            )

    def with_changes(self, changes: Mapping[str, Mapping[str, Any]]) -> "Profile":
        """This profile with further changes on top; raises ProfileError and leaves this one alone."""
        return Profile(merged(self.changes, changes))

    def limit(self, code: str, name: str) -> float:
        return self._limits[code][name]

    def limits(self, code: str) -> dict[str, float]:
        return dict(self._limits[code])

    def enabled(self, code: str) -> bool:
        return self._enabled[code]

    def priority(self, code: str) -> Priority:
        return self._priority[code]

    def switched_off(self) -> Iterator[str]:
        """Codes that are off here and on by default."""
        return (row.code for row in TABLE if row.on and not self._enabled[row.code])

    def _change(self, code: str, settings: Mapping[str, Any]) -> None:
        row = CONDITIONS.get(code)
        limits = row.limits if row else GENERAL.get(code)
        if limits is None:
            raise ProfileError(f"{code}: no such alarm; known are {', '.join([*CONDITIONS, *GENERAL])}")
        if not isinstance(settings, Mapping):
            raise ProfileError(f"{code}: {settings!r} is no table of settings; write {{name: value}}")
        kept = self.changes.setdefault(code, {})
        for name, value in settings.items():
            if row and name == "enabled":
                self._enabled[code] = _checked_switch(row, value)
            elif row and name == "priority":
                self._priority[code] = _checked_priority(row, value)
            elif name in limits:
                self._limits[code][name] = _checked_number(code, name, value, limits[name])
            else:
                known = [*limits, *(("enabled",) if row else ()), *(("priority",) if row and row.priorities else ())]
                raise ProfileError(f"{code}.{name}: no such setting; known are {', '.join(known)}")
            kept[name] = value


def merged(
    changes: Mapping[str, Mapping[str, Any]], more: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Changes with more on top, setting by setting; raises ProfileError where a code has no table of them."""
    result = {code: dict(settings) for code, settings in changes.items()}
    for code, settings in more.items():
        if not isinstance(settings, Mapping):
            raise ProfileError(f"{code}: {settings!r} is no table of settings; write {{name: value}}")
        result[code] = {**result.get(code, {}), **settings}
    return result


def _checked_switch(row: Condition, value: object) -> bool:
    if not isinstance(value, bool):
        raise ProfileError(f"{row.code}.enabled: {value!r} is neither true nor false")
    if not value and not row.can_be_off:
        raise ProfileError(
            f"{row.code}.enabled: false is refused, this alarm cannot be switched off alone; pause all alarms instead"
        )
    if value and row.code.startswith("PACER"):
        raise ProfileError(
            f"{row.code}.enabled: true is refused, it needs a pace channel, which is not read; leave it off"
        )
    return value


def _checked_priority(row: Condition, value: object) -> Priority:
    for allowed in row.priorities:
        if value == allowed:
            return allowed
    may = " or ".join(row.priorities) or f"only {row.priority}"
    raise ProfileError(f"{row.code}.priority: {value!r} is refused; it may be {may}")


def _checked_number(code: str, name: str, value: object, limit: Limit) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not limit.low <= value <= limit.high
    ):
        unit = f" {limit.unit}" if limit.unit else ""
        raise ProfileError(f"{code}.{name}: {value!r} is refused; it may be {limit.low:g} to {limit.high:g}{unit}")
    return float(value)
