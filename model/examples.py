"""Training examples, cut from recordings by the very stages that the monitor runs.

Resampler -> ModelRate, PeriodDetector, Quality -> BeatCutter, Templates, HopCutter. Labels are laid on afterwards: a
beat takes the class of the reference beat within 150 ms, a hop and the window that ends with it take what the
annotations say of the hop's four seconds; where they say two things, or nothing, the label is unknown.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model import datasets
from model.detection import DELAY
from model.labels import ARRHYTHMIAS, BEATS, RHYTHMS, SHOCKABLE, beat_class, rhythm_class
from model.periods import Beats, PeriodDetector
from model.quality import Quality
from model.resample import MODEL_RATE, TICK_RATE, ModelRate, Resampler
from model.segments import (
    HOP_SAMPLES,
    HOP_TICKS,
    N_CHANNELS,
    TOKEN_BEATS,
    TOKEN_HOPS,
    BeatCutter,
    CompleteBeats,
    CutBeats,
    Float,
    HopCutter,
    Int,
    Templates,
    beat_start,
    choose_leads,
    cut_hops,
    hop_start,
)

Half = npt.NDArray[np.float16]
Label = npt.NDArray[np.int8]

Spoil = Callable[[Float, float], Float]

UNKNOWN = -1
MATCH = 37  # ticks: 150 ms, the window of ANSI/AAMI EC57
SIMULATED_POTASSIUM = ("potassium", "potassium-unseen")  # folders of simulators.potassium; the second is only scored
PACED = ("102", "104", "107", "217")
_LONGEST_RR = 3 * int(TICK_RATE)
_WINDOW_TICKS = 30 * int(TICK_RATE)


@dataclass(slots=True)
class Cut:
    """One recording: its beats (n), its hops (m), and what is known of them. Labels are -1, or NaN, where unknown."""

    source: str
    name: str
    patient: str
    beat_at: Int
    beat_ready: Int
    beat_wave: Half  # (n, 4, 128)
    beat_features: Float  # (n, F)
    beat_form: Int  # (n,) number of its form in the record, 0 for none
    hop_end: Int
    hop_wave: Half  # (m, 2, 500)
    hop_mask: Float  # (m, 2)
    age: float = np.nan
    male: float = np.nan
    potassium: float = np.nan  # 1 abnormal, 0 normal
    beat: Label = field(default_factory=lambda: np.zeros(0, np.int8))  # (n,) index into BEATS
    extra: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))  # (n,) no reference beat for it
    missed: dict[str, int] = field(default_factory=dict)  # reference beats that no beat matches, by class
    rhythm: Label = field(default_factory=lambda: np.zeros(0, np.int8))  # (m,) index into RHYTHMS
    shockable: Label = field(default_factory=lambda: np.zeros(0, np.int8))  # (m,)
    quality: Label = field(default_factory=lambda: np.zeros(0, np.int8))  # (m,) 1 readable
    arrhythmia: Label = field(default_factory=lambda: np.zeros(0, np.int8))  # (m,) index into ARRHYTHMIAS
    rr_ms: Float = field(default_factory=lambda: np.zeros(0, np.float32))  # (m,) `mean_rr_ms` of the reference


def load(source: str, limit: int | None = None, spoil: Spoil | None = None, told: bool = False) -> Iterator[Cut]:
    """Cuts of the records of mitdb, vfdb, cudb, cinc2017, ludb, mimic-iv-ecg, or of a folder that
    `simulators.potassium` wrote; each goes by its folder's name. `spoil` is done to the signal first: (leads, n) mV,
    rate in Hz. `told`: R peaks are the reference's, not our detector's. Raises DatasetError where it is not found."""
    if Path(source).name == "mimic-iv-ecg":
        yield from _mimic(source, limit)
        return
    paths, folder, source = datasets.find(source), source, Path(source).name
    if limit is not None:
        paths = paths[:: max(len(paths) // limit, 1)][:limit]
    patients = datasets.patients(folder)
    levels = datasets.potassium_levels(folder) if source in SIMULATED_POTASSIUM else {}
    classes = datasets.labels_2017(source) if source == "cinc2017" else {}
    segments = datasets.shockable_5s(source) if source == "cudb" else {}
    people = datasets.ludb_labels(source) if source == "ludb" else {}
    for path in paths:
        record = datasets.read(path)
        for leads in _lead_pairs(record):
            signal = datasets.physical(record)[leads]
            signal = signal if spoil is None else spoil(signal, record.fs)
            at = _ticks(_reference_beats(record)[0], record.fs) if told else None
            cut = cut_signal(signal, record.fs, source, record.name, patients[record.name], at)
            if source in {"mitdb", "vfdb"}:
                _label_rhythm(cut, record)
                _label_beats(cut, record)
            if source == "mitdb":
                age, sex = datasets.age_and_sex(record.comments)
                cut.age = np.nan if age is None else float(age)
                cut.male = np.nan if sex is None else float(sex == "M")
            if source == "ludb":
                row = people[record.name]
                cut.age = float(row["Age"]) if row["Age"].isdigit() else 90.0 if row["Age"].startswith(">") else np.nan
                cut.male = float(row["Sex"] == "M")
                if row["Rhythms"].startswith("Sinus rhythm") and not row["Cardiac pacing"]:
                    cut.rhythm[:], cut.shockable[:], cut.quality[:] = RHYTHMS.index("N"), 0, 1
            if source in SIMULATED_POTASSIUM:
                low, high = datasets.POTASSIUM_NORMAL
                cut.potassium = float(not low <= levels[record.name] <= high)
            if source == "cudb":
                _label_shockable(cut, segments[record.name], record.fs)
            if source == "cinc2017":
                _label_arrhythmia(cut, classes[record.name])
            yield cut


def _mimic(folder: str, limit: int | None) -> Iterator[Cut]:
    """Cuts of MIMIC-IV-ECG: what is known of the patient, and the machine's mean RR of the ten seconds."""
    ecgs = datasets.mimic_ecgs(folder, Path(folder).parent / "mimic-iv")
    for ecg in ecgs if limit is None else ecgs[:: max(len(ecgs) // limit, 1)][:limit]:
        record = datasets.read(ecg.path, annotator=None)
        for leads in _lead_pairs(record):
            signal = datasets.physical(record)[leads]
            cut = cut_signal(signal, record.fs, "mimic-iv-ecg", record.name, ecg.patient)
            cut.age, cut.male, cut.potassium = ecg.age, ecg.male, ecg.abnormal
            cut.rr_ms[-1:] = ecg.rr_ms
            yield cut


def recorded_noise() -> Float:
    """nstdb's baseline wander and muscle noise, each lead a row (4, n), at 125 Hz, of unit spread.

    Raises DatasetError where the database is not found."""
    rows = []
    for name in ("bw", "ma"):
        record = datasets.read(datasets.find(f"nstdb/{name}")[0], annotator=None)
        x = datasets.physical(record)
        resampler, model_rate = Resampler(1, len(x)), ModelRate(1, len(x))
        resampler.configure(0, record.fs)
        row = np.zeros(1, np.int64)
        model_rate.reset(row, row)
        y, m, _ = resampler.push(row, x[None].astype(np.float32), np.array([x.shape[1]]))
        z, j, _ = model_rate.push(row, y, m)
        rows += list(z[0, :, : int(j[0])])
    n = min(len(row) for row in rows)
    noise = np.nan_to_num(np.stack([row[:n] for row in rows]))
    noise -= noise.mean(1, keepdims=True)
    out: Float = (noise / noise.std(1, keepdims=True)).astype(np.float32)
    return out


def flat_lines(cuts: Iterable[Cut], n: int, rng: np.random.Generator) -> Iterator[Cut]:
    """Simulated asystole: recorded hops of sinus rhythm, then a line with little noise and no beats, labelled ASYS."""
    sinus = [c for c in cuts if c.source == "mitdb" and (c.rhythm == RHYTHMS.index("N")).sum() > 30]
    for i in range(n if sinus else 0):
        origin = sinus[int(rng.integers(len(sinus)))]
        first = int(rng.integers(0, origin.hop_end.size - 12, 1)[0])
        lead_in = origin.hop_wave[first : first + 12, :, HOP_SAMPLES // 2 :].astype(np.float32)
        beats = np.concatenate(list(lead_in), axis=1)  # (2, 12 * 250)
        m = int(rng.integers(20, 40)) * int(MODEL_RATE)
        drift = np.cumsum(rng.normal(0, 1, (N_CHANNELS, m)), axis=1)
        drift *= rng.uniform(0.0, 0.06) / max(float(np.abs(drift).max()), 1e-6)
        noise = rng.normal(0, rng.uniform(0.001, 0.02), (N_CHANNELS, m))
        signal = np.concatenate([beats * rng.uniform(0.5, 2), drift + noise], axis=1).astype(np.float32)
        cut = cut_signal(signal, MODEL_RATE, "flat", f"flat{i}", origin.patient)
        start = beats.shape[1] * 2
        asystole = cut.hop_end - 2 * HOP_TICKS >= start
        cut.rhythm[asystole], cut.shockable[asystole] = RHYTHMS.index("ASYS"), 0
        cut.quality[asystole] = 1
        yield cut


def cut_signal(x: Float, fs: float, source: str, name: str, patient: str, at: Int | None = None) -> Cut:
    """Beats and hops of a whole recording, x (leads, n) mV, NaN missing, at `fs` Hz; no labels yet. `at`: ticks of R
    peaks to take for our detector's."""
    n_leads = x.shape[0]
    row, zero = np.zeros(1, np.int64), np.zeros(1, np.int64)
    resampler, model_rate, detector = Resampler(1, n_leads), ModelRate(1, n_leads), PeriodDetector(1, n_leads)
    quality, templates = Quality(1, n_leads), Templates(1, n_leads)
    beat_cutter, hop_cutter = BeatCutter(1), HopCutter(1)
    resampler.configure(0, fs)
    for stage in (model_rate, detector, quality):
        stage.reset(row, zero)
    y, m, _ = resampler.push(row, x[None], np.array([x.shape[1]]))
    z, j, _ = model_rate.push(row, y, m)
    signal = np.ascontiguousarray(z[:, :, : int(j[0])])
    available = 2 * j
    if at is None:
        found, watermark = detector.push(row, y, m), detector.watermark(row)
    else:
        none = np.zeros(at.size, np.int64)
        found, watermark = Beats(none, at, at + DELAY, none.astype(np.float32), none), available
    reports = quality.push(row, y, m)
    beats = beat_cutter.push(row, watermark, found, available)
    wave, features, form = _cut_beats(templates, signal, beats, reports.at, reports.quality)
    hops = hop_cutter.push(row, available)
    hop_leads = choose_leads(_in_force(hops.end, reports.at, reports.quality))
    hop_wave, mask = cut_hops(signal, hops.row, hop_leads, hop_start(hops.end))
    k = hops.end.size
    unknown = np.full((4, k), UNKNOWN, np.int8)
    return Cut(
        source, name, patient, beats.at, beats.ready, wave.astype(np.float16), features, form, hops.end,
        hop_wave.astype(np.float16), mask, beat=np.full(beats.at.size, UNKNOWN, np.int8),
        extra=np.zeros(beats.at.size, np.bool_), rhythm=unknown[0],
        shockable=unknown[1], quality=unknown[2], arrhythmia=unknown[3], rr_ms=np.full(k, np.nan, np.float32),
    )  # fmt: skip


def window_index(cut: Cut, hops: Int, spare: Int | int = 0) -> tuple[Int, Int]:
    """For windows that end with `hops` (k,): the hops (k, 15) and the beats (k, 48) in them, newest last, -1 for none.

    Beats of the last 30 s that were ready at the end of the window; `spare` (k,) leaves that many of the newest out.
    """
    of_hops = hops[:, None] + np.arange(-TOKEN_HOPS + 1, 1)
    end = cut.hop_end[hops]
    last = np.searchsorted(cut.beat_ready, end, side="right") - spare
    first = np.searchsorted(cut.beat_at, end - _WINDOW_TICKS)
    of_beats = last[:, None] + np.arange(-TOKEN_BEATS, 0)
    return np.where(of_hops < 0, -1, of_hops), np.where(of_beats < np.maximum(first, 0)[:, None], -1, of_beats)


def _lead_pairs(record: datasets.Record) -> list[list[int]]:
    ecg = [i for i, s in enumerate(record.signals) if s.kind == "ecg"]
    if len(ecg) < 12:
        return [ecg[:N_CHANNELS]]
    by_name = {record.signals[i].name.lower(): i for i in ecg}
    return [[by_name["ii"], by_name["v1"]], [by_name["ii"], by_name["v5"]]]


def _in_force(at: Int, report_at: Int, quality: Float) -> Float:
    """The last report at or before each tick; full quality before the first."""
    index = np.searchsorted(report_at, at, side="right") - 1
    first = np.ones((1, quality.shape[1]), np.float32)
    out: Float = np.concatenate([first, quality])[index + 1]
    return out


def _cut_beats(templates: Templates, signal: Float, beats: CompleteBeats, report_at: Int, quality: Float) -> CutBeats:
    in_force = _in_force(beats.at, report_at, quality)
    lead = choose_leads(in_force)
    best = np.take_along_axis(in_force, np.maximum(lead[:, :1], 0), axis=1)[:, 0]
    return templates.cut(signal, beats, lead, beat_start(beats.at), best)


def _ticks(sample: npt.NDArray[np.int64] | int, fs: float) -> Int:
    out: Int = np.round(np.asarray(sample) * (TICK_RATE / fs)).astype(np.int64)
    return out


def _label_beats(cut: Cut, record: datasets.Record) -> None:
    sample, labels = _reference_beats(record)
    if record.annotations is None or sample.size < 10:
        return
    at = _ticks(sample, record.fs)
    partner = match(cut.beat_at, at)
    cut.beat[:] = [BEATS.index(str(labels[p])) if p >= 0 else BEATS.index("Q") for p in partner]
    missed = np.setdiff1d(np.arange(at.size), partner)
    cut.extra[:] = partner < 0
    cut.missed = {label: sum(labels[i] == label for i in missed) for label in BEATS}
    if record.name in PACED:  # their normal beats are few and odd: only what is paced is learnt
        cut.beat[(cut.beat != BEATS.index("Q"))] = UNKNOWN
    fluttering = False
    starts: list[tuple[int, bool]] = []
    for s, symbol in zip(record.annotations.sample, record.annotations.symbols, strict=True):
        if symbol in "[]":
            fluttering = symbol == "["
            starts.append((int(_ticks(s, record.fs)), fluttering))
    ends = [begin for begin, _ in starts[1:]] + [int(cut.hop_end[-1])]
    for (begin, on), end in zip(starts, ends, strict=False):
        if on:
            cut.beat[(cut.beat_at >= begin) & (cut.beat_at < end)] = UNKNOWN
            cut.rhythm[(cut.hop_end - 2 * HOP_TICKS >= begin) & (cut.hop_end <= end)] = RHYTHMS.index("VF")
    cut.rr_ms[:] = np.where(cut.rhythm == RHYTHMS.index("VF"), np.nan, mean_rr_ms(at, cut.hop_end))


def _reference_beats(record: datasets.Record) -> tuple[Int, list[str]]:
    """Sample and class of each beat of the annotations."""
    notes = record.annotations
    pairs = [] if notes is None else list(zip(notes.sample, map(beat_class, notes.symbols), strict=True))
    beats = [(int(sample), label) for sample, label in pairs if label is not None]
    return np.array([sample for sample, _ in beats], np.int64), [label for _, label in beats]


def mean_rr_ms(at: Int, end: Int) -> Float:
    """Mean (k,) of the RR intervals of up to 3 s of R peaks `at` that ended in the 10 s up to two seconds before each
    `end`; NaN for fewer than two. Ticks in, ms out.

    Not up to the end itself: what the model says of a beat is known up to 1.75 s after it.
    """
    rr, closed = np.diff(at), at[1:]
    closed, rr = closed[rr <= _LONGEST_RR], rr[rr <= _LONGEST_RR]
    total = np.concatenate([[0], np.cumsum(rr)])
    a, b = np.searchsorted(closed, end - 6 * HOP_TICKS, side="right"), np.searchsorted(closed, end - HOP_TICKS, "right")
    mean = 4.0 * (total[b] - total[a]) / np.maximum(b - a, 1)
    return np.where(b - a >= 2, mean, np.nan).astype(np.float32)


def match(found: Int, reference: Int, within: int = MATCH) -> Int:
    """For each found beat the nearest reference beat, that one to it alone, -1 for none; both sorted ticks."""
    out = np.full(found.size, -1, np.int64)
    if reference.size == 0 or found.size == 0:
        return out
    right = np.searchsorted(reference, found).clip(0, reference.size - 1)
    left = (right - 1).clip(0)
    near = np.where(np.abs(reference[left] - found) <= np.abs(reference[right] - found), left, right)
    distance = np.abs(reference[near] - found)
    order = np.argsort(distance, kind="stable")
    order = order[distance[order] <= within]
    _, first = np.unique(near[order], return_index=True)
    out[order[first]] = near[order[first]]
    return out


def _label_rhythm(cut: Cut, record: datasets.Record) -> None:
    for span in datasets.rhythm_spans(record):
        label = rhythm_class(f"({span.rhythm}")
        if label is None:
            continue
        start, end = _ticks(span.start, record.fs), _ticks(span.end, record.fs)
        inside = (cut.hop_end - 2 * HOP_TICKS >= start) & (cut.hop_end <= end)
        cut.rhythm[inside] = RHYTHMS.index(label)
        cut.quality[inside] = int(label != "NOISE")
        if label != "NOISE":
            cut.shockable[inside] = int(label in SHOCKABLE)


def _label_shockable(cut: Cut, segments: list[tuple[int, int, bool]], fs: float) -> None:
    for start, end, shockable in segments:
        inside = (cut.hop_end - 2 * HOP_TICKS >= _ticks(start, fs) - 250) & (cut.hop_end <= _ticks(end, fs) + 250)
        clear = inside & ((cut.shockable == UNKNOWN) | (cut.shockable == int(shockable)))
        cut.shockable[clear] = int(shockable)
        cut.shockable[inside & ~clear] = UNKNOWN


def _label_arrhythmia(cut: Cut, label: str) -> None:
    late = cut.hop_end >= 4 * HOP_TICKS
    cut.arrhythmia[late] = ARRHYTHMIAS.index(label)
    rhythm = {"N": "N", "A": "AF", "~": "NOISE"}.get(label)
    if rhythm is not None:
        cut.rhythm[late] = RHYTHMS.index(rhythm)
    if label != "~":
        cut.shockable[late] = 0
    cut.quality[late] = int(label != "~")
