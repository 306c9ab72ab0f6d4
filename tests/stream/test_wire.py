import re
import struct
import tracemalloc
import typing
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import wire
from stream.wire import Judged, Message, Moment, Signal, Tensor, Waveform, WireError, decode, encode
from tests.lossy import packet

MESSAGES: dict[str, type[Message]] = {kind.__struct_config__.tag: kind for kind in typing.get_args(wire.AnyMessage)}  # type: ignore[misc]
PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
RAW: dict[str, Any] = msgpack.unpackb(encode(packet(3)))
ALERT = wire.AlertEvent(
    alert_id="a1", event_id="a1-0", seq=0, bed="bed-1", epoch="e1", code="ASYSTOLE", mdc="MDC", text="Asystole",
    phase="start", state="active", inactivation=("audio",), priority="high", kind="physiological", latching=True,
    onset=Moment(100, 250.0), stream_time=Moment(1100, 250.0), emit_time="2026-11-22T09:00:00Z", value=None,
    limits=(None, 4.0), evidence={"path": "detector", "quality": [1.0]},
)  # fmt: skip


def packets(handles: tuple[int, ...] = (3, 7), n: int = 2, **changed: Any) -> wire.Packets:
    """One packet of `n` samples of two signals for each handle, their sequence numbers 5, 6 ..."""
    k = len(handles)
    columns = {name: memoryview(np.arange(5, 5 + k, dtype="<i8").tobytes()) for name in ("seq", "first", "device_ns")}
    data = memoryview(np.arange(2 * n * k, dtype="<i2").tobytes())
    made = wire.Packets(
        n=n, n_signals=2, handles=memoryview(np.array(handles, "<i4").tobytes()), data=data, **columns, sent_ns=9
    )
    return msgspec.structs.replace(made, **changed)


PACKETS = packets()
EXAMPLES: list[Message] = [
    wire.Hello(source="s", session="x", speed=0.25, sent=3),
    packet(0),
    PACKETS,
    wire.Truth(bed="b", epoch="e", samples=(1, 5), symbols=("N", "+"), notes=("", "(AFIB")),
    wire.Lost(bed="b", epoch="e", first=3, n=0, cause="too old"),
    wire.End(bed="b", epoch="e", n_samples=2**40),
    wire.ProbeReply(id=1, received_ns=2, sent_ns=3),
    wire.Ack(session="x", shard="y", credit=5, received=4, durable=(("b", "e", 7),)),
    wire.Resend(bed="b", epoch="e", first=3),
    wire.Probe(id=1, sent_ns=5),
    wire.Refused(cause="field", text=""),
    wire.Greeting(shard="a", session="b", beds=(("b", "e", 5),)),
    wire.Shed(first_id=7, n=3),
    wire.Ready(worker="w", session="s", device="cpu", model_version="1"),
    wire.BeatJudgement(bed="b", epoch="e", at=Moment(5, 360.0), label="V", confidence=0.9, rr_ms=800.0, gates=(0.5,)),
    wire.Numeric(
        bed="b", epoch="e", at=Moment(5, 360.0), hr=None, pvc_per_min=2.0, rhythm="AF", confidence=1.0, quality=(1.0,)
    ),
    ALERT,
    wire.Waves(
        bed="b", epoch="e", first=5, rate=250.0, n=2, signals=packet(0).signals,
        data=memoryview(bytes(4 * len(packet(0).signals))), off=1, received_ns=7,
    ),
    wire.Watch(beds=("b", "c")),
    wire.Alerts(shard="s", session="x", first=0, events=(ALERT, ALERT)),
    wire.Committed(session="x", until=2),
    wire.Action(id="1", bed="b", kind="limits", who="nurse", at_ns=5, limits={"HR_HIGH": 130}),
    wire.Strip(
        id="a", bed="b", epoch="e", code="VTACH", text="***VTACH", priority="high", onset=Moment(3, 250.0),
        decided=Moment(9, 250.0), rate=250.0, first=2, n=2, signals=(Signal("II", "ecg", "mV", 200.0),),
        data=memoryview(bytes(4)), beats=(3,), labels=("V",),
    ),
    wire.StripRequest(id="a"),
    wire.SnapshotRequest(),
    wire.Snapshot(alerts=(ALERT,), numerics=(), published=9),
    wire.Reply(id="1", ok=True),
    wire.BedStatus(
        shard="s", bed="b", epoch="e", at=Moment(0, 250.0), counts={"gap": 0}, age_ms=1.0,
        clock_offset_ms=0.0, clock_drift_ppm=0.0, latency_ms={"judged": (1.0, 2.0)},
    ),
]  # fmt: skip


def refusal(frame: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        decode(frame)
    return caught.value


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message: wire.AnyMessage) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_any_msgpack_library_reads_and_writes_a_frame(message: wire.AnyMessage) -> None:
    raw = msgpack.unpackb(encode(message))
    assert raw["t"] == type(message).__struct_config__.tag and raw["v"] == wire.VERSION
    assert decode(msgpack.packb(raw)) == message


