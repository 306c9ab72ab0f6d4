"""The work folder of a training: whose it is, what may be deleted in it, and what in it is of no use."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import work
from model.course import Settings
from model.ecg_moe import EcgMoe

SMALL = replace(Settings(), folds=2, scored=1)


def _finished(folder: Path, done: int = SMALL.windows) -> None:
    work.claim(folder, SMALL)
    for k in range(SMALL.folds):
        torch.save({"model": EcgMoe().state_dict(), "done": done}, folder / f"fold{k}-windows.pt")


def test_another_seed_or_recipe_does_not_touch_what_a_training_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.claim(tmp_path, SMALL)
    (tmp_path / "all-views.pt").write_bytes(b"checkpoint")
    work.claim(tmp_path, replace(SMALL, scored=2))
    with pytest.raises(work.WorkError, match=r"holds another training, of ecg-moe-.*--fresh"):
        work.claim(tmp_path, replace(SMALL, seed=1))
    monkeypatch.setattr(work, "RECIPE", "next")
    with pytest.raises(work.WorkError, match="holds another training"):
        work.claim(tmp_path, SMALL)
    assert (tmp_path / "all-views.pt").exists()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("stamp", [None, "", "[1]", '{"editor.fontSize": 12}', '{"recipe": "ecg-moe-7"}'])
def test_what_no_training_has_written_is_left_alone(tmp_path: Path, stamp: str | None, fresh: bool) -> None:
    (tmp_path / "all-views.pt").write_bytes(b"mine")
    if stamp is not None:
        (tmp_path / work.STAMP).write_text(stamp)
    with pytest.raises(work.WorkError, match="is or holds what no training has written"):
        work.claim(tmp_path, SMALL, fresh)
    assert (tmp_path / "all-views.pt").read_bytes() == b"mine"
    assert stamp is None or (tmp_path / work.STAMP).read_text() == stamp


def test_a_file_is_no_work_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(work.WorkError, match="what no training has written"):
        work.claim(tmp_path / "file", SMALL)


def test_begun_anew_a_training_deletes_its_own_files_alone(tmp_path: Path) -> None:
    work.claim(tmp_path, SMALL)
    for name in ("all-views.pt", "fold3-windows.pt", "pool.npz", "my_net.pt", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    work.claim(tmp_path, replace(SMALL, seed=1), fresh=True)
    assert {path.name for path in tmp_path.iterdir()} == {"my_net.pt", "notes.txt", work.STAMP}


def test_only_a_finished_training_of_this_recipe_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(work.WorkError, match=r"a finished training of ecg-moe-\d+, there is none"):
        work.settings_of(tmp_path)
    work.claim(tmp_path, SMALL)
    with pytest.raises(work.WorkError, match="not through with its folds"):
        work.settings_of(tmp_path)
    _finished(tmp_path, SMALL.windows - 1)
    with pytest.raises(work.WorkError, match="not through with its folds"):
        work.settings_of(tmp_path)
    _finished(tmp_path)
    assert work.settings_of(tmp_path) == replace(SMALL, scored=SMALL.folds)
    monkeypatch.setattr(work, "RECIPE", "next")
    with pytest.raises(work.WorkError, match=r"of next, there is one of ecg-moe-\d+; train with --work"):
        work.settings_of(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"not a model", None])
def test_a_damaged_or_missing_model_is_named(tmp_path: Path, damage: bytes | None) -> None:
    _finished(tmp_path)
    if damage is None:
        with pytest.raises(work.WorkError, match="no model all is through with its training"):
            work.fold_model(tmp_path, None, SMALL)
        return
    (tmp_path / "fold1-windows.pt").write_bytes(damage)
    with pytest.raises(work.WorkError, match=r"fold1-windows.pt: damaged; delete it"):
        work.settings_of(tmp_path)


def test_settings_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / work.STAMP).write_text(json.dumps({"recipe": work.RECIPE, "settings": {"seed": 0}}))
    with pytest.raises(work.WorkError, match="not the settings of a training"):
        work.settings_of(tmp_path)


@pytest.mark.parametrize(("damage", "told"), [(b"nothing", "damaged; delete it"), (None, "is not there")])
def test_examples_that_cannot_be_read_are_named(tmp_path: Path, damage: bytes | None, told: str) -> None:
    if damage is not None:
        (tmp_path / work.POOL).write_bytes(damage)
    with pytest.raises(work.WorkError, match=f"pool.npz: {told}"):
        work.kept_pool(tmp_path)
