"""How ECG-MoE learns: what a run is made of, what it learns from, and its phases one by one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from model import rr_beats, sequences
from model.beat_phase import RrTask, beat_chance, beat_loss, settle
from model.ecg_moe import EcgMoe
from model.examples import SIMULATED_POTASSIUM, recorded_noise
from model.phases import BandTask, Pretext, WindowTask, draw, hop_chance, hop_pairs, settle_views
from model.pool import Pool, spread
from model.rr_beats import RrBeats
from model.segments import Float, Int
from model.sequences import Sequences
from model.tokens import Tokens

CHECKPOINT_STEPS = 200
NOISE_LEARNT = 20 * 60 * 125  # samples of the recorded noise; the last ten minutes are for figures alone

Step = Callable[[np.random.Generator], Tensor]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is made of. Steps are of `batch` items each, but where something else is said."""

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
    band: int = 1500  # of batch / 2 windows, of BandTask.HOPS hops each
    rr: int = 4000
    rr_batch: int = 1024  # of the RR phase, whose items are small
    beats: int = 250
    windows: int = 1500
    batch: int = 256

    def quick(self) -> "Settings":
        """A small run for tests: few records, few steps, one fold scored."""
        sources = (("mitdb", None), ("vfdb", 6), ("ludb", 12), ("cinc2017", 240))
        return replace(
            self, sources=sources, scored=1, flat=12, views=40, band=100, rr=300,
            rr_batch=128, beats=250, windows=200, batch=128, sequences=40,
        )  # fmt: skip


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


NO_EXTRA = Extra()


@dataclass(frozen=True, slots=True)
class Course:
    """A model and what it learns from; its phases are called in order, each goes on from its checkpoint in `work`."""

    model: EcgMoe
    pool: Pool
    records: Int  # those of the pool that it learns from
    settings: Settings
    work: Path
    name: str  # of the checkpoints
    extra: Extra = NO_EXTRA
    device: str = "cpu"

    def views(self) -> None:
        """The four temporal encoders, without labels; they are frozen then."""
        pool, encoder, hops = self.pool, self.model.encoder, self._hops()
        recorded = hops[~np.isin(pool.source, SIMULATED_POTASSIUM)[pool.of_hop[hops]]]
        pretext = Pretext(encoder).to(self.device)

        def step(rng: np.random.Generator) -> Tensor:
            loss: Tensor = pretext(*hop_pairs(pool, draw(rng, recorded, self.settings.batch, None), rng, self.device))
            return loss

        self._fit("views", [pretext], step, self.settings.views, 2e-3)
        settle_views(encoder, pool, recorded[:: max(recorded.size // 4096, 1)], self.device)

    def band(self) -> None:
        """The band stem, from windows of hops."""
        band, hops = BandTask(self.model.encoder).to(self.device), self._hops()
        chance = hop_chance(self.pool, hops)

        def step(rng: np.random.Generator) -> Tensor:
            index = draw(rng, hops, self.settings.batch // 2, chance)
            loss: Tensor = band(self.pool, index, rng, self.extra.noise, self.device)
            return loss

        self._fit("band", [self.model.encoder.band, band.heads], step, self.settings.band, 2e-3)

    def rr(self) -> None:
        """The RR expert, from beats known by their time; it is frozen then."""
        expert = self.model.morphology.rr
        task = RrTask(expert, self.extra.beats or rr_beats.of_pool(self.pool, self._beats()), self.device)
        self._fit("rr", [expert], lambda rng: task.loss(self.settings.rr_batch, rng), self.settings.rr, 4e-3)
        task.settle()

    def beats(self) -> None:
        """The rest of the morphology path, from detected beats."""
        pool, beats, form = self.pool, self._beats(), self.model.morphology.form
        settle(form, pool.beat_features[beats][:, form.columns.numpy()])
        chance = beat_chance(pool, beats)

        def step(rng: np.random.Generator) -> Tensor:
            return beat_loss(self.model, pool, draw(rng, beats, self.settings.batch, chance), rng, self.device)

        self._fit("beats", [self.model.morphology], step, self.settings.beats, 3e-3, 0.1)

    def windows(self) -> None:
        """The rhythm path, the fusion and its adapters, on tokens computed once."""
        tokens = Tokens.of(self.model, self.pool, self.records, self.device)
        task = WindowTask(self.model, self.pool, tokens, self._hops(), self.extra.sequences, self.device)
        n = self.settings.batch
        self._fit("windows", [self.model.fusion], lambda rng: task.loss(n, rng), self.settings.windows, 2e-3)

    def _hops(self) -> Int:
        pool = self.pool
        return np.flatnonzero(np.isin(pool.of_hop, self.records) & (pool.hop_mask.max(1) > 0.5))

    def _beats(self) -> Int:
        return np.flatnonzero(np.isin(self.pool.of_beat, self.records) & (self.pool.beat >= 0))

    def _fit(
        self, phase: str, modules: list[nn.Module], step: Step, n_steps: int, rate: float, decay: float = 0.01
    ) -> None:
        path, key = self.work / f"{self.name}-{phase}.pt", (self.settings.seed, len(self.records))
        fit(self.model, modules, step, n_steps, rate, decay, path, key, f"{self.name} {phase}")


def fit(
    model: nn.Module,
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
