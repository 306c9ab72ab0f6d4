"""The model card: what the weights learnt from, how, and how they did on patients they had not seen."""

from typing import Any

_HEAD = """# ECG-MoE, weights {version}

Research software. Not a medical device; no judgement of it may guide the care of a patient.

- **Command**: `python -m model.train --seed {seed}{options} --out out`
- **Shipped weights** learnt from every recording below; the figures are of models that did not see the patient
  ({scored} of {folds} patient-wise folds, left out of the pre-training too).
  One seed, seed {seed}.
- **Beats** are those of our own online detector, cut by the streaming stages; causal but for one beat of look-ahead
  (at most 1.5 s). Reference beats label them (within 150 ms) and nothing else.
- **Data**: {data} ({note}). `flat` is simulated:
  recorded sinus rhythm followed by a flat line with noise, labelled asystole.
- **Potassium**: {potassium}
- **Age and sex**: learnt from {people}; too few to learn from, see the table.
- Detections without a reference beat are taught as Q. The paced records (102 104 107 217) teach only Q (paced beats and
  their fusions) and the rhythm PACED, and are drawn seldom. N against S is learnt from the beats of
  vitaldb-rhythm alone, which have no waveforms. Answers are those that leave the shard, votes of the form included.
- Escape beats (e j n) count as N, as in most published tables.
- What it is not to be relied on for: `docs/model.md`, "What it cannot do yet".
"""


_UNTRAINED = "untrained, as no labelled recording was at hand. Its answer is NaN."
_SIMULATED = """learnt from **simulated** patients alone (`simulators/potassium.py`: waves that follow published
  relations), as no public recording says the level. Those of `potassium-unseen`, never trained on, have waves, rates,
  noise and strengths of the effect from ranges that the others do not have."""


def card(about: dict[str, Any]) -> str:
    """Markdown of the card, from what `model.train` found."""
    found, settings = about["figures"], about["settings"]
    text = [
        _HEAD.format(
            version=about["version"], seed=settings["seed"], options=" --quick" * (settings["scored"] == 1)
            + f" --potassium {settings['potassium']}" * bool(settings["potassium"]),
            scored=settings["scored"], folds=settings["folds"],
            data=", ".join(f"{name} {n}" for name, n in found["n_records"].items())
            + "".join(f", vitaldb-rhythm {n} (RR sequences)" for n in [found["segments"].get("patients")] if n),
            note="records scored; ludb counts two lead pairs each",
            potassium=_SIMULATED if found["potassium"] else _UNTRAINED,
            people=", ".join(f"{p['patients']} patients of {name}" for name, p in found["age_sex"].items()),
        )
    ]  # fmt: skip
    if "beats" in found:
        text += _beats(found["beats"])
    text += _windows(found["rhythm"])
    if "cinc2017" in found:
        c = found["cinc2017"]
        text += [
            "## Challenge 2017, by record\n",
            f"{c['n']} records; mean of the windows' log probabilities, each by its number of hops. F1: "
            + ", ".join(f"{k} {v}" for k, v in c["f1"].items())
            + f"; mean of N, A, O {c['mean_f1_NAO']}. "
            f"Accuracy {c['accuracy']} % (always N: {c['constant_accuracy']} %). Rows are the reference:\n",
            *table(("", "N", "A", "O", "~"), ((k, *row) for k, row in c["confusion"].items())),
        ]
    rr = found["rr"]
    text += ["## RR interval, age, sex\n"]
    if rr["n"]:
        text.append(
            f"RR, mean of the intervals that ended in the 10 s up to 2 s before the window's end, {rr['n']} windows of "
            f"mitdb: mean absolute error {rr['mae_ms']} ms "
            f"(median {rr['median_ms']}), "
            f"the mean of the detector's RRs {rr['detector_mae_ms']} ms, a constant {rr['constant_mae_ms']} ms; "
            f"{rr['unanswered']} windows without an answer.\n"
        )
    rows = [
        (
            name,
            p["patients"],
            p["age_mae"],
            p["constant_age_mae"],
            _span(p["age_gain_ci"]),
            p["sex_accuracy"],
            p["majority_accuracy"],
            _span(p["sex_gain_ci"]),
        )
        for name, p in found["age_sex"].items()
    ]
    text += table(
        (
            "by patient",
            "patients",
            "age MAE, years",
            "constant",
            "gain, 95 %",
            "sex accuracy %",
            "majority %",
            "gain, 95 %",
        ),
        rows,
    )
    if "persons_by_line" in found:
        text.append(
            "Age and sex are told by a line on the model's answer that the other folds chose; where they found it to "
            "know nothing, that is the constant.\n"
            if found["persons_by_line"]
            else "One fold: these are scored without the line that was chosen on them and is in the weights.\n"
        )
    better = [
        f"{what} of {name}" for name, p in found["age_sex"].items() for what in ("age", "sex")
        if p[f"{what}_gain_ci"][0] > 0
    ]  # fmt: skip
    text.append(f"Better than the constant beyond chance: {', '.join(better) or 'none of them'}.\n")
    if found["potassium"]:
        columns = ("patients", "abnormal", "auc", "accuracy", "majority_accuracy", "f1", "majority_f1")
        head = (
            "simulated patients",
            "n",
            "abnormal",
            "AUC",
            "accuracy %",
            "majority %",
            "F1 %",
            "F1 of always abnormal",
        )
        text += ["## Potassium abnormal: simulated patients\n"]
        text += table(head, ((name, *(p[c] for c in columns)) for name, p in found["potassium"].items()))
    text += _segments(found["segments"]) + _calibration(found["calibration"])
    gates = found["gates"]
    text += [
        "## Use of the experts\n",
        f"Mean gate of the morphology experts (kernels 3, 7, 15, 23): {gates['morphology']}. "
        f"Rhythm experts (RR statistics, sequence, band): {gates['rhythm_and_paths'][:3]}; "
        f"paths (morphology, rhythm): {gates['rhythm_and_paths'][3:]}.\n",
    ]
    text += table(
        ("rhythm", "RR statistics", "sequence", "band", "morphology path", "rhythm path"),
        ((name, *values) for name, values in gates["by_rhythm"].items()),
    )
    return "\n".join(text)


