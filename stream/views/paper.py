"""A stretch of signal on ECG paper: 25 mm/s, 10 mm/mV, a grid of 1 and 5 mm, calibration pulses, beats and marks.

Drawn with matplotlib in millimetres, so at the resolution it is saved with a millimetre is a millimetre. What is
no ECG (a pulse signal) has no scale in mm that anybody knows, so it is made to fit, and the figure says its range.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from stream.wire import MISSING, Strip

MM_PER_S, MM_PER_MV = 25.0, 10.0
LEFT_MM, RIGHT_MM, TOP_MM, BOTTOM_MM = 20.0, 5.0, 17.0, 11.0
ROW_MM, MOST_MM, OTHER_MM = 25.0, 60.0, 20.0  # height of an ECG lead, at least and at most; of another signal
INK, GRID, FINE = "#1c1c1c", "#e8a0a0", "#f6d9d9"
COLOURS = {"V": "#b3261e", "F": "#8a5a00", "S": "#1f5fa8"}
ONSET, DECIDED = "#1a6b3c", "#6a2c91"


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to be said at a time: at the top of the sheet or at its foot, or as a line through all of it."""

    at_s: float
    text: str
    colour: str = INK
    place: Literal["top", "foot", "line"] = "top"


@dataclass(frozen=True, slots=True)
class Sheet:
    """What is drawn. `signals`: (n_signals, n) float32 in each one's unit, NaN where missing, from `start_s` on;
    `names`, `units`: of each, mV for an ECG lead."""

    title: str
    start_s: float
    fs: float
    signals: npt.NDArray[np.float32]
    names: Sequence[str]
    units: Sequence[str]
    marks: Sequence[Mark] = ()


def sheet_of(strip: Strip) -> Sheet:
    """A strip of an alert, with its beats, and with the onset and the decision marked."""
    digital = strip.samples()
    gain = np.array([[signal.gain] for signal in strip.signals], np.float32)
    baseline = np.array([[signal.baseline] for signal in strip.signals], np.float32)
    signals = np.where(digital == MISSING, np.float32(np.nan), (digital - baseline) / gain)
    marks = [
        Mark(sample / strip.rate, label, COLOURS.get(label, INK))
        for sample, label in zip(strip.beats, strip.labels, strict=True)
    ]
    onset_s, decided_s = strip.onset.sample / strip.rate, strip.decided.sample / strip.rate
    start_s = strip.first / strip.rate
    if onset_s >= start_s:
        marks.append(Mark(onset_s, "onset", ONSET, "line"))
    marks.append(Mark(decided_s, "decided", DECIDED, "line"))
    before = "" if onset_s >= start_s else f", onset {start_s - onset_s:.0f} s before this"
    title = f"{strip.text}   {strip.bed}   epoch {strip.epoch}   decided at {decided_s:.2f} s{before}"
    units = ["mV" if signal.kind == "ecg" else signal.unit for signal in strip.signals]
    return Sheet(title, start_s, strip.rate, signals, [signal.name for signal in strip.signals], units, marks)


def draw(sheet: Sheet, dpi: float = 150) -> bytes:
    """The sheet as PNG; at `dpi` dots per inch it has the size of paper."""
    length_s = sheet.signals.shape[1] / sheet.fs
    heights = [_height(signal, unit) for signal, unit in zip(sheet.signals, sheet.units, strict=True)]
    width, height = LEFT_MM + length_s * MM_PER_S + RIGHT_MM, TOP_MM + sum(heights) + BOTTOM_MM
    figure = Figure(figsize=(width / 25.4, height / 25.4), dpi=dpi)
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    _grid(axes, width, height)
    top = height - TOP_MM
    for signal, name, unit, rows_mm in zip(sheet.signals, sheet.names, sheet.units, heights, strict=True):
        _trace(axes, signal, sheet.fs, name, unit, top, rows_mm)
        top -= rows_mm
    for mark in sheet.marks:
        _mark(axes, mark, LEFT_MM + (mark.at_s - sheet.start_s) * MM_PER_S, height)
    for second in range(int(np.ceil(sheet.start_s)), int(sheet.start_s + length_s) + 1):
        x = LEFT_MM + (second - sheet.start_s) * MM_PER_S
        axes.plot([x, x], [0, 1.5], color=INK, linewidth=0.6)
        _text(axes, x + 0.5, 0.6, f"{second // 3600}:{second // 60 % 60:02}:{second % 60:02}", size=5)
    _text(axes, 2, height - 4.5, sheet.title, size=9, weight="bold")
    _text(axes, 2, height - 9, "25 mm/s  10 mm/mV   RESEARCH, NOT FOR CLINICAL USE: simulated or replayed", size=6)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name with a letter that the font lacks is drawn as a box
        canvas.print_png(out)
    return out.getvalue()


