"""Speed of the pipeline: its parts in us per bed-second, how they grow with the number of beds, and the whole against
what a user would do instead. `python run_pipeline.py bench`, from a checkout."""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from model.judge import Judge
from stream.process import steady_heap
from tests.benchmarks import others
from tests.benchmarks.parts import MODEL, Parts, run

BEDS = (1, 10, 100, 1000, 4000)
COMPARED = 1000


def bench(beds: Sequence[int], json_path: Path | None, plot_path: Path | None, device: str) -> dict[str, Any]:
    """Measure all of it, print tables, write what is asked for."""
    torch.set_num_threads(1)
    steady_heap()
    console = Console(width=150)
    began = time.monotonic()
    judge = Judge.load(None, device)
    judge.warm((1, 8, 64, 256))
    result: dict[str, Any] = {
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "load_before": os.getloadavg()[0],
        "model": judge.version,
        "device": str(judge.device),
    }
    grown: list[Parts] = []
    for n in beds:
        console.print(f"{n} beds ...")
        grown.append(run(judge, n, seconds=20.0 if n <= 10 else 8.0 if n <= 1000 else 4.0))
    result["parts"] = [asdict(parts) | {"total_us": parts.total_us, "model_us": parts.model_us} for parts in grown]
    console.print(_growth(grown))
    single = others.model_us(judge)
    per_second = others.BEATS_PER_S * single["beat"] + single["hop"] + single["window"]
    ways = {name: us + per_second for name, us in others.detectors_us().items()}
    ways["our own, without micro-batches"] = run(judge, 20, max_batch=1).total_us
    ours = min((parts for parts in grown), key=lambda parts: abs(parts.n_beds - COMPARED))
    ways[f"our own, {ours.n_beds} beds"] = ours.total_us
    result["whole"] = {
        name: {"us_per_bed_second": us, "beds_per_core": 1e6 / us, "times_ours": us / ours.total_us}
        for name, us in ways.items()
    }
    result["one_call_us"] = single
    console.print(_whole(result["whole"]))
    result["batch_us"] = others.batch_us(judge)
    console.print(_batches(result["batch_us"]))
    result["experts_us"] = others.expert_us(judge)
    console.print(_experts(result["experts_us"]))
    result["took_s"] = time.monotonic() - began
    if json_path is not None:
        json_path.write_text(json.dumps(result, indent=1))
    if plot_path is not None:
        plot(result, plot_path)
    return result


def plot(result: dict[str, Any], path: Path) -> None:
    """Growth of the parts, and the whole against the others, as one picture."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    grown = result["parts"]
    at = [str(parts["n_beds"]) for parts in grown]
    names = list(grown[-1]["us"])
    bottom = [0.0] * len(grown)
    for i, name in enumerate(names):
        heights = [parts["us"].get(name, 0.0) for parts in grown]
        left.bar(at, heights, bottom=bottom, label=name, color=colormaps["tab20"](i % 20))
        bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
    left.set_ylim(0, 1.15 * max(bottom[-2:]))
    left.set_xlabel("beds")
    left.set_ylabel("CPU us per bed-second (few beds go beyond the picture)")
    left.legend(
        *(reversed(of) for of in left.get_legend_handles_labels()),
        fontsize=7,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    whole = result["whole"]
    right.barh(list(whole), [one["beds_per_core"] for one in whole.values()])
    right.set_xscale("log")
    right.set_xlabel("beds per core")
    figure.savefig(path, dpi=130)


def _growth(grown: Sequence[Parts]) -> Table:
    table = Table(title="CPU us per bed-second by part; the same work, more beds")
    table.add_column("part")
    for parts in grown:
        table.add_column(f"{parts.n_beds} beds", justify="right")
    for name in dict.fromkeys(name for parts in reversed(grown) for name in parts.us):
        table.add_row(name, *(f"{parts.us.get(name, 0.0):.1f}" for parts in grown))
    table.add_section()
    table.add_row("all", *(f"{parts.total_us:.0f}" for parts in grown))
    table.add_row("all but the model", *(f"{parts.total_us - parts.model_us:.0f}" for parts in grown))
    table.add_row("simulated monitors, beside", *(f"{parts.producer_us:.0f}" for parts in grown))
    for kind in ("beat", "hop", "window"):
        table.add_row(f"{kind}s in one call", *(f"{parts.batch.get(kind, 0.0):.1f}" for parts in grown))
    return table


def _whole(whole: dict[str, Any]) -> Table:
    table = Table(title="the whole: detection, and the model for each beat and window")
    for heading in ("way", "us per bed-second", "beds per core", "times ours"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, one in whole.items():
        table.add_row(
            name, f"{one['us_per_bed_second']:.0f}", f"{one['beds_per_core']:.0f}", f"{one['times_ours']:.1f}"
        )
    return table


def _batches(told: dict[str, dict[int, float]]) -> Table:
    table = Table(title="the model: CPU us per item by batch size")
    table.add_column("kind")
    for size in next(iter(told.values())):
        table.add_column(str(size), justify="right")
    for kind, by_size in told.items():
        table.add_row(kind, *(f"{us:.0f}" for us in by_size.values()))
    return table


def _experts(told: dict[str, float]) -> Table:
    table = Table(title="the model's parts, plain form, in batches of 64: CPU us per item")
    table.add_column("part")
    table.add_column("us", justify="right")
    for name, us in told.items():
        table.add_row(name, f"{us:.1f}")
    return table


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


__all__ = ["BEDS", "MODEL", "bench"]
