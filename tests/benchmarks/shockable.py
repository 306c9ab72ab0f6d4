"""What the model, the VF index and both together say is shockable, of patients that neither has seen.

    RECORDINGS=... python -m tests.benchmarks.shockable --work runs/train

The windows of a finished training's folds (every 2 s, labelled by their last 4 s), each judged by the model trained
without its patient; the VF index at the end of each, of ten folds by record (`fit_vf`), at its default
threshold; and `model.vf.shockable` of the two, which the monitor tells. Shockable at 0.5 and more.
Where there is no report (the first four seconds) the model's answer stands for all three.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.course import Settings
from model.figures import FoldResult
from model.labels import RHYTHMS
from model.pool import Pool
from model.vf import shockable
from model.work import fold_model, training_or_exit
from tests.benchmarks import fit_vf

Floats = npt.NDArray[np.float64]


def by_model(settings: Settings, pool: Pool, work: Path) -> dict[str, npt.NDArray[Any]]:
    """Of the windows of vfdb, mitdb and cudb whose label is known: hop, probability of shockable and of VT."""
    fold = pool.folds(settings.folds, settings.seed)
    here = np.isin(pool.source, ("vfdb", "mitdb", "cudb"))
    parts = []
    for k in range(settings.folds):
        result = FoldResult.of(fold_model(work, k, settings), pool, np.flatnonzero(here & (fold == k)), "cpu")
        known = pool.shockable[result.hops] >= 0
        said, vt = result.windows["shockable"][known], result.windows["rhythm"][known, RHYTHMS.index("VT")]
        parts.append((result.hops[known], said, vt))
    hop, said, vt = (np.concatenate(part) for part in zip(*parts, strict=True))
    return {"hop": hop, "model": said.astype(float), "vt": vt.astype(float)}


def by_index(pool: Pool, hops: npt.NDArray[np.int64], seed: int, cache: Path | None) -> Floats:
    """VF index (k,) at the ends of `hops`, NaN where there is none."""
    plain, more = fit_vf.gathered(seed, cache)
    at: dict[tuple[str, int], float] = {}
    for name, odds in fit_vf.held_out(plain, more, fit_vf.PATIENT_FOLDS, seed).items():
        at |= {(name, tick): z for tick, z in zip(plain[name].at.tolist(), odds.tolist(), strict=True)}
    names = [f"{pool.source[r]}/{pool.name[r]}" for r in pool.of_hop[hops]]
    wanted = list(zip(names, pool.hop_end[hops].tolist(), strict=True))
    z = np.array([at.get(key, np.nan) for key in wanted])
    lacking = Counter(name for (name, _), without in zip(wanted, np.isnan(z), strict=True) if without)
    print(f"{lacking.total()} windows of {len(lacking)} records without a VF index, at most:", lacking.most_common(3))
    return 1.0 / (1.0 + np.exp(fit_vf.THRESHOLD - z))


def rates(said: Floats, truth: npt.NDArray[np.bool_], of: npt.NDArray[np.bool_]) -> str:
    """Se and Sp of these windows, with their numbers."""
    found = []
    for name, among, good in (("Se", of & truth, said >= 0.5), ("Sp", of & ~truth, said < 0.5)):
        if among.any():
            found.append(f"{name} {100 * good[among].mean():.1f} ({good[among].sum()}/{among.sum()})")
    return " ".join(found)


def main() -> None:
    """Print the table by database, then the records with most errors of both together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/train"), help="the --work of a finished training")
    parser.add_argument("--seed", type=int, default=0, help="of the VF index")
    parser.add_argument("--cache", type=Path, help="keeps the features of the VF index between runs, as of fit_vf")
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings, pool = training_or_exit(given.work, parser)
    found = by_model(settings, pool, given.work)
    hop = found["hop"]
    found["index"] = by_index(pool, hop, given.seed, given.cache)
    found["index"] = np.where(np.isnan(found["index"]), found["model"], found["index"])
    found["both"] = np.vectorize(shockable, otypes=[float])(found["model"], found["vt"], found["index"])
    truth, rhythm = pool.shockable[hop] > 0, pool.rhythm[hop]
    source, name = pool.source[pool.of_hop[hop]], pool.name[pool.of_hop[hop]]
    is_vt = rhythm == RHYTHMS.index("VT")
    sets = {
        "vfdb": source == "vfdb", "vfdb, VF and VFL against all but VT": (source == "vfdb") & ~is_vt,
        "vfdb, VT": (source == "vfdb") & is_vt, "mitdb, all but VT": (source == "mitdb") & ~is_vt,
        "cudb": source == "cudb",
    }  # fmt: skip
    print("| windows | model | VF index | both |\n|---|---|---|---|")
    for title, of in sets.items():
        print(f"| {title} | " + " | ".join(rates(found[who], truth, of) for who in ("model", "index", "both")) + " |")
    wrong = (found["both"] >= 0.5) != truth
    for record in sorted(set(name[wrong]), key=lambda n: -int(wrong[name == n].sum()))[:12]:
        print(f"{source[name == record][0]}/{record}: {rates(found['both'], truth, name == record)}")


if __name__ == "__main__":
    main()
