"""Draws what the period detector gets wrong: the reference's beats above, ours below, errors in red.

    RECORDINGS=... python -m tests.benchmarks.draw_strips --out docs/periods-strips.png 108 203 208 201

Networks as in compare_detectors: each record is judged by one that was fitted without it.
"""

from pathlib import Path

import click
import matplotlib as mpl
import numpy as np

from model.ec57.beats import compare
from tests.benchmarks.compare_detectors import OURS, recording

SECONDS, EACH = 8, 2


@click.command(help=__doc__)
@click.argument("names", nargs=-1, required=True)
@click.option("--detector", default="ours patient-wise", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(names: tuple[str, ...], detector: str, out: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(names) * EACH, 1, figsize=(11, 1.6 * len(names) * EACH), layout="constrained")
    for k, name in enumerate(names):
        one = recording(name)
        found = OURS[detector](one).at
        result = compare(one.at, one.symbols, found, ["N"] * len(found), one.fs, end=one.x.shape[1])
        missed = result.ref_at[(result.test_at < 0)]
        extra = result.test_at[(result.ref_at < 0) & (np.array(result.ref) != "*")]
        for start, axis in zip(worst(np.concatenate([missed, extra]), one.fs), axes[k * EACH :], strict=False):
            end = start + int(SECONDS * one.fs)
            t = np.arange(start, end) / one.fs
            for c, line in enumerate(one.x):
                axis.plot(t, line[start:end] - np.median(line[start:end]) - 1.8 * c, "k", lw=0.7)
            for marks, wrong, height, sign in ((one.beats(), missed, 1.6, "v"), (found, extra, -3.4, "^")):
                for at in marks[(marks >= start) & (marks < end)]:
                    colour = "tab:red" if at in wrong else "tab:green"
                    axis.plot(at / one.fs, height, sign, color=colour, ms=6)
            axis.set(xlim=(t[0], t[-1]), ylim=(-4, 2.2), yticks=[], ylabel=name)
            axis.tick_params(labelsize=7)
    axes[-1].set_xlabel("s; above: reference, below: ours; red: missed or extra; upper line: first lead")
    figure.savefig(out, dpi=70)


def worst(errors: np.ndarray, fs: float) -> list[int]:
    """Where the strips with the most errors start, no two overlapping."""
    length = int(SECONDS * fs)
    left = np.sort(errors)
    starts: list[int] = []
    while len(starts) < EACH and len(left):
        n = np.searchsorted(left, left + length - fs) - np.arange(len(left))
        first = left[int(np.argmax(n))]
        starts.append(int(first - 0.5 * fs))
        left = left[(left < first - length) | (left >= first + length)]
    return sorted(starts)


if __name__ == "__main__":
    main()
