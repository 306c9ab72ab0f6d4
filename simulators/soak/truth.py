"""Alerts against the exact truth of simulated beds: which were missed, false, or doubled.

The truth is that of the patients' scripts, by sample: the soak draws the same patients as the producer does. An
episode is expected to be told within a time that leaves room for the criteria of docs/alarms.md; one during which its
bed had no signal is excused, and counted as such.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from simulators.patients import Patient
from stream.wire import AlertEvent

# Rhythm: codes that tell of it, how long it must last to be expected, and within what time of its start.
EXPECTED: Mapping[str, tuple[frozenset[str], float, float]] = {
    "vf": (frozenset({"VFIB", "VTACH"}), 8, 15),
    "asystole": (frozenset({"ASYSTOLE"}), 6, 12),
    "vt": (frozenset({"VTACH", "VFIB"}), 8, 15),
    "svt": (frozenset({"X_TACHY", "SVT", "HR_HIGH"}), 12, 25),
    "fast": (frozenset({"HR_HIGH", "X_TACHY"}), 20, 30),
    "slow": (frozenset({"X_BRADY"}), 20, 30),
    "slowish": (frozenset({"HR_LOW", "X_BRADY"}), 20, 30),
    "lead_off": (frozenset({"LEADS_OFF"}), 6, 10),
}
# A red alert is true where it began in, or not long after, one of these.
TRUE_IN: Mapping[str, frozenset[str]] = {
    "VFIB": frozenset({"vf", "vt"}),
    "VTACH": frozenset({"vt", "vf", "runs"}),
    "ASYSTOLE": frozenset({"asystole", "vf", "pause"}),
    "X_TACHY": frozenset({"fast", "svt", "vt", "vf", "af", "runs"}),
    "X_BRADY": frozenset({"slow", "slowish", "asystole", "pause", "vf"}),
}
EARLY_S, LATE_S = 3.0, 12.0  # an alert of an episode may begin so long before its start, or after its end
LEARNING_S = 15.0  # of an epoch, in which only asystole and VF are expected
NEAR_S = 12.0  # no signal so shortly before an episode excuses it: the detector learns again


@dataclass(frozen=True, slots=True)
class Episode:
    """Samples start <= s < end of an epoch in which a bed has `rhythm`, by its script or by a fault."""

    bed: str
    epoch: str
    rhythm: str
    start: int
    end: int
    fs: float


@dataclass(slots=True)
class Verdict:
    """`told`: episodes with an alert in time, `missed` and `excused`: without; `false` reds, `doubled` alerts.
    `delays_s`: from the start of an episode to the sample that decided, by rhythm."""

    told: int = 0
    missed: list[Episode] = field(default_factory=list)
    excused: list[Episode] = field(default_factory=list)
    false: list[AlertEvent] = field(default_factory=list)
    doubled: list[AlertEvent] = field(default_factory=list)
    n_reds: int = 0
    delays_s: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dark:
    """Samples first <= s < end of an epoch in which a bed had no signal, or not its own."""

    bed: str
    epoch: str
    first: int
    end: int


def episodes(patient: Patient, bed: str, epoch: str, n: int) -> Iterator[Episode]:
    """What a patient has in the first `n` samples of an epoch, by the names of `EXPECTED` and `TRUE_IN`."""
    at = 0
    while at < n:
        start_s = 0.0
        for one in patient.script:
            start, end = at + round(start_s * patient.fs), at + round((start_s + one.duration_s) * patient.fs)
            start_s += one.duration_s
            name = one.rhythm
            if name in {"tachy", "brady"}:
                hr = one.get("hr")
                name = ("fast" if hr >= 125 else "") if name == "tachy" else "slow" if hr < 38 else "slowish"
            if name == "lead_off" and one.get("lead") >= 0:
                continue
            if start < n and name:
                yield Episode(bed, epoch, name, start, min(end, n), patient.fs)
        at += patient.n_script


def judge(
    truths: Iterable[Episode], alerts: Sequence[AlertEvent], dark: Iterable[Dark], sent: Mapping[tuple[str, str], int]
) -> Verdict:
    """Hold alerts against the truth. `sent`: samples that were sent of each (bed, epoch) with a truth."""
    verdict = Verdict()
    by_bed: dict[tuple[str, str], list[Episode]] = defaultdict(list)
    for episode in truths:
        by_bed[episode.bed, episode.epoch].append(episode)
    dark_of: dict[tuple[str, str], list[Dark]] = defaultdict(list)
    for one in dark:
        dark_of[one.bed, one.epoch].append(one)
    starts: dict[tuple[str, str], list[AlertEvent]] = defaultdict(list)
    seen: Counter[str] = Counter()
    at: Counter[tuple[str, str, str, int]] = Counter()
    for alert in alerts:
        if alert.phase != "start":
            continue
        starts[alert.bed, alert.epoch].append(alert)
        seen[alert.alert_id] += 1
        if alert.suppressed_by is None and alert.kind == "physiological":
            at[alert.bed, alert.epoch, alert.code, alert.onset.sample] += 1
        if seen[alert.alert_id] > 1 or at[alert.bed, alert.epoch, alert.code, alert.onset.sample] > 1:
            verdict.doubled.append(alert)
    for key, n in sent.items():
        for episode in by_bed[key]:
            _expect(episode, starts[key], dark_of[key], n, verdict)
        for alert in starts[key]:
            if alert.code in TRUE_IN and alert.priority == "high":
                verdict.n_reds += 1
                if not _is_true(alert, by_bed[key]) and not _is_dark(alert, dark_of[key]):
                    verdict.false.append(alert)
    return verdict


def _expect(episode: Episode, starts: list[AlertEvent], dark: list[Dark], n: int, verdict: Verdict) -> None:
    if episode.rhythm not in EXPECTED:
        return
    codes, least_s, within_s = EXPECTED[episode.rhythm]
    fs = episode.fs
    last = episode.start + round(within_s * fs)
    too_short = episode.end - episode.start < least_s * fs or last > n - 2 * fs
    if too_short or (episode.start < LEARNING_S * fs and episode.rhythm not in {"vf", "asystole"}):
        return
    for alert in starts:
        if alert.code in codes and episode.start - EARLY_S * fs <= alert.stream_time.sample <= last:
            verdict.told += 1
            delay_s = (alert.stream_time.sample - episode.start) / fs
            verdict.delays_s.setdefault(episode.rhythm, []).append(delay_s)
            return
    hidden = any(one.first < last and one.end > episode.start - NEAR_S * fs for one in dark)
    (verdict.excused if hidden else verdict.missed).append(episode)


def _is_true(alert: AlertEvent, truths: list[Episode]) -> bool:
    fs, at = alert.onset.fs, alert.onset.sample
    return any(
        episode.rhythm in TRUE_IN[alert.code] and episode.start - EARLY_S * fs <= at < episode.end + LATE_S * fs
        for episode in truths
    )


def _is_dark(alert: AlertEvent, dark: list[Dark]) -> bool:
    fs, at = alert.onset.fs, alert.onset.sample
    return any(one.first - NEAR_S * fs <= at < one.end + NEAR_S * fs for one in dark)
