"""The wire: every message that crosses a socket, and the limits it must keep.

A frame is one msgpack map. `t` names its type, `v` the version of the wire; the other keys are
the fields of the class of that type. A ZeroMQ message carries one or more frames, so a source of
a thousand beds pays for one message and not for a thousand. `docs/wire.md` says the same for
somebody who writes a producer or a subscriber in another language.

    >>> frame = encode(Probe(id=1, sent_ns=5))
    >>> decode(frame)
    Probe(id=1, sent_ns=5, v=1)

Nothing is ever unpickled, and no limit is found out by allocating: the size of a frame is
compared first, and a length that a frame declares is compared with the bytes that are there.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from stream.refusals import UNREADABLE, columns_fault, refusal, samples_fault, version_text

VERSION = 1

MAX_FRAME_BYTES = 4 << 20
MAX_SIGNALS = 16
MAX_SAMPLES = 20_000
MAX_STRIP = 40_000  # samples of a strip: 15 s at the highest rate, and some
MIN_RATE_HZ, MAX_RATE_HZ = 50.0, 2000.0
MAX_FIRST = 2**40  # 17 years at the highest rate
MISSING = -32768  # the int16 that stands for a sample that is not there
MAX_HANDLE = 2**16 - 1
MAX_TOGETHER = 4096  # packets in one `Packets`

Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, Meta(max_length=1000)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Nanoseconds = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Sample = Annotated[int, Meta(ge=-(2**53), le=2**53)]  # what a float and a journal can hold
Rate = Annotated[float, Meta(ge=MIN_RATE_HZ, le=MAX_RATE_HZ)]
Handle = Annotated[int, Meta(ge=0, le=MAX_HANDLE)]


class WireError(ValueError):
    """A frame that is refused. `cause` is the counter it goes under: size, garbage, version or field."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


# ---------------------------------------------------------------------------------- the parts


class Signal(Struct, frozen=True, forbid_unknown_fields=True):
    """One signal of a bed. Physical value = (digital - baseline) / gain, in `unit`; an ECG's is mV. A `counter` holds
    the index of each sample modulo 2**15: it is checked where the samples go into the analysis, and counted."""

    name: Name
    kind: Literal["ecg", "pleth", "abp", "resp", "counter", "other"]
    unit: Annotated[str, Meta(max_length=16)]
    gain: Annotated[float, Meta(ge=1e-9, le=1e12)]
    baseline: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] = 0


class Moment(Struct, frozen=True, forbid_unknown_fields=True):
    """A point of a recording: its sample, and the rate in Hz that the sample counts in."""

    sample: Sample
    fs: Annotated[float, Meta(ge=0, le=1e6)]


class Stamps(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """When each stage had it, in ns since 1970 UTC; 0 where the stage was not passed."""

    device: Nanoseconds = 0
    sent: Nanoseconds = 0
    received: Nanoseconds = 0
    detected: Nanoseconds = 0
    queued: Nanoseconds = 0
    batched: Nanoseconds = 0
    judged: Nanoseconds = 0
    decided: Nanoseconds = 0
    committed: Nanoseconds = 0
    published: Nanoseconds = 0


class Tensor(Struct, frozen=True, forbid_unknown_fields=True):
    """An array: `data` holds its bytes, little-endian, C order."""

    dtype: Literal["float32", "int64", "int32", "int16", "uint8", "bool"]
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**31)], ...], Meta(max_length=4)]
    data: memoryview

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> "Tensor":
        contiguous = np.ascontiguousarray(array)
        data = contiguous.data.cast("B") if contiguous.size else memoryview(b"")
        return cls(str(contiguous.dtype), array.shape, data)  # type: ignore[arg-type]

    def array(self) -> npt.NDArray[Any]:
        """The array, sharing the frame's memory (read-only)."""
        dtype = np.dtype(self.dtype)
        if math.prod(self.shape) * dtype.itemsize != self.data.nbytes:
            raise WireError("field", f"tensor of shape {self.shape} and type {self.dtype} has {self.data.nbytes} bytes")
        return np.frombuffer(self.data, dtype).reshape(self.shape)


class Message(Struct, frozen=True, tag_field="t", forbid_unknown_fields=True, kw_only=True):
    """What every frame has."""

    v: int = VERSION


# ---------------------------------------------------------------------------- source and shard


