"""What a user would do instead: a window of 10 s per bed each second, detected anew, and one call of the model for each
beat and window. Processor time per bed-second, and beds per core."""

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from model.judge import Judge
from simulators.ward import ward_patient

WINDOW_S, FS = 10, 250
BEATS_PER_S = 1.25


def model_us(judge: Judge, n: int = 40) -> dict[str, float]:
    """us of one call with one item, by kind; the median of `n`."""
    from model.ecg_moe import example_inputs

    told = {}
    for kind in ("beat", "hop", "window"):
        item = [x.numpy() for x in example_inputs(kind, 1, judge.sizes)]
        call = getattr(judge, f"{kind}s")
        call(*item)
        told[kind] = _median_us(partial(call, *item), n)
    return told


def batch_us(judge: Judge, sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)) -> dict[str, dict[int, float]]:
    """us per item by kind and batch size; the median of several calls."""
    from model.ecg_moe import example_inputs

    told: dict[str, dict[int, float]] = {}
    for kind in ("beat", "hop", "window"):
        call = getattr(judge, f"{kind}s")
        for size in sizes:
            items = [x.numpy() for x in example_inputs(kind, size, judge.sizes)]
            call(*items)
            n = max(5, 60 // size)
            told.setdefault(kind, {})[size] = _median_us(partial(call, *items), n) / size
    return told


def expert_us(judge: Judge, size: int = 64) -> dict[str, float]:
    """us per item in each part of the model that has a name, in batches of `size`: what torch's modules spend."""
    import torch

    from model.ecg_moe import EcgMoe, example_inputs
    from model.judge import WEIGHTS, load_model

    model, _ = load_model(WEIGHTS)
    model.eval()
    assert isinstance(model, EcgMoe)
    spent: dict[str, float] = {}
    began: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():
        if type(module).__name__ in PARTS_OF_MODEL:
            label = f"{type(module).__name__} {name}"
            handles += [
                module.register_forward_pre_hook(
                    lambda *_, label=label: began.__setitem__(label, time.thread_time_ns())
                ),
                module.register_forward_hook(
                    lambda *_, label=label: spent.__setitem__(
                        label, spent.get(label, 0.0) + (time.thread_time_ns() - began[label]) / 1e3
                    )
                ),
            ]
    n = 10
    with torch.inference_mode():
        for turn in range(n + 2):
            if turn == 2:
                spent.clear()
            for kind in ("beat", "hop", "window"):
                getattr(model, f"{kind}s")(*example_inputs(kind, size, model.sizes))
    for handle in handles:
        handle.remove()
    return {label: us / n / size for label, us in sorted(spent.items(), key=lambda entry: -entry[1])}


PARTS_OF_MODEL = {
    "TrendSeasonView", "PeriodView", "PatchView", "ConvView", "BandStem", "MorphologyExpert", "RhythmStatistics",
    "RhythmSequence", "RhythmBand",
}  # fmt: skip


def windows(n: int) -> list[np.ndarray]:
    """`n` windows of 10 s of lead II in mV, of different ordinary patients of the default ward."""
    return [ward_patient(8 + i).render(5 * FS, WINDOW_S * FS)[0] / 200.0 for i in range(n)]


def detectors_us(n: int = 12) -> dict[str, float]:
    """us of one window, by way of detection; the mean over `n` windows."""
    import neurokit2
    from wfdb.processing import xqrs_detect

    def clean_and_peaks(x: np.ndarray) -> Any:
        return neurokit2.ecg_peaks(neurokit2.ecg_clean(x, sampling_rate=FS), sampling_rate=FS)

    ways: dict[str, Callable[[np.ndarray], Any]] = {
        "neurokit2 ecg_process": lambda x: neurokit2.ecg_process(x, sampling_rate=FS),
        "neurokit2 clean and peaks": clean_and_peaks,
        "wfdb xqrs": lambda x: xqrs_detect(x, FS, verbose=False),
    }
    told = {}
    drawn = windows(n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, way in ways.items():
            way(drawn[0])
            began, n_done = time.process_time(), 0
            for window in drawn:
                try:
                    way(window)
                except (ValueError, IndexError, ZeroDivisionError):
                    continue  # they cannot do with a window in which there is no beat
                n_done += 1
            told[name] = 1e6 * (time.process_time() - began) / max(1, n_done)
    return told


def _median_us(call: Callable[[], Any], n: int) -> float:
    took = []
    for _ in range(n):
        began = time.thread_time_ns()
        call()
        took.append(time.thread_time_ns() - began)
    return float(np.median(took)) / 1e3
