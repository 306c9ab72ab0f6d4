"""Our period detector, online, against the detectors people use, on the same records, in one run.

    RECORDINGS=... python -m tests.benchmarks.compare_detectors                       # the 22 DS1 records as they are
    RECORDINGS=... python -m tests.benchmarks.compare_detectors --noise ma --snr 6    # with noise, as nst adds it
    RECORDINGS=... python -m tests.benchmarks.compare_detectors --all --json compared.json

Scored as EC57 asks (model.ec57: 150 ms, from minute 5, VF of 207 out). The peers get the whole first channel at once;
they need `pip install -e '.[bench]'`. Ours gets one second of samples at a time: with both leads, then with the first
alone. `patient-wise`: each record is judged by a network fitted without its patient (periods_folds.safetensors beside
this file); `as shipped`: by the one that has seen these records. Peers' answers are kept in --cache, so that a table
can be made again without them; the cost of a cached answer is that of its own run.
"""

import functools
import json
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from model.datasets import find, physical, read
from model.ec57.beats import compare
from model.periods import Net, PeriodDetector, load_net
from model.resample import Resampler
from tests.benchmarks.nst import noise_of, noisy

DS1 = (101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122, 124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230)
PACED = (102, 104, 107, 217)  # train the judge, and are in no figure
FOLDS = 6
FOLD_NETS = Path(__file__).parent / "periods_folds.safetensors"
BEATS = frozenset("NLRBAaJSVrFejnE/fQ?")
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Recording(NamedTuple):
    """A record: x (C, n) float32 mV, the reference's samples and symbols (all, not only beats)."""

    name: str
    fs: float
    x: Floats
    at: Ints
    symbols: list[str]

    def beats(self) -> Ints:
        return np.array([t for t, s in zip(self.at, self.symbols, strict=True) if s in BEATS], np.int64)


class Found(NamedTuple):
    """Samples of the beats, CPU seconds, and for what is online the delays of all beats in ms."""

    at: Ints
    cpu_s: float
    delay_ms: Floats | None = None


@click.command(help=__doc__)
@click.option("--noise", type=click.Choice(["none", "bw", "ma"]), default="none")
@click.option("--snr", type=float, default=12.0, help="dB, for --noise.")
@click.option("--all", "every", is_flag=True, help="Clean, then bw and ma at 12, 6 and 0 dB.")
@click.option("--only", default="", help="Names of detectors, with commas; default all.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Everything, by record.")
@click.option("--cache", type=click.Path(path_type=Path), default=Path("var/compared"), show_default=True)
def main(noise: str, snr: float, every: bool, only: str, path: Path | None, cache: Path) -> None:
    conditions = [("none", 0.0)] if every or noise == "none" else [(noise, snr)]
    if every:
        conditions += [(kind, db) for kind in ("bw", "ma") for db in (12.0, 6.0, 0.0)]
    names = [name for name in (*OURS, *PEERS) if not only or name in only.split(",")]
    recordings = [recording(name) for name in DS1]
    results: dict[str, Any] = {}
    for kind, db in conditions:
        title = "as they are" if kind == "none" else f"{kind} {db:g} dB"
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for one in track(recordings, title):
            heard = one if kind == "none" else one._replace(x=_with(one, kind, db))
            for name in names:
                found = OURS[name](heard) if name in OURS else _cached(cache / title.replace(" ", "-"), name, heard)
                rows[name].append(scored(heard, found))
        results[title] = {name: {"gross": gross(of), "records": of} for name, of in rows.items()}
        _show(title, {name: result["gross"] for name, result in results[title].items()})
    if path:
        path.write_text(json.dumps(results, indent=1))


def recording(name: int | str) -> Recording:
    """A record of mitdb by its number."""
    (where,) = find(f"mitdb/{name}")
    record = read(where)
    assert record.annotations is not None
    return Recording(str(name), record.fs, physical(record), record.annotations.sample, record.annotations.symbols)


def online(one: Recording, net: Net, leads: slice) -> Found:
    """Our detector over a record, a second of samples at a time."""
    x = one.x[leads]
    stage, detector, rows = Resampler(1, len(x)), PeriodDetector(1, len(x), net), np.array([0])
    stage.configure(0, one.fs)
    began = time.process_time()
    step = int(one.fs)
    parts = []
    for start in range(0, x.shape[1], step):
        chunk = x[None, :, start : start + step]
        y, m, _ = stage.push(rows, chunk, np.array([chunk.shape[2]]))
        parts.append(detector.push(rows, y, m))
    y, m, _ = stage.flush(rows)
    parts += [detector.push(rows, y, m), detector.flush(rows)]
    spent = time.process_time() - began
    at = np.concatenate([p.at for p in parts])
    waited = np.concatenate([p.decided for p in parts]) - at + stage.delay(0)
    return Found(np.rint(at * one.fs / 250).astype(np.int64), spent, (4 * waited).astype(np.float32))


@functools.cache
def fold_nets() -> dict[str, Net]:
    """For each record of mitdb the network fitted without it."""
    from safetensors.numpy import load_file

    t = load_file(FOLD_NETS)
    nets = [(t[f"{k}.w1"], t[f"{k}.b1"], t[f"{k}.w2"], t[f"{k}.b2"]) for k in range(FOLDS)]
    return {str(name): nets[k % FOLDS] for k, name in enumerate((*DS1, *PACED))}


