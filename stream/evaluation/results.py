"""The result of an evaluation as one plain structure, which is the JSON, and which terminal and page are drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from model import challenge2015
from model.ec57.beats import LABELS, LabelMap
from model.ec57.intervals import rate
from model.ec57.scoring import RecordScore
from model.ec57.summary import Summary, summarise
from stream.evaluation.alarmtable import alarm_table
from stream.evaluation.evaluated import Evaluated, rate_of

RULES = (
    "EC57 as the WFDB programs bxb, rxr, epicmp and mxm have it: window 150 ms, the first five minutes left out",
    "label map bxb: j, e and n are S; label map literature: they are N",
    "paced beats are Q, and records with paced beats are left out of the EC57 tables",
    "test beats in reference VF are in no table; F and Q called V are no false VEB",
    "gross pools counts, average is the mean over records that define a rate; intervals of 95 %: Wilson over counts, "
    "bootstrap over patients",
    "delays are on the sample clock, from the reference's onset to the sample that the decision needed",
)


def result_of(
    evaluated: Sequence[Evaluated],
    source: str,
    beats: str,
    split: str,
    seed: int | None,
    start_s: float,
    unread: Sequence[str],
) -> dict[str, Any]:
    """Everything, in types that JSON has; rates with numerator, denominator and interval. NaN is told as None.
    `unread`: why records are not among those evaluated though they should be, a line each."""
    versions = sorted({alert.model_version for e in evaluated for alert in e.alerts or [] if alert.model_version})
    tables = [e.score for e in evaluated if e.score.beats and not e.score.paced]
    return {
        "source": source,
        "beats": beats,
        "weights": versions or ["not told"],
        "split": split,
        "seed": seed,
        "start_s": start_s,
        "rules": list(RULES),
        "n_records": len(evaluated),
        "hours": sum(e.score.hours for e in evaluated),
        "unread": list(unread),
        "left_out_as_paced": [e.name for e in evaluated if e.score.paced],
        "beat_tables": {label_map: _beat_table(tables, label_map) for label_map in ("bxb", "literature")}
        if tables
        else {},
        "other_tables": _other_table([e.score for e in evaluated if not e.score.paced]),
        "rr_error": _rr_error(tables),
        "heart_rate": _heartrate_of(tables),
        "beat_delay": _beat_delay(evaluated),
        "segments": _segments([e.score for e in evaluated]),
        "alarms": alarm_table(evaluated),
        "challenge2015": _challenge(evaluated),
        "af_by_record": _af_by_record(evaluated),
        "records": [_record(e) for e in evaluated],
    }


def _beat_table(scores: Sequence[RecordScore], label_map: str) -> dict[str, Any]:
    of: LabelMap = "literature" if label_map == "literature" else "bxb"
    parts = [score.beat_parts(of) for score in scores]
    counts = sum(score.beats[of].counts for score in scores)
    return {
        "labels": LABELS,
        "confusion": np.asarray(counts).tolist(),
        "summary": _summaries(summarise(parts, [score.patient for score in scores])),
        "records": {
            score.name: {"rates": _pairs(part), "confusion": score.beats[of].counts.tolist()}
            for score, part in zip(scores, parts, strict=True)
        },
    }


def _other_table(scores: Sequence[RecordScore]) -> dict[str, Any]:
    parts = [(score, part) for score in scores if (part := score.other_parts())]
    if not parts:
        return {}
    return {
        "summary": _summaries(summarise([part for _, part in parts], [score.patient for score, _ in parts])),
        "records": {score.name: _pairs(part) for score, part in parts},
    }


def _rr_error(scores: Sequence[RecordScore]) -> dict[str, Any]:
    """RMS of RR differences in ms, over all intervals and the mean over records, by bxb's rule and by matches."""
    found = [score.beats["bxb"] for score in scores]
    if not found:
        return {}

    def over(values: list[tuple[float, int]]) -> dict[str, Any]:
        known = [(ms, n) for ms, n in values if n]
        total = sum(n for _, n in known)
        return {
            "gross_ms": float(np.sqrt(sum(ms * ms * n for ms, n in known) / total)) if total else None,
            "average_ms": float(np.mean([ms for ms, _ in known])) if known else None,
            "n": total,
        }

    return {
        "bxb": over([(c.rr_ms, c.n_rr) for c in found]),
        "matches": over([(c.rr_matched_ms, c.n_rr_matched) for c in found]),
        "records": {
            s.name: {"bxb_ms": _number(c.rr_ms), "matches_ms": _number(c.rr_matched_ms)}
            for s, c in zip(scores, found, strict=True)
        },
    }


