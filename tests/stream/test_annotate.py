"""`annotate`: recordings in, annotation files and alerts out, the same as a live ward would have given."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import wfdb

from model.datasets import DatasetError
from model.datasets.record import MISSING
from model.ec57.beats import compare
from simulators.patients import Patient
from stream import annotate
from stream.wire import AlertEvent, WindowJudgement

LOST = slice(20 * 250, 40 * 250)  # samples of the record "lost" that are missing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WFDB database of two simulated patients, one of them at 500 Hz, and of lines without a beat."""
    folder = tmp_path_factory.mktemp("ward")
    Patient("vf", [("sinus", 20), ("vf", 20), ("sinus", 20)], seed=4).write(folder, 60)
    Patient("pvcs", [("sinus", 10, {"pvc_per_min": 12}), ("vt", 10), ("sinus", 40)], seed=5, fs=500.0).write(folder, 60)
    flat, off = np.zeros(5000, np.int16), np.full(5000, MISSING, np.int16)
    write(folder, "flat", II=flat)
    write(folder, "off", II=off, V=off)
    write(folder, "pleth", PLETH=flat)
    write(folder, "beside", II=off, V=flat)
    lost = Patient("lost", [("sinus", 60)], seed=6).render(0, 15_000)[0]
    lost[LOST] = MISSING
    write(folder, "lost", II=lost)
    return folder


def write(folder: Path, name: str, **signals: np.ndarray) -> None:
    """A record at 250 Hz of signals as int16, 200 to the unit."""
    n = len(signals)
    units = ["NU" if signal == "PLETH" else "mV" for signal in signals]
    scale = {"fmt": ["16"] * n, "adc_gain": [200] * n, "baseline": [0] * n}
    samples = np.stack(list(signals.values()), 1)
    wfdb.wrsamp(name, 250, units, list(signals), d_signal=samples, write_dir=str(folder), **scale)


@pytest.fixture(scope="module")
def annotated(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    annotate.annotate(str(folder), out, device="cpu", windows=True, strips=True, progress=False)
    return out


def windows(path: Path) -> list[WindowJudgement]:
    return [msgspec.json.decode(line, type=WindowJudgement) for line in path.read_bytes().splitlines()]


def events(path: Path) -> list[AlertEvent]:
    return [msgspec.json.decode(line, type=AlertEvent) for line in path.read_bytes().splitlines()]


def test_beats_stand_at_the_r_peaks_in_the_records_own_samples(folder: Path, annotated: Path) -> None:
    for name, fs in (("vf", 250), ("pvcs", 500)):
        truth, found = (wfdb.rdann(str(where / name), ext) for where, ext in ((folder, "atr"), (annotated, "moe")))
        hits, missed, _ = compare(truth.sample, truth.symbol, found.sample, found.symbol, fs, start_s=5).qrs
        assert hits > 9 * missed
        assert set(found.symbol) <= set("NSVFQ+[]~")


def test_vf_stands_in_brackets_near_its_true_onset(folder: Path, annotated: Path) -> None:
    found = wfdb.rdann(str(annotated / "vf"), "moe")
    onsets = [s / 250 for s, symbol in zip(found.sample, found.symbol, strict=True) if symbol == "["]
    assert any(18 <= onset <= 26 for onset in onsets)
    assert "VFIB" in {event.code for event in events(annotated / "vf.alerts.jsonl")}


def test_a_record_with_nothing_in_it_has_its_files_too(annotated: Path) -> None:
    assert not [s for s in wfdb.rdann(str(annotated / "flat"), "moe").symbol if s in "NSVFQ"]
    assert not [e for e in events(annotated / "flat.alerts.jsonl") if e.code in ("ASYSTOLE", "VFIB")]


def test_alerts_name_their_record_and_say_that_they_are_simulated(annotated: Path) -> None:
    for path in annotated.glob("*.alerts.jsonl"):
        for event in events(path):
            assert event.bed == path.name.removesuffix(".alerts.jsonl")
            assert event.simulated
            assert event.model_version


def test_what_the_model_says_of_each_window_is_written_when_asked_for(annotated: Path) -> None:
    told = windows(annotated / "pvcs.windows.jsonl")
    ends = np.array([window.at.sample / window.at.fs for window in told])
    np.testing.assert_allclose(np.diff(ends), 2.0)
    assert ends[-1] == pytest.approx(60, abs=2)
    assert all(window.bed == "pvcs" and window.research and window.potassium_simulated for window in told)
    assert all(window.arrhythmia in ("N", "A", "O", "~") and window.age_years is not None for window in told[5:])


@pytest.mark.parametrize("name", ["off", "pleth"])
def test_nothing_is_told_of_a_patient_without_a_lead(annotated: Path, name: str) -> None:
    told = windows(annotated / f"{name}.windows.jsonl")
    assert len(told) >= 8
    for window in told:
        assert (window.rhythm, window.confidence, window.shockable, window.quality) == ("?", 0.0, 0.0, 0.0)
        assert not any(window.rhythms.values())
        profile = window.rr_ms, window.age_years, window.male, window.potassium_abnormal
        assert (profile, window.arrhythmia) == ((None,) * 4, "")


@pytest.mark.parametrize("name", ["flat", "beside"])
def test_a_flat_line_of_a_lead_that_is_on_is_asystole_even_beside_one_that_is_off(annotated: Path, name: str) -> None:
    told = windows(annotated / f"{name}.windows.jsonl")[2:]
    assert len(told) >= 7
    assert {window.rhythm for window in told} == {"ASYS"}


def test_only_while_no_lead_is_on_is_nothing_told(annotated: Path) -> None:
    told = {window.at.sample // 250: window for window in windows(annotated / "lost.windows.jsonl")}
    silent = {end for end, window in told.items() if window.confidence == 0}
    assert set(range(26, 39, 2)) <= silent <= set(range(24, 41, 2))
    assert all(told[end].age_years is not None for end in told.keys() - silent)


def test_the_strip_of_each_red_and_yellow_is_drawn_when_asked_for(annotated: Path) -> None:
    for name in ("vf", "pvcs"):
        wanted = {e.alert_id for e in events(annotated / f"{name}.alerts.jsonl") if e.priority in ("high", "medium")}
        drawn = list((annotated / "strips").glob(f"{name}-*.png"))
        assert sorted(path.stem[-8:] for path in drawn) == sorted(alert_id[:8] for alert_id in wanted)
        assert wanted and all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_a_source_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        annotate.annotate(str(tmp_path / "nowhere"), tmp_path / "out", progress=False)


@pytest.mark.recordings
def test_real_records_come_out_well_enough_to_be_looked_at(recordings: Path, tmp_path: Path) -> None:
    source = recordings / "mitdb" / "208"
    annotate.annotate(str(source), tmp_path, device="cpu", progress=False)
    truth, found = wfdb.rdann(str(source), "atr"), wfdb.rdann(str(tmp_path / "208"), "moe")
    hits, missed, extra = compare(truth.sample, truth.symbol, found.sample, found.symbol, 360).qrs
    assert hits > 98 * missed
    assert hits > 98 * extra
