"""The alarm conditions as data, and the profile that holds a bed's limits.

The table is a file, `profiles/adult.toml`: a row per condition says what it is called on the ward, its
code on the buses, its priority, whether it latches, its place in a chain, how long it stays up after
its last trigger, and its limits with the range each may be set in. A further profile is a further
file, which says what differs. What makes a condition true is in `criteria`, `runs` and `rhythms`; what
becomes of it in `lifecycle`.

    >>> profile = Profile({"HR_HIGH": {"limit": 130}})
    >>> profile.limit("HR_HIGH", "limit"), profile.extreme_high
    (130.0, 150.0)
"""

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec

TICK_HZ = 250
"""The clock of all alarm decisions: ticks of 4 ms since the epoch's first sample."""

Priority = Literal["high", "medium", "low"]
Kind = Literal["physiological", "technical", "advisory"]


class ProfileError(ValueError):
    """Settings that are refused; each of `faults` names one, its value and what may stand there."""

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


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


def withheld(code: str) -> str:
    """The code of what tells that a red was withheld, on evidence of the pulse."""
    return f"{code}_WITHHELD"


@dataclass(frozen=True, slots=True)
class Table:
    """What a profile file says: the conditions by code, and `general`, settings that belong to no single one."""

    name: str
    rows: Mapping[str, Condition]
    general: Mapping[str, Mapping[str, Limit]]

    def limits(self, code: str) -> Mapping[str, Limit] | None:
        """What may be set of a condition or a general group; None where there is no such."""
        row = self.rows.get(code)
        return row.limits if row else self.general.get(code)


FOLDER = Path(__file__).parent / "profiles"


def _adult() -> Table:
    """The profile that all others are variations of; a fault in it is one of this package."""
    rows: dict[str, Condition] = {}
    general: dict[str, dict[str, Limit]] = {}
    for code, fields in tomllib.loads((FOLDER / "adult.toml").read_text(encoding="utf-8")).items():
        if "words" not in fields:
            general[code] = msgspec.convert(fields["limits"], dict[str, Limit])
            continue
        chain, _, rank = fields["chain"].partition(".")
        rows[code] = msgspec.convert({**fields, "code": code, "chain": chain, "rank": int(rank)}, Condition)
    return Table("adult", rows, general)


ADULT = _adult()
TABLE: tuple[Condition, ...] = tuple(ADULT.rows.values())
CONDITIONS: Mapping[str, Condition] = ADULT.rows
GENERAL: Mapping[str, Mapping[str, Limit]] = ADULT.general


@lru_cache
def table(name: str) -> Table:
    """The table of a profile: `adult`, another name of `profiles/`, or a path. The file says `base = "adult"`
    and what differs: of a condition `priority` and `on`, and of each limit its default and range.

    Raises ProfileError, one line, with the file, the key, its value and what may stand there."""
    if name == "adult":
        return ADULT
    path = Path(name) if "/" in name or name.endswith(".toml") else FOLDER / f"{name}.toml"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        raise ProfileError(f"{path}: cannot be read; known profiles are {known}, or give a path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: is no TOML ({error})") from None
    if raw.pop("base", None) != "adult":
        raise ProfileError(f'{path}: base: a profile is a variation of the adult one; write base = "adult"')
    rows, general = dict(ADULT.rows), dict(ADULT.general)
    for code, fields in raw.items():
        try:
            if code in rows:
                rows[code] = _varied(rows[code], fields)
            elif code in general:
                general[code] = _varied_limits(general[code], fields.pop("limits", {}))
                _nothing_else(fields, ("limits",))
            else:
                raise ProfileError(f"no such alarm; known are {', '.join([*rows, *general])}")
        except (ProfileError, msgspec.ValidationError, AttributeError) as error:
            raise ProfileError(f"{path}: {code}: {error}") from None
    varied = Table(path.stem, rows, general)
    Profile(table=varied)  # its defaults must go together
    return varied


def _varied(row: Condition, fields: dict[str, Any]) -> Condition:
    limits = _varied_limits(row.limits, fields.pop("limits", {}))
    priority = _checked_priority(row, fields.pop("priority", row.priority), row.priority)
    on = fields.pop("on", row.on)
    if on != row.on:
        _checked_switch(row, on)
    _nothing_else(fields, ("priority", "on", "limits"))
    return replace(row, limits=limits, priority=priority, on=on)


def _varied_limits(limits: Mapping[str, Limit], changes: Mapping[str, Any]) -> dict[str, Limit]:
    varied = dict(limits)
    for name, change in changes.items():
        if name not in varied:
            raise ProfileError(f"limits.{name}: no such limit; known are {', '.join(varied) or 'none'}")
        limit = msgspec.convert({**asdict(varied[name]), **change}, Limit)
        if not limit.low <= limit.default <= limit.high:
            raise ProfileError(
                f"limits.{name}: the default {limit.default:g} is outside {limit.low:g} to {limit.high:g}; "
                "give all that differ of default, low and high"
            )
        varied[name] = limit
    return varied


def _nothing_else(fields: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in fields:
        raise ProfileError(f"{name}: cannot be varied by a profile; it may say {', '.join(known)}")


class Profile:
    """The limits of a bed: the defaults of a table with changes on top. Not changed once made.

    `changes` maps a code to what is set otherwise, as a table of ward.toml does:
    `{"HR_HIGH": {"limit": 130}, "AFIB": {"enabled": False}, "PAIR_PVC": {"priority": "low"}}`.
    Raises ProfileError with the known names for an unknown code or setting, and with the range for a
    value outside it.
    """

    __slots__ = ("_enabled", "_limits", "_priority", "_ticks", "changes", "extreme_high", "extreme_low", "table")

    def __init__(self, changes: Mapping[str, Mapping[str, Any]] | None = None, table: Table = ADULT) -> None:
        self.table = table
        self.changes: dict[str, dict[str, Any]] = {}
        named = {code: row.limits for code, row in table.rows.items()} | dict(table.general)
        self._limits = {code: {name: limit.default for name, limit in limits.items()} for code, limits in named.items()}
        self._enabled = {code: row.on for code, row in table.rows.items()}
        self._priority: dict[str, Priority] = {code: row.priority for code, row in table.rows.items()}
        faults: list[str] = []
        for code, settings in (changes or {}).items():
            try:
                self._change(code, settings)
            except ProfileError as error:
                faults += error.faults
        if faults:
            raise ProfileError(*faults)
        self._ticks = {
            code: round(limits["time_s"] * TICK_HZ) for code, limits in self._limits.items() if "time_s" in limits
        }
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
        return Profile(merged(self.changes, changes), self.table)

    def limit(self, code: str, name: str) -> float:
        return self._limits[code][name]

    def ticks(self, code: str) -> int:
        """The `time_s` of a code, in ticks."""
        return self._ticks[code]

    def limits(self, code: str) -> dict[str, float]:
        return dict(self._limits[code])

    def enabled(self, code: str) -> bool:
        return self._enabled[code]

    def priority(self, code: str) -> Priority:
        return self._priority[code]

    def switched_off(self) -> Iterator[str]:
        """Codes that are off here and on by default."""
        return (code for code, row in self.table.rows.items() if row.on and not self._enabled[code])

    def _change(self, code: str, settings: Mapping[str, Any]) -> None:
        row, limits = self.table.rows.get(code), self.table.limits(code)
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


def _checked_priority(row: Condition, value: object, *also: Priority) -> Priority:
    for allowed in (*row.priorities, *also):
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
