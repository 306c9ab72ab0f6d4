"""Alarms of all records of an evaluation in one table of figures."""

from collections.abc import Sequence
from typing import Any

from model.ec57.intervals import rate
from stream.evaluation.alarmscore import LEAST_S, LONG_S, AlarmScore, delay_figures
from stream.evaluation.evaluated import Evaluated, rate_of


def alarm_table(evaluated: Sequence[Evaluated]) -> dict[str, Any]:
    """Alarms per bed and day, reds by verdict, episodes with delays; empty where no record has alerts."""
    judged = [(e, e.alarms) for e in evaluated if e.alarms is not None]
    if not judged:
        return {}
    hours = sum(e.score.hours for e, _ in judged)
    labelled = sum(e.score.hours for e, _ in judged if len(e.ref))
    counts: dict[str, list[int]] = {}
    for _, alarms in judged:
        for kind, (total, heard) in alarms.counts.items():
            seen = counts.setdefault(kind, [0, 0])
            seen[0], seen[1] = seen[0] + total, seen[1] + heard
    reds = [(e, alert, verdict) for e, alarms in judged for alert, verdict in alarms.reds]
    verdicts = ("true", "related", "false", "unknown")
    return {
        "hours": hours,
        "labelled_hours": labelled,
        "per_bed_and_day": {
            kind: {"all": 24 * total / hours, "announced": 24 * heard / hours, "n_all": total, "n_announced": heard}
            for kind, (total, heard) in sorted(counts.items())
        },
        "decision_s": _decisions(evaluated),
        "episodes": _episodes(judged),
        "reds": {code: {v: sum(a.code == code and w == v for _, a, w in reds) for v in verdicts}
                 for code in sorted({alert.code for _, alert, _ in reds})},
        "quiet": _quiet(judged),
        "false_reds": [
            {"record": e.name, "code": a.code, "at_s": a.decided / e.score.fs, "onset_s": a.onset / e.score.fs}
            for e, a, verdict in reds
            if verdict == "false" and len(e.ref)
        ],
    }  # fmt: skip


def _quiet(judged: Sequence[tuple[Evaluated, AlarmScore]]) -> dict[str, Any]:
    """False reds in the records, paced ones apart, whose reference has no VF, ventricular tachycardia or asystole."""
    grave = {"VFIB", "VTACH", "ASYSTOLE"}
    quiet = [
        (e, a) for e, a in judged if len(e.ref) and not e.score.paced and not any(f.code in grave for f in a.found)
    ]
    return {
        "records": [e.name for e, _ in quiet],
        "hours": sum(e.score.hours for e, _ in quiet),
        "false_reds": sum(verdict == "false" for _, alarms in quiet for _, verdict in alarms.reds),
    }


def _decisions(evaluated: Sequence[Evaluated]) -> dict[str, Any]:
    """By code: seconds from an alert's own onset to the sample that its decision needed, whether true or not."""
    waits: dict[str, list[float]] = {}
    for e in evaluated:
        for alert in e.alerts or []:
            waits.setdefault(alert.code, []).append((alert.decided - alert.onset) / e.score.fs)
    return {code: delay_figures(of) for code, of in sorted(waits.items())}


def _episodes(judged: Sequence[tuple[Evaluated, AlarmScore]]) -> dict[str, Any]:
    """By code: episodes found of all that are long enough to alarm, and of those of at least 10 s, with delays."""
    found: dict[str, Any] = {}
    for code in dict.fromkeys(f.code for _, alarms in judged for f in alarms.found):
        least = LEAST_S.get(code, 0.0)
        each = [(e, f, (f.end - f.onset) / e.score.fs) for e, alarms in judged for f in alarms.found if f.code == code]
        due = [(e, f, length) for e, f, length in each if length >= least]
        long = [f for _, f, length in due if length >= LONG_S]
        found[code] = {
            "n_all": len(each),
            "at_least_s": least,
            "announced": rate_of(rate(sum(f.delay_s is not None for _, f, _ in due), len(due))),
            "detected": rate_of(rate(sum(f.detected_s is not None for _, f, _ in due), len(due))),
            "met_by_any_red": rate_of(rate(sum(f.any_red for _, f, _ in due), len(due))),
            "announced_of_10_s": rate_of(rate(sum(f.delay_s is not None for f in long), len(long))),
            "announced_of_10_s_within_10_s": rate_of(
                rate(sum(f.delay_s is not None and f.delay_s <= LONG_S for f in long), len(long))
            ),
            "told_of_10_s_within_10_s": rate_of(
                rate(sum(f.told_s is not None and f.told_s <= LONG_S for f in long), len(long))
            ),
            "delay_s": delay_figures([f.delay_s for _, f, _ in due if f.delay_s is not None], len(due)),
            "delays_s": [f.delay_s for _, f, _ in due if f.delay_s is not None],
            "missed": [
                {"record": e.name, "at_s": f.onset / e.score.fs, "length_s": length}
                for e, f, length in due
                if f.delay_s is None
            ],
        }
    return found
