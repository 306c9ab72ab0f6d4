"""HL7 v2.6 in ER7: our events as IHE PCD ACM alerts (ORU^R40), our numerics as DEC observations (ORU^R01).

Pure functions, no clock and no socket: the same event gives the same bytes, so what is sent again has
the same MSH-10. Layout and codes: the IHE SDPi gateway text; every identifier is configuration. MSH-11
is `D` always, which says that this is no production system.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from stream.bridges import codes
from stream.bridges.bridge import NetworkSettings, Rejected, Ward, is_url
from stream.bridges.codes import Code, Codes, MdcText
from stream.wire import AlertEvent, Numeric

Component = Annotated[str, Meta(pattern=r"^[^|~\\&\r\n\x00-\x1f]*$", max_length=200)]

_ESCAPES = {"|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\\": "\\E\\"}
_PRIORITY = {"high": "PH", "medium": "PM", "low": "PL"}
_TYPE = {"physiological": "SP", "technical": "ST", "advisory": "SA"}
_PHASE = Code("68481", "MDC_ATTR_EVENT_PHASE")
_STATE = Code("68482", "MDC_ATTR_ALARM_STATE")
_INACTIVATION = Code("68483", "MDC_ATTR_ALARM_INACTIVATION_STATE")
_RANK = Code("68484", "MDC_ATTR_ALARM_PRIORITY")
_KIND = Code("68485", "MDC_ATTR_ALERT_TYPE")
_SOURCE = Code("68480", "MDC_ATTR_ALERT_SOURCE")
_MONITORING = Code("182777000", "monitoring of patient", "SCT")


class Hl7Settings(NetworkSettings, frozen=True, kw_only=True, tag="hl7"):
    """`application`, `facility`: MSH-3 and -4; `receiving_…`: MSH-5 and -6. `authority`: namespace, id and type of our
    identifiers. `reporter`: OBR-2 of alerts. `alert_profile`, `numeric_profile`: MSH-21. `patient_authority`: PID-3.
    `codes`: by our code, the term to send instead. `pending_codes`: whether `0^MDCX_…` may go out."""

    url: is_url("mllp", "mllps") = "mllp://127.0.0.1:2575"  # type: ignore[valid-type]
    numerics_s: Annotated[float, Meta(ge=0.2, le=60)] = 10.0
    application: Component = "WARDBEAT^0000000000000001^EUI-64"
    facility: Component = "RESEARCH"
    receiving_application: Component = ""
    receiving_facility: Component = ""
    authority: Component = "WARDBEAT^0000000000000001^EUI-64"
    reporter: Component = "AR1"
    patient_authority: Component = "SIM"
    alert_profile: Component = "IHE_PCD_ACM_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.4.1^ISO"
    numeric_profile: Component = "IHE_PCD_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.1.1^ISO"
    codes: dict[str, MdcText] = msgspec.field(default_factory=dict)
    pending_codes: bool = True


def escaped(text: str) -> str:
    """Text as it may stand in a field: separators and control characters as escape sequences."""
    return "".join(_ESCAPES.get(c) or (f"\\X{ord(c):02X}\\" if ord(c) < 32 or ord(c) == 127 else c) for c in text)


def stamp(ns: int) -> str:
    """ns since 1970 as an HL7 time in UTC with ms."""
    whole = datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y%m%d%H%M%S")
    return f"{whole}.{ns // 1_000_000 % 1000:03d}+0000"


def alert_message(event: AlertEvent, settings: Hl7Settings, mapping: Codes, ward: Ward) -> bytes:
    """An alert event as ORU^R40, UTF-8. Raises Rejected where its code has no term."""
    code, at = mapping.of(event), stamp(_made_ns(event))
    first = event.phase == "start"
    authority = settings.authority
    obr3 = f"{escaped(event.alert_id if first else event.event_id)}^{authority}"
    obr29 = "" if first else f"{escaped(event.alert_id)}^{authority}"
    obr = ["OBR", "1", f"{settings.reporter}^{authority}", obr3, _code(codes.ALARM), "", "", at, *[""] * 21, obr29]
    segments = [
        _msh("ORU^R40^ORU_R40", event.event_id, at, settings.alert_profile, settings),
        *_patient(event.bed, settings, ward),
        "|".join(obr).rstrip("|"),
        *_devices(event.bed, authority),
        *_facets(event, code),
    ]
    return _joined(segments)


def numeric_message(numeric: Numeric, settings: Hl7Settings, ward: Ward) -> bytes:
    """A bed's numerics as ORU^R01 of the DEC profile, UTF-8."""
    at = stamp(numeric.stamps.published or numeric.stamps.received)
    control = f"{numeric.epoch[:40]}-{numeric.at.sample}"
    authority = settings.authority
    values = [
        (codes.HR, "NM", _number(numeric.hr), codes.BPM),
        (codes.PVC_RATE, "NM", _number(numeric.pvc_per_min), codes.BPM),
        (codes.RHYTHM, "ST", escaped(numeric.rhythm), None),
    ]
    metrics = [
        _obx(4 + i, kind, _code(code), f"1.1.1.{i + 1}", value, _code(unit), status="R" if value else "X")
        for i, (code, kind, value, unit) in enumerate(values)
    ]
    obr3 = f"{escaped(control)}^{authority}"
    segments = [
        _msh("ORU^R01^ORU_R01", control, at, settings.numeric_profile, settings),
        *_patient(numeric.bed, settings, ward),
        f"OBR|1||{obr3}|{_code(_MONITORING)}|||{at}",
        *_devices(numeric.bed, authority),
        *metrics,
    ]
    return _joined(segments)


