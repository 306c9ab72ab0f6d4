"""Why a frame of the wire is refused, in words that name the field, its value and the mend."""

from collections.abc import Mapping
from typing import Any

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what msgspec raises for what is no msgpack


def version_text(version: object, spoken: int) -> str:
    """Of a frame of another version."""
    return f"v: {version!r} is not the version {spoken} spoken here; update this side or send v={spoken}"


def id_of(frame: bytes) -> str:
    """The `id` of a frame that was refused, for the answer; empty where none can be read."""
    try:
        raw = msgspec.msgpack.decode(frame)
    except UNREADABLE:
        return ""
    known = raw.get("id") if isinstance(raw, dict) else None
    return known[:64] if isinstance(known, str) else ""


def refusal(frame: bytes | memoryview, error: msgspec.ValidationError, spoken: int) -> tuple[str, str]:
    """The counter that it goes under, and a text: the slow way, as only a refused frame pays for it."""
    try:
        raw = msgspec.msgpack.decode(frame)
    except UNREADABLE:
        return "garbage", "not msgpack"
    if not isinstance(raw, dict):
        return "garbage", f"a frame is a map, this is a {type(raw).__name__}"
    if raw.get("v", spoken) != spoken:
        return "version", version_text(raw["v"], spoken)
    text, _, path = str(error).partition(" - at `$")
    if not path:  # a field that is missing or unknown
        return "field", f"t: {str(raw.get('t'))[:60]!r} message refused: {error}"
    value: Any = raw
    for key in path.rstrip("`").replace("[", ".").replace("]", "").strip(".").split("."):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdigit():
            value = value[int(key)]
    shown = repr(value) if value is not raw else repr(raw.get("t"))
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return "field", f"{path.strip('`.') or 't'}: {shown} refused: {text}"


def samples_fault(packet: Any, last_first: int) -> str:
    """What is wrong with the samples of a message that has them, or with the beats of a strip; empty: nothing."""
    expected = 2 * len(packet.signals) * packet.n
    if packet.data.nbytes != expected:
        return (
            f"data: {packet.data.nbytes} bytes, but {len(packet.signals)} signals x {packet.n} samples "
            f"of int16 take {expected}; send signals in rows, little-endian"
        )
    for signal in packet.signals:
        if signal.kind == "ecg" and signal.unit != "mV":
            return (
                f"signals: {signal.name} is an ECG in {signal.unit!r}, and all limits are in mV; say unit 'mV', with "
                "the gain in digital units per mV (1000 where one is a microvolt)"
            )
    if packet.first > last_first:
        return f"first: {packet.first} is beyond any recording; count from the start of the epoch"
    labels, beats = getattr(packet, "labels", ()), getattr(packet, "beats", ())
    return f"labels: {len(labels)} for {len(beats)} beats; send one for each" if len(labels) != len(beats) else ""


def columns_fault(packets: Any, most_together: int, highest: Mapping[str, int]) -> str:
    """What is wrong with the columns of `Packets`: their sizes, or what stands in them; empty where nothing is."""
    k = packets.handles.nbytes // 4
    if not 1 <= k <= most_together or packets.handles.nbytes != 4 * k:
        return f"handles: {packets.handles.nbytes} bytes; send 1 to {most_together} int32"
    data = 2 * k * packets.n_signals * packets.n
    for name, size in {"seq": 8 * k, "first": 8 * k, "device_ns": 8 * k, "off": 4 * k, "data": data}.items():
        nbytes = getattr(packets, name).nbytes
        if nbytes != size and not (name == "off" and nbytes == 0):
            return f"{name}: {nbytes} bytes, but {k} packets take {size}"
    for name, most in highest.items():
        column = packets.column(name)
        if column.min() < 0 or column.max() > most:
            return f"{name}: {column.min()} to {column.max()}; send values from 0 to {most}"
    handles = packets.column("handles")
    if (handles[1:] <= handles[:-1]).any():
        return "handles: not rising; send one packet of each bed, in the order of their handles"
    return ""
