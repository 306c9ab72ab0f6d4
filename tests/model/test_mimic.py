"""MIMIC-IV-ECG with MIMIC-IV's laboratory, on small files of their format."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from model.datasets import DatasetError, MimicEcg, mimic_ecgs
from model.examples import load
from tests.model.test_datasets import write

LABS = ("labevent_id", "subject_id", "itemid", "charttime", "valuenum", "valueuom", "ref_range_lower", "flag")


def table(path: Path, head: tuple[str, ...], *rows: tuple[object, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        csv.writer(file).writerows([head, *rows])


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    """Three ECGs of two patients; a third patient has a blood sample and no ECG."""
    ecg, hosp = tmp_path / "mimic-iv-ecg", tmp_path / "mimic-iv" / "hosp"
    rows = [
        (10, 1, "1", "2150-03-01 10:00:00", "files/p10/s1/1"),
        (10, 2, "2", "2151-03-01 10:00:00", "files/p10/s2/2"),
        (11, 3, "3", "2160-01-01 00:00:00", "files/p11/s3/3"),
    ]
    table(ecg / "record_list.csv", ("subject_id", "study_id", "file_name", "ecg_time", "path"), *rows)
    table(
        ecg / "machine_measurements.csv",
        ("subject_id", "study_id", "rr_interval"),
        (10, 1, 800), (10, 2, 29999), (11, 3, 650),
    )  # fmt: skip
    table(hosp / "patients.csv.gz", ("subject_id", "gender", "anchor_age", "anchor_year"), (10, "F", 60, 2148))
    table(
        hosp / "labevents.csv.gz",
        LABS,
        (1, 10, 50971, "2150-03-01 13:00:00", 6.1, "mEq/L", 3.3, "abnormal"),
        (2, 10, 50971, "2150-03-01 09:00:00", 5.05, "mEq/L", 3.3, ""),  # nearer; the laboratory's range goes to 5.1
        (3, 10, 50983, "2150-03-01 10:00:00", 140, "mEq/L", 133, ""),  # sodium
        (4, 10, 50971, "2151-03-01 15:00:00", 4.0, "mEq/L", 3.3, ""),  # five hours off
        (5, 11, 50822, "2160-01-01 00:30:00", 2.9, "mEq/L", "", ""),  # no range: by our own
        (6, 12, 50971, "2160-01-01 00:00:00", 4.0, "mEq/L", 3.3, ""),
        (7, 11, 50971, "2160-01-01 00:01:00", "", "", 3.3, ""),  # hemolysed: no value
    )  # fmt: skip
    return tmp_path


def test_each_ecg_has_the_potassium_taken_nearest_to_it(mimic: Path) -> None:
    first, second, third = mimic_ecgs(mimic / "mimic-iv-ecg", mimic / "mimic-iv")
    assert first == MimicEcg(
        mimic / "mimic-iv-ecg" / "files/p10/s1/1", "mimic-iv-ecg/10", 62.0, 0.0, 800.0, 5.05, abnormal=0.0
    )
    assert np.isnan([second.rr_ms, second.potassium, second.abnormal]).all()
    assert second.age == 63
    assert (third.potassium, third.abnormal) == (2.9, 1.0)
    assert np.isnan(third.age)


def test_a_wider_search_finds_the_later_sample(mimic: Path) -> None:
    assert mimic_ecgs(mimic / "mimic-iv-ecg", mimic / "mimic-iv", within_h=6)[1].potassium == 4.0


def test_a_table_that_is_not_there_is_named(mimic: Path) -> None:
    (mimic / "mimic-iv" / "hosp" / "labevents.csv.gz").unlink()
    with pytest.raises(DatasetError, match=r"hosp/labevents.csv or .* is not there"):
        mimic_ecgs(mimic / "mimic-iv-ecg", mimic / "mimic-iv")


def test_a_table_with_other_columns_is_named(mimic: Path) -> None:
    table(mimic / "mimic-iv-ecg" / "record_list.csv", ("subject_id", "study_id", "path"), (10, 1, "x"))
    with pytest.raises(DatasetError, match=r"record_list.csv: not the label file .*ecg_time"):
        mimic_ecgs(mimic / "mimic-iv-ecg", mimic / "mimic-iv")


def test_its_ecgs_become_examples_with_all_that_is_known(mimic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = (600 * np.sin(np.arange(2500) / 20)).astype(int)
    for place in ("p10/s1/1", "p10/s2/2", "p11/s3/3"):
        path = mimic / "mimic-iv-ecg" / "files" / place
        path.parent.mkdir(parents=True)
        write(path.parent, path.name, np.stack([wave, wave]))
    monkeypatch.setenv("RECORDINGS", str(mimic))
    cuts = list(load("mimic-iv-ecg"))
    assert [c.patient for c in cuts] == ["mimic-iv-ecg/10", "mimic-iv-ecg/10", "mimic-iv-ecg/11"]
    assert cuts[0].potassium == 0.0
    assert np.isnan(cuts[1].potassium)
    assert cuts[2].potassium == 1.0
    assert cuts[0].rr_ms[-1] == 800.0
    assert cuts[0].male == 0.0
