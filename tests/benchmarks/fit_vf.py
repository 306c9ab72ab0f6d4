"""Fits and scores the network and the trees of the VF index (model/weights/vf.safetensors).

    RECORDINGS=... python -m tests.benchmarks.fit_vf --out vf.safetensors     # fits on all records
    RECORDINGS=... python -m tests.benchmarks.fit_vf --folds 10               # patient-wise figures

Records of vfdb, cudb, mitdb, nstdb, simulated asystole and noise; of cinc2017 and ludb, where nobody fibrillates, some
as rhythms that are no VF. Each record comes also stretched in time and scaled, with noise of nstdb, with its leads
mixed and what is below some hertz louder or softer, and, where it is no VF, smoothed into slow broad waves, which is
what VF is most easily taken for. VT of vfdb is a class of its own.

Scored: vfdb 4 s segments of one rhythm; cudb 5 s segments (mean of the reports whose four seconds lie in them) but
those beside a change; both by the log-odds that the index is made of. The threshold of a record is that which serves
the other records of vfdb and cudb best, each judged by a network that did not see it.
"""

import os
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter1d
from sklearn.ensemble import HistGradientBoostingClassifier
from tqdm import tqdm

from model.datasets import read, rhythm_spans, shockable_5s
from model.vf import VfIndex, over_reports
from simulators.ward import patient_of
from tests.benchmarks.bench_periods import DS1, _at_250

HIDDEN, NETS, STEPS, BATCH, JITTER = 16, 3, 900, 512, 0.25
FORESTS, TREES, LEAVES, DRAWN = 3, 30, 12, 25_000
# Slow waves labelled VF are few and odd, and VF stretched in time may be slower than any: for the trees these count
# less, slow waves of other rhythms more.
SLOW_VF, SLOW_VF_DISTURBED, SLOW_OTHER = 0.3, 0.1, 2.0
OTHER, VF, VT, MIXED = 0, 1, 2, -1
PATIENT_FOLDS = 10  # by which the index is judged where it is not fitted
THRESHOLD = -1.3  # without folds, of the run that docs/periods.md tells of
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Net = tuple[Doubles, Doubles, Floats, Floats, Floats, Floats]


class Rows(NamedTuple):
    """Windows of one record: end ticks (n,), classes (n,), rhythms (n,), features (n, leads, F), NaN where none, and
    whether the lead leapt (n, leads).
    """

    at: Ints
    kind: Ints
    rhythm: npt.NDArray[np.str_]
    features: Doubles
    leapt: npt.NDArray[np.bool_]


class Segment(NamedTuple):
    """One that counts: `start` in ticks, `kind` a class, the rhythm of the labels, what the index says."""

    record: str
    start: int
    kind: int
    rhythm: str
    log_odds: float


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=None)
@click.option("--folds", default=0, help="Also score patient-wise in so many folds.")
@click.option("--seed", default=0)
@click.option("--cache", type=click.Path(path_type=Path), default=None, help="Keeps the features between runs.")
def main(out: Path | None, folds: int, seed: int, cache: Path | None) -> None:
    plain, more = gathered(seed, cache)
    threshold = figures(segments(plain, held_out(plain, more, folds, seed))) if folds else THRESHOLD
    if out:
        nets, forests = fit(plain, more, list(plain), seed)
        mean, scale, w1, b1, w2, b2 = joined(nets)
        b2[VF] -= threshold
        net = {"mean": mean, "scale": scale, "w1": w1, "b1": b1, "w2": w2, "b2": b2}
        save_file(net | flat(forests, threshold), out)


def gathered(seed: int, cache: Path | None) -> tuple[dict[str, Rows], dict[str, list[Rows]]]:
    """What `gather` gives, kept in a file where one is named."""
    if cache and cache.exists():
        plain, more = np.load(cache, allow_pickle=True)["data"]
    else:
        plain, more = gather(np.random.default_rng(seed))
        if cache:
            np.savez(cache, data=np.array([plain, more], object))
    return plain, more


def held_out(plain: dict[str, Rows], more: dict[str, list[Rows]], folds: int, seed: int) -> dict[str, Doubles]:
    """Log-odds (n,) of each record's windows, by a fit that did not see the record."""
    fold = split(list(plain), folds, np.random.default_rng(seed))
    scores = {}
    for k in tqdm(range(folds), desc="VF index", unit="fold"):
        fitted = fit(plain, more, [name for name in plain if fold[name] != k], seed)
        scores |= {name: log_odds(*fitted, plain[name]) for name in plain if fold[name] == k}
    return scores


