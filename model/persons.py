"""Age and sex: what the model says of a person, brought down to what it has shown to know, and what that is worth."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from model.calibration import Line, by_recording, fitted_line
from model.pool import Pool
from model.segments import Float, Int


class Answers(Protocol):
    """A model's answers to the windows that end with hops of a pool."""

    hops: Int
    windows: dict[str, Float]


def person_lines(results: Sequence[Answers], pool: Pool) -> dict[str, Line]:
    """Lines of `age`, years, and of `male`, log-odds, from answers to patients that the models did not see: where an
    answer is worth nothing it becomes the constant."""
    lines = {}
    for task in ("age", "male"):
        of = np.concatenate([pool.of_hop[r.hops] for r in results])
        true = getattr(pool, task)[of].astype(np.float64)
        known = np.isfinite(true)
        if known.any():
            said = np.concatenate([_person_answer(r, task) for r in results])[known]
            lines[task] = fitted_line(said, true[known], by_recording(of[known]), odds=task == "male")
    return lines


def _person_answer(result: Answers, task: str) -> npt.NDArray[np.float64]:
    said = result.windows[task].astype(np.float64)
    return logit(said.clip(1e-6, 1 - 1e-6)) if task == "male" else said


def persons_by_line(results: Sequence[Answers], pool: Pool) -> dict[str, Float]:
    """Age and probability of male of all windows, of each fold by the lines of the others; of one fold as they are."""
    told: dict[str, list[Float]] = {"age": [], "male": []}
    for one in results:
        lines = person_lines([r for r in results if r is not one], pool) if len(results) > 1 else {}
        for task, parts in told.items():
            said = lines.get(task, Line())(_person_answer(one, task))
            parts.append((expit(said) if task == "male" else said).astype(np.float32))
    return {task: np.concatenate(parts) for task, parts in told.items()}


def person_figures(pool: Pool, records: Int, hops: Int, windows: dict[str, Float]) -> dict[str, Any]:
    """Age and sex by patient (mean of all windows), beside the constant."""
    found: dict[str, Any] = {}
    of = pool.of_hop[hops]
    for source in ("ludb", "mitdb"):
        ages, guesses, sexes, called = [], [], [], []
        for patient in sorted(set(pool.patient[records][pool.source[records] == source])):
            mine = (pool.patient[of] == patient) & (pool.source[of] == source)
            r = records[(pool.patient[records] == patient) & (pool.source[records] == source)][0]
            if mine.any() and np.isfinite(pool.age[r]):
                ages.append(float(pool.age[r]))
                guesses.append(float(windows["age"][mine].mean()))
            if mine.any() and np.isfinite(pool.male[r]):
                sexes.append(bool(pool.male[r]))
                called.append(bool(windows["male"][mine].mean() > 0.5))
        if ages and sexes:
            a, s = np.array(ages), np.array(sexes)
            found[source] = {
                "patients": len(ages), "age_mae": round(float(np.abs(a - np.array(guesses)).mean()), 2),
                "constant_age_mae": round(float(np.abs(a - np.median(a)).mean()), 2),
                "age_gain_ci": _interval(np.abs(a - np.median(a)) - np.abs(a - np.array(guesses))),
                "sex_gain_ci": _interval(100.0 * ((s == np.array(called)) * 1.0 - (s == (s.mean() > 0.5)))),
                "sex_accuracy": round(100 * float((s == np.array(called)).mean()), 2),
                "majority_accuracy": round(100 * max(float(s.mean()), 1 - float(s.mean())), 2),
            }  # fmt: skip
    return found


def _interval(values: npt.NDArray[np.floating]) -> list[float]:
    """95 % interval of the mean over patients, by 2000 bootstrap samples."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, values.size, (2000, values.size))].mean(1)
    return [round(float(q), 2) for q in np.quantile(means, [0.025, 0.975])]
