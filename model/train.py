"""Trains ECG-MoE from recordings: one command, one seed, in four phases.

    python -m model.train --seed 0 --out model/weights
    python -m model.train --quick --out /tmp/quick

1. views: the four temporal encoders learn without labels, each its own pretext task, and are frozen.
2. band: the band stem of the hop token learns rhythm, shockable and quality from single hops.
3. rr, beats: the RR expert learns N S V from beats known by their time, then is frozen; the rest of the morphology path
   learns N or S, V, F, Q from detected beats.
4. windows: on tokens computed once, the rhythm path, the fusion and its adapters learn the window tasks.

One model learns from everything and is written; then each of four patient-wise folds is left out, from the first phase
on, and scored, and the figures and the model card are written beside the weights. An interrupted run goes on from its
last checkpoint in `--work`.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from model import judge, rr_beats, sequences
from model.beat_phase import RrTask, beat_chance, beat_loss, settle
from model.card import card
from model.ecg_moe import WINDOW_TASKS, EcgMoe
from model.examples import SIMULATED_POTASSIUM, flat_lines, load, recorded_noise
from model.figures import FoldResult, figures, temperatures
from model.phases import (
    BandTask,
    Pretext,
    WindowTask,
    draw,
    hop_chance,
    hop_pairs,
    settle_views,
)
from model.pool import Pool, join, spread
from model.rr_beats import RrBeats
from model.segments import Float, Int
from model.sequences import Sequences
from model.tokens import Tokens

CHECKPOINT_STEPS = 200
NOISE_LEARNT = 20 * 60 * 125  # samples of the recorded noise; the last ten minutes are for figures alone

Step = Callable[[np.random.Generator], Tensor]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is made of. Steps are of `batch` items each."""

    seed: int = 0
    folds: int = 4  # the split has so many
    scored: int = 4  # folds trained without and scored on
    sources: tuple[tuple[str, int | None], ...] = (
        ("mitdb", None), ("vfdb", None), ("cudb", None), ("ludb", None), ("cinc2017", None),
    )  # fmt: skip
    potassium: str = ""  # folder that simulators.potassium wrote; empty: the task stays untrained
    sequences: int | None = None  # cases of vitaldb-rhythm, None for all; with 0 neither they nor noise are used,
    # and the RR expert learns from the detected beats
    flat: int = 120
    views: int = 100
    band: int = 450
    rr: int = 2000
    beats: int = 250
    windows: int = 600
    batch: int = 256

    def quick(self) -> "Settings":
        """A small run for tests: few records, few steps, one fold scored."""
        sources = (("mitdb", None), ("vfdb", 6), ("ludb", 12), ("cinc2017", 240))
        return replace(
            self, sources=sources, scored=1, flat=12, views=40, band=100, rr=300,
            beats=250, windows=200, batch=128, sequences=40,
        )  # fmt: skip


def train(settings: Settings, out: Path, work: Path, device: str = "cpu") -> dict[str, object]:
    """Cut, score by folds, train on everything, write weights, figures and card to `out`. Gives the figures.

    Raises model.datasets.DatasetError where a database is not found.
    """
    _claim(work, settings)
    pool, extra = _pool(settings, work), Extra.load(settings)
    fold = pool.folds(settings.folds, settings.seed)
    version = f"ecg-moe-2-seed{settings.seed}" + ("" if settings.scored > 1 else "-quick")
    taught = pool.source != "potassium-unseen"
    shipped = _train_one(pool, np.flatnonzero(taught), settings, work, "all", device, extra)
    known = np.isfinite(pool.potassium[taught]).any()
    trained = [task for task in WINDOW_TASKS if task != "potassium" or known]
    judge.save(shipped, out / "ecg_moe.safetensors", version, trained)
    results = []
    for k in range(settings.scored):
        mine = extra.without(k, settings)
        model = _train_one(pool, np.flatnonzero((fold != k) & taught), settings, work, f"fold{k}", device, mine)
        told, patients = extra.scored(k, settings)
        results.append(FoldResult.of(model, pool, np.flatnonzero(fold == k), device, told, patients))
    calibrate(shipped, temperatures(results, pool))
    judge.save(shipped, out / "ecg_moe.safetensors", version, trained)
    about: dict[str, object] = {
        "version": version, "settings": asdict(settings),
        "figures": figures(results, pool),
    }  # fmt: skip
    (out / "figures.json").write_text(json.dumps(about, indent=1) + "\n")
    (out / "README.md").write_text(card(about))
    return about


