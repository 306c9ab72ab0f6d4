"""The score of the PhysioNet/CinC Challenge 2015: which monitor alarms are confirmed, true ones counting five times.

Gari D. Clifford et al., The PhysioNet/Computing in Cardiology Challenge 2015: reducing false arrhythmia alarms in the
ICU, CinC 42, 2015. Score = 100 (TP + TN) / (TP + TN + FP + 5 FN). The alarm went off at 300 s; in real time (event 1)
nothing after that may be used. An alarm is confirmed here if an alert of its kind is active at some time within 290
to 300 s, alerts that a chain or a time-out suppressed included.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from model.ec57.intervals import Rate, rate

ALARM_AT_S, WINDOW_S = 300.0, 10.0

CODES: dict[str, tuple[str, ...]] = {
    "Asystole": ("ASYSTOLE",),
    "Bradycardia": ("X_BRADY",),
    "Tachycardia": ("X_TACHY",),
    "Ventricular_Tachycardia": ("VTACH",),
    "Ventricular_Flutter_Fib": ("VFIB",),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One alarm: its kind, whether it was a true one, and whether we confirmed it."""

    record: str
    kind: str
    true: bool
    confirmed: bool


@dataclass(frozen=True, slots=True)
class ChallengeScore:
    """Counts of alarms, true ones positive, and the rates that they make. `score` is None for no alarms."""

    tp: int
    fn: int
    fp: int
    tn: int
    score: float | None
    tpr: Rate
    tnr: Rate


def confirmed(
    kind: str,
    active: Iterable[tuple[str, float, float | None]],
    codes: Mapping[str, tuple[str, ...]] = CODES,
    alarm_at_s: float = ALARM_AT_S,
) -> bool:
    """Whether an alert of the alarm's kind is active within the last 10 s up to the alarm.

    `active`: code, time of decision and time of end in seconds of each alert, None for one without an end.
    Raises ValueError where `kind` is none of the five.
    """
    if kind not in codes:
        raise ValueError(f"kind: {kind!r} is no alarm of Challenge 2015; take one of {', '.join(codes)}")
    return any(
        code in codes[kind] and decided <= alarm_at_s and (end is None or end >= alarm_at_s - WINDOW_S)
        for code, decided, end in active
    )


def score(outcomes: Iterable[Outcome]) -> dict[str, ChallengeScore]:
    """The score over all alarms, under "all", and by kind, in the order of the kinds."""
    every = list(outcomes)
    kinds = [kind for kind in CODES if any(outcome.kind == kind for outcome in every)]
    return {"all": _score(every), **{kind: _score([o for o in every if o.kind == kind]) for kind in kinds}}


def _score(outcomes: list[Outcome]) -> ChallengeScore:
    tp = sum(o.true and o.confirmed for o in outcomes)
    fn = sum(o.true and not o.confirmed for o in outcomes)
    fp = sum(not o.true and o.confirmed for o in outcomes)
    tn = len(outcomes) - tp - fn - fp
    value = 100.0 * (tp + tn) / (tp + tn + fp + 5 * fn) if outcomes else None
    return ChallengeScore(tp, fn, fp, tn, value, rate(tp, tp + fn), rate(tn, tn + fp))
