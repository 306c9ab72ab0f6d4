"""Simulated patients of known potassium: their waves follow the published relations, and training reads them."""

from pathlib import Path

import numpy as np
import pytest

from model import datasets
from model.datasets import POTASSIUM_LEVELS
from model.examples import load
from simulators.potassium import POPULATIONS, level_of, main, render, waves

OWN = {"strength": 1.0, "rr_s": 0.85, "pr_s": 0.16, "qrs_s": 0.013, "t_mv": 0.27, "r": 1.0}
P, R, T, U = 0, 2, 5, 6


def test_raised_potassium_makes_t_higher_and_narrower_and_pr_longer_as_published() -> None:
    normal, high = waves(4.5, OWN), waves(6.3, OWN)
    assert high[T].mv[0] / normal[T].mv[0] == pytest.approx(4.0 / 2.7, rel=0.03)
    assert high[T].mv[1] / normal[T].mv[1] == pytest.approx(5.0 / 3.7, rel=0.03)
    assert 0.5 <= high[T].width / normal[T].width <= 0.7
    assert normal[P].at - high[P].at == pytest.approx(0.021, abs=0.002)


def test_the_p_wave_goes_and_the_qrs_widens_as_potassium_rises_further() -> None:
    assert waves(7.2, OWN)[P].mv[0] < waves(6.0, OWN)[P].mv[0]
    assert waves(8.1, OWN)[P].mv[0] == 0
    assert waves(8.0, OWN)[R].width > 1.3 * waves(6.5, OWN)[R].width


def test_low_potassium_flattens_t_and_raises_a_u_wave() -> None:
    low, normal = waves(2.5, OWN), waves(4.2, OWN)
    assert low[T].mv[0] < 0.15 * normal[T].mv[0]
    assert low[U].mv[0] > 0.08
    assert normal[U].mv[0] == 0


def test_the_populations_share_no_patient() -> None:
    seen, unseen = POPULATIONS["potassium"], POPULATIONS["potassium-unseen"]
    for name in seen.__slots__:
        (a, b), (c, d) = getattr(seen, name), getattr(unseen, name)
        assert b <= c or d <= a, name


def test_the_peaks_are_where_the_signal_has_its_r_waves() -> None:
    signal, at = render(4.2, POPULATIONS["potassium"], 5000, np.random.default_rng(3))
    inner = at[(at > 30) & (at < 4970)]
    found = [i - 10 + int(np.argmax(signal[1, i - 10 : i + 11])) for i in inner]
    assert np.abs(np.array(found) - inner).max() <= 2


def test_levels_are_half_normal() -> None:
    rng = np.random.default_rng(0)
    levels = np.array([level_of(rng) for _ in range(2000)])
    assert 0.45 < ((levels >= 3.5) & (levels <= 5.0)).mean() < 0.55
    assert levels.min() >= 2.3
    assert levels.max() <= 8.8


def test_the_written_records_are_read_with_their_levels(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--patients", "8", "--duration", "20", "--seed", "5"]) == 0
    levels = datasets.potassium_levels(tmp_path / "potassium")
    cuts = list(load(str(tmp_path / "potassium")))
    assert len(levels) == len(cuts) == 6
    for cut in cuts:
        assert cut.source == "potassium"
        assert cut.potassium == float(not 3.5 <= levels[cut.name] <= 5.0)
        assert cut.beat_at.size > 10
    first = datasets.read(tmp_path / "potassium-unseen" / "k10000")
    assert "simulated patient" in first.comments[0]
    assert first.annotations is not None


def test_the_same_seed_writes_the_same_patients(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        main(["--out", str(tmp_path / folder), "--patients", "4", "--duration", "20"])
    for file in sorted((tmp_path / "a").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize("wrong", [["--patients", "2"], ["--duration", "5"]])
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path), *wrong]) == 2
    assert wrong[0][2:] in capsys.readouterr().err
    assert not (tmp_path / "potassium" / POTASSIUM_LEVELS).exists()