class Hello(Message, frozen=True, tag="hello"):
    """A source says who it is: at its start, after each reconnect, and every second, for it keeps
    the shard's account of the source alive. `speed` is 1 for live, above for a faster replay,
    0 for as fast as credit allows. `sent` counts the packets of this session."""

    source: Name
    session: Name
    speed: Annotated[float, Meta(ge=0, le=1000)]
    sent: Count = 0


class Waveform(Message, frozen=True, tag="wave"):
    """A packet of samples of all signals of one bed.

    `data`: int16 little-endian, shape (signals, n), digital units, `MISSING` where there is none.
    `first`: index of the first sample since the epoch began. `off`: bit i says that signal i is
    off the patient. `device_ns`: the source's clock, UTC, at the last sample. An epoch is a fresh
    id at each start or loop of the source; `seq` counts the packets of a bed's epoch from 0, `epoch_n`
    the epochs of the bed in the session from 1 (0: not told), so that a lost one is seen. `handle`: number under
    which later `Packets` of the session speak of this epoch of the bed (0: none will).
    """

    bed: Name
    epoch: Name
    seq: Count
    first: Count
    rate: Rate
    n: Annotated[int, Meta(ge=1, le=MAX_SAMPLES)]
    signals: Annotated[tuple[Signal, ...], Meta(min_length=1, max_length=MAX_SIGNALS)]
    data: memoryview
    epoch_n: Count = 0
    off: Annotated[int, Meta(ge=0, le=2**MAX_SIGNALS - 1)] = 0
    device_ns: Nanoseconds = 0
    sent_ns: Nanoseconds = 0
    handle: Handle = 0

    def samples(self) -> npt.NDArray[np.int16]:
        """Digital samples, shape (signals, n), int16, sharing the frame's memory."""
        return np.frombuffer(self.data, "<i2").reshape(len(self.signals), self.n)


