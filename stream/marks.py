"""What was found in a recording, as WFDB annotations: the `.moe` file.

Beats stand at the R peak; rhythm changes (`+`), `[` and `]` around VF, and `~` around what could not be
read (subtype -1, and 0 where it can be read again) stand at onset, where alerts carry the time of decision.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from model.ec57.marks import marks as annotation_marks
from model.ec57.marks import write_marks
from stream.wire import AlertEvent, BeatJudgement, WindowJudgement

NOTES = {
    "N": "(N", "AF": "(AFIB", "AFL": "(AFL", "SVT": "(SVTA", "VT": "(VT", "VF": "(VF", "ASYS": "(ASYS", "PACED": "(P",
    "NOISE": "(NOISE", "OTHER": "(OTHER",
}  # fmt: skip
RUNS = {"VTACH": "(VT", "NSVT": "(VT", "VENT_RHYTHM": "(IVR", "SVT": "(SVTA"}
UNREADABLE = frozenset({"LEADS_OFF", "NOISY_ECG", "CANNOT_ANALYZE", "SIGNAL_LOST"})
HOP_S = 2.0
STEADY = 2  # windows in a row that make a rhythm


class Mark(NamedTuple):
    """One annotation. `order` sorts the marks of one sample: what ends stands before what begins."""

    sample: int
    symbol: str
    order: int = 1
    subtype: int = 0
    note: str = ""


class Span(NamedTuple):
    """From sample `start` up to `end`."""

    start: int
    end: int
    code: str


def spans(events: Iterable[AlertEvent], n_samples: int) -> list[Span]:
    """Alerts of a record as spans from onset to the end of the condition; one that did not end lasts to the end."""
    begun: dict[str, AlertEvent] = {}
    ended: dict[str, int] = {}
    for event in events:
        begun.setdefault(event.alert_id, event)
        if event.state != "active" and event.alert_id not in ended:
            ended[event.alert_id] = _over(event)
    return [Span(event.onset.sample, ended.get(alert_id, n_samples), event.code) for alert_id, event in begun.items()]


def _over(event: AlertEvent) -> int:
    """Where the condition was over: where the waveform was, if the event says so, else where that was decided."""
    over = event.evidence.get("over")
    return max(event.onset.sample, over["sample"] if over else event.stream_time.sample)


def marks(
    beats: Iterable[BeatJudgement],
    windows: Sequence[WindowJudgement],
    events: Iterable[AlertEvent],
    n_samples: int,
) -> list[Mark]:
    """All annotations of a record of `n_samples`, sorted. `windows` in order; alerts that were suppressed count too."""
    found = spans(events, n_samples)
    vf = _merged([span for span in found if span.code == "VFIB"])
    away = _merged([span for span in found if span.code in UNREADABLE])
    runs = [(span, RUNS[span.code]) for span in found if span.code in RUNS]
    result = [Mark(beat.at.sample, "Q" if beat.label == "?" else beat.label) for beat in beats]
    result += [mark for span in vf for mark in (Mark(span.start, "[", 2), Mark(span.end, "]", 0))]
    result += [mark for span in away for mark in (Mark(span.start, "~", 2, -1), Mark(span.end, "~", 0, 0))]
    result += _rhythm_marks(windows, [*runs, *((span, "(VF") for span in vf)], n_samples)
    return sorted((mark for mark in result if 0 <= mark.sample < n_samples), key=lambda mark: (mark.sample, mark.order))


def write(path: Path, found: Sequence[Mark], fs: float) -> None:
    """Write `path` (RECORD.moe). Nothing found gives an annotation file with nothing in it."""
    columns = zip(*((mark.sample, mark.symbol, mark.subtype, mark.note) for mark in found), strict=True)
    samples, symbols, subtypes, notes = columns if found else ((), (), (), ())
    write_marks(path.with_suffix(""), path.suffix[1:], annotation_marks(samples, symbols, subtypes, notes), fs)


def _rhythm_marks(
    windows: Sequence[WindowJudgement], episodes: Sequence[tuple[Span, str]], n_samples: int
) -> list[Mark]:
    """Changes of rhythm: that of the windows, with the episodes that alarms found laid over it."""
    base = [(0, "(N"), *_steady(windows)]
    over = sorted((span.start, span.end, note) for span, note in episodes)
    points = sorted({sample for sample, _ in base} | {edge for start, end, _ in over for edge in (start, end)})
    result: list[Mark] = []
    current = ""
    for point in points:
        inside = [note for start, end, note in over if start <= point < end]
        note = "(VF" if "(VF" in inside else inside[-1] if inside else [n for at, n in base if at <= point][-1]
        if note != current and point < n_samples:
            result.append(Mark(point, "+", 1, 0, note))
            current = note
    return result


def _steady(windows: Sequence[WindowJudgement]) -> list[tuple[int, str]]:
    """(onset, note) of each rhythm that held for `STEADY` windows; the newest hop is what made the difference."""
    changes: list[tuple[int, str]] = []
    current, candidate, since, n = "N", "", 0, 0
    for window in windows:
        if window.rhythm == "?":  # the model does not say: no evidence for a change
            continue
        rhythm = "N" if window.rhythm in {"VF", "ASYS", "NOISE"} else window.rhythm  # told by `[`, alarms and `~`
        if rhythm == current:
            n, candidate = 0, ""
            continue
        if rhythm != candidate:
            candidate, since, n = rhythm, max(0, window.at.sample - round(HOP_S * window.at.fs)), 0
        n += 1
        if n == STEADY:
            changes.append((since, NOTES[rhythm]))
            current, n, candidate = rhythm, 0, ""
    return changes


def _merged(found: Sequence[Span]) -> list[Span]:
    """Spans that overlap or touch, as one."""
    result: list[Span] = []
    for span in sorted(found):
        if result and span.start <= result[-1].end:
            result[-1] = result[-1]._replace(end=max(result[-1].end, span.end))
        else:
            result.append(span)
    return result
