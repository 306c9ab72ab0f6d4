"""Why a frame of the wire is refused, in words that name the field, its value and the mend."""

from typing import Any

import msgspec


def version_text(version: object, spoken: int) -> str:
    """Of a frame of another version."""
    return f"v: {version!r} is not the version {spoken} spoken here; update this side or send v={spoken}"


def refusal(frame: bytes | memoryview, error: msgspec.ValidationError, spoken: int) -> tuple[str, str]:
    """The counter that it goes under, and a text: the slow way, as only a refused frame pays for it."""
    try:
        raw = msgspec.msgpack.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
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