class Packets(Message, frozen=True, tag="packets"):
    """Packets of many beds in one frame, one of each, of epochs whose `handle` a `Waveform` has told before.

    Columns, little-endian: `handles` (k,) int32, rising; `seq`, `first`, `device_ns` (k,) int64; `off` (k,) int32, or
    nothing where no lead is off; `data` (k, n_signals, n) int16. k is up to `MAX_TOGETHER`."""

    n: Annotated[int, Meta(ge=1, le=MAX_SAMPLES)]
    n_signals: Annotated[int, Meta(ge=1, le=MAX_SIGNALS)]
    handles: memoryview
    seq: memoryview
    first: memoryview
    device_ns: memoryview
    data: memoryview
    off: memoryview = memoryview(b"")
    sent_ns: Nanoseconds = 0

    def column(self, name: Literal["handles", "seq", "first", "device_ns", "off"]) -> npt.NDArray[Any]:
        """A column, sharing the frame's memory (`off`: zeros where none is)."""
        if name == "off" and not self.off:
            return np.zeros(self.handles.nbytes // 4, np.int32)
        return np.frombuffer(getattr(self, name), "<i4" if name in ("handles", "off") else "<i8")

    def samples(self) -> npt.NDArray[np.int16]:
        """Digital samples, shape (k, n_signals, n), int16, sharing the frame's memory."""
        return np.frombuffer(self.data, "<i2").reshape(-1, self.n_signals, self.n)


class Truth(Message, frozen=True, tag="truth"):
    """Reference annotations of a bed, sent alongside so that a live run can be scored."""

    bed: Name
    epoch: Name
    samples: tuple[Count, ...]
    symbols: tuple[Annotated[str, Meta(max_length=4)], ...]
    notes: tuple[Annotated[str, Meta(max_length=64)], ...]


class Lost(Message, frozen=True, tag="lost"):
    """The source cannot supply these samples (any more): a gap, not to be waited for. With `n` 0, as an
    answer to a `Resend`: it knows nothing of this epoch from `first` on."""

    bed: Name
    epoch: Name
    first: Count
    n: Count
    cause: Name


class End(Message, frozen=True, tag="end"):
    """The epoch is over after `n_samples` samples."""

    bed: Name
    epoch: Name
    n_samples: Count


class ProbeReply(Message, frozen=True, tag="probe_reply"):
    """Answer to a `Probe`: when the source's clock (UTC, ns) saw it come and sent this."""

    id: Count
    received_ns: Nanoseconds
    sent_ns: Nanoseconds


class Ack(Message, frozen=True, tag="ack"):
    """What the shard has. `session`: the source's own, of its Hello. `shard`: a fresh id at each start
    of the shard, so that a source sees a restart and offers again what is not durable. `credit`:
    packets that the source may have sent in all in this session, resent ones too. `received`: those
    that this shard has had. `durable`: (bed, epoch, sample) up to which the source may forget."""

    session: Name
    shard: Name
    credit: Count
    received: Count
    durable: tuple[tuple[Name, Name, Count], ...] = ()


class Resend(Message, frozen=True, tag="resend"):
    """The shard asks for a bed again from sample `first` on: after a gap or its own restart."""

    bed: Name
    epoch: Name
    first: Count


class Probe(Message, frozen=True, tag="probe"):
    """The shard probes a source's clock."""

    id: Count
    sent_ns: Nanoseconds


class Refused(Message, frozen=True, tag="refused"):
    """A frame was refused and counted; at most one a second goes out per source and cause."""

    cause: Name
    text: Text


# ---------------------------------------------------------------------------- shard and worker

Kind = Literal["beat", "hop", "window"]
URGENT, BEAT, CALM = 0, 1, 2  # the batcher's classes, first to last


class Work(Message, frozen=True, tag="work"):
    """A block of items of one kind for the model. Row i of each array is item `first_id` + i."""

    kind: Kind
    urgency: Annotated[int, Meta(ge=URGENT, le=CALM)]
    first_id: Count
    n: Annotated[int, Meta(ge=1, le=65_536)]
    arrays: dict[str, Tensor]
    queued_ns: Nanoseconds = 0


class Judged(Message, frozen=True, tag="judged"):
    """The model's answer to items `ids` (int64); row i of each array is item `ids[i]`."""

    kind: Kind
    ids: Tensor
    arrays: dict[str, Tensor]
    batched_ns: Nanoseconds
    judged_ns: Nanoseconds


class Shed(Message, frozen=True, tag="shed"):
    """The worker had no room for items `first_id` and on: they are not judged, and not to be waited for."""

    first_id: Count
    n: Annotated[int, Meta(ge=1, le=65_536)]


class Ready(Message, frozen=True, tag="ready"):
    """A worker has loaded and warmed the model: to each shard at its start, then once a second."""

    worker: Name
    session: Name
    device: Name
    model_version: Name
    queued: Count = 0


class Greeting(Message, frozen=True, tag="greeting"):
    """A shard makes itself known to a worker or the gateway, at its start and once a second.

    `beds`: (bed, epoch, sample) up to which the shard's alarm state reaches, so that the gateway
    can give back the operator's actions of after that."""

    shard: Name
    session: Name
    beds: tuple[tuple[Name, Name, Count], ...] = ()


# ------------------------------------------------------------- shard to gateway to subscribers

BeatLabel = Literal["N", "S", "V", "F", "Q", "?"]
Phase = Literal["start", "continue", "update", "end", "reset"]
Priority = Literal["high", "medium", "low"]


class BeatJudgement(Message, frozen=True, tag="beat"):
    """A judged beat. `at`: its R peak. `label`: N S V F Q, `?` without a model. `form`: its shape, 0: none."""

    bed: Name
    epoch: Name
    at: Moment
    label: BeatLabel
    confidence: float
    rr_ms: float
    gates: tuple[float, ...] = ()
    quality: float = 1.0
    simulated: bool = True
    form: int = 0
    stamps: Stamps = Stamps()


class WindowJudgement(Message, frozen=True, tag="window"):
    """A judged window that ends at `at`: the rhythm of its last 4 s, judged from up to 30 s, `?` where no class is
    likely enough, and the probability of each. `rr_ms`: mean of the RRs that ended in the 10 s up to 2 s before `at`.
    The profile (`rr_ms` to `arrhythmia`) is research, None where the model does not say; potassium is of simulated
    patients. Without any lead in the last 4 s: `?`, all probabilities and the quality 0, and no profile."""

    bed: Name
    epoch: Name
    at: Moment
    rhythm: Name
    confidence: float
    rhythms: dict[str, float]
    shockable: float
    quality: float
    rr_ms: float | None = None
    age_years: float | None = None
    male: float | None = None
    potassium_abnormal: float | None = None
    arrhythmia: Annotated[str, Meta(max_length=64)] = ""
    gates: tuple[float, ...] = ()
    research: bool = True
    potassium_simulated: bool = True
    simulated: bool = True
    stamps: Stamps = Stamps()


class Numeric(Message, frozen=True, tag="numeric"):
    """Once a second of sample time. None stands for `-?-`: not to be told now."""

    bed: Name
    epoch: Name
    at: Moment
    hr: float | None
    pvc_per_min: float | None
    rhythm: Annotated[str, Meta(max_length=64)]
    confidence: float
    quality: tuple[float, ...]
    simulated: bool = True
    stamps: Stamps = Stamps()


class AlertEvent(Message, frozen=True, tag="alert"):
    """One transition in the life of one alert (design: Event)."""

    alert_id: Name
    event_id: Name
    seq: Count
    bed: Name
    epoch: Name
    code: Name
    mdc: Text
    text: Text
    phase: Phase
    state: Literal["inactive", "active", "latched"]
    inactivation: tuple[Name, ...]
    priority: Priority
    kind: Literal["physiological", "technical", "advisory"]
    latching: bool
    onset: Moment
    stream_time: Moment
    emit_time: Annotated[str, Meta(max_length=40)]
    value: float | None = None
    unit: Annotated[str, Meta(max_length=32)] = ""
    limits: tuple[float | None, float | None] = (None, None)
    evidence: dict[str, Any] = {}
    reason: Text = ""
    chain: Annotated[str, Meta(max_length=16)] = ""
    suppressed_by: str | None = None
    supersedes: str | None = None
    strip: str | None = None
    ack: dict[str, Any] | None = None
    model_version: Annotated[str, Meta(max_length=64)] = ""
    simulated: bool = True
    stamps: Stamps = Stamps()


class Strip(Message, frozen=True, tag="strip"):
    """The signal around the decision of an alert, from 10 s before to 5 s after: all signals as the source sent them.

    `id`: how the events of the alert name it (`strip`). `data`: int16 little-endian, shape (signals, n), digital
    units, `MISSING` where there is no sample; `first`: the epoch's sample that it begins at. `beats`: R peaks in it,
    samples of the epoch, and `labels` what the model calls each."""

    id: Name
    bed: Name
    epoch: Name
    code: Name
    text: Text
    priority: Priority
    onset: Moment
    decided: Moment
    rate: Rate
    first: Count
    n: Annotated[int, Meta(ge=1, le=MAX_STRIP)]
    signals: Annotated[tuple[Signal, ...], Meta(min_length=1, max_length=MAX_SIGNALS)]
    data: memoryview
    beats: tuple[Sample, ...] = ()
    labels: tuple[BeatLabel, ...] = ()
    simulated: bool = True

    def samples(self) -> npt.NDArray[np.int16]:
        """Digital samples, shape (signals, n), int16, sharing the frame's memory."""
        return np.frombuffer(self.data, "<i2").reshape(len(self.signals), self.n)


class StripRequest(Message, frozen=True, tag="strip_request"):
    """A client asks for a `Strip` by its `id`; the answer is that, or a `Reply` that says why not."""

    id: Name


class BedStatus(Message, frozen=True, tag="status"):
    """A bed's account, once a second of wall time.

    `counts`: samples by fate (received, analysed, gap, ...) and packets by fate (late, duplicate,
    reordered, refused, ...). `age_ms`: age of the newest analysed sample by the source's clock as
    the shard understands it. `latency_ms`: p50 and p99 by stage over the last few seconds."""

    shard: Name
    bed: Name
    epoch: Name
    at: Moment
    counts: dict[str, Count]
    age_ms: float
    clock_offset_ms: float
    clock_drift_ppm: float
    latency_ms: dict[str, tuple[float, float]] = {}


class Waves(Message, frozen=True, tag="waves"):
    """What a bed's signals look like, for whoever draws them: samples as the source sent them, which `signals` turn
    into mV and the like, without a hole from `first` on. Best effort, and only of beds that somebody watches.

    `data`: int16 little-endian, shape (signals, n); `MISSING` where there is no sample or the lead is off (`off`: bit i
    for signal i, where any of these samples was). What does not follow on the block before is a gap."""

    bed: Name
    epoch: Name
    first: Count
    rate: Rate
    n: Annotated[int, Meta(ge=1, le=MAX_SAMPLES)]
    signals: Annotated[tuple[Signal, ...], Meta(min_length=1, max_length=MAX_SIGNALS)]
    data: memoryview
    off: Annotated[int, Meta(ge=0, le=2**MAX_SIGNALS - 1)] = 0
    received_ns: Nanoseconds = 0
    simulated: bool = True

    def samples(self) -> npt.NDArray[np.int16]:
        """Digital samples, shape (signals, n), int16, sharing the frame's memory."""
        return np.frombuffer(self.data, "<i2").reshape(len(self.signals), self.n)


class Watch(Message, frozen=True, tag="watch"):
    """The gateway tells a shard of which beds it wants `Waves`: at each change, and once a second while it does."""

    beds: tuple[Name, ...]


class Alerts(Message, frozen=True, tag="alerts"):
    """A shard hands alert events and strips to the gateway, in order; kept and sent again until committed."""

    shard: Name
    session: Name
    first: Annotated[int, Meta(ge=0, le=2**53)]
    events: tuple[AlertEvent | Strip, ...]


class Committed(Message, frozen=True, tag="committed"):
    """The gateway has the shard's alert events and strips before number `until` on disk."""

    session: Name
    until: Count


class Action(Message, frozen=True, tag="action"):
    """What an operator wants: of the gateway from a client, then of the shard from the gateway.

    `kind`: acknowledge (an alert by `alert_id`, or all of the bed), audio_pause, alarm_pause,
    alarms_off, alarms_on, limits. `until_s`: how long a pause lasts. `sample`: where the shard
    applied it, set in the echo and when it is given back after a restart."""

    id: Name
    bed: Name
    kind: Literal["acknowledge", "audio_pause", "alarm_pause", "alarms_off", "alarms_on", "limits"]
    who: Name
    at_ns: Nanoseconds
    alert_id: str | None = None
    until_s: float | None = None
    limits: dict[str, Any] = {}
    epoch: Annotated[str, Meta(max_length=64)] = ""
    sample: Sample | None = None


class SnapshotRequest(Message, frozen=True, tag="snapshot_request"):
    """A subscriber that comes late asks what is active."""


class Snapshot(Message, frozen=True, tag="snapshot"):
    """All alerts that are active or latched, and the newest numeric of each bed; `published` is the
    number of the last event that went out before it."""

    alerts: tuple[AlertEvent, ...]
    numerics: tuple[Numeric, ...]
    published: Count


class Reply(Message, frozen=True, tag="reply"):
    """The answer to an `Action` or an operator's command: done, or why not."""

    id: str
    ok: bool
    text: Text = ""


AnyMessage = (
    Hello | Waveform | Packets | Truth | Lost | End | ProbeReply | Ack | Resend | Probe | Refused
    | Work | Judged | Shed | Ready | Greeting
    | BeatJudgement | WindowJudgement | Numeric | AlertEvent | BedStatus | Waves | Watch | Strip | StripRequest
    | Alerts | Committed | Action | SnapshotRequest | Snapshot | Reply
)  # fmt: skip

_MOST = {"handles": MAX_HANDLE, "seq": 2**62, "first": MAX_FIRST, "device_ns": 2**62, "off": 2**MAX_SIGNALS - 1}
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: AnyMessage) -> bytes:
    """The frame of a message. Raises WireError where the frame would be over the size limit."""
    frame = _encoder.encode(message)
    if len(frame) > MAX_FRAME_BYTES:
        text = f"{type(message).__name__} takes {len(frame)} bytes, over {MAX_FRAME_BYTES}; send less at once"
        raise WireError("size", text)
    return frame


