"""What each part of ECG-MoE earns: the model with that part switched off, trained anew, beside a plain net.

\b
    RECORDINGS=... python -m tests.benchmarks.ablation --json ablation.json --plot docs/ablation.png
    RECORDINGS=... python -m tests.benchmarks.ablation --variant no-lora --seed 0     # one row, one seed
    RECORDINGS=... python -m tests.benchmarks.ablation --full --variant full --variant no-views

One budget for all rows, one patient-wise split: fold 0 is left out of every phase, the pre-training too. The budget is
`REDUCED`, with four tenths of the band stem's steps, a fifth of those of windows and RR, and one of three folds, or
that of the shipped weights (`--full`: one of four).
Beats are those of our own online detector, scored on DS1's records of that fold. The encoders (views and band stem) are
trained once per seed, frozen and shared; so is the whole model's morphology path where a row changes none of it. What
is done is kept in the JSON and not done again.
"""

import json
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch.nn import functional as fn
from tqdm import tqdm

from model import train as trainer
from model.beat_phase import beat_batch
from model.card import table
from model.course import Course, Extra, Settings, fit
from model.datasets import DatasetError
from model.ecg_moe import EcgMoe
from model.examples import PACED
from model.figures import FoldResult, beat_figures, challenge_figures, rhythm_figures, segment_figures
from model.form_votes import voted
from model.labels import BEATS
from model.phases import draw
from model.pool import Pool
from model.segments import Int
from model.sequences import Sequences
from model.tokens import wave_and_features
from model.work import RECIPE, WorkError, claim
from run_pipeline import Written
from tests.benchmarks.seeds import mean_sd
from tests.benchmarks.variants import VARIANTS, PlainNet, Variant

REDUCED = replace(
    Settings(), folds=3, flat=60, views=100, band=600, rr=800, beats=250, windows=300,
    sources=(("mitdb", None), ("vfdb", None), ("cudb", None), ("cinc2017", 1500)),
)  # fmt: skip
PLAIN = {  # steps in units of the budget's, and whether it is helped
    "plain": ("plain net, 14k parameters", 1, False),
    "plain-long": ("plain net, four times the steps", 4, False),
    "plain-helped": ("plain net, our RR expert and votes", 1, True),
}
ROWS = {name: v.told for name, v in VARIANTS.items()} | {name: told for name, (told, _, _) in PLAIN.items()}
FIGURES = ("VEB F1", "SVEB F1", "AF mitdb", "AF sequences", "shockable", "Challenge F1")
Scores = dict[str, float | None]


