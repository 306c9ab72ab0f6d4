"""Trains ECG-MoE from recordings: one command, one seed, in four phases.

    python -m model.train --seed 0 --out out
    python -m model.train --quick --out /tmp/quick

1. views: the four temporal encoders learn without labels, each its own pretext task, and are frozen.
2. band: the band stem of the hop token learns rhythm, shockable and quality of hops, and the classes of their windows.
3. rr, beats: the RR expert learns N S V from beats known by their time, then is frozen; the rest of the morphology path
   learns N or S, V, F, Q from detected beats.
4. windows: on tokens computed once, the rhythm path, the fusion and its adapters learn the window tasks.

One model learns from everything and is written; then each of four patient-wise folds (`--folds`) is left out, from the
first phase on, and scored, and the figures and the model card are written beside the weights. An interrupted run goes
on from its last checkpoint in `--work`.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from model import judge
from model.calibration import Line
from model.card import card
from model.course import NO_EXTRA, Course, Extra, Settings
from model.datasets import POTASSIUM_LEVELS, DatasetError, find, folder_of
from model.ecg_moe import AGE_MEAN, AGE_SD, WINDOW_TASKS, EcgMoe
from model.examples import SIMULATED_POTASSIUM, flat_lines, load
from model.figures import FoldResult, figures, temperatures
from model.persons import person_lines
from model.pool import Pool, join
from model.segments import Int
from model.work import POOL, RECIPE, WorkError, claim, finished, kept_pool

FURTHER = "mimic-iv-ecg"  # a database that only who has access to it learns from, too


def train(
    settings: Settings,
    out: Path,
    work: Path,
    device: str = "cpu",
    fresh: bool = False,
    simulate: Callable[[Path], None] | None = None,
) -> dict[str, object]:
    """Cut, score by folds, train on everything, write weights, figures and card to `out`; `fresh` as of `claim`,
    `simulate` writes the patients of `settings.potassium` where they are missing. Gives the figures.

    Raises model.datasets.DatasetError where a database is not found, WorkError where `work` holds something else.
    """
    require(settings, work, fresh)
    claim(work, settings, fresh)
    pool, extra = _pool(settings, work, simulate), Extra.load(settings)
    fold = pool.folds(settings.folds, settings.seed)
    version = f"{RECIPE}-seed{settings.seed}" + ("" if settings.scored > 1 else "-quick")
    taught = pool.source != "potassium-unseen"
    shipped = _train_one(pool, np.flatnonzero(taught), settings, work, "all", device, extra)
    known = np.isfinite(pool.potassium[taught]).any()
    trained = [task for task in WINDOW_TASKS if task != "potassium" or known]
    judge.save(shipped, out / "ecg_moe.safetensors", f"{version}-uncalibrated", trained)
    results = []
    for k in range(settings.scored):
        mine = extra.without(k, settings)
        model = _train_one(pool, np.flatnonzero((fold != k) & taught), settings, work, f"fold{k}", device, mine)
        told, patients = extra.scored(k, settings)
        results.append(FoldResult.of(model, pool, np.flatnonzero(fold == k), device, told, patients))
    calibrate(shipped, temperatures(results, pool), person_lines(results, pool))
    judge.save(shipped, out / "ecg_moe.safetensors", version, trained)
    about: dict[str, object] = {
        "version": version, "settings": asdict(settings),
        "figures": figures(results, pool),
    }  # fmt: skip
    (out / "figures.json").write_text(json.dumps(about, indent=1) + "\n")
    (out / "README.md").write_text(card(about))
    return about


@torch.no_grad()
def calibrate(model: EcgMoe, found: dict[str, float], lines: dict[str, Line]) -> None:
    """Set the temperatures of the tasks, `beats` among them; fold the lines of `age` and `male` into their heads."""
    model.morphology.temperature.fill_(found["beats"])
    for i, task in enumerate(WINDOW_TASKS):
        model.fusion.temperature[i] = found.get(task, 1.0)
    for task, mean, unit in (("age", AGE_MEAN, AGE_SD), ("male", 0.0, 1.0)):
        line, head = lines.get(task, Line()), model.fusion.heads[task]
        assert isinstance(head, nn.Linear)
        head.weight.mul_(line.slope)
        head.bias.mul_(line.slope).add_((line.offset + line.slope * mean - mean) / unit)


# The parts of a run


def require(settings: Settings, work: Path, fresh: bool = False) -> None:
    """Look for every database before anything is begun: those of RR sequences and noise, and those that examples are
    cut from where `work` has none yet, or is to begin anew. Raises model.datasets.DatasetError."""
    for source, _ in settings.sources if fresh or not (work / POOL).is_file() else ():
        folder_of(source) if Path(source).name == FURTHER else find(source)
    for source in () if settings.sequences == 0 else ("vitaldb-rhythm", "nstdb"):
        folder_of(source)


def _pool(settings: Settings, work: Path, simulate: Callable[[Path], None] | None = None) -> Pool:
    path = work / POOL
    if not path.is_file():
        cuts = []
        for source, limit in settings.sources:
            cuts += list(tqdm(load(source, limit), desc=f"cut {source}", unit="record"))
        simulated = Path(settings.potassium)
        if simulate and not all((simulated / name / POTASSIUM_LEVELS).is_file() for name in SIMULATED_POTASSIUM):
            simulate(simulated)
        for name in SIMULATED_POTASSIUM if settings.potassium else ():
            cuts += list(tqdm(load(str(simulated / name)), desc=f"cut {name}", unit="record"))
        cuts += list(flat_lines(cuts, settings.flat, np.random.default_rng(settings.seed)))
        join(cuts).save(path.with_suffix(".part.npz"))
        path.with_suffix(".part.npz").rename(path)
    return kept_pool(work)


def _train_one(
    pool: Pool, records: Int, settings: Settings, work: Path, name: str, device: str, extra: Extra = NO_EXTRA
) -> EcgMoe:
    """All phases on these records."""
    if (trained := finished(work, name, settings.windows)) is not None:
        return trained.to(device)
    torch.manual_seed(settings.seed)
    model = EcgMoe().to(device)
    course = Course(model, pool, records, settings, work, name, extra, device)
    for phase in (course.views, course.band, course.rr, course.beats, course.windows):
        phase()
    return model.eval()


def main(arguments: list[str] | None = None, simulate: Callable[..., None] | None = None) -> int:
    """The command line; gives the exit code. `simulate` (a folder; few: bool) writes the patients that potassium is
    learnt from where no folder of them is named and none are in runs/simulated yet (quick: runs/simulated-quick)."""
    parser = argparse.ArgumentParser(
        prog="run_pipeline.py train",
        description=__doc__,
        epilog="Example: RECORDINGS=recordings python run_pipeline.py train --quick --out out/",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, figures and card")
    parser.add_argument(
        "--work",
        type=Path,
        help="folder for checkpoints; an interrupted run goes on from them (default runs/train, quick: runs/quick)",
    )
    parser.add_argument(
        "--potassium",
        default="",
        help="folder that simulators.potassium wrote (default of run_pipeline.py runs/simulated, quick: "
        "runs/simulated-quick, written where it is missing; model.train leaves the task untrained)",
    )
    parser.add_argument(
        "--source", action="append", default=[], help=f"a further database to learn from, by its folder: .../{FURTHER}"
    )
    parser.add_argument("--quick", action="store_true", help="a small run, under three minutes on two cores")
    parser.add_argument("--folds", type=int, default=Settings().folds, help="patient-wise folds of the split")
    parser.add_argument("--scored", type=int, help="how many of the folds are scored (default all)")
    parser.add_argument("--fresh", action="store_true", help="delete the training in --work first")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    bounds = (("seed", given.seed, 0, 2**31 - 1), ("threads", given.threads, 1, 256), ("folds", given.folds, 2, 20))
    for name, value, least, most in bounds:
        if not least <= value <= most:
            parser.error(f"--{name}: {value}; give {least} to {most}")
    for source in given.source:
        if Path(source).name != FURTHER:
            parser.error(f"--source: {source}; give the folder of {FURTHER}, the rest is learnt from anyway")
    try:
        torch.zeros(1, device=given.device)
    except (AssertionError, RuntimeError):
        parser.error(f"--device: {given.device} cannot be used here; give cpu, or cuda where torch finds one")
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: {given.out} cannot be written to ({error.strerror}); give another folder")
    torch.set_num_threads(given.threads)
    settings = Settings(seed=given.seed, folds=given.folds, scored=given.folds)
    if given.scored is not None and not 1 <= given.scored <= settings.folds:
        parser.error(f"--scored: {given.scored}; give 1 to {settings.folds}, what is scored calibrates")
    if given.potassium and not (Path(given.potassium) / SIMULATED_POTASSIUM[0]).is_dir():
        parser.error(f"--potassium: {given.potassium} has no {SIMULATED_POTASSIUM[0]}/; simulators.potassium writes it")
    settings = settings.quick() if given.quick else settings
    if given.scored is not None:
        settings = replace(settings, scored=given.scored)
    more = tuple((source, None) for source in given.source)
    simulated = "runs/simulated-quick" if given.quick else "runs/simulated"
    potassium = given.potassium or (simulated if simulate else "")
    settings = replace(settings, potassium=potassium, sources=(*settings.sources, *more))
    work = given.work or Path("runs/quick" if given.quick else "runs/train")
    try:
        write = partial(simulate, few=given.quick) if simulate and not given.potassium else None
        about = train(settings, given.out, work, given.device, given.fresh, write)
    except (WorkError, DatasetError) as error:
        parser.exit(2, f"train: {error}\n")
    print(json.dumps(about["figures"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
