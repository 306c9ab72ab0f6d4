"""Figures of several trainings as mean and standard deviation: how much of a figure is the seed.

    for s in 0 1 2; do python run_pipeline.py train --seed $s --work runs/s$s --out runs/s$s; done
    python -m tests.benchmarks.seeds runs/s?/figures.json

The runs may differ in nothing but the seed.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from model.card import table

ROWS = {
    "VEB, mitdb: Se": "beats/VEB/se",
    "VEB, mitdb: +P": "beats/VEB/ppv",
    "VEB, mitdb: F1": "beats/VEB/f1",
    "SVEB, mitdb: Se": "beats/SVEB/se",
    "SVEB, mitdb: +P": "beats/SVEB/ppv",
    "SVEB, mitdb: F1": "beats/SVEB/f1",
    "AF, RR sequences of vitaldb-rhythm: Se": "segments/AF/se",
    "AF, RR sequences of vitaldb-rhythm: Sp": "segments/AF/sp",
    "... by a threshold of the other folds: Se": "segments/AF by threshold/se",
    "... by a threshold of the other folds: Sp": "segments/AF by threshold/sp",
    "AF, windows of mitdb: Se": "rhythm/AF mitdb/se",
    "AF, windows of mitdb: Sp": "rhythm/AF mitdb/sp",
    "shockable, windows of vfdb: Se": "rhythm/shockable vfdb/se",
    "shockable, windows of vfdb: Sp": "rhythm/shockable vfdb/sp",
    "shockable, windows of cudb: Se": "rhythm/shockable cudb/se",
    "shockable, windows of cudb: Sp": "rhythm/shockable cudb/sp",
    "Challenge 2017: F1 of N": "cinc2017/f1/N",
    "Challenge 2017: F1 of A": "cinc2017/f1/A",
    "Challenge 2017: F1 of O": "cinc2017/f1/O",
    "Challenge 2017: mean F1 of N, A, O": "cinc2017/mean_f1_NAO",
    "Challenge 2017: accuracy, %": "cinc2017/accuracy",
    "always N: accuracy, %": "cinc2017/constant_accuracy",
    "RR: mean absolute error, ms": "rr/mae_ms",
    "a constant: mean absolute error, ms": "rr/constant_mae_ms",
    "age, ludb: mean absolute error, years": "age_sex/ludb/age_mae",
    "a constant: mean absolute error, years": "age_sex/ludb/constant_age_mae",
    "sex, ludb: accuracy, %": "age_sex/ludb/sex_accuracy",
    "the majority: accuracy, %": "age_sex/ludb/majority_accuracy",
    "potassium, simulated, patients left out: AUC": "potassium/potassium/auc",
    "... unseen ranges: AUC": "potassium/potassium-unseen/auc",
    "... ... accuracy, %": "potassium/potassium-unseen/accuracy",
    "... ... the majority, %": "potassium/potassium-unseen/majority_accuracy",
}


def found(figures: dict[str, Any], path: str) -> float | None:
    """A figure by its path; None where the training did not have it."""
    here: Any = figures
    for name in path.split("/"):
        here = here.get(name) if isinstance(here, dict) else None
    return None if here is None else float(here)


def mean_sd(values: Sequence[float | None], digits: int) -> str:
    """Mean and, of several, the standard deviation of a sample; empty where none is known."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{spread}"


def summary(runs: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(figure, mean ± sd, the runs' own) of the rows that all runs have."""
    rows = []
    for name, path in ROWS.items():
        values = [found(run["figures"], path) for run in runs]
        if None not in values:
            rows.append((name, mean_sd(values, 2), ", ".join(f"{value:g}" for value in values)))
    return rows


def _read(path: Path) -> dict[str, Any]:
    try:
        run: dict[str, Any] = json.loads(path.read_text())
    except ValueError:
        run = {}
    kinds = {"version": str, "settings": dict, "figures": dict}
    parts = isinstance(run, dict) and all(isinstance(run.get(name), kind) for name, kind in kinds.items())
    if not parts or "seed" not in run["settings"]:
        raise click.UsageError(f"{path}: no figures.json of a training; give those that `train --out` wrote")
    return run


@click.command(help=__doc__)
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(paths: tuple[Path, ...]) -> None:
    runs = [_read(path) for path in paths]
    recipes = {run["version"].partition("-seed")[0] for run in runs}
    if len(recipes) > 1:
        raise click.UsageError(f"the runs are of {' and '.join(sorted(recipes))}; give runs of one recipe")
    if len({run["settings"]["seed"] for run in runs}) < len(runs):
        raise click.UsageError("two of the runs have the same seed; give each seed once")
    settings = [{k: v for k, v in run["settings"].items() if k not in {"seed", "potassium"}} for run in runs]
    if any(other != settings[0] for other in settings):
        raise click.UsageError("the runs differ in more than the seed; give runs of the same settings")
    seeds = ", ".join(str(run["settings"]["seed"]) for run in runs)
    print(*table(("patients left out", "mean ± sd", f"seeds {seeds}"), summary(runs)), sep="\n")


if __name__ == "__main__":
    main()