def heartbeat_message(at_ns: int, settings: Hl7Settings, ward: Ward) -> bytes:
    """That the ward is watched, as an advisory alert of the ward itself."""
    at = stamp(at_ns)
    control = f"alive-{at_ns // 1_000_000}"
    facets = [
        ("CWE", codes.ALARM, f"{_code(codes.ALIVE)}^^^^^^ACTIVE"),
        ("ST", _SOURCE, escaped(ward.name)),
        ("ST", _PHASE, "update"),
        ("ST", _STATE, "active"),
        ("ST", _INACTIVATION, "enabled"),
        ("ST", _RANK, "PN"),
        ("ST", _KIND, "SA"),
    ]
    segments = [
        _msh("ORU^R40^ORU_R40", control, at, settings.alert_profile, settings),
        f"PV1||I|{escaped(ward.unit)}",
        f"OBR|1|{settings.reporter}^{settings.authority}|{control}^{settings.authority}|{_code(codes.ALARM)}|||{at}",
        *_devices(ward.name, settings.authority),
        *(_obx(4 + i, kind, _code(code), f"1.1.1.1.{i + 1}", value) for i, (kind, code, value) in enumerate(facets)),
    ]
    return _joined(segments)


def _made_ns(event: AlertEvent) -> int:
    """When this event was made, ns since 1970: its commit, or for what is told again, when it was told."""
    if event.phase == "continue" and event.emit_time:
        whole = datetime.fromisoformat(event.emit_time)
        return int(whole.timestamp()) * 1_000_000_000 + whole.microsecond * 1000
    return event.stamps.committed or event.stamps.decided


def _changed_ns(event: AlertEvent) -> int:
    """When the state changed: for a start its onset, by the source's clock where it is known."""
    newest = event.stamps.device or event.stamps.committed or event.stamps.decided
    if event.phase != "start" or not event.stream_time.fs:
        return newest
    return newest - round((event.stream_time.sample - event.onset.sample) / event.stream_time.fs * 1e9)


def _msh(kind: str, control: str, at: str, profile: str, own: Hl7Settings) -> str:
    sender = f"{own.application}|{own.facility}|{own.receiving_application}|{own.receiving_facility}"
    return f"MSH|^~\\&|{sender}|{at}||{kind}|{escaped(control)}|D|2.6|||AL|NE||UNICODE UTF-8|||{profile}"


def _patient(bed: str, own: Hl7Settings, ward: Ward) -> Sequence[str]:
    name = escaped(bed)
    return (
        f"PID|||SIM-{name}^^^{own.patient_authority}^PI||Simulated^{name}^^^^^L",
        f"PV1||I|{escaped(ward.unit)}^^{name}",
    )


def _devices(bed: str, authority: str) -> Iterable[str]:
    namespace, _, rest = authority.partition("^")
    yield _obx(1, "", _code(codes.MDS), "1.0.0.0", "", status="X", instance=f"{escaped(bed)}^{namespace}^{rest}")
    yield _obx(2, "", _code(codes.VMD), "1.1.0.0", "", status="X")
    yield _obx(3, "", _code(codes.CHANNEL), "1.1.1.0", "", status="X")


def _facets(event: AlertEvent, code: Code) -> Iterable[str]:
    """The seven OBX of an alert, in their order."""
    changed, text = stamp(_changed_ns(event)), escaped(event.text)
    technical = event.kind == "technical"
    if technical:
        yield _obx(4, "CWE", _code(codes.ALARM), "1.1.1.1.1", f"{_code(code)}^^^^^^{text}", when=changed)
        yield _obx(5, "ST", _code(_SOURCE), "1.1.1.1.2", escaped(event.bed))
    else:
        yield _obx(4, "ST", _code(code), "1.1.1.1.1", text, when=changed)
        metric = codes.PVC_RATE if event.unit == "/min" else codes.HR
        rate = event.unit in {"bpm", "/min"}
        value = _number(event.value) if rate else ""
        limits = _range(event.limits) if rate else ""
        yield _obx(5, "NM", _code(metric), "1.1.1.1.2", value, _code(codes.BPM), limits)
    # A condition that is over while its red latches is told as `update` in IHE ACM.
    phase = "update" if event.phase == "end" and event.state == "latched" else event.phase
    inactivation = "~".join(escaped(one) for one in event.inactivation) or "enabled"
    yield _obx(6, "ST", _code(_PHASE), "1.1.1.1.3", phase)
    yield _obx(7, "ST", _code(_STATE), "1.1.1.1.4", event.state)
    yield _obx(8, "ST", _code(_INACTIVATION), "1.1.1.1.5", inactivation)
    yield _obx(9, "ST", _code(_RANK), "1.1.1.1.6", _PRIORITY[event.priority])
    yield _obx(10, "ST", _code(_KIND), "1.1.1.1.7", _TYPE[event.kind])


def _obx(
    number: int,
    kind: str,
    code: str,
    place: str,
    value: str,
    unit: str = "",
    limits: str = "",
    *,
    status: str = "R",
    when: str = "",
    instance: str = "",
) -> str:
    fields = ["OBX", str(number), kind, code, place, value, unit, limits, "", "", "", status, "", "", when]
    fields += ["", "", "", instance] if instance else []
    return "|".join(fields).rstrip("|")


def _code(code: Code | None) -> str:
    return f"{code.number}^{escaped(code.refid)}^{escaped(code.system)}" if code else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")


def _range(limits: tuple[float | None, float | None]) -> str:
    low, high = limits
    if low is not None and high is not None:
        return f"{low:g}-{high:g}"
    return f"<{high:g}" if high is not None else f">{low:g}" if low is not None else ""


def _joined(segments: Iterable[str]) -> bytes:
    try:
        return ("\r".join(segments) + "\r").encode()
    except UnicodeEncodeError as error:
        raise Rejected(f"text that is no Unicode: {error}") from None