def calibrate(model: EcgMoe, found: dict[str, float]) -> None:
    """Set the temperatures of the tasks, `beats` among them."""
    model.morphology.temperature.fill_(found["beats"])
    for i, task in enumerate(WINDOW_TASKS):
        model.fusion.temperature[i] = found.get(task, 1.0)


# The parts of a run


def _claim(work: Path, settings: Settings) -> None:
    """Start over where the folder holds another run's checkpoints."""
    stamp, told = work / "settings.json", json.dumps(asdict(replace(settings, scored=0)))
    if work.exists() and not (stamp.is_file() and stamp.read_text() == told):
        for old in [*work.glob("*.pt"), *work.glob("pool.npz"), stamp]:
            old.unlink(missing_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    stamp.write_text(told)


def _pool(settings: Settings, work: Path) -> Pool:
    path = work / "pool.npz"
    if not path.is_file():
        cuts = []
        for source, limit in settings.sources:
            cuts += list(tqdm(load(source, limit), desc=f"cut {source}", unit="record"))
        for name in SIMULATED_POTASSIUM if settings.potassium else ():
            cuts += list(tqdm(load(str(Path(settings.potassium) / name)), desc=f"cut {name}", unit="record"))
        cuts += list(flat_lines(cuts, settings.flat, np.random.default_rng(settings.seed)))
        join(cuts).save(path.with_suffix(".part.npz"))
        path.with_suffix(".part.npz").rename(path)
    return Pool.load(path)


@dataclass(frozen=True, slots=True)
class Extra:
    """What is learnt from beside the pool: windows and beats of RR sequences, and noise to add (m, n)."""

    sequences: tuple[tuple[Sequences, Int], ...] = ()
    beats: RrBeats | None = None
    noise: Float | None = None

    @classmethod
    def load(cls, settings: Settings) -> "Extra":
        """All that the settings name; the sequences as they are, and as a detector would see them."""
        if settings.sequences == 0:
            return cls()
        rng = np.random.default_rng(settings.seed)
        both = [sequences.load(settings.sequences), sequences.load(settings.sequences, rng)]
        return cls(
            tuple((s, s.of_patients(np.arange(s.patient.size))) for s in both),
            rr_beats.load(settings.sequences),
            recorded_noise()[:, :NOISE_LEARNT],
        )

    def scored(self, fold: int, settings: Settings) -> tuple[Sequences | None, Int | None]:
        """The sequences as they are, and the patients of this fold."""
        if not self.sequences:
            return None, None
        told = self.sequences[0][0]
        return told, np.flatnonzero(spread(told.patient, settings.folds, settings.seed) == fold)

    def without(self, fold: int, settings: Settings) -> "Extra":
        """Of the patients of the other folds."""
        of = [(s, np.flatnonzero(spread(s.patient, settings.folds, settings.seed) != fold)) for s, _ in self.sequences]
        beats = None if self.beats is None else self.beats.of_patients(of[0][1])
        return replace(self, sequences=tuple((s, s.of_patients(patients)) for s, patients in of), beats=beats)


def _train_one(
    pool: Pool, records: Int, settings: Settings, work: Path, name: str, device: str, extra: Extra = Extra()
) -> EcgMoe:
    """All phases on these records."""
    torch.manual_seed(settings.seed)
    model, n = EcgMoe().to(device), settings.batch
    finished = work / f"{name}-windows.pt"
    if finished.is_file() and (saved := torch.load(finished, weights_only=True))["done"] == settings.windows:
        model.load_state_dict(saved["model"])
        return model.eval()
    hops = np.flatnonzero(np.isin(pool.of_hop, records) & (pool.hop_mask.max(1) > 0.5))
    beats = np.flatnonzero(np.isin(pool.of_beat, records) & (pool.beat >= 0))

    def fit(
        phase: str, modules: Iterable[nn.Module], step: Step, n_steps: int, rate: float, decay: float = 0.01
    ) -> None:
        _fit(
            model,
            list(modules),
            step,
            n_steps,
            rate,
            decay,
            work / f"{name}-{phase}.pt",
            (settings.seed, len(records)),
            f"{name} {phase}",
        )

    recorded = hops[~np.isin(pool.source, SIMULATED_POTASSIUM)[pool.of_hop[hops]]]
    pretext = Pretext(model.encoder).to(device)
    fit(
        "views",
        [pretext],
        lambda rng: pretext(*hop_pairs(pool, draw(rng, recorded, n, None), rng, device)),
        settings.views,
        2e-3,
    )
    settle_views(model.encoder, pool, recorded[:: max(recorded.size // 4096, 1)], device)

    band = BandTask(model.encoder).to(device)
    chance = hop_chance(pool, hops)

    def band_step(rng: np.random.Generator) -> Tensor:
        loss: Tensor = band(pool, draw(rng, hops, n // 4, chance), rng, extra.noise, device)
        return loss

    fit("band", [model.encoder.band, band.heads], band_step, settings.band, 2e-3)
    rr = RrTask(model.morphology.rr, extra.beats or rr_beats.of_pool(pool, beats), device)
    fit("rr", [model.morphology.rr], lambda rng: rr.loss(n, rng), settings.rr, 4e-3)
    rr.settle()
    settle(model.morphology.form, pool.beat_features[beats][:, model.morphology.form.columns.numpy()])
    of_class = beat_chance(pool, beats)
    fit(
        "beats",
        [model.morphology],
        lambda rng: beat_loss(model, pool, draw(rng, beats, n, of_class), rng, device),
        settings.beats,
        3e-3,
        0.1,
    )
    tokens = Tokens.of(model, pool, records, device)
    windows = WindowTask(model, pool, tokens, hops, extra.sequences, device)
    fit("windows", [model.fusion], lambda rng: windows.loss(n, rng), settings.windows, 2e-3)
    return model.eval()


def _fit(
    model: EcgMoe,
    modules: list[nn.Module],
    step: Step,
    n_steps: int,
    rate: float,
    decay: float,
    path: Path,
    key: tuple[int, ...],
    text: str,
) -> None:
    """AdamW with a one-cycle rate; now and then and at the end a checkpoint, to go on from after a break."""
    parameters = list({id(p): p for m in modules for p in m.parameters()}.values())
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=n_steps, pct_start=0.15)
    done = 0
    if path.is_file():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        for module, state in zip(modules, saved["modules"], strict=True):
            module.load_state_dict(state)
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        done = saved["done"]
    for module in modules:
        module.train()
    bar = tqdm(range(done, n_steps), initial=done, total=n_steps, desc=text, mininterval=2)
    for i in bar:
        torch.manual_seed(int(np.random.SeedSequence((*key, i)).generate_state(1)[0]))
        loss = step(np.random.default_rng((*key, i)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        schedule.step()
        if i % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if (i + 1) % CHECKPOINT_STEPS == 0 or i + 1 == n_steps:
            state = {
                "model": model.state_dict(), "modules": [m.state_dict() for m in modules],
                "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "done": i + 1,
            }  # fmt: skip
            torch.save(state, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
    for module in modules:
        module.eval()


def main(arguments: list[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="run_pipeline.py train",
        description=__doc__,
        epilog="Example: RECORDINGS=recordings python run_pipeline.py train --quick --out out/",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=judge.WEIGHTS.parent, help="folder for weights, figures and card")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/train"),
        help="folder for checkpoints; an interrupted run goes on from them",
    )
    parser.add_argument("--potassium", default="", help="folder that simulators.potassium wrote; without it, untrained")
    parser.add_argument("--source", action="append", default=[], help="a further database to learn from: mimic-iv-ecg")
    parser.add_argument("--quick", action="store_true", help="a small run, under three minutes on two cores")
    parser.add_argument("--scored", type=int, help="how many of the 4 patient-wise folds are scored (default all)")
    parser.add_argument("--fresh", action="store_true", help="forget the checkpoints in --work first")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    settings = Settings(seed=given.seed)
    settings = settings.quick() if given.quick else settings
    if given.scored is not None:
        settings = replace(settings, scored=given.scored)
    more = tuple((source, None) for source in given.source)
    settings = replace(settings, potassium=given.potassium, sources=(*settings.sources, *more))
    if given.fresh:
        shutil.rmtree(given.work, ignore_errors=True)
    about = train(settings, given.out, given.work, given.device)
    print(json.dumps(about["figures"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
