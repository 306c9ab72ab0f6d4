"""Inference time of ECG-MoE beside multi-task baselines, with what each is worth beside it.

    RECORDINGS=... python -m tests.benchmarks.compare_inference --work runs/train --json inference.json

All rows in one run on one thread: the same windows (10 s, two leads, 125 Hz), batches and warm-up, the rows in turns of
six calls; arrays in and arrays out. Baselines are trained here without fold 0 of the training's own pool, ECG-MoE is
that run's model without fold 0; accuracy is on fold 0, patients that none of them saw. A row's time is for what a bed
needs in a second: one window every 2 s for the baselines; for ECG-MoE, streaming, half a hop, half a window and 1.2
beats (72 a minute), and `whole windows` all hops and beats of its 10 s each time, nothing kept. ECG-MoE's rows also
classify each beat, which no baseline here does. Not counted on either side: resampling and the R peaks, which a monitor
finds for its alarms anyway. Trained baselines are kept in --work, so that times can be taken again on a quiet machine.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.ecg_moe import EcgMoe, example_inputs
from model.figures import FoldResult, challenge_figures, potassium_figures, rr_figures
from model.judge import Judge, traced
from model.persons import person_figures
from model.pool import Pool
from model.segments import Int
from model.work import RECIPE, fold_model, training_or_exit, written
from stream.process import steady_heap
from tests.benchmarks import baselines

BATCHES = (1, 8, 32, 128)
BEATS_PER_S, WINDOWS_PER_S = 1.2, 0.5
TURN = 6  # calls of a row that are timed one after the other
IN_10_S = {"beat": 12, "hop": 5, "window": 1}  # of a window that keeps nothing

Run = Callable[[int], None]


def timed(rows: dict[str, Run], batch: int, repeats: int) -> dict[str, npt.NDArray[np.float64]]:
    """Seconds of each call, the rows taking turns so that a busy moment hits all of them. The first call of a turn,
    which fetches the weights again after the others' turns, is not counted: a service has one model."""
    for run in rows.values():
        for _ in range(3):
            run(batch)
    found: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(-(-repeats // TURN)):
        for name, run in rows.items():
            run(batch)
            for _ in range(TURN):
                start = time.perf_counter()
                run(batch)
                found[name].append(time.perf_counter() - start)
    return {name: np.array(seconds) for name, seconds in found.items()}


def baseline_row(net: torch.nn.Module) -> Run:
    """A baseline as a service would call it: an array in, arrays out, the net traced as ECG-MoE's is."""
    program = traced(net.eval(), (torch.zeros(8, 2, baselines.SAMPLES),))
    inputs = {k: np.zeros((k, 2, baselines.SAMPLES), np.float32) for k in BATCHES}

    def run(batch: int) -> None:
        x = inputs[batch]
        with torch.inference_mode():
            for value in program(torch.from_numpy(x)).values():
                value.numpy()

    return run


def moe_rows(model: EcgMoe) -> tuple[Run, Run, Run, dict[str, Run]]:
    """ECG-MoE: streaming per window, whole windows, whole windows in the plain form (adapters not merged); and each
    call alone, by its kind of item."""
    plain = model.eval()
    copy = EcgMoe(model.sizes)
    copy.load_state_dict(model.state_dict())
    judge = Judge(copy, "timed", ())

    @lru_cache
    def arrays(kind: str, k: int) -> list[npt.NDArray[Any]]:
        return [x.numpy() for x in example_inputs(kind, k, model.sizes)]

    def streaming(batch: int) -> None:  # what `batch` windows bring with them: a hop each, 2.4 beats each
        judge.beats(*arrays("beat", max(round(batch * BEATS_PER_S / WINDOWS_PER_S), 1)))
        judge.hops(*arrays("hop", batch))
        judge.windows(*arrays("window", batch))

    def whole(batch: int) -> None:
        judge.beats(*arrays("beat", batch * IN_10_S["beat"]))
        judge.hops(*arrays("hop", batch * IN_10_S["hop"]))
        judge.windows(*arrays("window", batch))

    def unmerged(batch: int) -> None:
        with torch.inference_mode():
            plain.beats(*example_inputs("beat", batch * IN_10_S["beat"], model.sizes))
            plain.hops(*example_inputs("hop", batch * IN_10_S["hop"], model.sizes))
            plain.windows(*example_inputs("window", batch, model.sizes))

    calls: dict[str, Callable[..., object]] = {"beat": judge.beats, "hop": judge.hops, "window": judge.windows}
    alone: dict[str, Run] = {kind: lambda k, kind=kind: calls[kind](*arrays(kind, k)) for kind in calls}  # type: ignore[misc]
    return streaming, whole, unmerged, alone


def worth(pool: Pool, records: Int, hops: Int, out: dict[str, Any]) -> dict[str, float | None]:
    """The five tasks on the left-out patients."""
    rr = rr_figures(pool, hops, out["rr_ms"], out.get("detector_rr_ms", out["rr_ms"]))
    person = person_figures(pool, records, hops, out)
    challenge = challenge_figures(pool, records, hops, out["arrhythmia"])
    potassium = potassium_figures(pool, records, hops, out["potassium"]).get("potassium", {})
    return {
        "arrhythmia accuracy %": challenge["accuracy"],
        "mean F1 N A O": challenge["mean_f1_NAO"],
        "RR MAE ms": rr.get("mae_ms"),
        "age MAE y (ludb)": person.get("ludb", {}).get("age_mae"),
        "sex accuracy % (ludb)": person.get("ludb", {}).get("sex_accuracy"),
        "potassium AUC (simulated)": potassium.get("auc"),
    }


def main() -> None:
    """Train the baselines, time everything, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/train"), help="the --work of a finished training")
    parser.add_argument("--steps", type=int, default=2250, help="of the baselines' training, 256 windows each")
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32], help="of the shared backbone")
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--untrained", action="store_true", help="times alone: no training, no accuracy")
    parser.add_argument("--kept", action="store_true", help="train none: accuracy of those in --work, times of all")
    parser.add_argument("--json", type=written)
    given = parser.parse_args()
    for name, value in (("steps", given.steps), ("widths", min(given.widths)), ("repeats", given.repeats)):
        if value < 1:
            parser.error(f"--{name}: {value}; give 1 or more")
    if not 0 <= given.seed < 2**31:
        parser.error(f"--seed: {given.seed}; give 0 to {2**31 - 1}")
    torch.set_num_threads(1)
    steady_heap()
    torch.manual_seed(given.seed)
    nets: dict[str, torch.nn.Module] = {f"shared, width {w}": baselines.Shared(w) for w in given.widths}
    nets["five separate, width 16"] = baselines.Separate(16)
    nets["ensemble of 4, width 16"] = baselines.Ensemble(16)
    found: dict[str, dict[str, Any]] = {name: {} for name in nets}
    model = EcgMoe()
    if not given.untrained:
        settings, pool = training_or_exit(given.work, parser)
        fold = pool.folds(settings.folds, settings.seed)
        taught = np.flatnonzero((fold != 0) & (pool.source != "potassium-unseen"))
        left = np.flatnonzero(fold == 0)
        hops = np.flatnonzero(np.isin(pool.of_hop, left))
        model = fold_model(given.work, 0, settings)
        result = FoldResult.of(model, pool, left, "cpu")
        found["ECG-MoE"] = {"worth": worth(pool, left, result.hops, result.windows)}
        for name, net in nets.items():
            if name.startswith("five"):
                continue  # its nets are the shared one's size, each with one task
            taught_as = f"{given.steps} steps, beside {RECIPE}-seed{settings.seed} of {settings.folds} folds"
            kept = given.work / f"baseline {name}, seed {given.seed}, {taught_as}.pt"
            if kept.is_file():
                net.load_state_dict(torch.load(kept, weights_only=True))
            elif given.kept:
                print(f"{name}: none kept in {given.work}, timed only")
                continue
            else:
                baselines.fit(net, pool, taught, given.seed, given.steps, settings.batch, name)
                torch.save(net.state_dict(), kept)
            found[name] = {"worth": worth(pool, left, hops, baselines.answers(net, pool, hops))}
    streaming, whole, unmerged, alone = moe_rows(model)
    rows: dict[str, Run] = {name: baseline_row(net) for name, net in nets.items()}
    rows |= {"ECG-MoE, streaming": streaming, "ECG-MoE, whole windows": whole, "... adapters unmerged": unmerged}
    for batch in BATCHES:
        for name, seconds in timed(rows, batch, given.repeats).items():
            per_bed_s = 1e6 * seconds * WINDOWS_PER_S / batch
            found.setdefault(name, {})[f"batch {batch}"] = {
                "p50_us": round(float(np.median(per_bed_s)), 1),
                "p99_us": round(float(np.quantile(per_bed_s, 0.99)), 1),
            }
    _show(found)
    per_item = {
        batch: {kind: 1e6 * float(np.median(s)) / batch for kind, s in timed(alone, batch, given.repeats).items()}
        for batch in BATCHES
    }
    print("\n| us per item, p50 | " + " | ".join(f"batch {b}" for b in BATCHES) + " |\n|---|" + "---|" * len(BATCHES))
    for kind in alone:
        print(f"| a {kind} | " + " | ".join(f"{per_item[b][kind]:.0f}" for b in BATCHES) + " |")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def _show(found: dict[str, dict[str, Any]]) -> None:
    print("| us per bed-second, p50 (p99) | " + " | ".join(f"batch {b}" for b in BATCHES) + " |")
    print("|---|" + "---|" * len(BATCHES))
    for name, row in found.items():
        if f"batch {BATCHES[0]}" in row:
            cells = [f"{row[f'batch {b}']['p50_us']} ({row[f'batch {b}']['p99_us']})" for b in BATCHES]
            print(f"| {name} | " + " | ".join(cells) + " |")
    worths = {name: row["worth"] for name, row in found.items() if "worth" in row}
    if worths:
        columns = list(next(iter(worths.values())))
        print("\n| patients left out | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
        for name, row in worths.items():
            print(f"| {name} | " + " | ".join(str(row[c]) for c in columns) + " |")


if __name__ == "__main__":
    main()
