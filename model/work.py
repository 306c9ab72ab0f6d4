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
            "--work, or delete what is in this one (train: --fresh)"
        )
    elif not told and work.exists() and not (work.is_dir() and not any(work.iterdir())):
        raise WorkError(f"{work}: is or holds what no training has written; name an empty folder, or a new one")
    work.mkdir(parents=True, exist_ok=True)
    part = work / f"{STAMP}.part"
    part.write_text(json.dumps(mine))
    part.rename(work / STAMP)


def settings_of(work: Path) -> Settings:
    """Those that the finished training in `work` was run with, all folds scored. The models of the folds are looked
    into, so that a damaged one is named before any work is done.

    Raises WorkError where there is none, or one of another recipe, or one that cannot be read."""
    told = _told(work)
    have = f"one of {told['recipe']}" if told else "none"
    if told.get("recipe") == RECIPE:
        try:
            sources = tuple((name, limit) for name, limit in told["settings"]["sources"])
            settings = Settings(**told["settings"] | {"sources": sources, "scored": told["settings"]["folds"]})
            folds = range(settings.folds)
        except (KeyError, TypeError, ValueError):
            raise WorkError(f"{work / STAMP}: not the settings of a training; train with another --work") from None
        if all(finished(work, f"fold{k}", settings.windows) is not None for k in folds):
            return settings
        have = "one that is not through with its folds"
    raise WorkError(f"{work}: wants a finished training of {RECIPE}, there is {have}; train with --work {work}")


def fold_model(work: Path, fold: int | None, settings: Settings) -> EcgMoe:
    """The model that was trained without a fold, with None the one of all. Raises WorkError where it is not there."""
    name = "all" if fold is None else f"fold{fold}"
    model = finished(work, name, settings.windows)
    if model is None:
        raise WorkError(f"{work}: no model {name} is through with its training; run it with --work {work} to its end")
    return model


def finished(work: Path, name: str, steps: int) -> EcgMoe | None:
    """A model of a fold or of `all` that is through with the `steps` of the last phase, in evaluation mode; None where
    it is not yet. Raises WorkError where the file is damaged."""
    path = work / f"{name}-windows.pt"
    try:
        saved = torch.load(path, weights_only=True)
        if saved["done"] < steps:
            return None
        model = EcgMoe()
        model.load_state_dict(saved["model"])
    except FileNotFoundError:
        return None
    except (OSError, EOFError, KeyError, TypeError, RuntimeError, UnpicklingError):
        raise WorkError(f"{path}: damaged; delete it, and train with --work {work} again") from None
    return model.eval()


def written(text: str) -> Path:
    """An argparse type: a file to be written, refused before the work where its folder is not there."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent} is no folder; make it first, or name another")
    return path


def settings_or_exit(work: Path, parser: argparse.ArgumentParser) -> Settings:
    """`settings_of` for a command that scores a training: where there is none, a usage error."""
    try:
        return settings_of(work)
    except WorkError as error:
        parser.error(str(error))


def training_or_exit(work: Path, parser: argparse.ArgumentParser) -> tuple[Settings, Pool]:
    """`settings_or_exit`, and the examples of that training."""
    settings = settings_or_exit(work, parser)
    try:
        return settings, kept_pool(work)
    except WorkError as error:
        parser.error(str(error))


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
