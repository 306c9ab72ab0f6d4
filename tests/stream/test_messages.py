"""What is done to a message between the shard and those who read it."""

import msgspec

from stream import wire
from stream.messages import published

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