def decode(frame: bytes | memoryview) -> AnyMessage:
    """The message of a frame. Raises WireError with the counter it goes under in `cause`."""
    size = frame.nbytes if isinstance(frame, memoryview) else len(frame)
    if size > MAX_FRAME_BYTES:
        raise WireError("size", f"frame of {size} bytes, over {MAX_FRAME_BYTES}; send less at once")
    try:
        message: AnyMessage = _decoder.decode(frame)
    except msgspec.ValidationError as error:
        raise WireError(*refusal(frame, error, VERSION)) from None
    except UNREADABLE as error:
        raise WireError("garbage", f"not msgpack: {error}") from None
    if message.v != VERSION:
        raise WireError("version", version_text(message.v, VERSION))
    if (fault := _FAULTS.get(type(message))) and (text := fault(message)):
        raise WireError("field", text)
    return message


# What the parts of a message may say against one another.
_FAULTS: dict[type, Callable[[Any], str]] = {
    Packets: lambda message: columns_fault(message, MAX_TOGETHER, _MOST),
    Alerts: lambda message: next(
        filter(None, (samples_fault(s, MAX_FIRST) for s in message.events if isinstance(s, Strip))), ""
    ),
    **dict.fromkeys((Waveform, Waves, Strip), lambda message: samples_fault(message, MAX_FIRST)),
}
