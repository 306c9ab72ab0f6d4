"""Why a frame of the wire is refused, in words that name the field, its value and the mend."""

from typing import Any

import msgspec

VERSION = 1


class WireError(ValueError):
    """A frame that is refused. `cause` is the counter it goes under: size, garbage, version or field."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


def version_text(version: object) -> str:
    """Of a frame of another version."""
    return f"v: {version!r} is not the version {VERSION} spoken here; update this side or send v={VERSION}"


def refusal(frame: bytes | memoryview, error: msgspec.ValidationError) -> WireError:
    """Name the field, its value and the mend: the slow way, as only a refused frame pays for it."""
    try:
        raw = msgspec.msgpack.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return WireError("garbage", "not msgpack")
    if not isinstance(raw, dict):
        return WireError("garbage", f"a frame is a map, this is a {type(raw).__name__}")
    if raw.get("v", VERSION) != VERSION:
        return WireError("version", version_text(raw["v"]))
    text, _, path = str(error).partition(" - at `$")
    if not path:  # a field that is missing or unknown
        return WireError("field", f"t: {str(raw.get('t'))[:60]!r} message refused: {error}")
    value: Any = raw
    for key in path.rstrip("`").replace("[", ".").replace("]", "").strip(".").split("."):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdigit():
            value = value[int(key)]
    shown = repr(value) if value is not raw else repr(raw.get("t"))
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return WireError("field", f"{path.strip('`.') or 't'}: {shown} refused: {text}")
