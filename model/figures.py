"""What a trained model is worth: scores of patients it was not trained on, and the model card that tells them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model import form_votes
from model.calibration import ABSTAIN, by_recording, cooled, ece, temperature
from model.ecg_moe import EcgMoe
from model.examples import PACED
from model.labels import ARRHYTHMIAS, BEATS, RHYTHMS
from model.persons import person_figures, persons_by_line
from model.pool import Pool
from model.rr_statistics import rr_statistics
from model.segments import HOP_TICKS, Float, Int
from model.sequences import Sequences
from model.tokens import Tokens, without_waveforms

Figures = dict[str, Any]
Counts = npt.NDArray[np.int64]


@dataclass(slots=True)
class FoldResult:
    """A model's answers on the records of one fold: classes of its beats, and every output for its windows."""

    records: Int
    beats: Int  # (n,) numbers of beats in the pool
    beat_class: Int
    beat_gates: Float  # (n, E)
    beat_probs: Float  # (n, 5)
    hops: Int  # (m,) numbers of hops in the pool, each the end of a window
    windows: dict[str, Float]
    segment: Int  # (s,) rhythm of 10 s segments of RR sequences without waveforms
    segment_probs: Float  # (s, 10)
    segment_patient: npt.NDArray[np.str_]

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: EcgMoe,
        pool: Pool,
        records: Int,
        device: str,
        sequences: Sequences | None = None,
        patients: Int | None = None,
    ) -> "FoldResult":
        """Run the model over all beats and windows of these records, and of these patients of the RR sequences."""
        tokens = Tokens.of(model, pool, records, device)
        beats, hops = np.flatnonzero(np.isin(pool.of_beat, records)), np.flatnonzero(np.isin(pool.of_hop, records))
        parts = [model.windows(*tokens.windows(pool, part)) for part in np.array_split(hops, max(hops.size // 512, 1))]
        windows = {name: torch.cat([p[name] for p in parts]).cpu().numpy() for name in parts[0]}
        _, _, _, features, age, mask = tokens.windows(pool, hops)
        windows["detector_rr_ms"] = 1000 * rr_statistics(features, age, mask)[1].cpu().numpy()
        probs, gates = (
            form_votes.voted(tokens.probs[beats].cpu().numpy(), pool, beats),
            tokens.gates[beats].cpu().numpy(),
        )
        classes = probs.argmax(1)
        if sequences is None or patients is None:
            nobody, nothing = np.zeros(0, np.int64), np.zeros((0, len(RHYTHMS)), np.float32)
            return cls(records, beats, classes, gates, probs, hops, windows, nobody, nothing, np.zeros(0, "U1"))
        mine = np.isin(sequences.of_window, patients) & (sequences.segment >= 0)
        segments = np.flatnonzero(mine & (sequences.end % (5 * HOP_TICKS) == 0))
        said = []
        for part in np.array_split(segments, segments.size // 512 + 1):
            arguments = without_waveforms(sequences, part, model.sizes, device)
            said.append(model.windows(*arguments)["rhythm"].cpu().numpy())
        return cls(
            records, beats, classes, gates, probs, hops, windows, sequences.segment[segments].astype(np.int64),
            np.concatenate(said), sequences.patient[sequences.of_window[segments]],
        )  # fmt: skip


def figures(results: list[FoldResult], pool: Pool) -> Figures:
    """Scores over all folds together; each example is judged by the model that was trained without its patient."""
    records = np.concatenate([r.records for r in results])
    beats = np.concatenate([r.beats for r in results])
    classes = np.concatenate([r.beat_class for r in results])
    hops = np.concatenate([r.hops for r in results])
    windows = {name: np.concatenate([r.windows[name] for r in results]) for name in results[0].windows}
    gates = np.concatenate([r.beat_gates for r in results])
    sources = set(pool.source[records])
    found: Figures = {"n_records": {str(s): int((pool.source[records] == s).sum()) for s in sorted(sources)}}
    ds1 = [r for r in records if pool.source[r] == "mitdb" and pool.name[r] not in PACED]
    if ds1:
        found["beats"] = beat_figures(pool, np.array(ds1), beats, classes)
    found["rhythm"] = rhythm_figures(pool, hops, windows)
    if "cinc2017" in sources:
        found["cinc2017"] = challenge_figures(pool, records, hops, windows["arrhythmia"])
    found["rr"] = rr_figures(pool, hops, windows["rr_ms"], windows["detector_rr_ms"])
    found["age_sex"] = person_figures(pool, records, hops, windows | persons_by_line(results, pool))
    found["persons_by_line"] = len(results) > 1
    found["potassium"] = potassium_figures(pool, records, hops, windows["potassium"])
    found["segments"] = segment_figures(results)
    found["calibration"] = calibration_figures(results, pool)
    found["gates"] = gate_figures(pool, hops, windows) | {
        "morphology": _rounded(gates.mean(0)),
        "rhythm_and_paths": _rounded(windows["gates"].mean(0)),
    }
    return found


def beat_figures(pool: Pool, records: Int, beats: Int, classes: Int) -> Figures:
    """Confusion, and Se, +P and F1 of VEB and SVEB by the rules of EC57 over whole records.

    Reference F or Q called V is no false positive; a detection with no reference beat is; a missed beat is missed.
    """
    inside = np.isin(pool.of_beat[beats], records)
    beats, classes = beats[inside], classes[inside]
    truth = pool.beat[beats].astype(np.int64)
    extra = pool.extra[beats]
    confusion = np.zeros((len(BEATS) + 1, len(BEATS) + 1), np.int64)  # last: no beat (rows: extra, columns: missed)
    np.add.at(confusion, (np.where(extra, len(BEATS), truth)[truth >= 0], classes[truth >= 0]), 1)
    confusion[: len(BEATS), -1] = pool.missed[records].sum(0)
    by_record = {}
    for r in records:
        mine = (pool.of_beat[beats] == r) & (truth >= 0)
        table = np.zeros_like(confusion)
        np.add.at(table, (np.where(extra, len(BEATS), truth)[mine], classes[mine]), 1)
        table[: len(BEATS), -1] = pool.missed[r]
        by_record[str(pool.name[r])] = {name: _rate(table, i) for name, i in (("VEB", 2), ("SVEB", 1))}
    rows = {f"{name}": confusion[i].tolist() for i, name in enumerate((*BEATS, "extra"))}
    return {
        "columns": [*BEATS, "missed"],
        "confusion": rows,
        "VEB": _rate(confusion, 2),
        "SVEB": _rate(confusion, 1),
        "by_record": by_record,
    }


def _rate(confusion: Counts, i: int) -> Figures:
    """Se, +P, F1 in percent of class i of a confusion with a last row of extra and a last column of missed beats."""
    true = int(confusion[i, i])
    of_truth = int(confusion[i].sum())
    no_fault = {BEATS.index("Q")} | ({BEATS.index("F")} if BEATS[i] == "V" else set())
    called = true + sum(int(confusion[j, i]) for j in range(len(BEATS) + 1) if j != i and j not in no_fault)
    se, p = (100 * true / of_truth if of_truth else None), (100 * true / called if called else None)
    f1 = 200 * true / (of_truth + called) if of_truth + called else None
    return {"n": of_truth, "se": _round(se), "ppv": _round(p), "f1": _round(f1)}


def rhythm_figures(pool: Pool, hops: Int, windows: dict[str, Float]) -> Figures:
    """By window and source (every 2 s, up to 30 s of history, labelled by its last 4 s): rhythm, AF, shockable."""
    label, answer = pool.rhythm[hops].astype(np.int64), windows["rhythm"].argmax(1)
    source = pool.source[pool.of_hop[hops]]
    found: Figures = {}
    for name in sorted(set(source)):
        here = (source == name) & (label >= 0)
        if here.any() and name != "cinc2017":
            table = np.zeros((len(RHYTHMS), len(RHYTHMS)), np.int64)
            np.add.at(table, (label[here], answer[here]), 1)
            found[f"confusion {name}"] = {"columns": list(RHYTHMS)} | {
                RHYTHMS[i]: row.tolist() for i, row in enumerate(table) if row.sum()
            }  # fmt: skip
            paced = np.isin(pool.name[pool.of_hop[hops]], PACED)
            found[f"AF {name}"] = _two_by_two(
                (label == RHYTHMS.index("AF"))[here & ~paced], (answer == RHYTHMS.index("AF"))[here & ~paced]
            )
    truth, call = pool.shockable[hops], windows["shockable"] > 0.5
    for name in sorted(set(source)):
        here = (source == name) & (truth >= 0)
        if here.any():
            found[f"shockable {name}"] = _two_by_two(truth[here] > 0, call[here])
    vf = (label == RHYTHMS.index("VF")) & np.isin(source, ["vfdb", "mitdb"])
    if vf.any():
        found["shockable when VF"] = {"n": int(vf.sum()), "se": _round(100 * float(call[vf].mean()))}
    return found


def segment_figures(results: list[FoldResult]) -> Figures:
    """By 10 s segment of RR sequences without waveforms: AF as the likeliest rhythm, AF by a threshold on the
    probability of AF or flutter that the other folds chose, rhythm, and the patients with most errors."""
    label, probs = np.concatenate([r.segment for r in results]), np.concatenate([r.segment_probs for r in results])
    patient = np.concatenate([r.segment_patient for r in results])
    if label.size == 0:
        return {}
    answer, af = probs.argmax(1), RHYTHMS.index("AF")
    table = np.zeros((len(RHYTHMS), len(RHYTHMS)), np.int64)
    np.add.at(table, (label, answer), 1)
    wrong = (label == af) != (answer == af)
    worst = sorted(set(patient[wrong]), key=lambda p: -int((wrong & (patient == p)).sum()))[:8]
    return {
        "patients": len(set(patient)), "AF": _two_by_two(label == af, answer == af), **_by_threshold(results),
        "columns": list(RHYTHMS), "confusion": {RHYTHMS[i]: r.tolist() for i, r in enumerate(table) if r.sum()},
        "worst": {
            str(p): [int((wrong & (patient == p) & (label == af)).sum()),
                     int((wrong & (patient == p) & (label != af)).sum()), int((patient == p).sum())] for p in worst
        },
    }  # fmt: skip


def _by_threshold(results: list[FoldResult]) -> Figures:
    if len(results) < 2:
        return {}
    atrial = [RHYTHMS.index("AF"), RHYTHMS.index("AFL")]
    score = [r.segment_probs[:, atrial].sum(1) for r in results]
    true = [r.segment == atrial[0] for r in results]
    chosen = [
        _even_threshold(np.concatenate(score[:i] + score[i + 1 :]), np.concatenate(true[:i] + true[i + 1 :]))
        for i in range(len(results))
    ]
    said = np.concatenate([s >= t for s, t in zip(score, chosen, strict=True)])
    return {"AF by threshold": _two_by_two(np.concatenate(true), said), "thresholds": [round(t, 3) for t in chosen]}


def _even_threshold(score: Float, true: npt.NDArray[np.bool_]) -> float:
    """The score from which on sensitivity and specificity come nearest to each other."""
    at = np.unique(np.round(score, 3))
    se = np.array([(score[true] >= t).mean() for t in at])
    sp = np.array([(score[~true] < t).mean() for t in at])
    return float(at[np.minimum(se, sp).argmax()])


CALIBRATED = ("beats", "rhythm", "arrhythmia", "shockable", "quality")


def _answers(result: FoldResult, pool: Pool, task: str) -> tuple[Float, Int, Int]:
    """Probabilities (n, c), labels (n,) and recordings (n,) of a task where its label is known."""
    if task == "beats":
        of, label, probs = pool.of_beat[result.beats], pool.beat[result.beats], result.beat_probs
    else:
        of, label, probs = pool.of_hop[result.hops], getattr(pool, task)[result.hops], result.windows[task]
        probs = np.stack([1 - probs, probs], 1) if probs.ndim == 1 else probs
    known = label >= 0
    return probs[known], label[known].astype(np.int64), of[known]


def _joined(results: list[FoldResult], pool: Pool, task: str) -> tuple[Float, Int, Int]:
    probs, label, of = zip(*(_answers(r, pool, task) for r in results), strict=True)
    return np.concatenate(probs), np.concatenate(label), np.concatenate(of)


def temperatures(results: list[FoldResult], pool: Pool) -> dict[str, float]:
    """Temperature of each calibrated task, from answers to patients that the models did not see."""
    out = {}
    for task in CALIBRATED:
        probs, label, of = _joined(results, pool, task)
        out[task] = temperature(probs, label, by_recording(of)) if label.size else 1.0
    return out


def calibration_figures(results: list[FoldResult], pool: Pool) -> Figures:
    """ECE in percent before and after a temperature that the other folds chose; how often a rhythm is sure enough to
    be told (ABSTAIN) and right."""
    found: Figures = {"temperature": {k: round(t, 2) for k, t in temperatures(results, pool).items()}}
    for task in CALIBRATED:
        parts = [_answers(r, pool, task) for r in results]
        probs, label, of = _joined(results, pool, task)
        if not label.size:
            continue
        after = None
        if len(results) > 1:
            others = [temperatures([r for r in results if r is not one], pool)[task] for one in results]
            cool = np.concatenate([cooled(p, t) for (p, _, _), t in zip(parts, others, strict=True)])
            after = _round(100 * ece(cool, label, by_recording(of)))
            if task == "rhythm":
                told, right = cool.max(1) >= ABSTAIN, cool.argmax(1) == label
                found["abstain"] = {
                    "level": ABSTAIN, "told": _percent(told), "right_told": _percent(right[told]),
                    "right_untold": _percent(right[~told]),
                }  # fmt: skip
        found[task] = {"ece_before": _round(100 * ece(probs, label, by_recording(of))), "ece_after": after}
    return found


def gate_figures(pool: Pool, hops: Int, windows: dict[str, Float]) -> Figures:
    """Mean gate of the rhythm experts and paths by rhythm of the reference."""
    label = pool.rhythm[hops]
    here = [i for i in range(len(RHYTHMS)) if (label == i).any()]
    return {"by_rhythm": {RHYTHMS[i]: _rounded(windows["gates"][label == i].mean(0)) for i in here}}


def challenge_figures(pool: Pool, records: Int, hops: Int, probs: Float) -> Figures:
    """Challenge 2017 by record: F1 of N, A, O, ~, accuracy, and the constant's.

    The answer is the mean of the windows' log probabilities up to the record's end, each weighted by how many hops it
    has: what can be told of a long history counts for more.
    """
    mine = np.isin(pool.of_hop[hops], records[pool.source[records] == "cinc2017"])
    hops, log = hops[mine], np.log(np.maximum(probs[mine], 1e-9))
    weight = (pool.window_hops[hops] >= 0).sum(1, keepdims=True)
    _, record = np.unique(pool.of_hop[hops], return_inverse=True)
    n = int(record.max()) + 1
    total, t = np.zeros((n, len(ARRHYTHMIAS))), np.full(n, -1)
    np.add.at(total, record, log * weight)
    np.maximum.at(t, record, pool.arrhythmia[hops])
    a = total.argmax(1)[t >= 0]
    t = t[t >= 0]
    f1 = {
        name: _round(200 * float(((t == i) & (a == i)).sum()) / max(float((t == i).sum() + (a == i).sum()), 1))
        for i, name in enumerate(ARRHYTHMIAS)
    }  # fmt: skip
    confusion = {ARRHYTHMIAS[i]: [int(((t == i) & (a == j)).sum()) for j in range(4)] for i in range(4)}
    return {
        "n": int(t.size), "f1": f1, "mean_f1_NAO": _round(float(np.mean([f1[c] or 0 for c in "NAO"]))),
        "accuracy": _round(100 * float((t == a).mean())),
        "constant_accuracy": _round(100 * float(np.bincount(t).max() / t.size)),
        "confusion": confusion,
    }  # fmt: skip


def rr_figures(pool: Pool, hops: Int, rr_ms: Float, detector: Float) -> Figures:
    """Mean absolute error, ms, of the mean RR of 10 s where the reference beats tell it; silent windows counted."""
    truth = pool.rr_ms[hops]
    known = np.isfinite(truth)
    answered = known & np.isfinite(rr_ms)
    if not answered.any():
        return {"n": 0}
    error = np.abs(rr_ms[answered] - truth[answered])
    constant = np.abs(truth[known] - np.median(truth[known]))
    return {
        "n": int(known.sum()), "unanswered": int((known & ~answered).sum()), "mae_ms": _round(float(error.mean())),
        "median_ms": _round(float(np.median(error))), "constant_mae_ms": _round(float(constant.mean())),
        "detector_mae_ms": _round(float(np.abs(detector[answered] - truth[answered]).mean())),
    }  # fmt: skip


def potassium_figures(pool: Pool, records: Int, hops: Int, abnormal: Float) -> Figures:
    """Potassium abnormal by patient (mean of all windows) and source: area under the ROC curve, and at 0.5 accuracy and
    F1 beside the majority's."""
    found: Figures = {}
    for source in sorted(set(pool.source[records[np.isfinite(pool.potassium[records])]])):
        mine = records[(pool.source[records] == source) & np.isfinite(pool.potassium[records])]
        said = np.array([abnormal[pool.of_hop[hops] == r].mean() for r in mine])
        truth, call = pool.potassium[mine] > 0.5, said > 0.5
        pairs = said[truth][:, None] - said[~truth][None]
        found[source] = {
            "patients": len(mine), "abnormal": int(truth.sum()),
            "auc": _round(float((pairs > 0).mean() + 0.5 * (pairs == 0).mean())) if pairs.size else None,
            "accuracy": _round(100 * float((truth == call).mean())),
            "majority_accuracy": _round(100 * max(float(truth.mean()), 1 - float(truth.mean()))),
            "f1": _round(200 * float((truth & call).sum()) / max(float(truth.sum() + call.sum()), 1.0)),
            "majority_f1": _round(200 * float(truth.sum()) / float(truth.sum() + truth.size)),
        }  # fmt: skip
    return found


def _two_by_two(truth: npt.NDArray[np.bool_], call: npt.NDArray[np.bool_]) -> Figures:
    yes, no = int(truth.sum()), int((~truth).sum())
    hit, rejected = int((truth & call).sum()), int((~truth & ~call).sum())
    return {
        "yes": yes,
        "no": no,
        "se": _round(100 * hit / yes) if yes else None,
        "sp": _round(100 * rejected / no) if no else None,
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _percent(yes: npt.NDArray[np.bool_]) -> float | None:
    return _round(100 * float(yes.mean())) if yes.size else None


def _rounded(values: Float) -> list[float]:
    return [round(float(v), 3) for v in values]
