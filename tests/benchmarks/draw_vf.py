"""Draws segments of cudb that the VF index and the labels judge differently: of each record three, spread evenly over
those that differ.

    RECORDINGS=... python -m tests.benchmarks.draw_vf --out docs/vf-strips.png --called cu27 --called cu09 --missed cu29

Patient-wise, ten folds: each record is judged by an index that was fitted without it.
"""

from pathlib import Path

import click
import matplotlib as mpl
import numpy as np
import torch

from model.datasets import find
from tests.benchmarks import fit_vf
from tests.benchmarks.bench_periods import _at_250

EACH, LENGTH = 3, 1250


def spread(of: list[int]) -> list[int]:
    """EACH of them at most, evenly spread."""
    if len(of) <= EACH:
        return of
    return [of[i] for i in np.linspace(0, len(of), EACH + 2).astype(int)[1:-1]]


@click.command(help=__doc__)
@click.option("--called", multiple=True, help="record of which segments labelled not shockable are drawn")
@click.option("--missed", multiple=True, help="record of which segments labelled shockable are drawn")
@click.option("--seed", default=0)
@click.option("--cache", type=click.Path(path_type=Path), default=None, help="As of fit_vf.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(called: tuple[str, ...], missed: tuple[str, ...], seed: int, cache: Path | None, out: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    torch.set_num_threads(1)
    plain, more = fit_vf.gathered(seed, cache)
    found = fit_vf.segments(plain, fit_vf.held_out(plain, more, fit_vf.PATIENT_FOLDS, seed))
    rows = [(name, fit_vf.OTHER, "called, not labelled") for name in called]
    rows += [(name, fit_vf.VF, "labelled, missed") for name in missed]
    figure, axes = plt.subplots(len(rows), EACH, figsize=(16, 1.4 * len(rows)), layout="constrained", squeeze=False)
    for (name, kind, said), row in zip(rows, axes, strict=True):
        mine = [s for s in found if s.record == f"cudb/{name}" and s.kind == kind]
        wrong = [s.start for s in mine if (s.log_odds >= fit_vf.THRESHOLD) != (kind == fit_vf.VF)]
        row[0].set_title(f"{name}: {said} ({len(wrong)} of {len(mine)})", fontsize=8, pad=2, loc="left")
        whole = _at_250(find(f"cudb/{name}")[0])[0]
        for start, axis in zip(spread(wrong), row, strict=False):
            x = whole[start : start + LENGTH]
            axis.plot((start + np.arange(len(x))) / 250, x - np.median(x), "k", lw=0.7)
            axis.set(xlim=(start / 250, (start + LENGTH) / 250), ylim=(-3, 3))
            axis.tick_params(labelsize=7)
        for axis in row[len(wrong) :]:
            axis.set_axis_off()
    figure.supxlabel("s; mV", fontsize=8)
    figure.savefig(out, dpi=60)


if __name__ == "__main__":
    main()
