"""The settings of a ward: ward.toml, read, checked and given to every role.

    >>> Settings().worker.max_batch
    256

A setting that is left out has its default, an unknown one is refused, and all that is wrong with a
file is told at once, one line each: the file, the key, its value and the mend. Relative paths are
taken from the folder of the file. docs/configuration.md lists every key.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from stream.alarms.conditions import ADULT, Profile, ProfileError, Table, table
from stream.bridges.bridge import MEANINGS
from stream.bridges.kinds import AnySettings
from stream.wire import Name

Endpoint = Annotated[str, Meta(pattern=r"^(tcp://[^\s/:]+:[0-9]{1,5}|ipc://\S+)$", max_length=200)]
Key = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,32}$")]  # a shard's name is part of file names
Source = Annotated[str, Meta(min_length=1, max_length=500)]


class WardSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the ward is called on displays and on buses. `profile`: of its beds, a name or the path of a file."""

    name: Name = "ward"
    unit: Name = "simulated unit"
    profile: Source = "adult"


class ShardSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One shard: where sources reach it, whom it talks to, and what it keeps.

    `capacity`: beds at most. `n_leads`: ECG leads analysed per bed at most. `checkpoint_s`: how often
    state goes to disk. `gap_timeout_s`: how long a missing packet is waited for (wall clock).
    `worker_stall_s`: without an answer of the worker for so long, MODEL_STALLED is raised."""

    bind: Endpoint = "tcp://127.0.0.1:5601"
    worker: Endpoint = "tcp://127.0.0.1:5611"
    gateway: Endpoint = "tcp://127.0.0.1:5621"
    state_dir: str = "var"
    n_leads: Annotated[int, Meta(ge=1, le=12)] = 4
    capacity: Annotated[int, Meta(ge=1, le=4096)] = 64
    checkpoint_s: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    gap_timeout_s: Annotated[float, Meta(ge=0.1, le=60)] = 2.0
    worker_stall_s: Annotated[float, Meta(ge=0.5, le=60)] = 2.0


class WorkerSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The model's process. `weights`: None for those that come with the package. `max_wait_ms`
    counts from the oldest item of a batch."""

    bind: Endpoint = "tcp://127.0.0.1:5611"
    device: Annotated[str, Meta(pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?)$")] = "auto"
    weights: str | None = None
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    max_batch: Annotated[int, Meta(ge=1, le=4096)] = 256
    max_wait_ms: Annotated[float, Meta(ge=0, le=1000)] = 20.0


class GatewaySettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Journal and publisher. Alerts older than `retention_days` are dropped from the journal, and
    the oldest ones when it is over `retention_mb`; an active alert never is."""

    bind: Endpoint = "tcp://127.0.0.1:5621"
    publish: Endpoint = "tcp://127.0.0.1:5622"
    control: Endpoint = "tcp://127.0.0.1:5623"
    journal: str = "var/journal.sqlite"
    retention_days: Annotated[float, Meta(gt=0, le=36_500)] = 30.0
    retention_mb: Annotated[float, Meta(ge=1, le=1_000_000)] = 1024.0


class SupervisorSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The parent of the roles of one machine: its control socket, and the folder of its logs. `spares`: of the worker
    and of each shard a second process stands by, loaded, and takes over at once when the first one dies."""

    control: Endpoint = "tcp://127.0.0.1:5631"
    state_dir: str = "var"
    spares: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class ProducerSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What plays recordings and simulated patients. `control`: where the producer that `run` starts takes orders to
    make something happen to them; None for nowhere, as where that is taken."""

    control: Endpoint | None = "tcp://127.0.0.1:5641"


class UserSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may use the dashboard, and for what: `viewer` looks, `operator` acknowledges, pauses and sets limits too,
    `engineer` makes things happen in simulation too. `token`: the secret that tells who it is."""

    token: Annotated[str, Meta(min_length=16, max_length=200, pattern=r"^[\x21-\x7e]+$")]
    role: Literal["viewer", "operator", "engineer"] = "viewer"


class DashboardSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The central station in the browser, served by the gateway. `users`: by name; without any, whoever reaches this
    machine's own address is an engineer, and other machines are not let in. A port that is taken turns it off."""

    enabled: bool = True
    host: Annotated[str, Meta(pattern=r"^[A-Za-z0-9.:_-]{1,253}$")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 8080
    users: dict[Key, UserSettings] = {}

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")

    @property
    def url(self) -> str:
        """Where the page is, from this machine."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


class MetricsSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prometheus endpoints: `ports` by role (`worker`, `gateway`, `shard.a`); a role without one has no endpoint."""

    host: Annotated[str, Meta(min_length=1, max_length=200)] = "127.0.0.1"
    ports: dict[str, Annotated[int, Meta(ge=1, le=65_535)]] = {}


class BedSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One bed. `shard`: the name of its shard. `source`: what `produce` plays to it, None where a
    real source sends. `profile`: of its alarms, None for the ward's. `alarms`: overrides by code, over the ward's."""

    shard: str = ""
    source: Source | None = None
    profile: Source | None = None
    alarms: dict[str, dict[str, Any]] = {}


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole ward. After `load`, every bed names its shard and every path is absolute."""

    ward: WardSettings = WardSettings()
    shards: dict[Key, ShardSettings] = msgspec.field(
        default_factory=lambda: {"a": ShardSettings(state_dir="var/shard-a")}
    )
    worker: WorkerSettings = WorkerSettings()
    gateway: GatewaySettings = GatewaySettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    producer: ProducerSettings = ProducerSettings()
    dashboard: DashboardSettings = DashboardSettings()
    metrics: MetricsSettings = MetricsSettings()
    alarms: dict[str, dict[str, Any]] = {}
    bridges: dict[Key, AnySettings] = {}
    beds: dict[Name, BedSettings] = {}


class SettingsError(ValueError):
    """What is wrong with the settings: `problems`, one line each, with file, key, value and mend."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def load(path: str | os.PathLike[str]) -> Settings:
    """The settings of a TOML file, or of a JSON file that `save` wrote.

    Raises SettingsError with every problem of the file."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError([f"{path}: cannot be read: {reason}; give the path of a ward.toml"]) from None
    try:
        raw = msgspec.json.decode(text) if path.suffix == ".json" else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, msgspec.DecodeError) as error:
        raise SettingsError([f"{path}: not {'JSON' if path.suffix == '.json' else 'TOML'}: {error}"]) from None
    return build(raw, file=str(path), folder=path.resolve().parent)


def build(raw: Mapping[str, Any], *, file: str = "settings", folder: Path | None = None) -> Settings:
    """Settings from a plain mapping, checked; `file` and `folder` are what errors and paths refer to.

    Raises SettingsError with every problem of the mapping."""
    problems: list[str] = []
    values = _read(Settings, raw, "", problems)
    folder = (folder or Path.cwd()).resolve()
    if not problems:
        _place_profiles(values, folder)
        _link(values, problems)
    if problems:
        raise SettingsError(f"{file}: {problem}" for problem in problems)
    settings: Settings = msgspec.convert(values, Settings)
    return _absolute(settings, folder)


def save(settings: Settings, path: str | os.PathLike[str]) -> None:
    """Write settings as JSON, whole or not at all, for the roles that the supervisor starts."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(settings)))
    part.replace(path)


def endpoints(settings: Settings) -> dict[str, str]:
    """Every address that a role of this ward cannot do without, by the key that sets it."""
    bound = {f"shards.{name}.bind": shard.bind for name, shard in settings.shards.items()}
    bound |= {f"gateway.{key}": getattr(settings.gateway, key) for key in ("bind", "publish", "control")}
    return bound | {"worker.bind": settings.worker.bind, "supervisor.control": settings.supervisor.control}


def reached(bound: str) -> str:
    """The address under which this machine reaches what is bound to `bound`: `*` is every address, and none to call."""
    return re.sub(r"^tcp://(\*|0\.0\.0\.0)(?=:)", "tcp://127.0.0.1", bound)


def suggest(name: str, known: Iterable[str]) -> str:
    """How to mend a name that is not known: the one that was meant, and those there are."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, 1, 0.6)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"{meant}known: {', '.join(known) if known else 'none'}"


def quoted(key: str) -> str:
    """A key as TOML has it."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


# Where each path of the settings stands: the section and its key.
_PATHS = (("worker", "weights"), ("gateway", "journal"), ("supervisor", "state_dir"))


def _read(kind: type[Struct], raw: Any, where: str, problems: list[str]) -> dict[str, Any]:
    """The values of `raw` that fit the fields of `kind`; what does not goes to `problems`."""
    if not isinstance(raw, Mapping):
        problems.append(f"{where} = {_shown(raw)}: a table is wanted; write [{where}] and its keys below")
        return {}
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    values = {}
    for key, value in raw.items():
        path = f"{where}.{quoted(key)}" if where else quoted(key)
        if key not in fields:
            problems.append(f"{path}: unknown key; {suggest(key, fields)}")
            continue
        wanted = fields[key].type
        parts = get_args(wanted)
        if isinstance(wanted, type) and issubclass(wanted, Struct):
            values[key] = _read(wanted, value, path, problems)
        elif get_origin(wanted) is dict and _kinds(parts[1]):
            values[key] = _read_table(parts[0], _kinds(parts[1]), value, path, problems)
        else:
            try:
                values[key] = msgspec.convert(value, wanted)
            except msgspec.ValidationError as error:
                problems.append(f"{path} = {_shown(value)}: {_plain(error)}{_range(wanted)}{_usual(fields[key])}")
    problems += [
        f"{where}.{name}: not set, and has no default"
        for name, field in fields.items()
        if field.required and name not in raw
    ]
    return values


def _kinds(wanted: Any) -> tuple[type[Struct], ...]:
    """The class of settings that a table's entries have, or the classes of which `kind` chooses one."""
    return tuple(t for t in get_args(wanted) or (wanted,) if isinstance(t, type) and issubclass(t, Struct))


def _read_table(
    name: Any, kinds: tuple[type[Struct], ...], raw: Any, where: str, problems: list[str]
) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        problems.append(f"{where} = {_shown(raw)}: tables are wanted; write [{where}.NAME] for each")
        return {}
    for key in raw:
        try:
            msgspec.convert(key, name)
        except msgspec.ValidationError as error:
            problems.append(f"{where}.{quoted(key)}: the name {_shown(key)} cannot be used: {_plain(error)}")
    return {key: _read_one(kinds, value, f"{where}.{quoted(key)}", problems) for key, value in raw.items()}


def _read_one(kinds: tuple[type[Struct], ...], raw: Any, where: str, problems: list[str]) -> dict[str, Any]:
    if len(kinds) == 1 or not isinstance(raw, Mapping):
        return _read(kinds[0], raw, where, problems)
    by_tag = {str(kind.__struct_config__.tag): kind for kind in kinds}
    tag = str(raw.get("kind", ""))
    if tag not in by_tag:
        problems.append(f"{where}.kind = {_shown(tag)}: no such kind; {suggest(tag, by_tag)}")
        return {}
    rest = {key: value for key, value in raw.items() if key != "kind"}
    return {"kind": tag, **_read(by_tag[tag], rest, where, problems)}


def _link(values: dict[str, Any], problems: list[str]) -> None:
    """Fill in what follows from other settings, and check what two of them say together."""
    shards = values.setdefault("shards", {"a": {}})
    if not shards:
        problems.append("shards: a ward needs one; write [shards.a], or leave `shards` out")
    for name, shard in shards.items():
        shard.setdefault("state_dir", f"var/shard-{name}")
        for role in ("worker", "gateway"):
            shard.setdefault(role, reached(values.get(role, {}).get("bind", getattr(ShardSettings(), role))))
    for name, bed in values.get("beds", {}).items():
        path = f"beds.{quoted(name)}.shard"
        if not bed.get("shard") and len(shards) > 1:
            problems.append(f"{path}: not set, and there are {len(shards)} shards; {suggest('', shards)}")
        bed["shard"] = bed.get("shard") or next(iter(shards), "")
        if bed["shard"] not in shards:
            problems.append(f"{path} = {_shown(bed['shard'])}: no such shard; {suggest(bed['shard'], shards)}")
    for name, shard in shards.items():
        n_beds = sum(bed["shard"] == name for bed in values.get("beds", {}).values())
        capacity = shard.get("capacity", ShardSettings().capacity)
        if n_beds > capacity:
            problems.append(
                f"shards.{name}.capacity = {capacity}: {n_beds} beds name this shard; raise it or add a shard"
            )
    ward = values.get("ward", {}).get("name", WardSettings().name)
    if values.get("bridges") and ward in values.get("beds", {}):
        problems.append(f"beds.{quoted(ward)}: is the ward's name, by which alarms of the buses go; rename bed or ward")
    _check_alarms(values, problems)
    settings: Settings = msgspec.convert(values, Settings)
    addresses = endpoints(settings)
    if settings.producer.control is not None:
        addresses["producer.control"] = settings.producer.control
    _refuse_twice("address", addresses, problems)
    own = settings.dashboard
    if own.enabled and not own.is_local and not own.users:
        problems.append(
            f"dashboard.host = {_shown(own.host)}: other machines can reach that, and nobody is asked who it is; "
            'write [dashboard.users.NAME] with token = "..." and role, or set 127.0.0.1'
        )
    roles = ["worker", "gateway", *(f"shard.{name}" for name in settings.shards)]
    problems += [
        f"metrics.ports.{quoted(role)}: no such role; {suggest(role, roles)}"
        for role in settings.metrics.ports
        if role not in roles
    ]
    ports = {f"metrics.ports.{quoted(role)}": str(port) for role, port in settings.metrics.ports.items()}
    _refuse_twice("port", ports, problems)
    folders = {f"shards.{name}.state_dir": shard.state_dir for name, shard in settings.shards.items()}
    _refuse_twice("folder", folders, problems)
    for key, address in addresses.items():
        port = address.rpartition(":")[2]
        if address.startswith("tcp://") and not 1 <= int(port) <= 65_535:
            problems.append(f"{key} = {_shown(address)}: port {port} is not one of 1 to 65535")


def profile_of(settings: Settings, bed: str = "") -> Profile:
    """The alarm profile of a bed as it is set up: its table, the ward's limits and its own. "": of a bed not named."""
    own = settings.beds.get(bed, BedSettings())
    return Profile(settings.alarms, table(own.profile or settings.ward.profile)).with_changes(own.alarms)


def _place_profiles(values: dict[str, Any], folder: Path) -> None:
    """A profile that is a file, and not a name, lies where the folder of the settings says."""
    for part in (values.get("ward", {}), *values.get("beds", {}).values()):
        name = part.get("profile")
        if name and ("/" in name or name.endswith(".toml")):
            part["profile"] = str(folder / Path(name).expanduser())


def _check_alarms(values: Mapping[str, Any], problems: list[str]) -> None:
    """The ward's profile and limits, and each bed's on top of them; a fault is told once, where it stands."""
    limits: dict[str, Any] = {}
    named = values.get("ward", {}).get("profile", "adult")
    ward = _table_of(named, "ward.profile", problems) or ADULT
    try:
        limits = Profile(values.get("alarms", {}), ward).changes
    except ProfileError as error:
        problems += [f"alarms.{fault}" for fault in error.faults]
    for name, bed in values.get("beds", {}).items():
        where = f"beds.{quoted(name)}"
        other = bed.get("profile") and _table_of(bed["profile"], f"{where}.profile", problems)
        try:
            Profile(limits, other or ward).with_changes(bed.get("alarms", {}))
        except ProfileError as error:
            problems += [f"{where}.alarms.{fault}" for fault in error.faults]


def _table_of(name: str, where: str, problems: list[str]) -> Table | None:
    try:
        return table(name)
    except ProfileError as error:
        problems.append(f"{where} = {_shown(name)}: {error}")
        return None


def _refuse_twice(what: str, values: Mapping[str, str], problems: list[str]) -> None:
    first: dict[str, str] = {}
    for key, value in values.items():
        if value in first:
            problems.append(f"{key} = {_shown(value)}: {first[value]} has this {what} too; give each its own")
        first.setdefault(value, key)


def _absolute(settings: Settings, folder: Path) -> Settings:
    replace = msgspec.structs.replace
    parts = {section: getattr(settings, section) for section, _ in _PATHS}
    for section, key in _PATHS:
        value = getattr(parts[section], key)
        if value is not None:
            parts[section] = replace(parts[section], **{key: str(folder / Path(value).expanduser())})
    shards = {
        name: replace(shard, state_dir=str(folder / Path(shard.state_dir).expanduser()))
        for name, shard in settings.shards.items()
    }
    bridges = {name: _absolute_bridge(bridge, folder) for name, bridge in settings.bridges.items()}
    return replace(settings, shards=shards, bridges=bridges, **parts)


def _absolute_bridge(bridge: AnySettings, folder: Path) -> AnySettings:
    given = {key: value for key in bridge.paths if (value := getattr(bridge, key)) is not None}
    changes: dict[str, Any] = {key: str(folder / Path(value).expanduser()) for key, value in given.items()}
    kind, _, where = (getattr(bridge, "password", None) or "").partition(":")
    if kind == "file":
        changes["password"] = f"file:{folder / Path(where).expanduser()}"
    return msgspec.structs.replace(bridge, **changes)


def _plain(error: msgspec.ValidationError) -> str:
    """msgspec's words without its path, and with patterns said as what they ask for."""
    text = str(error).partition(" - at `")[0].replace("Expected `object`", "a table is wanted").replace("`", "")
    for pattern, meaning in (_MEANINGS | MEANINGS).items():
        text = text.replace(f"matching regex {pattern!r}", meaning)
    return text[:1].lower() + text[1:]


def _range(kind: Any) -> str:
    """The range that a setting must keep, or the words that it may be, where it has such."""
    if get_origin(kind) is Literal:
        return f"; give one of {', '.join(get_args(kind))}"
    metas = [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, Meta)]
    for meta in metas:
        low, high = (meta.gt if meta.ge is None else meta.ge), meta.le
        if low is not None and high is not None:
            return f"; give a value {'over' if meta.ge is None else 'from'} {low:g} to {high:g}"
    return ""


def _usual(field: msgspec.structs.FieldInfo) -> str:
    return "" if field.default in (msgspec.NODEFAULT, "", None) else f" (default {_shown(field.default)})"


_MEANINGS = {
    r"^(tcp://[^\s/:]+:[0-9]{1,5}|ipc://\S+)$": "like tcp://127.0.0.1:5601 or ipc:///tmp/ward.sock",
    r"^(auto|cpu|mps|cuda(:[0-9]+)?)$": "that is auto, cpu, mps, cuda or cuda:0",
    r"^[A-Za-z0-9_-]{1,32}$": "of 1 to 32 letters, digits, - or _",
    r"^[^\x00-\x1f\x7f]+$": "without control characters",
}


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