def _span(interval: list[float]) -> str:
    return f"{interval[0]} to {interval[1]}"


def _segments(found: dict[str, Any]) -> list[str]:
    if not found:
        return []
    af = found["AF"]
    return [
        "## AF in RR sequences without waveforms: vitaldb-rhythm, 10 s segments\n",
        f"{found['patients']} patients, each judged by a model that was trained without them; reference beats; up to "
        f"30 s of history; segments of one label. AF (or flutter, as labelled there): Se {af['se']} % of {af['yes']}, "
        f"Sp {af['sp']} % of {af['no']}.{_by_threshold(found)} Rows are the reference:\n",
        *table(("", *found["columns"]), ((k, *row) for k, row in found["confusion"].items())),
        "Patients with most errors:\n",
        *table(("", "AF missed", "AF too many", "segments"), ((k, *row) for k, row in found["worst"].items())),
    ]


def _by_threshold(found: dict[str, Any]) -> str:
    if "AF by threshold" not in found:
        return ""
    af, at = found["AF by threshold"], ", ".join(map(str, found["thresholds"]))
    return f" By a threshold on AF or flutter that the other folds chose ({at}): Se {af['se']} %, Sp {af['sp']} %."


def _calibration(found: dict[str, Any]) -> list[str]:
    tasks = [name for name in found if name not in ("temperature", "abstain")]
    text = [
        "## Calibration\n",
        "Expected calibration error, 15 bins, every recording of the same weight. The temperature of a fold's answers "
        "is chosen on the other folds', that of the shipped weights on all of them.\n",
        *table(
            ("", "temperature", "ECE before, %", "after, %"),
            ((n, found["temperature"][n], found[n]["ece_before"], found[n]["ece_after"]) for n in tasks),
        ),
    ]
    if "abstain" in found:
        a = found["abstain"]
        text.append(
            f"A rhythm of a confidence under {a['level']} is told as `?`: {a['told']} % of the windows are told, of "
            f"which {a['right_told']} % rightly; of the others {a['right_untold']} % would be right.\n"
        )
    return text


def _beats(b: dict[str, Any]) -> list[str]:
    rows = [(name, b[name]["n"], b[name]["se"], b[name]["ppv"], b[name]["f1"]) for name in ("VEB", "SVEB")]
    records = [
        (name, *(r["VEB"][k] for k in ("n", "se", "ppv")), *(r["SVEB"][k] for k in ("n", "se", "ppv")))
        for name, r in b["by_record"].items()
    ]
    return [
        "## Beats: mitdb DS1, whole records, our detector\n",
        "Counted as in EC57: a reference F or Q called V is no false VEB, a detection without a beat is one; missed "
        "beats are false negatives. Percent.\n",
        *table(("", "beats", "Se", "+P", "F1"), rows),
        "Rows are the reference, `extra` are detections without one:\n",
        *table(("", *b["columns"]), ((k, *row) for k, row in b["confusion"].items())),
        "By record (`-`: nothing to count):\n",
        *table(("record", "VEB", "Se", "+P", "SVEB", "Se", "+P"), records),
    ]


def _windows(found: dict[str, Any]) -> list[str]:
    text = [
        "## Rhythm, by window\n",
        "A window every 2 s, with up to 30 s of history, labelled by its last 4 s where these have one label. "
        "Shockable is the model's own answer here; the monitor tells it together with the VF index (docs/model.md).\n",
    ]
    rows = [(name, s["yes"], s["no"], s["se"], s["sp"]) for name, s in found.items() if "sp" in s]
    text += table(("", "yes", "no", "Se", "Sp"), rows)
    if "shockable when VF" in found:
        vf = found["shockable when VF"]
        text.append(f"Of {vf['n']} windows of VF or VFL (vfdb, mitdb) {vf['se']} % were called shockable.\n")
    for name, counts in found.items():
        if "columns" in counts:
            rows = [(k, *row) for k, row in counts.items() if k != "columns"]
            text += [f"{name[0].upper()}{name[1:]}, rows are the reference:\n", *table(("", *counts["columns"]), rows)]
    return text


def table(head: tuple[str, ...], rows: Any) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |" for row in rows]
    return ["\n".join(lines) + "\n"]