OURS: dict[str, Callable[[Recording], Found]] = {
    "ours patient-wise": lambda one: online(one, fold_nets()[one.name], slice(None)),
    "ours first lead patient-wise": lambda one: online(one, fold_nets()[one.name], slice(1)),
    "ours as shipped": lambda one: online(one, load_net(), slice(None)),
    "ours first lead as shipped": lambda one: online(one, load_net(), slice(1)),
}


def _gqrs(x: Floats, fs: float) -> Any:
    from wfdb.processing import gqrs_detect

    return gqrs_detect(sig=x.astype(np.float64), fs=fs, adc_gain=200, adc_zero=1024)


def _xqrs(x: Floats, fs: float) -> Any:
    from wfdb.processing import xqrs_detect

    return xqrs_detect(sig=x.astype(np.float64), fs=fs, verbose=False)


def _sleepecg(x: Floats, fs: float) -> Any:
    import sleepecg

    return sleepecg.detect_heartbeats(x.astype(np.float64), fs)


def _neurokit(x: Floats, fs: float, method: str) -> Any:
    import neurokit2 as nk

    # khamis2016 (UNSW) filters for itself; neurokit2 has no cleaning of that name.
    clean = x.astype(np.float64) if method == "khamis2016" else nk.ecg_clean(x, sampling_rate=int(fs), method=method)
    return nk.ecg_peaks(clean, sampling_rate=int(fs), method=method)[1]["ECG_R_Peaks"]


class Peer(NamedTuple):
    package: str
    detect: Callable[[Floats, float], Any]


PEERS: dict[str, Peer] = {
    "gqrs": Peer("wfdb", _gqrs),
    "xqrs": Peer("wfdb", _xqrs),
    "sleepecg": Peer("sleepecg", _sleepecg),
    "neurokit2": Peer("neurokit2", functools.partial(_neurokit, method="neurokit")),
    "pantompkins1985": Peer("neurokit2", functools.partial(_neurokit, method="pantompkins1985")),
    "khamis2016": Peer("neurokit2", functools.partial(_neurokit, method="khamis2016")),
}


def _with(one: Recording, kind: str, db: float) -> Floats:
    return noisy(one.x, one.at, one.symbols, noise_of(kind), db, one.fs)


def _cached(folder: Path, name: str, one: Recording) -> Found:
    peer = PEERS[name]
    file = folder / f"{name}-{version(peer.package)}" / f"{one.name}.npz"
    if not file.exists():
        _warm(name)
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            at = np.unique(np.asarray(peer.detect(one.x[0], one.fs), np.int64))
        spent = time.process_time() - began
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, at=at, cpu_s=spent)
    with np.load(file) as kept:
        return Found(kept["at"], float(kept["cpu_s"]))


@functools.cache
def _warm(name: str) -> None:
    """Loads what a peer needs, so that its import is no part of its cost."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PEERS[name].detect(recording(DS1[0]).x[0, :20000], 360.0)


def scored(one: Recording, found: Found) -> dict[str, Any]:
    """Counts of one record, and what it took."""
    n = one.x.shape[1]
    result = compare(one.at, one.symbols, found.at, ["N"] * len(found.at), one.fs, end=n)
    hit, missed, extra = result.qrs
    pair = (result.ref_at >= 0) & (result.test_at >= 0)
    offset = 1000 / one.fs * (result.test_at - result.ref_at)[pair].astype(float)
    delay = {}
    if found.delay_ms is not None:
        delay = {"delay_ms": np.percentile(found.delay_ms, [50, 95, 100]).round(1).tolist()}
    return {
        "record": one.name,
        "hit": hit,
        "missed": missed,
        "extra": extra,
        "rr_ms": result.rr_matched_ms,
        "n_rr": result.n_rr_matched,
        "offset_ms": [float(offset.mean()), float(offset.std())],
        "cpu_s": found.cpu_s,
        "hours": n / one.fs / 3600,
        **delay,
    }


def gross(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Pooled over records: rates in percent, the RR error as a root mean square over all pairs of matches."""
    hit, missed, extra = (sum(row[key] for row in rows) for key in ("hit", "missed", "extra"))
    squares = sum(row["rr_ms"] ** 2 * row["n_rr"] for row in rows if row["n_rr"])
    delay = [row["delay_ms"] for row in rows if "delay_ms" in row]
    return {
        "hit": hit,
        "missed": missed,
        "extra": extra,
        "Se": 100 * hit / (hit + missed),
        "+P": 100 * hit / (hit + extra),
        "F1": 200 * hit / (2 * hit + missed + extra),
        "rr_ms": (squares / sum(row["n_rr"] for row in rows)) ** 0.5,
        "cpu_s_per_hour": sum(row["cpu_s"] for row in rows) / sum(row["hours"] for row in rows),
        **({"delay_ms_max": max(d[2] for d in delay)} if delay else {}),
    }


def _show(title: str, rows: dict[str, dict[str, float]]) -> None:
    table = Table(title=f"22 DS1 records, {title}")
    for column in ("detector", "missed", "extra", "Se %", "+P %", "F1 %", "RR error ms", "delay ms", "CPU s per hour"):
        table.add_column(column, justify="left" if column == "detector" else "right", no_wrap=True)
    for name, g in sorted(rows.items(), key=lambda item: -item[1]["F1"]):
        delay = f"{g['delay_ms_max']:.0f} at most" if "delay_ms_max" in g else "whole record"
        table.add_row(
            name, f"{g['missed']}", f"{g['extra']}", f"{g['Se']:.3f}", f"{g['+P']:.3f}", f"{g['F1']:.3f}",
            f"{g['rr_ms']:.1f}", delay, f"{g['cpu_s_per_hour']:.2f}",
        )  # fmt: skip
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
