"""The work folder of a training: whose it is, what was cut for it, and the models it left there."""

import argparse
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import torch

from model.course import Settings
from model.ecg_moe import EcgMoe
from model.pool import Pool

RECIPE = "ecg-moe-6"  # of the weights and checkpoints: another one for any change of the model, its losses or its data
POOL = "pool.npz"
STAMP = "settings.json"  # in a work folder: what it holds the training of
_OURS = re.compile(r"pool(\.part)?\.npz|(all|fold\d+)-(views|band|rr|beats|windows)\.(pt|part)")


class WorkError(ValueError):
    """A work folder that is no use: says why, and the mend."""


def claim(work: Path, settings: Settings, fresh: bool = False) -> None:
    """Take a folder for the checkpoints of a training, which goes on from those it finds; `fresh`: which deletes first
    what a training has written there, and nothing else.

    Raises WorkError where the folder holds another training, or what no training has written."""
    told, mine = _told(work), {"recipe": RECIPE, "settings": asdict(replace(settings, scored=0))}
    if told and fresh:
        for old in work.iterdir():
            if _OURS.fullmatch(old.name):
                old.unlink()
    elif told and told != json.loads(json.dumps(mine)):
        raise WorkError(
            f"{work}: holds another training, of {told['recipe']} or with other settings; name another folder with "
            "--work, or have `train --fresh` delete it and begin anew"
        )
    elif not told and work.exists() and not (work.is_dir() and not any(work.iterdir())):
        raise WorkError(f"{work}: is or holds what no training has written; name an empty folder, or a new one")
    work.mkdir(parents=True, exist_ok=True)
    (work / STAMP).write_text(json.dumps(mine))


def settings_of(work: Path) -> Settings:
    """Those that the finished training in `work` was run with, all folds scored. Raises WorkError where there is none,
    or one of another recipe, or one that cannot be read."""
    told = _told(work)
    have = f"one of {told.get('recipe', 'an older recipe')}" if told else "none"
    if told.get("recipe") == RECIPE:
        try:
            sources = tuple((name, limit) for name, limit in told["settings"]["sources"])
            settings = Settings(**told["settings"] | {"sources": sources, "scored": told["settings"]["folds"]})
        except (KeyError, TypeError, ValueError):
            raise WorkError(f"{work / STAMP}: not the settings of a training; train with another --work") from None
        if all(finished(work, f"fold{k}").is_file() for k in range(settings.folds)):
            for k in range(settings.folds):
                fold_model(work, k)
            return settings
        have = "one that is not through with its folds"
    raise WorkError(f"{work}: wants a finished training of {RECIPE}, there is {have}; train with --work {work}")


def fold_model(work: Path, fold: int | None) -> EcgMoe:
    """The model that was trained without a fold, with None the one of all. Raises WorkError where it is not there."""
    model, path = EcgMoe(), finished(work, "all" if fold is None else f"fold{fold}")
    try:
        model.load_state_dict(torch.load(path, weights_only=True)["model"])
    except FileNotFoundError:
        raise WorkError(f"{path}: is not there; run the training with --work {work} to its end") from None
    except (OSError, EOFError, KeyError, TypeError, RuntimeError, UnpicklingError):
        raise WorkError(f"{path}: damaged; delete it, and train with --work {work} again") from None
    return model.eval()


def settings_or_exit(work: Path, parser: argparse.ArgumentParser) -> Settings:
    """`settings_of` for a command that scores a training: where there is none, a usage error."""
    try:
        return settings_of(work)
    except WorkError as error:
        parser.error(str(error))


def finished(work: Path, name: str) -> Path:
    """The file of a model that is through with all phases: of a fold, or `all`."""
    return work / f"{name}-windows.pt"


def kept_pool(work: Path) -> Pool:
    """The examples that were cut for a training. Raises WorkError where they cannot be read."""
    path = work / POOL
    try:
        return Pool.load(path)
    except FileNotFoundError:
        raise WorkError(f"{path}: is not there; begin the training with --work {work} again, which cuts it") from None
    except (OSError, EOFError, KeyError, ValueError, BadZipFile):
        raise WorkError(f"{path}: damaged; delete it and begin the training with --work {work} again") from None


def _told(work: Path) -> dict[str, Any]:
    """What a folder says that it holds the training of; empty where it says nothing of the kind."""
    try:
        told = json.loads((work / STAMP).read_text())
    except (OSError, ValueError):
        return {}
    ours = isinstance(told, dict) and isinstance(told.get("settings"), dict) and "recipe" in told
    return told if ours else {}
