"""Wards of simulated patients: eight with something to show, and any number of ordinary ones."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

from simulators.patients import Patient
from simulators.rhythms import RHYTHMS, ScriptLike

# Each shows its first event within 30 s and then lasts a few minutes before it comes round.
PRESETS: Mapping[str, tuple[tuple[Any, ...], ...]] = {
    "vf": (("sinus", 20), ("vf", 25), ("sinus", 195)),
    "pvc": (
        ("sinus", 8),
        ("couplets", 10),
        ("sinus", 4),
        ("vt", 8, {"rate": 165}),
        ("sinus", 90, {"pvc_per_min": 6}),
        ("runs", 20),
        ("bigeminy", 30),
        ("sinus", 60),
    ),
    "af": (("af", 180), ("sinus", 60)),
    "asystole": (("sinus", 18), ("asystole", 12), ("sinus", 60), ("pause", 12), ("sinus", 138)),
    "lead_off": (("sinus", 14), ("lead_off", 20), ("sinus", 90), ("lead_off", 15, {"lead": 0}), ("sinus", 121)),
    "brady": (("sinus", 10), ("brady", 45, {"hr": 36}), ("sinus", 125), ("brady", 40, {"hr": 46}), ("sinus", 80)),
    "tachy": (("sinus", 10), ("tachy", 60, {"hr": 130}), ("sinus", 80), ("svt", 20, {"hr": 185}), ("sinus", 90)),
    "sinus": (("sinus", 150, {"pvc_per_min": 1}), ("noise", 12), ("sinus", 118)),
}


def default_ward(n: int, seed: int = 1, *, fs: float = 250.0, counter: bool = False) -> list[Patient]:
    """`n` patients, `bed1` and on: the eight of `PRESETS` first, then ordinary ones with now and then an event."""
    if n < 1:
        raise ValueError(f"n: {n} patients; give 1 or more")
    return [ward_patient(i, seed, fs=fs, counter=counter) for i in range(n)]


def ward_patient(index: int, seed: int = 1, *, fs: float = 250.0, counter: bool = False) -> Patient:
    """Patient `index` (from 0) of the default ward."""
    own = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
    names = list(PRESETS)
    script = PRESETS[names[index]] if index < len(names) else _ordinary(np.random.default_rng([own, 3]))
    return Patient(f"bed{index + 1}", script, seed=own, fs=fs, counter=counter)


def patient_of(source: str, bed: str, index: int = 0, seed: int = 1) -> Patient:
    """The patient that a `sim:` source means, for bed `bed`, the `index`-th of its producer.

    `sim:default` the default ward's patient of that index; `sim:vf` (any of `PRESETS`) that patient; `sim:tachy+vt`
    any rhythms of `RHYTHMS` joined by +, 30 s each; then options: `sim:vf,seed=7,fs=500,hr=80,counter=1,noise=0`.
    Raises ValueError naming what is not known.
    """
    name, *options = source.removeprefix("sim:").split(",")
    settings = _options(source, options)
    counter, fs = bool(settings.get("counter", 0)), settings.get("fs", 250.0)
    seed = int(settings.get("seed", seed))
    if seed < 0:
        raise ValueError(f"source: {source!r}: seed is {seed}; give 0 or more")
    script: ScriptLike
    if name == "default":
        patient = ward_patient(index, seed, fs=fs, counter=counter)
        script, seed = patient.script, patient.seed
    elif name in PRESETS:
        script, seed = PRESETS[name], seed if "seed" in settings else seed * 1000 + index
    else:
        unknown = [rhythm for rhythm in name.split("+") if rhythm not in RHYTHMS]
        if unknown:
            known = ", ".join(["default", *PRESETS, *(rhythm for rhythm in RHYTHMS if rhythm not in PRESETS)])
            raise ValueError(f"source: {source!r}: no simulated patient {unknown[0]!r}; choose among {known}")
        script = [(rhythm, 30.0) for rhythm in name.split("+")]
    return Patient(
        bed, script, seed=seed, fs=fs, hr=settings.get("hr"), noise_mv=settings.get("noise"), counter=counter
    )


def _options(source: str, options: list[str]) -> dict[str, float]:
    settings: dict[str, float] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in {"seed", "fs", "hr", "counter", "noise"}:
            raise ValueError(f"source: {source!r}: no option {key!r}; choose among seed, fs, hr, counter, noise")
        try:
            settings[key] = float(value)
            if not isfinite(settings[key]):
                raise ValueError
        except ValueError:
            raise ValueError(f"source: {source!r}: {key} is {value!r}; give a number, such as {key}=1") from None
    return settings


def _ordinary(rng: np.random.Generator) -> tuple[tuple[Any, ...], ...]:
    """A script of five minutes as most of a ward has: sinus rhythm, some AF, an event here and there."""
    if rng.uniform() < 0.1:
        return (("af", 300, {"hr": float(rng.uniform(70, 110))}),)
    calm = {"pvc_per_min": float(rng.choice([0, 0, 0, 1, 4])), "pac_per_min": float(rng.choice([0, 0, 1]))}
    if rng.uniform() < 0.6:
        return (("sinus", 300, calm),)
    events = ("couplets", "runs", "bigeminy", "tachy", "pause", "noise", "lead_off", "svt", "vt")
    start = float(rng.uniform(20, 260))
    return (("sinus", start, calm), (str(rng.choice(events)), 15.0), ("sinus", 285 - start, calm))
