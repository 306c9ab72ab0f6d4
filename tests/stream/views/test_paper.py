"""Strips on ECG paper: of the size that paper has, with what lies in them."""

import io

import numpy as np
import pytest
from matplotlib import image

from stream.views import paper
from stream.wire import MISSING, Moment, Signal, Strip

FS = 250.0


def strip(**changes: object) -> Strip:
    ecg = (1000 * np.sin(np.arange(3750) / 20)).astype("<i2")
    ecg[500:600] = MISSING
    pulse = (80 + 40 * np.sin(np.arange(3750) / 30)).astype("<i2")
    fields: dict[str, object] = {
        "id": "a1", "bed": "bed-1", "epoch": "e", "code": "VTACH", "text": "***VTACH 162>100", "priority": "high",
        "onset": Moment(1800, FS), "decided": Moment(2500, FS), "rate": FS, "first": 0, "n": 3750,
        "signals": (Signal("II", "ecg", "mV", 1000.0), Signal("ABP", "abp", "mmHg", 1.0)),
        "data": memoryview(np.stack([ecg, pulse]).tobytes()), "beats": (1000, 1500), "labels": ("N", "V"),
    }  # fmt: skip
    return Strip(**(fields | changes))  # type: ignore[arg-type]


def test_a_strip_has_the_size_of_paper() -> None:
    """15 s at 25 mm/s are 375 mm beside the margins; the ECG of 2 mV takes 25 mm, the pulse 20 mm."""
    drawn = image.imread(io.BytesIO(paper.draw(paper.sheet_of(strip()), dpi=127)), format="png")
    wide = (paper.LEFT_MM + 375 + paper.RIGHT_MM) * 127 / 25.4
    high = (paper.TOP_MM + 25 + paper.OTHER_MM + paper.BOTTOM_MM) * 127 / 25.4
    assert drawn.shape[:2] == pytest.approx((high, wide), abs=1)


def test_a_strip_tells_its_beats_onset_and_decision() -> None:
    marks = {(mark.text, mark.place): mark.at_s for mark in paper.sheet_of(strip()).marks}
    assert marks == {("N", "top"): 4.0, ("V", "top"): 6.0, ("onset", "line"): 7.2, ("decided", "line"): 10.0}


def test_an_onset_before_the_strip_is_said_in_words() -> None:
    sheet = paper.sheet_of(strip(first=3000, onset=Moment(500, FS), decided=Moment(5500, FS)))
    assert [mark.text for mark in sheet.marks if mark.place == "line"] == ["decided"]
    assert "onset 10 s before this" in sheet.title


def test_missing_samples_are_no_line_and_gain_and_baseline_are_taken() -> None:
    signals = paper.sheet_of(strip(signals=(Signal("II", "ecg", "mV", 500.0, 100), Signal("P", "abp", "mmHg", 1.0))))
    assert np.isnan(signals.signals[0, 500:600]).all()
    assert signals.signals[0, 0] == pytest.approx(-0.2)


def test_names_that_the_font_lacks_and_mathematics_harm_nothing() -> None:
    names = (Signal("導出$II_1$", "ecg", "mV", 1000.0), Signal("\N{PILE OF POO}", "abp", "mmHg", 1.0))
    assert paper.draw(paper.sheet_of(strip(bed="ベッド$^", signals=names)), dpi=50).startswith(b"\x89PNG")


def test_a_signal_of_nothing_but_missing_samples_is_drawn() -> None:
    data = memoryview(np.full((2, 3750), MISSING, "<i2").tobytes())
    assert paper.draw(paper.sheet_of(strip(data=data)), dpi=50).startswith(b"\x89PNG")
