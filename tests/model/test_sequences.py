"""RR sequences without waveforms become windows like those of a bed."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from model import sequences
from model.ecg_moe import EcgMoe
from model.labels import RHYTHMS
from model.segments import FEATURES, SHAPE
from model.sequences import Sequences
from model.tokens import without_waveforms

N, AF = RHYTHMS.index("N"), RHYTHMS.index("AF")


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Case 1: 60 s regular at 60 bpm, then 60 s AF; case 2: regular at 75 bpm, bad from 40 s to 50 s."""
    rng = np.random.default_rng(0)
    first = np.cumsum([1.0] * 60 + list(rng.uniform(0.4, 1.2, 75)))
    second = np.cumsum([0.8] * 100)
    rows1 = [f"{t},{'N' if i < 60 else 'S'},{'N' if i < 60 else 'AFIB/AFL'},False," for i, t in enumerate(first)]
    rows2 = [f"{t},N,N,{40 <= t < 50}," for t in second]
    folder = tmp_path / "vitaldb-rhythm"
    folder.mkdir()
    for case, rows in ((1, rows1), (2, rows2)):
        text = "\n".join(["time_second,beat_type,rhythm_label,bad_signal_quality,bad_signal_quality_label", *rows])
        (folder / f"Annotation_file_{case}.csv.gz").write_bytes(gzip.compress(text.encode()))
    monkeypatch.setenv("RECORDINGS", str(tmp_path))
    return folder


@pytest.fixture
def cut(two: Path) -> Sequences:
    return sequences.load(None)


def test_a_window_has_the_label_that_all_beats_of_its_last_four_seconds_have(cut: Sequences) -> None:
    mine = cut.of_window == 0
    end_s = cut.end[mine] / 250
    label = cut.rhythm[mine]
    assert (label[end_s <= 60] == N).all()
    assert (label[end_s >= 66] == AF).all()
    assert (label[(end_s > 61.5) & (end_s < 64)] == -1).all()


def test_beats_of_bad_quality_have_no_label(cut: Sequences) -> None:
    mine = cut.of_window == 1
    end_s, label = cut.end[mine] / 250 - 0.2, cut.rhythm[mine]  # the first beat stands at 1 s, not 0.8
    assert (label[(end_s > 42) & (end_s < 49)] == -1).all()
    assert (label[(end_s > 56) & (end_s < 75)] == N).all()


def test_windows_hold_beats_of_the_last_thirty_seconds_newest_last_with_their_age(cut: Sequences) -> None:
    index = np.flatnonzero(cut.of_window == 1)[[5, 25]]
    features, age, there = cut.windows(index)
    assert features.shape == (2, 48, SHAPE) and age.shape == there.shape == (2, 48)
    assert there.sum(1).tolist()[1] in (35, 36, 37)  # 0.8 s apart, less those not ready
    assert (np.diff(age[1][there[1]]) < 0).all()
    assert (age[1][there[1]] < 30).all() and (age[1][there[1]] > 0).all()
    rr = np.exp(features[1][there[1]][:, FEATURES.index("rr_s")])
    np.testing.assert_allclose(rr, 0.8, atol=0.005)
    assert (features[~there] == 0).all()


def test_cases_as_a_detector_sees_them_are_other_beats_with_the_same_rhythms(two: Path, cut: Sequences) -> None:
    seen = sequences.load(None, np.random.default_rng(3))
    assert set(seen.rhythm.tolist()) == set(cut.rhythm.tolist())
    assert seen.beat_at.size != cut.beat_at.size or (seen.beat_at != cut.beat_at).any()


def test_the_model_answers_windows_without_waveforms(cut: Sequences) -> None:
    model = EcgMoe().eval()
    out = model.windows(*without_waveforms(cut, np.array([20, 60]), model.sizes, "cpu"))
    assert out["rhythm"].shape == (2, len(RHYTHMS))
    assert out["rr_ms"][0].item() == pytest.approx(1000, abs=150)
