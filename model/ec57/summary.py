"""Rates of a confusion matrix, and the figures of many records in one: gross and average (bxb, sumstats).

Gross: counts of all records pooled. Average: mean over the records for which the rate is defined. Beside the gross
figure stand Wilson's interval, which takes beats as independent, and the bootstrap over patients, which does not.
Overlaps of episodes are pooled from the counts; sumstats rebuilds them from rounded percentages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model.ec57.beats import LABELS, Counts
from model.ec57.intervals import Rate, bootstrap, rate

Parts = Mapping[str, tuple[int, int]]  # by name of the rate: numerator and denominator

N, S, V, F, Q, NO_BEAT, X = range(len(LABELS))


@dataclass(frozen=True, slots=True)
class Summary:
    """One rate over many records. `average` is None where no record defines it."""

    gross: Rate
    average: float | None
    n_records: int
    by_patient: Rate


def beat_rates(counts: Counts) -> dict[str, tuple[int, int]]:
    """Numerator and denominator of each rate of a confusion matrix (int64 (7, 7), rows reference), as bxb has them.

    F1 is 2 TP of 2 TP + FP + FN. VEB: F and Q called V are no false positives, and F and Q count as negatives.
    """
    c = counts
    found = int(c[:5, :5].sum())
    missed, invented = int(c[:5, 5:].sum()), int(c[5:, :5].sum())
    veb, veb_missed = int(c[V, V]), int(c[V].sum() - c[V, V])
    veb_false = int(c[N, V] + c[S, V] + c[NO_BEAT, V] + c[X, V])
    others = [N, S, F, Q, NO_BEAT, X]
    veb_true_negative = int(c[others][:, [N, S, F, Q]].sum())
    sveb, sveb_missed = int(c[S, S]), int(c[S].sum() - c[S, S])
    sveb_false = int(c[N, S] + c[V, S] + c[F, S] + c[NO_BEAT, S] + c[X, S])
    sveb_true_negative = int(c[[N, V, F, Q, NO_BEAT, X]][:, [N, V, F, Q]].sum())
    return {
        "QRS Se": (found, found + missed),
        "QRS +P": (found, found + invented),
        "QRS F1": (2 * found, 2 * found + missed + invented),
        "VEB Se": (veb, veb + veb_missed),
        "VEB +P": (veb, veb + veb_false),
        "VEB FPR": (veb_false, veb_true_negative + veb_false),
        "VEB F1": (2 * veb, 2 * veb + veb_missed + veb_false),
        "SVEB Se": (sveb, sveb + sveb_missed),
        "SVEB +P": (sveb, sveb + sveb_false),
        "SVEB FPR": (sveb_false, sveb_true_negative + sveb_false),
        "SVEB F1": (2 * sveb, 2 * sveb + sveb_missed + sveb_false),
    }


def shutdown_rates(counts: Counts) -> dict[str, tuple[int, int]]:
    """Beats missed while the test annotator had declared the signal unreadable, of all, and by class.

    bxb leaves S out of the sum of all beats missed in shutdown though it counts them in the whole; we take it in.
    """
    by_class = {f"{LABELS[i]} in shutdown": (int(counts[i, X]), int(counts[i].sum())) for i in (N, S, V, F)}
    return {"beats in shutdown": (int(counts[:5, X].sum()), int(counts[:5].sum())), **by_class}


def summarise(records: Sequence[Parts], patients: Sequence[str], seed: int = 0) -> dict[str, Summary]:
    """Each rate over many records, in the order in which the rates first appear.

    `records`: the rates of each record; `patients`: whose record it is, for the bootstrap.
    Raises ValueError where the two differ in length.
    """
    if len(records) != len(patients):
        raise ValueError(f"summarise: {len(records)} records and {len(patients)} patients; give one patient per record")
    names = dict.fromkeys(name for parts in records for name in parts)
    return {name: _summary(name, [parts.get(name, (0, 0)) for parts in records], patients, seed) for name in names}


def _summary(name: str, parts: Sequence[tuple[int, int]], patients: Sequence[str], seed: int) -> Summary:
    top, bottom = sum(part[0] for part in parts), sum(part[1] for part in parts)
    each = [part[0] / part[1] for part in parts if part[1] > 0]
    # An F1 is no share of independent trials, and neither is a share of a duration in samples.
    counted = not name.endswith("F1") and "duration" not in name
    plain = Rate(top, bottom, top / bottom if bottom else None, None, None, "none")
    return Summary(
        gross=rate(top, bottom) if counted else plain,
        average=sum(each) / len(each) if each else None,
        n_records=len(each),
        by_patient=bootstrap(parts, patients, seed),
    )
