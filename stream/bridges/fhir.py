"""FHIR R4: bundles of Communication and Observation, to a server by POST or to a folder of files.

Of each alert event one transaction: a Communication that is made once (`ifNoneExist` by the event's id),
and an Observation of the alert that is updated in place (by the alert's id): `preliminary` while it is active
or latched, `final` when it is over. So a client that comes late searches Observations by `status`. The
mapping is plain dicts, made of the event alone; the tests check every one of them with fhir.resources.
"""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Meta

from stream.bridges import codes
from stream.bridges.bridge import (
    Bridge,
    BusError,
    FilePath,
    Heartbeat,
    NetworkSettings,
    NotNow,
    Rejected,
    Ward,
    is_url,
    need,
    secret,
    tls,
    token,
)
from stream.bridges.codes import SNOMED, Code, Codes, MdcText
from stream.gateway.journal import utc
from stream.wire import AlertEvent, Numeric

if TYPE_CHECKING:
    import httpx

Json = dict[str, Any]

MDC = "urn:iso:std:iso:11073:10101"
SYSTEM = "urn:wardbeat"
_PRIORITY = {"high": "stat", "medium": "urgent", "low": "routine"}
_MADE_FOR_RESEARCH = {
    "tag": [
        {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST", "display": "test health data"}
    ]
}
_AWAY = frozenset({408, 425, 429, 502, 503, 504})


class FhirSettings(NetworkSettings, frozen=True, kw_only=True, tag="fhir"):
    """`url`: the server's base; or `folder`, to which each bundle is written as a file. `codes`, `pending_codes`: as
    for HL7. `token`: a bearer token, in place of a user."""

    url: is_url("http", "https") | None = None  # type: ignore[valid-type]
    folder: FilePath | None = None
    numerics_s: Annotated[float, Meta(ge=0.2, le=60)] = 10.0
    codes: dict[str, MdcText] = msgspec.field(default_factory=dict)
    pending_codes: bool = True
    token: Annotated[str, Meta(min_length=1, max_length=4000)] | None = None

    paths: ClassVar[tuple[str, ...]] = ("ca", "cert", "key", "folder")


def alert_bundle(event: AlertEvent, mapping: Codes, ward: Ward) -> Json:
    """An alert event as a transaction. Raises Rejected where its code has no term."""
    concept = _concept(event, mapping.of(event))
    at = event.emit_time or utc(event.stamps.committed or event.stamps.decided)
    communication = {
        "resourceType": "Communication",
        "meta": _MADE_FOR_RESEARCH,
        "identifier": [_identifier("event", event.event_id), _identifier("alert", event.alert_id)],
        "status": "completed",
        "category": [{"text": f"{event.kind} alarm, simulated"}],
        "priority": _PRIORITY[event.priority],
        "subject": _subject(event.bed),
        "topic": concept,
        "sent": at,
        "sender": _sender(ward),
        "payload": [{"contentString": _text(event.text)}, {"contentString": f"phase {event.phase}, {event.state}"}],
    }
    components: list[Json] = [
        _component(codes.Code("68481", "MDC_ATTR_EVENT_PHASE"), event.phase),
        _component(codes.Code("68482", "MDC_ATTR_ALARM_STATE"), event.state),
        _component(codes.Code("68484", "MDC_ATTR_ALARM_PRIORITY"), event.priority),
    ]
    components += [_component(codes.Code("68483", "MDC_ATTR_ALARM_INACTIVATION_STATE"), i) for i in event.inactivation]
    if event.value is not None and event.unit == "bpm":
        components.append({"code": _hr_code(), "valueQuantity": _rate(event.value)})
    observation = {
        "resourceType": "Observation",
        "meta": _MADE_FOR_RESEARCH,
        "identifier": [_identifier("alert", event.alert_id)],
        "status": "final" if event.state == "inactive" else "preliminary",
        "category": [{"coding": [{"system": f"{SYSTEM}:category", "code": "alarm"}]}],
        "code": concept,
        "subject": _subject(event.bed),
        "effectiveDateTime": at,
        "device": _sender(ward),
        "note": [{"text": f"seq {event.seq}; simulated, research software: not a medical device"}],
        "component": components,
    }
    return _bundle(
        _entry(communication, "POST", "Communication", f"identifier={_query('event', event.event_id)}"),
        _entry(observation, "PUT", f"Observation?identifier={_query('alert', event.alert_id)}"),
    )


def numeric_bundle(numeric: Numeric, ward: Ward) -> Json:
    """A bed's heart rate as a transaction with one Observation; one without a value says so."""
    identity = f"{numeric.bed}.{numeric.epoch}.{numeric.at.sample}"
    observation: Json = {
        "resourceType": "Observation",
        "meta": _MADE_FOR_RESEARCH,
        "identifier": [_identifier("numeric", identity)],
        "status": "preliminary",
        "category": [
            {
                "coding": [
                    {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}
                ]
            }
        ],
        "code": _hr_code(),
        "subject": _subject(numeric.bed),
        "effectiveDateTime": utc(numeric.stamps.published or numeric.stamps.received),
        "device": _sender(ward),
        "note": [{"text": "simulated, research software: not a medical device"}],
    }
    if numeric.hr is None:
        unknown = {"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "not-performed"}
        observation["dataAbsentReason"] = {"coding": [unknown]}
    else:
        observation["valueQuantity"] = _rate(numeric.hr)
    return _bundle(_entry(observation, "POST", "Observation", f"identifier={_query('numeric', identity)}"))


def device_bundle(beat: Heartbeat, ward: Ward) -> Json:
    """The gateway itself, as a Device that is updated with each heartbeat."""
    device = {
        "resourceType": "Device",
        "meta": _MADE_FOR_RESEARCH,
        "identifier": [_identifier("gateway", ward.name)],
        "status": "active",
        "deviceName": [{"name": _text(ward.name), "type": "user-friendly-name"}],
        "note": [{"text": f"watched at {utc(beat.at_ns)}: {len(beat.beds)} beds, {len(beat.standing)} alerts stand"}],
    }
    return _bundle(_entry(device, "PUT", f"Device?identifier={_query('gateway', ward.name)}"))


class FhirBridge(Bridge):
    """See the module."""

    window: ClassVar[int] = 16

    def __init__(self, name: str, settings: FhirSettings, ward: Ward) -> None:
        self._settings, self._ward = settings, ward
        if (settings.url is None) == (settings.folder is None):
            raise BusError(f"url: {settings.url}, folder: {settings.folder}; give one of the two")
        self._folder = Path(settings.folder) if settings.folder else None
        self._codes = Codes(settings.codes, pending=settings.pending_codes)
        self._client: httpx.AsyncClient | None = None
        if settings.url is not None:
            need("httpx", "fhir")

    async def open(self) -> None:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            return
        self._client = self._new_client()
        await self._metadata(self._client)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def alert(self, event: AlertEvent) -> None:
        await self._give(alert_bundle(event, self._codes, self._ward), token(event.event_id))

    async def numeric(self, numeric: Numeric) -> None:
        name = f"numeric-{token(numeric.bed, 100)}"
        await self._give(numeric_bundle(numeric, self._ward), name)

    async def heartbeat(self, beat: Heartbeat) -> None:
        await self._give(device_bundle(beat, self._ward), "gateway")

    async def check(self) -> str:
        if self._folder is not None:
            there = next(path for path in (self._folder, *self._folder.absolute().parents) if path.exists())
            if not there.is_dir() or not os.access(there, os.W_OK):
                raise BusError(f"folder: {there} is not a folder that can be written to; name another")
            return f"bundles go to {self._folder}"
        async with self._new_client() as client:
            said = await self._metadata(client)
        return f"{self._settings.url} answers as FHIR {said}"

    async def tail(self) -> AsyncIterator[str]:
        if self._folder is None:
            raise BusError("url: a server cannot be listened to; search it, or give folder")
        seen: set[tuple[str, int]] = set()
        while True:
            for path in sorted(self._folder.glob("*.json")):
                key = path.name, path.stat().st_mtime_ns
                if key not in seen:
                    seen.add(key)
                    yield f"{path.name} {json.dumps(json.loads(path.read_text()), ensure_ascii=False)}"
            await asyncio.sleep(0.2)

    async def _give(self, bundle: Json, name: str) -> None:
        if self._folder is not None:
            await asyncio.to_thread(_write, self._folder / f"{name}.json", bundle)
            return
        assert self._client is not None
        answer = await _ended(self._client.post("", json=bundle))
        if answer.is_success:
            return
        said = f"the server answered {answer.status_code}: {answer.text[:300]}"
        if answer.status_code in _AWAY:
            raise ConnectionError(said)
        if answer.status_code in {401, 403}:
            raise BusError(f"username, password, token: {said}")
        raise (NotNow if answer.status_code >= 500 else Rejected)(said)

    async def _metadata(self, client: "httpx.AsyncClient") -> str:
        import httpx

        try:
            answer = await _ended(client.get("metadata", headers={"Accept": "application/fhir+json"}))
        except httpx.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise BusError(f"url: {self._settings.url}: the certificate does not fit: {error}") from None
            raise
        if answer.status_code in {401, 403}:
            raise BusError(f"username, password, token: the server answered {answer.status_code}; set what it knows")
        if answer.status_code in _AWAY:
            raise ConnectionError(f"the server answered {answer.status_code}")
        found = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        if found.get("resourceType") != "CapabilityStatement":
            raise BusError(
                f"url: {self._settings.url}/metadata is no CapabilityStatement; give the base of a FHIR server"
            )
        return str(found.get("fhirVersion", "of no version"))

    def _new_client(self) -> "httpx.AsyncClient":
        import httpx

        own = self._settings
        bearer = secret(own.token)
        return httpx.AsyncClient(
            base_url=own.url or "",
            auth=(own.username, secret(own.password) or "") if own.username else None,
            headers={"Authorization": f"Bearer {bearer}"} if bearer else None,
            verify=tls(own, (own.url or "").startswith("https:")) or True,
            timeout=own.timeout_s,
            trust_env=False,
        )


async def _ended(asking: Coroutine[Any, Any, "httpx.Response"]) -> "httpx.Response":
    """The answer to a request; one that is given up is over, and its socket closed, before this returns.

    httpx guards its clean-up against anyio's cancellation, not against asyncio's own, which would leave sockets
    of its pool open. And a request that outlived its session could put an older state over a newer one."""
    import anyio

    given_up = anyio.CancelScope()

    async def ask() -> "httpx.Response | None":
        with given_up:
            return await asking
        return None

    task = asyncio.create_task(ask())
    try:
        answer = await asyncio.shield(task)
        assert answer is not None  # it is only where it was given up
        return answer
    except asyncio.CancelledError:
        given_up.cancel()
        await asyncio.wait([task])
        task.exception()
        raise


def _write(path: Path, bundle: Json) -> None:
    """Whole or not at all, and on the disk."""
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8") as file:
        json.dump(bundle, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _bundle(*entries: Json) -> Json:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


def _entry(resource: Json, method: str, url: str, unless: str = "") -> Json:
    request = {"method": method, "url": url} | ({"ifNoneExist": unless} if unless else {})
    return {"resource": resource, "request": request}


def _identifier(kind: str, value: str) -> Json:
    return {"system": f"{SYSTEM}:{kind}", "value": _text(value)}


def _query(kind: str, value: str) -> str:
    return quote(f"{SYSTEM}:{kind}|{value}", safe="")


def _subject(bed: str) -> Json:
    return {
        "identifier": {"system": f"{SYSTEM}:bed", "value": _text(bed)},
        "display": _text(f"simulated patient, {bed}"),
    }


def _sender(ward: Ward) -> Json:
    return {"identifier": _identifier("gateway", ward.name), "display": _text(f"{ward.name}, {ward.unit}")}


def _text(text: str) -> str:
    """A string as FHIR allows: no control characters but tab and newline, and not of blanks alone."""
    shown = "".join(c if ord(c) >= 32 or c in "\t\n\r" else f"\\u{ord(c):04x}" for c in text)
    return shown if shown.strip() else "-"


def _concept(event: AlertEvent, code: Code) -> Json:
    codings = [{"system": MDC, "code": code.number, "display": code.refid}]
    if code.pending:  # no number that others know: the reference id stands for it, in a system of ours
        codings = [{"system": f"{SYSTEM}:mdcx", "code": code.refid}]
    if event.code in SNOMED:
        number, words = SNOMED[event.code]
        codings.append({"system": "http://snomed.info/sct", "code": number, "display": words})
    return {"coding": codings, "text": _text(event.text)}


def _component(code: Code, value: str) -> Json:
    coding = {"system": MDC, "code": code.number, "display": code.refid}
    return {"code": {"coding": [coding]}, "valueString": _text(value)}


def _hr_code() -> Json:
    return {
        "coding": [
            {"system": "http://loinc.org", "code": codes.LOINC_HR, "display": "Heart rate"},
            {"system": MDC, "code": codes.HR.number, "display": codes.HR.refid},
        ]
    }


def _rate(value: float) -> Json:
    return {"value": round(value, 1), "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"}
