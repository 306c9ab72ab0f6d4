"""The plan of a soak: who is in the ward, for how long, what goes wrong when, and what must hold. A TOML file.

    plan = load("small")                     # a plan of ours, by name, or a path
    for at_s, fault in schedule(plan): ...

docs/performance.md has the plans that come with this, and what each showed.
"""

import itertools
import random
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from model.datasets import find
from simulators.soak.faults import Fault, Seconds

PLANS = Path(__file__).parent / "plans"


class PlanError(ValueError):
    """A plan that cannot be used: the file, the key, the value and the mend."""


class Mix(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`share` of the beds plays `source`: `sim:...`, a record, or a folder whose records are taken in turn."""

    source: Annotated[str, Meta(min_length=1)]
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0


class Random(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Faults drawn from `choose` (tables like those of [[fault]], without at_s), one every `every_s` on average."""

    choose: tuple[dict[str, Any], ...]
    from_s: Seconds = 0.0
    until_s: Seconds | None = None
    every_s: Annotated[float, Meta(gt=0)] = 60.0


class Limits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What must hold; None: is told and not judged.

    Latencies are from the sending of the newest packet that a judgement needed to its publication, in times that no
    fault disturbed. `memory_growth`: of all processes of the ward, after the first 5 minutes, as a share. `recovery_s`:
    by what was killed, from the kill to the first judgement that needed what had been killed."""

    unaccounted: int | None = 0
    misplaced: int | None = 0
    missed: int | None = 0
    doubled: int | None = 0
    false: int | None = None
    beat_p99_ms: float | None = 250.0
    window_p99_ms: float | None = 500.0
    p999_ms: float | None = 1000.0
    memory_growth: float | None = 0.01
    pacing_p99_ms: float | None = 5.0
    recovery_s: dict[str, float] = {}


class Plan(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A soak. `warm_s` come before the measurement, `settle_s` after each fault are not held against latencies.

    `counters`: so many simulated beds carry a counter of their samples (-1: all). `watched`: the waves of so many of
    those are subscribed to and counted from outside. `ward`: as in ward.toml, over the soak's own settings. `port`: the
    first of those that it binds on 127.0.0.1; 0 takes free ones."""

    name: str
    beds: Annotated[int, Meta(ge=1, le=20_000)] = 20
    duration_s: Annotated[float, Meta(ge=5, le=30 * 86_400)] = 60.0
    warm_s: Seconds = 15.0
    settle_s: Seconds = 10.0
    seed: Annotated[int, Meta(ge=0)] = 1
    packet_ms: Annotated[float, Meta(ge=4, le=10_000)] = 100.0
    shards: Annotated[int, Meta(ge=1, le=64)] = 1
    sources: Annotated[tuple[Mix, ...], Meta(min_length=1)] = (Mix(source="sim:default"),)
    counters: int = -1
    watched: Annotated[int, Meta(ge=0)] = 4
    port: Annotated[int, Meta(ge=0, le=65_000)] = 0
    ward: dict[str, Any] = {}
    fault: tuple[Fault, ...] = ()
    random: tuple[Random, ...] = ()
    limits: Limits = Limits()


def load(name: str, **changes: Any) -> Plan:
    """The plan of that name or path; `changes` over its keys where they are not None. Raises PlanError."""
    path = PLANS / f"{name}.toml" if (PLANS / f"{name}.toml").exists() else Path(name)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(known.stem for known in PLANS.glob("*.toml")))
        raise PlanError(f"{name}: there is no such plan; give a file, or one of {known}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"{path}: cannot be read as TOML: {error}") from None
    return build(raw | {key: value for key, value in changes.items() if value is not None}, str(path))


def build(raw: dict[str, Any], file: str = "plan") -> Plan:
    """A plan from a plain mapping, checked. Raises PlanError."""
    try:
        plan = msgspec.convert(raw, Plan)
        schedule(plan)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        raise PlanError(f"{file}: {path.strip('`.') or 'plan'}: {text}; docs/performance.md has the keys") from None
    return plan


def schedule(plan: Plan) -> list[tuple[float, Fault]]:
    """(seconds after the measurement began, fault) in order: the same for the same plan and seed."""
    due: list[tuple[float, Fault]] = []
    for fault in plan.fault:
        at_s = fault.at_s
        while at_s < plan.duration_s:
            due.append((at_s, fault))
            if fault.every_s is None:
                break
            at_s += fault.every_s
    rng = random.Random(plan.seed)
    for draw in plan.random:
        at_s, until_s = draw.from_s, plan.duration_s if draw.until_s is None else min(draw.until_s, plan.duration_s)
        while (at_s := at_s + rng.expovariate(1 / draw.every_s)) < until_s:
            due.append((at_s, msgspec.convert({"at_s": at_s, **rng.choice(draw.choose)}, Fault)))
    return sorted(due, key=lambda entry: entry[0])


def beds_of(plan: Plan) -> dict[str, str]:
    """Each bed's source, in order. Raises DatasetError for a source that is not there."""
    total = sum(mix.share for mix in plan.sources)
    records = [_sources(plan, mix.source) for mix in plan.sources]
    beds: dict[str, str] = {}
    taken = [0] * len(records)
    left = plan.beds if plan.counters < 0 else plan.counters
    for index in range(plan.beds):
        due = [mix.share / total * (index + 1) - n for mix, n in zip(plan.sources, taken, strict=True)]
        which = due.index(max(due))
        taken[which] += 1
        source = next(records[which])
        if source.startswith("sim:") and left > 0:
            source, left = f"{source},counter=1", left - 1
        beds[f"bed{index + 1}"] = source
    return beds


def _sources(plan: Plan, source: str) -> "itertools.cycle[str]":
    if source.startswith("sim:"):
        return itertools.cycle(
            [source if "seed=" in source or source != "sim:default" else f"{source},seed={plan.seed}"]
        )
    return itertools.cycle([str(path.resolve()) for path in find(source)])
