"""Plans of soaks: what they may say, and what follows from them."""

from pathlib import Path
from typing import Any

import pytest

from simulators.soak.capacity import find_capacity
from simulators.soak.faults import Fault
from simulators.soak.plan import PLANS, Plan, PlanError, beds_of, build, load, schedule


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_plan_of_ours_can_be_used(path: Path) -> None:
    plan = load(path.stem)
    assert plan.name == path.stem
    assert all(0 <= at_s < plan.duration_s for at_s, _ in schedule(plan))


def test_the_long_plan_has_every_kind_of_fault_alone_and_kills_together() -> None:
    kinds = {str(kind.__struct_config__.tag) for kind in Fault.__args__}
    alone = {fault.kind for at_s, fault in schedule(load("faults")) if at_s < 1800}
    assert alone == kinds == {fault.kind for _, fault in schedule(load("faults_short"))}


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        ({"name": "x", "beds": 0}, "beds"),
        ({"name": "x", "bed": 3}, "bed"),
        ({"name": "x", "fault": [{"kind": "fire", "at_s": 3}]}, "fire"),
        ({"name": "x", "fault": [{"kind": "loss", "at_s": 3, "share": 2}]}, "share"),
        ({"name": "x", "random": [{"every_s": 1, "choose": [{"kind": "loss", "shore": 0.1}]}]}, "shore"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_what_is_wrong(raw: dict[str, Any], wrong: str) -> None:
    with pytest.raises(PlanError, match=wrong):
        build(raw)


def test_a_plan_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(PlanError, match="small"):
        load("smal")


def test_the_same_seed_draws_the_same_faults() -> None:
    def drawn(seed: int) -> list[tuple[float, str]]:
        choose = [{"kind": "loss", "share": 0.1}, {"kind": "flat"}]
        raw = {"name": "x", "duration_s": 600, "seed": seed, "random": [{"every_s": 20, "choose": choose}]}
        return [(at_s, fault.kind) for at_s, fault in schedule(build(raw))]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 15 < len(drawn(1)) < 50


def test_sources_share_the_beds_and_so_many_simulated_ones_carry_counters() -> None:
    sources = [{"source": "sim:default", "share": 0.75}, {"source": "sim:vf", "share": 0.25}]
    beds = beds_of(build({"name": "x", "beds": 8, "counters": 3, "sources": sources}))
    assert sum(source.startswith("sim:vf") for source in beds.values()) == 2
    assert sum(source.endswith(",counter=1") for source in beds.values()) == 3


@pytest.mark.parametrize(("most", "low", "high"), [(1300, 1200, 1300), (90, 0, 0)])
def test_the_search_finds_the_most_beds_that_hold(tmp_path: Path, most: int, low: int, high: int) -> None:
    def attempt(plan: Plan, folder: Path) -> dict[str, Any]:
        held = plan.beds <= most
        limits = [{"name": "beats p99, ms", "held": held}]
        return {"held": held, "interrupted": False, "limits": limits, "processes": {}, "beds_per_core": 1.0}

    said: list[str] = []
    found, tries = find_capacity(load("capacity", beds=100), tmp_path, said.append, attempt)
    assert low <= found <= high
    assert len(tries) == len(said) < 12
