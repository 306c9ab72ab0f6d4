"""What the model answers, as messages, and what is done to them between the shard and those who read them."""

from typing import cast

import msgspec
import numpy as np
import pytest

from model.labels import RHYTHMS
from stream import wire
from stream.alarms.bed import BedAlarms
from stream.beds import Bed
from stream.judging import Item
from stream.messages import perhaps_ventricular, published, window_message

STAMPS = wire.Stamps(received=1_700_000_000_000_000_000, decided=1_700_000_000_000_000_001)
BEAT = wire.BeatJudgement(
    bed="b", epoch="e", at=wire.Moment(5, 250.0), label="N", confidence=1.0, rr_ms=0.0, stamps=STAMPS
)
NOW = 1_700_000_000_500_000_000


def test_the_stamp_of_publication_is_set_in_the_frame_and_nothing_else() -> None:
    stamps = msgspec.structs.replace(STAMPS, published=STAMPS.decided)
    frame = published(wire.encode(msgspec.structs.replace(BEAT, stamps=stamps)), NOW)
    assert frame is not None
    stamps = msgspec.structs.replace(STAMPS, published=NOW)
    assert wire.decode(frame) == msgspec.structs.replace(BEAT, stamps=stamps)


def test_a_frame_without_room_for_the_stamp_has_to_be_written_anew() -> None:
    assert published(wire.encode(BEAT), NOW) is None
    assert published(b"", NOW) is None


@pytest.mark.parametrize(("top", "told"), [(0.39, "?"), (0.41, "VT")])
def test_a_rhythm_that_is_not_likely_enough_is_not_told_but_its_probabilities_are(top: float, told: str) -> None:
    rhythm = np.full(len(RHYTHMS), (1 - top) / (len(RHYTHMS) - 1), np.float32)
    rhythm[RHYTHMS.index("VT")] = top
    one = dict.fromkeys(("shockable", "quality", "rr_ms", "age", "male", "potassium"), np.float32(0.5))
    answer = {"rhythm": rhythm, "arrhythmia": np.full(4, 0.25, np.float32), "gates": np.zeros(5, np.float32), **one}
    bed = Bed(0, "bed-1", cast(BedAlarms, None), epoch="e")  # its alarms have no part in it
    item = Item("window", 0, 5000, 5000, False, wire.Stamps())
    message = window_message(bed, item, answer, wire.Stamps())
    assert message.rhythm == told
    assert message.confidence == pytest.approx(top)
    assert message.rhythms["VT"] == pytest.approx(top)


@pytest.mark.parametrize(
    ("by_model", "vt", "index", "low", "high"),
    [
        (0.9, 0.0, 0.9, 0.89, 0.91),  # they agree
        (0.9, 0.0, 0.1, 0.49, 0.51),  # they do not
        (0.9, 0.8, 0.0, 0.8, 0.9),  # VT, which is none of the index's business
        (0.0, 0.0, 1.0, 0.49, 0.51),  # neither is ever sure enough to decide alone
        (0.99, 0.0, 0.0, 0.0, 0.3),  # no lead is large enough for the index: a flat line, say
        (0.9, 0.3, np.nan, 0.89, 0.91),  # it has not seen four seconds yet: the model alone
    ],
)
def test_what_is_shockable_is_told_by_the_model_and_the_vf_index_together(
    by_model: float, vt: float, index: float, low: float, high: float
) -> None:
    rhythm = np.full(len(RHYTHMS), (1 - vt) / (len(RHYTHMS) - 1), np.float32)
    rhythm[RHYTHMS.index("VT")] = vt
    one = dict.fromkeys(("quality", "rr_ms", "age", "male", "potassium"), np.float32(0.5))
    answer = {"rhythm": rhythm, "arrhythmia": np.full(4, 0.25, np.float32), "gates": np.zeros(5, np.float32), **one}
    answer["shockable"] = np.float32(by_model)
    item = Item("window", 0, 5000, 5000, False, wire.Stamps(), vf_index=index)
    said = window_message(Bed(0, "bed-1", cast(BedAlarms, None), epoch="e"), item, answer, wire.Stamps()).shockable
    assert low <= said <= high


@pytest.mark.parametrize(
    ("probs", "perhaps"),
    [
        ((0.05, 0.6, 0.2, 0.05, 0.1), True),
        ((0.05, 0.8, 0.1, 0.02, 0.03), False),  # hardly ventricular: an SVT
        ((0.45, 0.1, 0.4, 0.0, 0.05), False),  # likely a normal beat
        ((0.0, 0.0, 1.0, 0.0, 0.0), True),
    ],
)
def test_an_unusual_beat_that_is_ventricular_by_some_chance_counts_in_a_wide_tachycardia(
    probs: tuple[float, ...], perhaps: bool
) -> None:
    assert perhaps_ventricular(np.array(probs, np.float32)) is perhaps