def test_samples_are_little_endian_rows_of_signals() -> None:
    samples = np.array([[1, -2, 300], [wire.MISSING, 5, 6]], "<i2")
    made = msgspec.structs.replace(packet(0), n=3, data=memoryview(samples.tobytes()))
    raw = msgpack.unpackb(encode(made))
    assert raw["data"] == struct.pack("<6h", 1, -2, 300, -32768, 5, 6)
    came = decode(encode(made))
    assert isinstance(came, Waveform) and came.samples().tolist() == samples.tolist()


def test_the_columns_of_packets_are_rows_of_signals_and_numbers() -> None:
    came = decode(encode(packets()))
    assert isinstance(came, wire.Packets)
    assert came.samples().tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert came.column("handles").tolist() == [3, 7]
    assert came.column("first").tolist() == [5, 6]
    assert came.column("off").tolist() == [0, 0]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (packets(handles=(7, 3)), "handles: not rising"),
        (packets(handles=(3, 3)), "handles: not rising"),
        (packets(handles=()), "handles: 0 bytes"),
        (packets(handles=(3, 70_000)), "handles: 3 to 70000"),
        (packets(n=3, data=memoryview(bytes(16))), "data: 16 bytes, but 2 packets take 24"),
        (packets(seq=memoryview(bytes(9))), "seq: 9 bytes, but 2 packets take 16"),
        (packets(off=memoryview(bytes(2))), "off: 2 bytes, but 2 packets take 8"),
        (packets(first=memoryview(np.array([0, -1], "<i8").tobytes())), "first: -1 to 0"),
    ],
)
def test_columns_that_do_not_fit_are_refused(made: wire.Packets, text: str) -> None:
    refused = refusal(encode(made))
    assert refused.cause == "field"
    assert text in str(refused)


@given(
    st.sampled_from(["float32", "int64", "int32", "int16", "uint8", "bool"]), st.lists(st.integers(0, 5), max_size=4)
)
def test_an_array_crosses_the_wire_unchanged(dtype: str, shape: list[int]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    message = Judged(kind="beat", ids=Tensor.of(array), arrays={}, batched_ns=0, judged_ns=0)
    came = decode(encode(message))
    assert isinstance(came, Judged)
    back = came.ids.array()
    assert (back.dtype, back.shape) == (array.dtype, array.shape) and (back == array).all()


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), (2**31,) * 4, (0,)])
def test_an_array_whose_shape_does_not_fit_its_bytes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(WireError, match="tensor of shape"):
        Tensor("float32", shape, memoryview(bytes(16))).array()


SIGNAL = RAW["signals"][0]


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("bed", "", "bed: ''"),
        ("bed", "x" * 65, "bed: 'xxx"),
        ("bed", "bed\n1", r"bed: 'bed\\n1'"),
        ("epoch", 5, "epoch: 5"),
        ("seq", -1, "seq: -1"),
        ("first", 2**63, "first: 9223372036854775808"),
        ("first", 2**40 + 1, "first: 1099511627777 is beyond"),
        ("rate", 0.0, "rate: 0.0"),
        ("rate", 49.9, "rate: 49.9"),
        ("rate", 2000.5, "rate: 2000.5"),
        ("rate", float("nan"), "rate: nan"),
        ("n", 0, "n: 0"),
        ("n", 20_001, "n: 20001"),
        ("n", 26, "data: 100 bytes, but 2 signals x 26"),
        ("signals", [], r"signals: \[\]"),
        ("signals", [SIGNAL] * 17, "signals: "),
        ("signals", [SIGNAL], "data: 100 bytes, but 1 signals"),
        ("signals", [SIGNAL | {"gain": 0.0}] * 2, r"signals\[0\].gain: 0.0"),
        ("signals", [SIGNAL, SIGNAL | {"gain": float("inf")}], r"signals\[1\].gain: inf"),
        ("signals", [SIGNAL | {"kind": "eeg"}] * 2, r"signals\[0\].kind: 'eeg'"),
        (
            "signals",
            [SIGNAL, SIGNAL | {"name": "V", "kind": "ecg", "unit": "uV"}],
            "V is an ECG in 'uV', .* say unit 'mV'",
        ),
        ("data", b"123", "data: 3 bytes"),
        ("data", "text", "data: 'text'"),
        ("off", 2**16, "off: 65536"),
        ("t", "wavy", "t: 'wavy'"),
        ("more", 1, "unknown field `more`"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: Any, named: str) -> None:
    error = refusal(msgpack.packb(RAW | {field: value}))
    assert error.cause == "field"
    assert re.search(named, str(error)), str(error)


def test_a_field_that_is_missing_is_refused_by_name() -> None:
    error = refusal(msgpack.packb({name: value for name, value in RAW.items() if name != "rate"}))
    assert (error.cause, str(error)) == ("field", "t: 'wave' message refused: Object missing required field `rate`")


