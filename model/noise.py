"""How the figures fall under noise: recorded noise is added to recordings of patients that the model did not see.

    RECORDINGS=... python -m model.noise --work runs/train

The models are those of the folds that `model.train` left in its work folder; the noise is the part of nstdb that the
training did not use. SNR: mean square of the signal, without its mean of a second, by that of the noise, in dB.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from model import datasets
from model.card import table
from model.course import NOISE_LEARNT, Settings
from model.examples import Spoil, load, recorded_noise
from model.figures import Figures, FoldResult, figures
from model.pool import join, spread
from model.segments import MODEL_HZ, Float
from model.work import fold_model, settings_or_exit, written

SOURCES: dict[str, int | None] = {"mitdb": None, "vfdb": None, "cinc2017": 600}  # and how many records
SNRS_DB = (None, 12.0, 6.0, 0.0)


def spoiler(noise: Float, snr_db: float, rng: np.random.Generator) -> Spoil:
    """Adds a piece of noise (m, n) at 125 Hz to each lead of a signal, repeated where it is too short."""

    def spoil(signal: Float, fs: float) -> Float:
        out = signal.copy()
        second = int(fs)
        for i, lead in enumerate(out):
            whole = lead[: lead.size // second * second].reshape(-1, second)
            power = np.nanmean((whole - np.nanmean(whole, 1, keepdims=True)) ** 2) if whole.size else 0.0
            at = (np.arange(lead.size) * MODEL_HZ / fs + rng.integers(noise.shape[1])) % noise.shape[1]
            added = np.interp(at, np.arange(noise.shape[1]), noise[rng.integers(len(noise))])
            out[i] += (added * np.sqrt(power) * 10 ** (-snr_db / 20)).astype(np.float32)
        return out

    return spoil


def under_noise(work: Path, snr_db: float | None, sources: Sequence[str], settings: Settings, scored: int) -> Figures:
    """All figures at one SNR, None for the recordings as they are; `settings` of the training in `work`."""
    folds, seed = settings.folds, settings.seed
    rng = np.random.default_rng(seed)
    spoil = None if snr_db is None else spoiler(recorded_noise()[:, NOISE_LEARNT:], snr_db, rng)
    told = "clean" if snr_db is None else f"{snr_db:g} dB"
    cuts = [
        cut for source in sources
        for cut in tqdm(load(source, SOURCES[source], spoil), desc=f"cut {source} {told}", unit="record")
    ]  # fmt: skip
    pool = join(cuts)
    fold = pool.folds(folds, seed)
    thinned = pool.source == "cinc2017"  # their folds are those of the whole database
    if thinned.any():
        names = np.unique(list(datasets.patients("cinc2017").values()))
        place = dict(zip(names, spread(names, folds, seed), strict=True))
        fold[thinned] = [place[p] for p in pool.patient[thinned]]
    results = [
        FoldResult.of(fold_model(work, k, settings), pool, np.flatnonzero(fold == k), "cpu") for k in range(scored)
    ]
    return figures(results, pool)


COLUMNS = ("VEB F1", "SVEB F1", "RR MAE, ms", "AF mitdb Se/Sp", "shockable vfdb Se/Sp", "Challenge F1 of N, A, O")


def _row(f: Figures) -> list[str]:
    """What a line of the table says of these figures; `-` where a source was not asked for."""
    beats, rhythm, challenge = f.get("beats"), f["rhythm"], f.get("cinc2017")
    pairs = [rhythm.get(name) for name in ("AF mitdb", "shockable vfdb")]
    return [
        *(str(beats[name]["f1"]) if beats else "-" for name in ("VEB", "SVEB")), str(f["rr"].get("mae_ms", "-")),
        *(f"{p['se']}/{p['sp']}" if p else "-" for p in pairs),
        str(challenge["mean_f1_NAO"]) if challenge else "-",
    ]  # fmt: skip


def main() -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/train"), help="work folder of model.train")
    parser.add_argument("--scored", type=int, help="how many folds (default all)")
    parser.add_argument("--source", action="append", choices=SOURCES, help="all of them where not given")
    parser.add_argument("--json", type=written, help="write all figures there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = settings_or_exit(given.work, parser)
    scored = settings.folds if given.scored is None else given.scored
    if not 1 <= scored <= settings.folds:
        parser.error(f"--scored: {scored}; give 1 to {settings.folds}")
    sources = given.source or list(SOURCES)
    try:
        found = {str(snr): under_noise(given.work, snr, sources, settings, scored) for snr in SNRS_DB}
    except datasets.DatasetError as error:
        parser.error(str(error))
    rows = [("as recorded" if snr == "None" else snr, *_row(f)) for snr, f in found.items()]
    print("\n".join(table(("SNR, dB", *COLUMNS), rows)))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
