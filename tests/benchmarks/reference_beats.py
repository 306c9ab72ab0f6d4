"""What our own beats cost their classes, what the label map does to them, and the RR expert that is shipped.

    RECORDINGS=... python -m tests.benchmarks.reference_beats --work runs/s0 --work runs/s1 --work runs/s2

The models of the folds of finished trainings on the records of mitdb that they did not see, whole: with R peaks from
our detector, online, and with those of the reference in their place. VEB and SVEB as in the card; e, j and n (escape
beats) are N under the map of the literature, S under bxb's.

A fold's RR expert has learnt without a fold of the patients of vitaldb-rhythm, as nothing of them may be in what is
scored on their rhythm. None of the beats scored here is theirs, so the rows `RR expert of all` take the one that
learnt from all of them, and from none of mitdb, as the shipped one has. They want the model of all of each training.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from tqdm import tqdm

from model import examples
from model.card import table
from model.course import Settings
from model.examples import PACED
from model.figures import FoldResult, beat_figures
from model.labels import beat_class
from model.pool import Pool, join
from model.work import finished, fold_model, settings_or_exit
from tests.benchmarks.seeds import mean_sd

FIGURES = tuple((name, figure) for name in ("VEB", "SVEB") for figure in ("se", "ppv", "f1"))


def cut(told: bool, classes: Callable[[str], str | None]) -> Pool:
    """mitdb with its beats, by the reference or by us, and their classes."""
    with mock.patch.object(examples, "beat_class", classes):
        return join(list(tqdm(examples.load("mitdb", told=told), desc="cut mitdb", unit="record")))


def scored(pool: Pool, work: Path, settings: Settings, all_rr: bool) -> dict[tuple[str, str], float]:
    """Figures of a training's folds, each on its own records; `all_rr`: with the RR expert of all its patients."""
    rr = fold_model(work, None, settings).morphology.rr if all_rr else None
    fold = pool.folds(settings.folds, settings.seed)
    results = []
    for k in range(settings.folds):
        model = fold_model(work, k, settings)
        if rr is not None:
            model.morphology.rr = rr
        results.append(FoldResult.of(model, pool, np.flatnonzero(fold == k), "cpu"))
    records = np.concatenate([result.records for result in results])
    beats, classes = (np.concatenate([getattr(r, name) for r in results]) for name in ("beats", "beat_class"))
    found = beat_figures(pool, records[~np.isin(pool.name[records], PACED)], beats, classes)
    return {(name, figure): found[name][figure] for name, figure in FIGURES}


def main() -> None:
    """Print the table: mean and standard deviation of the trainings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, action="append", required=True, help="the --work of a finished training")
    given = parser.parse_args()
    torch.set_num_threads(1)
    trainings = [(work, settings_or_exit(work, parser)) for work in given.work]
    whole = all(finished(work, "all", settings.windows) is not None for work, settings in trainings)
    if not whole:
        print("no model of all patients of each training: no rows of its RR expert\n")
    rows = []
    for peaks in ("ours", "reference"):
        for escapes in ("literature", "bxb"):
            pool = cut(peaks == "reference", partial(beat_class, escapes=escapes))
            for all_rr in (False, True) if whole else (False,):
                runs = [scored(pool, work, settings, all_rr) for work, settings in trainings]
                told = f"{peaks}, {escapes}{', RR expert of all' if all_rr else ''}"
                rows.append((told, *(mean_sd([run[of] for run in runs], 2) for of in FIGURES)))
    print(*table(("R peaks, label map", *(f"{name} {figure}" for name, figure in FIGURES)), rows), sep="\n")


if __name__ == "__main__":
    main()