def gather(rng: np.random.Generator) -> tuple[dict[str, Rows], dict[str, list[Rows]]]:
    """Every record as it is, at each half second, and disturbed, thinned."""
    folder = Path(os.environ["RECORDINGS"])
    noise = [_at_250(folder / "nstdb" / name) for name in ("bw", "ma")]
    plain: dict[str, Rows] = {}
    more: dict[str, list[Rows]] = {}
    for name, x, spans in records(folder):
        plain[name] = windows(x, spans)
        more[name] = []
        if name.startswith(("sim", "nstdb")):
            continue
        for _ in range(4):
            factor = np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
            gain = np.exp(rng.uniform(np.log(0.25), np.log(1.4), (len(x), x.shape[1] // 7500 + 1)))
            y = stretched(x * np.repeat(gain, 7500, 1)[:, : x.shape[1]], factor)
            spread = [(int(b * factor), int(e * factor), r) for b, e, r in spans]
            more[name].append(thinned(windows(y, spread), (OTHER, VF, VT), 0.3, rng))
        for kind in noise:
            wave = np.roll(np.tile(kind, (1, x.shape[1] // kind.shape[1] + 1)), -int(rng.integers(100000)), 1)
            size = [np.median(np.abs(v - np.median(v, 1, keepdims=True)), 1) for v in (x, wave[: len(x)])]
            ratio = rng.uniform(0, 12)
            gain = size[0] / size[1] / 10 ** (ratio / 20)
            y = x + wave[: len(x), : x.shape[1]] * gain[:, None]
            kept = (OTHER, VF, VT) if ratio > 6 else (OTHER, VT)  # noise with little VF in it teaches that noise is VF
            more[name].append(thinned(windows(y, spans), kept, 0.2, rng))
        more[name].append(thinned(windows(tilted(x, rng), spans), (OTHER, VF, VT), 0.3, rng))
        more[name] += [slow_waves(x, spans, factor, rng) for factor in (1.0, 1.0, *rng.uniform(0.5, 0.9, 2))]
    for path in others(folder, rng):
        x = _at_250(path)
        x = x[rng.permutation(len(x))[:2]]
        name, whole = f"other/{path.name}", [(0, x.shape[1], "N")]
        more[name] = [thinned(windows(x, whole), (OTHER,), 0.25, rng), slow_waves(x, whole, rng.uniform(0.5, 1), rng)]
    return plain, more


def records(folder: Path) -> list[tuple[str, Floats, list[tuple[int, int, str]]]]:
    """Name, signal at 250 Hz and rhythms in ticks."""
    found = []
    for path in sorted((folder / "vfdb").glob("*.hea")):
        spans = [(s.start, s.end, s.rhythm) for s in rhythm_spans(read(path.with_suffix("")))]
        found.append((f"vfdb/{path.stem}", _at_250(path.with_suffix("")), spans))
    for name, labels in shockable_5s(folder / "cudb").items():
        joined_up: list[tuple[int, int, str]] = []
        for start, end, shockable in labels:
            rhythm = "SHOCKABLE" if shockable else "N"
            if joined_up and joined_up[-1][2] == rhythm:
                joined_up[-1] = (joined_up[-1][0], end, rhythm)
            else:
                joined_up.append((start, end, rhythm))
        found.append((f"cudb/{name}", _at_250(folder / "cudb" / name), joined_up))
    for name in map(str, (*DS1, 102, 104, 107, 217)):
        found += [(f"mitdb/{name}", _at_250(folder / "mitdb" / name), _mitdb(folder / "mitdb" / name))]
    for name in ("bw", "ma"):
        x = _at_250(folder / "nstdb" / name)
        found.append((f"nstdb/{name}", x, [(0, x.shape[1], "NOISE")]))
    for seed in range(12):
        patient = patient_of(f"sim:asystole,seed={seed}", "bed")
        x = (patient.render(0, patient.n_script)[:2] / 200).astype(np.float32)
        found.append((f"sim/asystole {seed}", x, [(0, x.shape[1], "SIMULATED")]))
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x = gaussian_filter1d(rng.normal(size=(2, 37500)), 0.4 * seed + 0.1, axis=1)
        x *= rng.uniform(0.05, 0.5, (2, 1)) / x.std(1, keepdims=True)
        found.append((f"sim/noise {seed}", x.astype(np.float32), [(0, 37500, "SIMULATED")]))
    return [(name, np.nan_to_num(x), spans) for name, x, spans in found]


def _mitdb(path: Path) -> list[tuple[int, int, str]]:
    import wfdb

    marks = wfdb.rdann(str(path), "atr")
    turns = [(0, "N")]
    for sample, symbol, aux in zip(marks.sample, marks.symbol, marks.aux_note, strict=True):
        if symbol in "[]+":
            rhythm = {"[": "VF", "]": "N"}.get(symbol, aux.strip("\x00("))
            if symbol != "+" or turns[-1][1] != "VF":
                turns.append((round(sample / 360 * 250), rhythm))
    ends = [start for start, _ in turns[1:]] + [1806 * 250]
    return [(start, end, rhythm) for (start, rhythm), end in zip(turns, ends, strict=True)]


def others(folder: Path, rng: np.random.Generator) -> list[Path]:
    short = sorted(path.with_suffix("") for path in (folder / "cinc2017").rglob("*.hea"))
    twelve = sorted(path.with_suffix("") for path in (folder / "ludb").rglob("*.hea"))
    return [short[i] for i in rng.permutation(len(short))[:700]] + twelve


def windows(x: npt.NDArray[np.floating], spans: list[tuple[int, int, str]]) -> Rows:
    _, at, features, leapt = VfIndex(1, len(x)).features(
        np.array([0]), x[None].astype(np.float32), np.array([x.shape[1]])
    )
    rhythm = np.full(len(at), "", dtype="<U10")
    for start, end, name in spans:
        rhythm[(at - 1000 >= start) & (at <= end)] = name
    classes = {"VF": VF, "VFL": VF, "SHOCKABLE": VF, "VT": VT, "": MIXED}
    return Rows(at, np.array([classes.get(r, OTHER) for r in rhythm], np.int64), rhythm, features, leapt)


def thinned(rows: Rows, kinds: tuple[int, ...], share: float, rng: np.random.Generator) -> Rows:
    """Only these classes, and of what is no VF so much only."""
    keep = np.isin(rows.kind, [k for k in kinds if k != MIXED])
    keep &= (rows.kind == VF) | (rng.random(len(keep)) < share)
    return Rows(*(field[keep] for field in rows))


def stretched(x: npt.NDArray[np.floating], factor: float) -> Floats:
    t = np.arange(int(x.shape[1] * factor)) / factor
    return np.stack([np.interp(t, np.arange(x.shape[1]), lead) for lead in x]).astype(np.float32)


def tilted(x: Floats, rng: np.random.Generator) -> Floats:
    """Leads mixed, and what is below 3 to 8 Hz made louder (3.3 times at most) or softer (0.6 at least)."""
    turn = rng.uniform(0, 2 * np.pi)
    y = x.astype(float)
    if len(x) == 2:
        y = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) @ y
    low = gaussian_filter1d(y, 47 / rng.uniform(3, 8), axis=1)
    return (y + (np.exp(rng.uniform(-0.5, 1.2)) - 1) * low).astype(np.float32)


def slow_waves(x: Floats, spans: list[tuple[int, int, str]], factor: float, rng: np.random.Generator) -> Rows:
    """What is no VF, smoothed until its beats are waves; faster, where factor < 1, but not over 143 a minute then."""
    y = gaussian_filter1d(x.astype(float), 33 / rng.uniform(2.5, 7), axis=1) * rng.uniform(0.7, 1.6)
    spread = [(int(b * factor), int(e * factor), r) for b, e, r in spans]
    rows = thinned(windows(stretched(y, factor), spread), (OTHER,), 0.3, rng)
    period = np.exp(np.where(np.isnan(rows.features[:, :, 12]), np.inf, rows.features[:, :, 12]).min(1, initial=np.inf))
    return Rows(*(field[(period >= 0.42) | (factor == 1)] for field in rows))


def split(names: list[str], folds: int, rng: np.random.Generator) -> dict[str, int]:
    """Fold of each record; those of vfdb with VF or VFL each in another. One record is one patient here."""
    few = ["vfdb/418", "vfdb/426", "vfdb/429", "vfdb/430"]
    rest = [name for name in names if name not in few]
    return {name: i % folds for i, name in enumerate([*few, *rng.permutation(rest).tolist()])}


def fit(
    plain: dict[str, Rows], more: dict[str, list[Rows]], names: list[str], seed: int
) -> tuple[list[Net], list[HistGradientBoostingClassifier]]:
    x, kind, weight, by_rate = pooled(plain, more, names)
    nets = [_fit(x, kind, weight, seed * NETS + i) for i in range(NETS)]
    return nets, [grow(x, kind, weight * by_rate, seed * FORESTS + i) for i in range(FORESTS)]


def pooled(
    plain: dict[str, Rows], more: dict[str, list[Rows]], names: list[str]
) -> tuple[Doubles, Ints, Doubles, Doubles]:
    """Features (n, F), classes (n,), weights (n,) and what the trees multiply them by, of each lead of `names`."""
    x, kind, weight, by_rate = [], [], [], []
    pool = [(plain[name], 0.5 if name.startswith(("sim", "mitdb")) else 1.0, SLOW_VF) for name in names]
    pool += [(rows, 3.0 / len(more[name]), SLOW_VF_DISTURBED) for name in names for rows in more[name]]
    pool += [(rows, 0.075, 1.0) for name in more if name.startswith("other/") for rows in more[name]]
    for rows, share, slow_vf in pool:
        mine = np.zeros(len(rows.kind))
        for k, part in ((OTHER, 1.0), (VF, 1.5), (VT, 0.3)):
            n = np.count_nonzero(rows.kind == k)
            mine[rows.kind == k] = part * share * np.sqrt(n) / (n + 20)
        mine[rows.rhythm == "NOISE"] *= 0.5
        for lead in range(rows.features.shape[1]):
            some = (rows.kind != MIXED) & np.isfinite(rows.features[:, lead, 0])
            x.append(rows.features[some, lead])
            kind.append(rows.kind[some])
            weight.append(mine[some] / rows.features.shape[1])
            of_kind = np.array([SLOW_OTHER, slow_vf, 1.0])[kind[-1]]
            by_rate.append(np.where(slow(x[-1]), of_kind, 1.0))
    return np.concatenate(x), np.concatenate(kind), np.concatenate(weight), np.concatenate(by_rate)


def slow(features: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Whether the waves (n, F) come at 2.3 a second or fewer, by spectrum and by repetition."""
    return (0.5 + 0.25 * (np.exp(features[:, 8]) - 2) <= 2.3) & (np.exp(features[:, 12]) >= 0.4)


def grow(x: Doubles, kind: Ints, weight: Doubles, seed: int) -> HistGradientBoostingClassifier:
    """Trees of VF against all else."""
    drawn = np.random.default_rng(seed).choice(len(kind), DRAWN, p=weight / weight.sum())
    forest = HistGradientBoostingClassifier(
        max_iter=TREES,
        learning_rate=0.2,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=60,
        l2_regularization=5.0,
        max_bins=63,
        max_features=0.3,
        early_stopping=False,
        random_state=seed,
    )
    return forest.fit(x[drawn], kind[drawn] == VF)


def flat(forests: list[HistGradientBoostingClassifier], threshold: float) -> dict[str, npt.NDArray[np.generic]]:
    """All nodes in one row, as model.vf reads them; each forest's first tree bears what is common to its trees."""
    trees, value = [], []
    for forest in forests:
        grown = [one.nodes for (one,) in forest._predictors]
        common = np.zeros(sum(map(len, grown)))
        common[: len(grown[0])] = float(forest._baseline_prediction.item()) - threshold
        value.append((np.concatenate(grown)["value"] + common) / len(forests))
        trees += grown
    roots = np.cumsum([0, *map(len, trees[:-1])])
    nodes = np.concatenate(trees)
    base = np.repeat(roots, [len(tree) for tree in trees])
    return {
        "roots": roots.astype(np.int32),
        "feature": np.where(nodes["is_leaf"], -1, nodes["feature_idx"]).astype(np.int32),
        "bound": nodes["num_threshold"].astype(np.float64),
        "left": (nodes["left"] + base).astype(np.int32),
        "right": (nodes["right"] + base).astype(np.int32),
        "value": np.concatenate(value),
    }


def _fit(x: Doubles, kind: Ints, weight: Doubles, seed: int) -> Net:
    torch.manual_seed(seed)
    mean, scale = x.mean(0), 1 / (x.std(0) + 1e-6)
    chosen = np.random.default_rng(seed).choice(len(kind), (STEPS, BATCH), p=weight / weight.sum())
    net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 3))
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=STEPS)
    for batch in chosen:
        z = torch.from_numpy(((x[batch] - mean) * scale).clip(-5, 5).astype(np.float32))
        out = net(z + JITTER * torch.randn_like(z))
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(out, torch.from_numpy(kind[batch]), label_smoothing=0.02)
        loss.backward()
        optimiser.step()
        schedule.step()
    w1, b1, w2, b2 = (p.detach().numpy() for p in net.parameters())
    return mean, scale, w1.T.copy(), b1.copy(), w2.T.copy(), b2.copy()


def joined(nets: list[Net]) -> Net:
    """One network whose outputs are the mean of theirs."""
    w1, b1, w2, b2 = ([net[i] for net in nets] for i in (2, 3, 4, 5))
    hidden = np.concatenate(w2) / np.float32(len(nets))
    return nets[0][0], nets[0][1], np.concatenate(w1, 1), np.concatenate(b1), hidden, np.mean(b2, 0)


def log_odds(nets: list[Net], forests: list[HistGradientBoostingClassifier], rows: Rows) -> Doubles:
    """As model.vf has it (n,), -inf where no lead has a say."""
    mean, scale, w1, b1, w2, b2 = joined(nets)
    out = np.tanh(((rows.features - mean) * scale).clip(-5, 5) @ w1 + b1) @ w2 + b2
    with np.errstate(invalid="ignore"):
        z = out[:, :, VF] - np.logaddexp(out[:, :, OTHER], out[:, :, VT])
    heard = np.isfinite(z)
    grown = np.mean([forest.decision_function(rows.features[heard]) for forest in forests], 0)
    z[heard] = (z[heard] + grown) / 2
    sums = [part for of in (heard & ~rows.leapt, heard & rows.leapt) for part in (np.where(of, z, 0).sum(1), of.sum(1))]
    recent, held = np.full(2, np.nan), np.array([np.nan, 0])
    over = np.array([over_reports(*one, recent, held)[0] for one in zip(*sums, strict=True)])
    return np.where(np.isnan(over), -np.inf, over)


def segments(plain: dict[str, Rows], scores: dict[str, Doubles]) -> list[Segment]:
    """The segments that count."""
    found = []
    for name, rows in plain.items():
        place = {int(tick): i for i, tick in enumerate(rows.at)}
        if not name.startswith("cudb"):
            inside = np.flatnonzero((rows.at % 1000 == 0) & (rows.kind != MIXED))
            found += [
                Segment(name, int(rows.at[i]) - 1000, int(rows.kind[i]), str(rows.rhythm[i]), float(scores[name][i]))
                for i in inside
            ]
            continue
        for start in range(0, int(rows.at[-1]) - 1249, 1250):
            mine = [place[start + offset] for offset in (1000, 1125, 1250)]
            around = [place[t] for t in (start - 250, start + 2250) if t in place and t >= 1000]
            if len({int(rows.kind[i]) for i in (*mine, *around)}) == 1:
                z = float(np.mean(np.clip(scores[name][mine], -5, 5)))
                found.append(Segment(name, start, int(rows.kind[mine[0]]), str(rows.rhythm[mine[0]]), z))
    return found


def figures(found: list[Segment]) -> float:
    """Prints them and gives the threshold that serves vfdb and cudb best."""
    name, _, kind, rhythm, z = (np.array(column) for column in zip(*found, strict=True))
    base = np.array([n.partition("/")[0] for n in name])

    def best(among: npt.NDArray[np.bool_]) -> float:
        def worth(t: float) -> float:
            over = [
                float(np.mean((z[among & (base == b) & (kind == k)] >= t) == k)) - (0.95 if k else 0.97)
                for b in ("vfdb", "cudb")
                for k in (OTHER, VF)
            ]
            return min(over) + 0.25 * float(np.mean(over))

        return float(max(np.linspace(-4, 4, 81), key=worth))

    called = np.zeros(len(z), bool)
    for record in np.unique(name):
        called[name == record] = z[name == record] >= best(name != record)

    def rate(label: str, of: npt.NDArray[np.bool_], good: npt.NDArray[np.bool_]) -> str:
        return f"{label} {100 * good[of].mean():.1f} ({good[of].sum()}/{of.sum()})" if of.any() else ""

    for title, of in (
        *((b, base == b) for b in ("vfdb", "cudb", "mitdb", "nstdb", "sim")),
        ("vfdb but 418", (base == "vfdb") & (name != "vfdb/418")),
        ("vfdb ASYS", (base == "vfdb") & (rhythm == "ASYS")),
        ("vfdb NOISE", (base == "vfdb") & (rhythm == "NOISE")),
        *((record, name == record) for record in np.unique(name)),
    ):
        is_record, hits = "/" in title, rate("Se", of & (kind == VF), called)
        misses = rate("Sp", of & (kind == OTHER), ~called)
        if not is_record or not np.all(called[of] == (kind[of] == VF)):
            click.echo(f"{title:14s} {hits} {misses} {rate('VT called', of & (kind == VT), called)}")
    threshold = best(np.ones(len(z), bool))
    click.echo(f"threshold {threshold:.1f}")
    return threshold


if __name__ == "__main__":
    from tests.benchmarks import fit_vf  # what --cache keeps is pickled by this name: shockable.py reads it too

    torch.set_num_threads(1)
    fit_vf.main()