def _heartrate_of(scores: Sequence[RecordScore]) -> dict[str, Any]:
    errors = {score.name: score.heart_rate for score in scores if score.heart_rate and score.heart_rate.n}
    if not errors:
        return {}
    n = sum(error.n for error in errors.values())
    return {
        "gross_bpm": float(np.sqrt(sum(e.bpm**2 * e.n for e in errors.values()) / n)),
        "average_bpm": float(np.mean([e.bpm for e in errors.values()])),
        "average_percent": float(np.mean([e.percent for e in errors.values()])),
        "within_10_percent_or_5_bpm": rate_of(rate(sum(e.within_5 for e in errors.values()), n)),
        "records": {name: {key: _number(value) for key, value in asdict(e).items()} for name, e in errors.items()},
    }


def _beat_delay(evaluated: Sequence[Evaluated]) -> dict[str, Any]:
    """R peak to decision of the detector, in ms, over the records that were annotated here."""
    known = [e.delays_s for e in evaluated if e.delays_s is not None and e.delays_s.size]
    if not known:
        return {}
    ms = np.concatenate(known) * 1000.0
    p50, p95, p99 = (float(v) for v in np.quantile(ms, [0.5, 0.95, 0.99]))
    return {
        "n": int(ms.size),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "max_ms": float(ms.max()),
        "histogram_10_ms": np.bincount((ms // 10).astype(np.int64)).tolist(),
    }


def _segments(scores: Sequence[RecordScore]) -> dict[str, Any]:
    names = dict.fromkeys(name for score in scores for name in score.segments)
    found: dict[str, Any] = {}
    for name in names:
        of = [score for score in scores if name in score.segments]
        parts = [_segment_parts(name, score.segments[name]) for score in of]
        found[name] = {
            "counts": dict(
                zip(("TP", "FN", "FP", "TN"), np.sum([s.segments[name] for s in of], axis=0).tolist(), strict=True)
            ),
            "summary": _summaries(summarise(parts, [score.patient for score in of])),
            "records": {score.name: list(score.segments[name]) for score in of},
        }
    return found


def _segment_parts(name: str, counts: tuple[int, int, int, int]) -> dict[str, tuple[int, int]]:
    tp, fn, fp, tn = counts
    if "said to be" in name:
        return {"share": (tp, tp + fn)}
    return {"Se": (tp, tp + fn), "Sp": (tn, tn + fp), "+P": (tp, tp + fp), "F1": (2 * tp, 2 * tp + fn + fp)}


def _challenge(evaluated: Sequence[Evaluated]) -> dict[str, Any]:
    outcomes = [e.challenge for e in evaluated if e.challenge is not None]
    if not outcomes:
        return {}
    scores = challenge2015.score(outcomes)
    return {
        "by_type": {
            kind: {
                **{k: getattr(s, k) for k in ("tp", "fn", "fp", "tn", "score")},
                "TPR": rate_of(s.tpr),
                "TNR": rate_of(s.tnr),
            }
            for kind, s in scores.items()
        },
        "alarms": {o.record: {"kind": o.kind, "true": o.true, "confirmed": o.confirmed} for o in outcomes},
    }


def _af_by_record(evaluated: Sequence[Evaluated]) -> dict[str, Any]:
    """Share of the records of each Challenge 2017 label in which any AF was marked."""
    labelled = [e for e in evaluated if e.rhythm is not None]
    return {
        label: rate_of(rate(sum(e.said_af for e in of), len(of)))
        for label in sorted({str(e.rhythm) for e in labelled})
        if (of := [e for e in labelled if e.rhythm == label])
    }


def _record(e: Evaluated) -> dict[str, Any]:
    score = e.score
    about: dict[str, Any] = {
        "record": score.name,
        "patient": score.patient,
        "fs": score.fs,
        "n_samples": score.n,
        "paced": score.paced,
        "shutdown_s": score.beats["bxb"].shutdown_s if score.beats else None,
        "beats_in_reference_vf_per_min": score.vf_beats_per_min,
    }
    if score.paced:
        about["paced_rates"] = _pairs(score.beat_parts("bxb"))
    return about


def _summaries(of: Mapping[str, Summary]) -> dict[str, Any]:
    return {
        name: {
            "gross": rate_of(s.gross),
            "average": s.average,
            "n_records": s.n_records,
            "by_patient": rate_of(s.by_patient),
        }
        for name, s in of.items()
    }


def _pairs(of: Mapping[str, tuple[int, int]]) -> dict[str, list[int]]:
    return {name: list(pair) for name, pair in of.items()}


def _number(value: float) -> float | None:
    return None if isinstance(value, float) and np.isnan(value) else value