class Lab:
    """What all rows share: examples, split, encoders and the whole model's morphology path of a seed."""

    def __init__(self, work: Path, budget: Settings) -> None:
        trainer.require(budget, work)
        claim(work, budget)
        self.work, self.budget, self.pool = work, budget, trainer._pool(budget, work)
        fold = self.pool.folds(budget.folds, budget.seed)
        self.taught, self.left = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
        everything = self._extra()
        self.extra = everything.without(0, budget)
        self.told: tuple[Sequences | None, Int | None] = everything.scored(0, budget)

    def course(self, variant: Variant, seed: int, model: EcgMoe, pool: Pool) -> Course:
        """How a variant learns; nothing of the left-out fold is in it."""
        extra = variant.extra(self.extra, pool, self.taught)
        return Course(model, pool, self.taught, replace(self.budget, seed=seed), self.work, f"run-{seed}", extra)

    def encoder(self, seed: int) -> dict[str, Any]:
        """Weights of the hop encoder, and the seconds it took."""

        def make() -> dict[str, Any]:
            model = _new(VARIANTS["full"], seed)
            seconds = self._timed(self.course(VARIANTS["full"], seed, model, self.pool), "views", "band")
            return {"weights": model.encoder.state_dict(), "seconds": seconds}

        return self._saved(f"encoder-{seed}.pt", make)

    def beats(self, seed: int) -> dict[str, Any]:
        """Weights of the whole model's morphology path, and the seconds it took."""

        def make() -> dict[str, Any]:
            model = _new(VARIANTS["full"], seed)
            seconds = self._timed(self.course(VARIANTS["full"], seed, model, self.pool), "rr", "beats")
            return {"weights": model.morphology.state_dict(), "seconds": seconds}

        return self._saved(f"beats-{seed}.pt", make)

    def model(self, name: str, seed: int) -> tuple[EcgMoe, Pool, float]:
        """A trained variant, the pool as it sees it, and the seconds that all its phases took."""
        variant, shared = VARIANTS[name], self.encoder(seed)
        model, pool = _new(variant, seed), variant.pool(self.pool)
        model.encoder.load_state_dict(shared["weights"])
        model.encoder.eval().requires_grad_(False)
        seconds = shared["seconds"]
        if not variant.own_beats:
            path = self.beats(seed)
            model.morphology.load_state_dict(path["weights"])
            seconds += path["seconds"]
        variant.change(model)
        torch.manual_seed(seed)
        course = self.course(variant, seed, model, pool)
        own = ("rr", "beats") if isinstance(getattr(model.morphology, "form", None), torch.nn.Module) else ("rr",)
        seconds += self._timed(course, *(own if variant.own_beats else ()), "windows")
        return model.eval(), pool, seconds

    def plain(self, seed: int, steps: int) -> tuple[PlainNet, float]:
        """The plain net on the same beats, each class drawn by one over the root of its size, paced ones seldom."""
        torch.manual_seed(seed)
        net, pool, start = PlainNet(), self.pool, time.process_time()
        beats = np.flatnonzero(np.isin(pool.of_beat, self.taught) & (pool.beat >= 0))
        paced = np.isin(pool.name, PACED)[pool.of_beat[beats]]
        size = np.bincount(pool.beat[beats], minlength=len(BEATS)).clip(1)
        chance = np.cumsum(size[pool.beat[beats]] ** -0.5 * np.where(paced, 0.05, 1.0))

        def step(rng: np.random.Generator) -> torch.Tensor:
            index = draw(rng, beats, self.budget.batch, chance)
            logits = net(*beat_batch(pool, index, rng, "cpu"))
            return fn.cross_entropy(logits, torch.from_numpy(pool.beat[index].astype(np.int64)), label_smoothing=0.02)

        self._fresh(f"plain-{seed}")
        path = self.work / f"plain-{seed}-beats.pt"
        fit(net, [net], step, steps, 3e-3, 0.01, path, (seed, steps), "plain net")
        return net.eval(), time.process_time() - start

    def _extra(self) -> Extra:
        path = self.work / "extra.pkl"
        if not path.is_file():
            path.with_suffix(".part").write_bytes(pickle.dumps(Extra.load(self.budget)))
            path.with_suffix(".part").rename(path)
        kept: Extra = pickle.loads(path.read_bytes())
        return kept

    def _timed(self, course: Course, *phases: str) -> float:
        """Processor seconds of phases, done from their start."""
        self._fresh(course.name)
        start = time.process_time()
        for phase in phases:
            getattr(course, phase)()
        return time.process_time() - start

    def _fresh(self, name: str) -> None:
        for old in self.work.glob(f"{name}-*.pt"):
            old.unlink()

    def _saved(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self.work / name
        if not path.is_file():
            torch.save(make(), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        kept: dict[str, Any] = torch.load(path, weights_only=True)
        return kept


@torch.no_grad()
def scores(lab: Lab, model: EcgMoe, pool: Pool) -> Scores:
    """Figures of a variant on the fold that was left out."""
    told = FoldResult.of(model, pool, lab.left, "cpu", *lab.told)
    rhythm = rhythm_figures(pool, told.hops, told.windows)
    challenge = challenge_figures(pool, lab.left, told.hops, told.windows["arrhythmia"])
    segments = segment_figures([told])
    return _of_beats(lab, told.beats, told.beat_class) | {
        "AF mitdb": _balanced(rhythm.get("AF mitdb")),
        "AF sequences": _balanced(segments.get("AF")),
        "shockable": _balanced(rhythm.get("shockable vfdb")),
        "Challenge F1": challenge["mean_f1_NAO"],
    }


@torch.no_grad()
def plain_scores(lab: Lab, net: PlainNet, seed: int, helped: bool) -> Scores:
    """Figures of the plain net; `helped`: its N and S told apart with our RR expert, and beats of a form vote."""
    beats = np.flatnonzero(np.isin(lab.pool.of_beat, lab.left))
    parts = [wave_and_features(lab.pool, part, "cpu") for part in np.array_split(beats, beats.size // 2048 + 1)]
    probs = torch.cat([net(*part).softmax(1) for part in parts])
    if helped:
        path = _new(VARIANTS["full"], seed).morphology
        path.load_state_dict(lab.beats(seed)["weights"])
        rr = torch.cat([path.eval().rr(features) for _, features in parts]).softmax(1)
        supra = rr[:, 1] / rr[:, :2].sum(1).clamp_min(1e-6)
        both = probs[:, :2].sum(1)
        probs = torch.cat([(both * (1 - supra))[:, None], (both * supra)[:, None], probs[:, 2:]], 1)
        return _of_beats(lab, beats, voted(probs.numpy(), lab.pool, beats).argmax(1))
    return _of_beats(lab, beats, probs.numpy().argmax(1))


def _of_beats(lab: Lab, beats: Int, classes: Int) -> Scores:
    ours = (lab.pool.source[lab.left] == "mitdb") & ~np.isin(lab.pool.name[lab.left], PACED)
    told = beat_figures(lab.pool, lab.left[ours], beats, classes)
    return {"VEB F1": told["VEB"]["f1"], "SVEB F1": told["SVEB"]["f1"]}


def _balanced(told: dict[str, Any] | None) -> float | None:
    """The mean of Se and Sp, percent; None where the fold cannot tell."""
    if not told or told.get("se") is None or told.get("sp") is None:
        return None
    return float(told["se"] + told["sp"]) / 2


def _new(variant: Variant, seed: int) -> EcgMoe:
    torch.manual_seed(seed)
    return EcgMoe(variant.sizes)


def row(lab: Lab, name: str, seed: int) -> dict[str, Any]:
    """Train a row with a seed and score it. `seconds`: of the processor, all phases."""
    if name in PLAIN:
        _, times, helped = PLAIN[name]
        net, seconds = lab.plain(seed, times * lab.budget.beats)
        return {"scores": plain_scores(lab, net, seed, helped), "seconds": seconds, "parameters": _size(net)}
    model, pool, seconds = lab.model(name, seed)
    return {"scores": scores(lab, model, pool), "seconds": seconds, "parameters": _size(model)}


def _size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def summary(done: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Rows of the table: mean and standard deviation over the seeds that are done."""
    rows = []
    for name, told in ROWS.items():
        runs = list(done.get(name, {}).values())
        if runs:
            cells = [mean_sd([run["scores"].get(figure) for run in runs], 1) for figure in FIGURES]
            seconds = np.mean([run["seconds"] for run in runs])
            rows.append([told, *cells, f"{runs[0]['parameters'] / 1e3:.0f}k", f"{seconds:.0f}", str(len(runs))])
    return rows


def plot(done: dict[str, dict[str, Any]], path: Path) -> None:
    """What each row loses to the whole model, figure by figure, seed by seed."""
    from matplotlib.figure import Figure

    rows = [name for name in ROWS if name != "full" and name in done]
    figure = Figure(figsize=(13, 0.32 * len(rows) + 1.4), layout="constrained")
    for axes, what in zip(figure.subplots(1, len(FIGURES), sharey=True), FIGURES, strict=True):
        for y, name in enumerate(rows):
            for seed, run in done[name].items():
                whole = done.get("full", {}).get(seed, {"scores": {}})["scores"].get(what)
                mine = run["scores"].get(what)
                if whole is not None and mine is not None:
                    axes.plot(mine - whole, y, "o", color="C0", alpha=0.6, markersize=4)
        axes.axvline(0, color="0.6", linewidth=0.8)
        axes.set_title(what, fontsize=9)
        axes.set_yticks(range(len(rows)), [ROWS[name] for name in rows], fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
    figure.supxlabel("points above the whole model of the same seed", fontsize=8)
    figure.axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)


def _rows_of(path: Path, about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is done already. Raises click.UsageError for a file of something else."""
    try:
        told = json.loads(path.read_text())
        done: dict[str, dict[str, Any]] = told.pop("rows")
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise click.UsageError(f"{path}: no rows of an ablation; name another file with --json") from None
    if told != about:
        raise click.UsageError(f"{path}: its rows are of another recipe or budget; name another file with --json")
    return done


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--full", "whole", is_flag=True, help="the budget of the shipped weights")
@click.option(
    "--work", type=click.Path(path_type=Path), help="examples and checkpoints  [default: runs/ablation, ...-full]"
)
@click.option("--json", "json_path", type=Written(), help="what is done  [default: in --work]")
@click.option("--plot", "plot_path", type=Written(), help="draw the differences here")
@click.option("--variant", "names", type=click.Choice(list(ROWS)), multiple=True, help="rows  [default: all]")
@click.option("--seed", "seeds", type=click.IntRange(0, 2**31 - 1), multiple=True, default=(0, 1, 2))
def main(
    whole: bool,
    work: Path | None,
    json_path: Path | None,
    plot_path: Path | None,
    names: tuple[str, ...],
    seeds: tuple[int, ...],
) -> None:
    torch.set_num_threads(1)
    work = work or Path("runs/ablation-full" if whole else "runs/ablation")
    try:
        lab = Lab(work, Settings() if whole else REDUCED)
    except (WorkError, DatasetError) as error:
        raise click.UsageError(str(error)) from None
    about = {"recipe": RECIPE, "budget": json.loads(json.dumps(asdict(lab.budget)))}
    kept = json_path or work / "ablation.json"
    done = _rows_of(kept, about) if kept.is_file() else {}
    wanted = [(seed, name) for seed in seeds for name in names or ROWS if str(seed) not in done.get(name, {})]
    for seed, name in tqdm(wanted, desc="rows", unit="row"):
        done.setdefault(name, {})[str(seed)] = row(lab, name, seed)
        kept.write_text(json.dumps(about | {"rows": done}, indent=1) + "\n")
    print(*table(("", *FIGURES, "parameters", "CPU s", "seeds"), summary(done)))
    if plot_path is not None:
        plot(done, plot_path)


if __name__ == "__main__":
    main()