def _height(signal: npt.NDArray[np.float32], unit: str) -> float:
    """What a signal takes, in mm: whole squares of 5 mm."""
    if unit != "mV":
        return OTHER_MM
    known = signal[np.isfinite(signal)]
    if not known.size:
        return ROW_MM
    reach_mm = float(known.max() - known.min()) * MM_PER_MV + 5
    return float(np.clip(5 * np.ceil(reach_mm / 5), ROW_MM, MOST_MM))


def _grid(axes: Any, width: float, height: float) -> None:
    for step, colour, line in ((1, FINE, 0.3), (5, GRID, 0.5)):
        across = [[(x, 0.0), (x, height)] for x in np.arange(0, width, step)]
        down = [[(0.0, y), (width, y)] for y in np.arange(0, height, step)]
        axes.add_collection(LineCollection(across + down, colors=colour, linewidths=line, zorder=0))


def _trace(
    axes: Any, signal: npt.NDArray[np.float32], fs: float, name: str, unit: str, top: float, rows_mm: float
) -> None:
    """A signal in its row, with its name, and a pulse of 1 mV or its range; broken where samples are missing."""
    known = signal[np.isfinite(signal)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    ecg = unit == "mV"
    mm = MM_PER_MV if ecg else (rows_mm - 4) / max(high - low, 1e-6)
    middle = top - rows_mm / 2
    y = middle + (signal - (low + high) / 2) * mm
    x = LEFT_MM + np.arange(signal.size) / fs * MM_PER_S
    axes.plot(x, np.clip(y, top - rows_mm, top), color=INK, linewidth=0.7, solid_joinstyle="round")
    _text(axes, 2, top - 3.5, name, size=8, weight="bold")
    if ecg:
        foot = middle - 5
        axes.plot([4, 6, 6, 11, 11, 13], np.array([0, 0, 10, 10, 0, 0]) + foot, color=INK, linewidth=0.8)
    elif known.size:
        _text(axes, 2, middle - 3, f"{low:.3g} to\n{high:.3g} {unit}", size=5)


def _mark(axes: Any, mark: Mark, x: float, height: float) -> None:
    foot, head = BOTTOM_MM - 4, height - TOP_MM
    if mark.place == "line":
        axes.plot([x, x], [foot, head + 1], color=mark.colour, linewidth=0.9, linestyle=(0, (4, 3)))
        side = -1 if mark.text == "onset" else 1
        how = {"color": mark.colour, "ha": "right" if side < 0 else "left"}
        _text(axes, x + side / 2, foot - 0.5, mark.text, 6, **how)
        return
    axes.plot([x, x], [head - 1, head] if mark.place == "top" else [foot, foot + 1], color=mark.colour, linewidth=0.6)
    _text(axes, x, head + 1 if mark.place == "top" else foot - 2.5, mark.text, size=7, color=mark.colour, ha="center")


def _text(axes: Any, x: float, y: float, text: str, size: float, **how: Any) -> None:
    axes.text(x, y, text, fontsize=size, parse_math=False, zorder=5, **{"color": INK, "va": "bottom", **how})