@pytest.mark.parametrize("extra", [{}, {"more": 1}, {"t": "new"}, {"bed": 5}])
def test_a_later_version_is_told_apart_from_a_mistake(extra: dict[str, Any]) -> None:
    error = refusal(msgpack.packb(RAW | {"v": 2} | extra))
    assert error.cause == "version" and "v: 2" in str(error) and "v=1" in str(error)


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xc1", b"GET / HTTP/1.1\r\n", b"\x93\x01\x02\x03", b"\x01", b"\x91" * 100_000, encode(packet(0)) + b"\x00"],
    ids=["empty", "invalid", "http", "list", "number", "deep", "trailing"],
)
def test_garbage_is_refused(frame: bytes) -> None:
    assert refusal(frame).cause == "garbage"


@pytest.mark.parametrize(
    "frame",
    [
        b"\xdf\xff\xff\xff\xff",  # a map of 4 G entries
        b"\x81\xa1t\xc6\xff\xff\xff\xff",  # 4 GB of bytes
        b"\x82\xa1t\xa4wave\xa7signals\xdd\xff\xff\xff\xff",  # 4 G signals
        b"\x82\xa1t\xa5truth\xa7samples\xdd\x7f\xff\xff\xff\x01",
    ],
)
def test_a_huge_declared_length_allocates_nothing(frame: bytes) -> None:
    tracemalloc.start()
    try:
        assert refusal(frame).cause == "garbage"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_frame_over_the_limit_is_neither_sent_nor_read() -> None:
    assert refusal(bytes(wire.MAX_FRAME_BYTES + 1)).cause == "size"
    assert refusal(memoryview(bytes(wire.MAX_FRAME_BYTES + 1))).cause == "size"  # type: ignore[arg-type]
    with pytest.raises(WireError, match="send less at once"):
        encode(wire.Truth(bed="b", epoch="e", samples=(2**40,) * 500_000, symbols=(), notes=()))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_wire_error(frame: bytes) -> None:
    with pytest.raises(WireError):
        decode(frame)


@given(st.sampled_from(EXAMPLES), st.data())
@settings(max_examples=500)
def test_a_frame_with_bytes_changed_is_refused_or_within_the_limits(
    message: wire.AnyMessage, data: st.DataObject
) -> None:
    frame = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        came = decode(bytes(frame))
    except WireError as error:
        assert error.cause in ("garbage", "version", "field")
    else:
        assert decode(encode(came)) == came or "nan" in repr(came)


@given(st.integers(0, 400))
def test_a_frame_cut_short_is_refused(length: int) -> None:
    frame = encode(packet(0))
    assert refusal(frame[: min(length, len(frame) - 1)]).cause == "garbage"


def rows(name: str) -> dict[str, str]:
    """The table of fields under the heading of a message or a part: the line of each field."""
    match = re.search(rf"^#+ `{name}`.*?\n(.*?)(?=^#|\Z)", PAGE, re.M | re.S)
    assert match, f"docs/wire.md has no heading for `{name}`"
    table = re.search(r"^\| field \|.*?(?=\n\n|\Z)", match[1], re.M | re.S)
    assert table, f"docs/wire.md has no table of fields for `{name}`"
    return dict(re.findall(r"^\| `(\w+)` (\|.*)$", table[0], re.M))


@pytest.mark.parametrize("tag", MESSAGES)
def test_the_page_tells_every_field_of_every_message(tag: str) -> None:
    assert list(rows(tag)) == [name for name in MESSAGES[tag].__struct_fields__ if name != "v"]


@pytest.mark.parametrize("part", [Signal, Moment, wire.Stamps, Tensor], ids=lambda part: part.__name__)
def test_the_page_tells_every_field_of_the_parts(part: type[msgspec.Struct]) -> None:
    assert list(rows(part.__name__)) == list(part.__struct_fields__)


@pytest.mark.parametrize("tag", MESSAGES)
def test_the_page_tells_which_fields_may_be_left_out(tag: str) -> None:
    for field in msgspec.structs.fields(MESSAGES[tag]):
        if field.name != "v":
            assert ("optional" in rows(tag)[field.name]) is not field.required, field.name


def test_the_page_tells_the_limits() -> None:
    for limit in (
        wire.MAX_FRAME_BYTES,
        wire.MAX_SIGNALS,
        wire.MAX_SAMPLES,
        int(wire.MIN_RATE_HZ),
        int(wire.MAX_RATE_HZ),
    ):
        assert re.search(rf"\b{limit:_}\b".replace("_", "[ ,]?"), PAGE), limit


def test_the_bytes_on_the_page_are_those_that_the_code_makes() -> None:
    """Each dump stands after the message that it is of, in Python."""
    dumps = re.findall(r"```python\n(\w+\(.*?\))\n```\n+```hex\n(.*?)```", PAGE, re.S)
    assert len(dumps) >= 2
    for source, dump in dumps:
        message = eval(source, vars(wire) | {"bytes": bytes, "memoryview": memoryview})
        code = "".join(line[:48] for line in dump.splitlines())
        assert bytes.fromhex(code) == encode(message)
