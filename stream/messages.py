"""The model's answers as messages of the wire."""

from typing import Any, cast

import numpy as np
from msgspec.structs import replace

from model.calibration import ABSTAIN
from model.labels import ARRHYTHMIAS, BEATS, RHYTHMS
from model.segments import FEATURES
from model.vf import shockable
from stream import wire
from stream.beds import Bed
from stream.judging import Arrays, Item

PERHAPS, UNUSUAL = 0.15, 0.2  # least chance of V, and most of N, of a beat that may be ventricular
_N, _V = BEATS.index("N"), BEATS.index("V")
_RR_S, _RR_UNKNOWN, _QUALITY = (FEATURES.index(name) for name in ("rr_s", "rr_unknown", "quality"))


def beat_message(bed: Bed, item: Item, stamps: wire.Stamps) -> wire.BeatJudgement:
    """The judgement of a beat; its label is `?` where the model did not answer in time."""
    assert item.features is not None
    label: wire.BeatLabel = "?"
    confidence, gates = 0.0, ()
    if item.answer is not None:
        label, confidence = likeliest(item.answer["probs"])
        gates = tuple(item.answer["gates"].tolist())
    rr_ms = 0.0 if item.features[_RR_UNKNOWN] else 1000.0 * float(np.exp(item.features[_RR_S]))
    return wire.BeatJudgement(
        bed=bed.name, epoch=bed.epoch, at=bed.moment(item.at), label=label, confidence=confidence, rr_ms=rr_ms,
        gates=gates, quality=float(item.features[_QUALITY]), form=item.form, stamps=stamps,
    )  # fmt: skip


def decided(item: Item, now_ns: int) -> wire.Stamps:
    """The stamps of an item that has been judged; `published` is room for the gateway's."""
    return replace(item.stamps, batched=item.batched_ns, judged=item.judged_ns, decided=now_ns, published=now_ns)


def likeliest(probs: np.ndarray[Any, Any]) -> tuple[wire.BeatLabel, float]:
    """The class of a beat with these probs (5,), and how likely it is."""
    best = int(probs.argmax())
    return cast(wire.BeatLabel, BEATS[best]), float(probs[best])


def perhaps_ventricular(probs: np.ndarray[Any, Any]) -> bool:
    """Whether a beat with these probs (5,) may be ventricular though another class is likelier: a wide tachycardia is
    ventricular until it is known better. Ours; the limits were chosen on the VT alarms of Challenge 2015."""
    return bool(probs[_V] >= PERHAPS and probs[_N] <= UNUSUAL)


def window_message(bed: Bed, item: Item, answer: Arrays, stamps: wire.Stamps) -> wire.WindowJudgement:
    """The judgement of a window, with the profile; its rhythm is `?` where no class is likely enough to be told.
    Nothing is told of a patient whose leads are all off, though the model has an answer to silence too."""
    if not item.leads_on:
        return wire.WindowJudgement(
            bed=bed.name, epoch=bed.epoch, at=bed.moment(item.at), rhythm="?", confidence=0.0,
            rhythms=dict.fromkeys(RHYTHMS, 0.0), shockable=0.0, quality=0.0, stamps=stamps,
        )  # fmt: skip
    rhythms = dict(zip(RHYTHMS, answer["rhythm"].tolist(), strict=True))
    best = max(rhythms, key=lambda name: rhythms[name])
    rhythm = best if rhythms[best] >= ABSTAIN else "?"
    arrhythmia = answer["arrhythmia"]
    shock = shockable(float(answer["shockable"]), rhythms["VT"], item.vf_index)
    return wire.WindowJudgement(
        bed=bed.name, epoch=bed.epoch, at=bed.moment(item.at), rhythm=rhythm, confidence=rhythms[best],
        rhythms=rhythms, shockable=shock,
        quality=float(answer["quality"]), rr_ms=_known(answer["rr_ms"]), age_years=_known(answer["age"]),
        male=_known(answer["male"]), potassium_abnormal=_known(answer["potassium"]),
        arrhythmia="" if np.isnan(arrhythmia).any() else ARRHYTHMIAS[int(arrhythmia.argmax())],
        gates=tuple(answer["gates"].tolist()), stamps=stamps,
    )  # fmt: skip


_PLACE, _END = b"\xa9published\xcf", b"\xa1v\x01"  # what stands before the eight bytes of the stamp, and after them


def published(frame: bytes, now_ns: int) -> bytes | None:
    """The frame of a judgement with the stamp of its publication, which its shard left room for at the end, set to
    `now_ns`; None where there is no such room. It spares the gateway to write the message anew."""
    if frame[-22:-11] != _PLACE or frame[-3:] != _END:
        return None
    return b"".join((frame[:-11], now_ns.to_bytes(8, "big"), _END))


def _known(value: Any) -> float | None:
    """A number of the model, None where it does not say."""
    return None if np.isnan(value) else float(value)
