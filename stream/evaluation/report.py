"""The result of an evaluation as one page that needs nothing else: figures, plots and the worst strips.

Plots are SVG written here. A strip is on ECG paper, with the reference's marks above the signal and ours below.
"""

import base64
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model import datasets
from model.ec57.marks import Marks
from stream.evaluation.evaluated import Evaluated
from stream.evaluation.scoreboard import BEAT_RATES, interval, percent
from stream.views import paper

STRIP_S = 10.0
MAX_STRIPS, MAX_PER_RECORD = 24, 3
WIDTH, BAR = 1000, 16
MAX_SIGNALS = 3  # of a strip
REF_COLOUR, OUR_COLOUR = "#1a6b3c", "#b3261e"

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1060px;padding:0 1em;color:#1c1c1c;background:#fff}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse}
th,td{padding:.15em .7em;border-bottom:1px solid #ddd;text-align:right;font-variant-numeric:tabular-nums}
th:first-child,td:first-child{text-align:left}.note{background:#fff4d6;padding:.5em .8em;border-left:4px solid #d9a400}
svg,img{display:block;max-width:100%;height:auto}figure{margin:1em 0}figcaption{color:#555;font-size:.9em}
text{font:11px system-ui,sans-serif}
"""


@dataclass(frozen=True, slots=True)
class Strip:
    """A stretch of a record to be drawn, from `start_s` on, and why."""

    of: Evaluated
    start_s: float
    why: str


def page(result: Mapping[str, Any], evaluated: Sequence[Evaluated]) -> str:
    """The page as HTML. Reads the signals of the strips that it draws; raises DatasetError where it cannot."""
    body = "".join(
        [
            _head(result),
            _beats(result),
            _beat_delays(result["beat_delay"]),
            _delays(result),
            _challenge(result),
            _strips(worst_strips(evaluated)),
            f"<h2>Rules</h2><ul>{''.join(f'<li>{_text(rule)}</li>' for rule in result['rules'])}</ul>",
        ]
    )
    title = f"Evaluation of {_text(result['source'])}"
    head = f'<head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>'
    return f'<!doctype html><html lang="en">{head}<body><h1>{title}</h1>{body}</body></html>\n'


def worst_strips(evaluated: Sequence[Evaluated]) -> list[Strip]:
    """False reds and missed episodes first, then the stretches with most wrong beats, few of each record."""
    chosen: list[Strip] = []
    for e in evaluated:
        chosen += _wrong_alarms(e)[:MAX_PER_RECORD]
    beats = [strip for e in evaluated for strip in _wrong_beats(e)[:MAX_PER_RECORD]]
    beats.sort(key=lambda strip: -strip[0])
    room = MAX_STRIPS - min(len(chosen), MAX_STRIPS // 2)
    return chosen[: MAX_STRIPS - min(len(beats), room)] + [strip for _, strip in beats[:room]]


def _wrong_alarms(e: Evaluated) -> list[Strip]:
    if e.alarms is None or len(e.ref) == 0:
        return []
    fs = e.score.fs
    false = [
        Strip(e, alert.onset / fs - 2, f"false {alert.code}, decided at {alert.decided / fs:.1f} s")
        for alert, verdict in e.alarms.reds
        if verdict == "false"
    ]
    missed = [
        Strip(e, f.onset / fs - 2, f"no {f.code} for {(f.end - f.onset) / fs:.1f} s of it")
        for f in e.alarms.found
        if f.delay_s is None and f.code in {"VFIB", "VTACH", "ASYSTOLE"}
    ]
    return false + missed


def _wrong_beats(e: Evaluated) -> list[tuple[int, Strip]]:
    """Windows of 10 s by number of wrong pairs, most first."""
    if "bxb" not in e.score.beats or e.score.paced:
        return []
    c = e.score.beats["bxb"]
    at = np.where(c.ref_at >= 0, c.ref_at, c.test_at)
    wrong = np.array([r not in (t, "*") for r, t in zip(c.ref, c.test, strict=True)], dtype=bool)
    windows, counts = np.unique((at[wrong] / (STRIP_S * e.score.fs)).astype(np.int64), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        (int(counts[i]), Strip(e, float(windows[i]) * STRIP_S, f"{counts[i]} beats missed, invented or misnamed"))
        for i in order[:MAX_PER_RECORD]
    ]


def _head(result: Mapping[str, Any]) -> str:
    facts = {
        "records": f"{result['n_records']}, {result['hours']:.2f} h",
        "beats": result["beats"],
        "weights": ", ".join(result["weights"]),
        "split": result["split"],
        "seed": "not told" if result["seed"] is None else result["seed"],
        "could not be read": "; ".join(result["unread"]) or "none",
        "left out as paced": ", ".join(result["left_out_as_paced"]) or "none",
    }
    rows = "".join(f"<tr><td>{k}</td><td style='text-align:left'>{_text(v)}</td></tr>" for k, v in facts.items())
    return f"<p class='note'>Research software: not a medical device.</p><table>{rows}</table>"


def _beats(result: Mapping[str, Any]) -> str:
    parts = []
    for label_map, table in result["beat_tables"].items():
        rows = [
            (name, percent(s["gross"]), interval(s["gross"]), interval(s["by_patient"]))
            for name in BEAT_RATES
            if (s := table["summary"][name])["gross"]["value"] is not None
        ]
        parts.append(
            f"<h2>Beats, label map {label_map}</h2>{_table(('rate', 'gross %', 'Wilson', 'by patient'), rows)}"
        )
    if "bxb" in result["beat_tables"]:
        records = result["beat_tables"]["bxb"]["records"]
        for kind in ("QRS", "VEB", "SVEB"):
            errors = {
                name: tuple(
                    r["rates"][f"{kind} {which}"][1] - r["rates"][f"{kind} {which}"][0] for which in ("Se", "+P")
                )
                for name, r in records.items()
            }
            parts.append(_figure(_bars(errors), f"{kind}: missed (dark) and false (light), by record"))
    return "".join(parts)


def _beat_delays(delay: Mapping[str, Any]) -> str:
    """How long after each R peak the detector had decided, in bins of 10 ms."""
    if not delay:
        return ""
    counts, height = delay["histogram_10_ms"], 120
    step, most = WIDTH / max(len(counts), 30), max(counts)
    bars = [
        f'<rect x="{i * step:.1f}" y="{height * (1 - n / most):.1f}" fill="#1f5fa8" width="{step - 1:.1f}" '
        f'height="{height * n / most:.1f}"/><text x="{i * step:.1f}" y="{height + 13}">{"" if i % 5 else 10 * i}</text>'
        for i, n in enumerate(counts)
    ]
    drawing = f'<svg viewBox="0 0 {WIDTH} {height + 18}" role="img">{"".join(bars)}</svg>'
    return "<h2>R peak to decision</h2>" + _figure(
        drawing, f"ms of signal, {delay['n']} beats, longest {delay['max_ms']:.0f}"
    )


def _delays(result: Mapping[str, Any]) -> str:
    if not result["alarms"] or not result["alarms"]["episodes"]:
        return ""
    curves = {code: of["delays_s"] for code, of in result["alarms"]["episodes"].items() if of["delays_s"]}
    rows = [
        (code, percent(of["announced"], 1), *(_seconds(of["delay_s"][key]) for key in ("p50", "p95", "p99", "max")))
        for code, of in result["alarms"]["episodes"].items()
        if of["n_all"]
    ]
    table = _table(("alarm", "episodes announced %", "p50 s", "p95 s", "p99 s", "max s"), rows)
    plot = (
        _figure(_cumulative(curves), "Share of the announced episodes by delay; the line is at 10 s") if curves else ""
    )
    return f"<h2>Alarm delays</h2>{table}{plot}"


def _challenge(result: Mapping[str, Any]) -> str:
    if not result["challenge2015"]:
        return ""
    rows = [
        (kind, "-" if of["score"] is None else f"{of['score']:.2f}", percent(of["TPR"], 1), percent(of["TNR"], 1))
        for kind, of in result["challenge2015"]["by_type"].items()
    ]
    return f"<h2>Challenge 2015, in real time</h2>{_table(('alarm', 'score', 'TPR %', 'TNR %'), rows)}"


def _strips(strips: Sequence[Strip]) -> str:
    if not strips:
        return ""
    drawn = "".join(_strip(strip) for strip in strips)
    return f"<h2>Worst strips</h2><p>Above: reference. Below: ours. Ten seconds each.</p>{drawn}"


def _strip(strip: Strip) -> str:
    """The signal on ECG paper, with the reference's marks above it and ours at its foot."""
    path: Path = strip.of.path
    length_s = strip.of.score.n / strip.of.score.fs
    start = max(0.0, min(strip.start_s, length_s - STRIP_S))
    record = datasets.read(path, start, STRIP_S, annotator=None)
    shown = record.signals[:MAX_SIGNALS]
    marks = [
        *_marks(strip.of.ref, record.fs, start, REF_COLOUR, "top"),
        *_marks(strip.of.test, record.fs, start, OUR_COLOUR, "foot"),
    ]
    sheet = paper.Sheet(
        f"{strip.of.name} at {start:.1f} s", start, record.fs, datasets.physical(record)[:MAX_SIGNALS],
        [signal.name for signal in shown], [signal.unit for signal in shown], marks,
    )  # fmt: skip
    drawn = base64.b64encode(paper.draw(sheet, dpi=100)).decode()
    return _figure(f'<img alt="" src="data:image/png;base64,{drawn}">', f"{sheet.title}: {strip.why}")


def _marks(of: Marks, fs: float, start_s: float, colour: str, place: Literal["top", "foot"]) -> Iterator[paper.Mark]:
    """Marks of an annotator within a strip: beats by their symbols, rhythms by their names, the one going on first."""
    first, last = np.searchsorted(of.sample, [start_s * fs, (start_s + STRIP_S) * fs])
    rhythm = next((of.aux[i] for i in range(int(first) - 1, -1, -1) if of.symbol[i] == "+"), "")
    yield paper.Mark(start_s, rhythm, colour, place)
    for i in range(int(first), int(last)):
        yield paper.Mark(of.sample[i] / fs, of.aux[i] or of.symbol[i], colour, place)


def _bars(errors: Mapping[str, tuple[int, ...]]) -> str:
    """Horizontal bars of missed and false per record."""
    most = max((sum(pair) for pair in errors.values()), default=0) or 1
    height = BAR * len(errors) + 4
    rows = []
    for i, (name, (missed, invented)) in enumerate(errors.items()):
        y, unit = i * BAR, (WIDTH - 200) / most
        rows.append(f'<text x="56" y="{y + 12}" text-anchor="end">{_text(name)}</text>')
        for x, n, colour in ((62.0, missed, "#8c1d18"), (62 + missed * unit, invented, "#f2a49f")):
            size = f'width="{n * unit:.1f}" height="{BAR - 4}"'
            rows.append(f'<rect x="{x:.1f}" y="{y + 2}" {size} fill="{colour}"/>')
        rows.append(f'<text x="{68 + (missed + invented) * unit:.1f}" y="{y + 12}">{missed} + {invented}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(rows)}</svg>'


def _cumulative(curves: Mapping[str, Sequence[float]]) -> str:
    """Cumulative shares of delays, one line per alarm, 0 to 30 s."""
    colours = ("#b3261e", "#1f5fa8", "#1a6b3c", "#8a5a00", "#6a2c91", "#333333")
    width, height, longest = WIDTH - 200, 220, 30.0
    lines = [
        f'<line x1="{width / 3:.0f}" x2="{width / 3:.0f}" y1="0" y2="{height}" stroke="#999" stroke-dasharray="4"/>'
    ]
    lines += [
        f'<text x="{width * second / longest:.0f}" y="{height + 14}" text-anchor="middle">{second} s</text>'
        for second in range(0, 31, 5)
    ]
    for i, (code, delays) in enumerate(curves.items()):
        x = np.clip(np.sort(delays), 0, longest) * width / longest
        share = np.arange(1, x.size + 1) / x.size
        steps = " ".join(
            f"{a:.1f},{height * (1 - before):.1f} {a:.1f},{height * (1 - after):.1f}"
            for a, before, after in zip(x, np.concatenate([[0.0], share[:-1]]), share, strict=True)
        )
        colour = colours[i % len(colours)]
        lines.append(
            f'<polyline points="0,{height} {steps} {width},0" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        lines.append(
            f'<text x="{width + 10}" y="{14 + 15 * i}" fill="{colour}">{_text(code)}, n = {len(delays)}</text>'
        )
    return f'<svg viewBox="-10 -6 {WIDTH} {height + 26}" role="img">{"".join(lines)}</svg>'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{_text(caption)}</figcaption></figure>"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _text(value: object) -> str:
    return html.escape(str(value))
