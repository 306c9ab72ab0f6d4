"""Text from outside: whatever a bed is called, it is escaped, and comes back out of the field's own parser."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import hl7
import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.bridges.bridge import Heartbeat, Rejected, Ward, body, standing_body, token
from stream.bridges.codes import Codes
from stream.bridges.fhir import alert_bundle, device_bundle, numeric_bundle
from stream.bridges.hl7 import Hl7Settings, alert_message, heartbeat_message, numeric_message
from stream.bridges.jsonl import JsonlBridge, JsonlSettings
from stream.wire import Moment, Numeric, Stamps
from tests.stream.bridges.buses import decoded
from tests.stream.events import alert

NASTY = st.sampled_from(
    [
        "|^~\\&",
        "\\F\\",
        "MSH|",
        "\x0b\x1c\r",
        "line\nbreak",
        '"quotes"',
        "bed/+/#",
        "a.b.*.>",
        "ÅΩ漢🫀",
        " ",
        "%2F",
        "x" * 64,
    ]
)
TEXT = st.lists(
    NASTY | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), min_size=1, max_size=4
)
BED = TEXT.map(lambda parts: "".join(parts)[:64])
LONG = TEXT.map(lambda parts: ("".join(parts) * 50)[:1000])
CODES = Codes({}, pending=True)
HL7 = Hl7Settings()


@given(bed=BED, text=LONG, unit=BED, name=BED)
@settings(max_examples=150, deadline=None)
def test_hl7_comes_back_out_of_its_parser(bed: str, text: str, unit: str, name: str) -> None:
    event = alert(
        f"{name}"[:50],
        bed=bed,
        text=text,
        code="VTACH",
        mdc="199832^MDC_EVT_ECG_V_TACHY^MDC",
        stamps=Stamps(committed=10**18),
    )
    sent = alert_message(event, HL7, CODES, Ward(name, unit))
    assert b"\x0b" not in sent and b"\x1c" not in sent and b"\n" not in sent
    message = hl7.parse(sent.decode())
    assert [str(segment(0)) for segment in message] == ["MSH", "PID", "PV1", "OBR", *["OBX"] * 10]
    back = decoded(message)
    assert (back["event_id"], back["alert_id"], back["bed"]) == (event.event_id, event.alert_id, bed)
    assert message.unescape(str(message[7](5))) == text
    assert message.unescape(str(message.segment("PV1")(3)).split("^")[0]) == unit
    assert str(message.segment("MSH")(11)) == "D"
    beat = hl7.parse(heartbeat_message(10**18, HL7, Ward(name, unit)).decode())
    assert [str(segment(0)) for segment in beat][:3] == ["MSH", "PV1", "OBR"]


@given(bed=BED, rhythm=BED)
@settings(max_examples=60, deadline=None)
def test_numerics_of_any_bed_come_back_out_of_their_parsers(bed: str, rhythm: str) -> None:
    numeric = Numeric(
        bed=bed,
        epoch="e1",
        at=Moment(250, 250.0),
        hr=61.5,
        pvc_per_min=None,
        rhythm=rhythm,
        confidence=1.0,
        quality=(1.0,),
        stamps=Stamps(published=10**18),
    )
    message = hl7.parse(numeric_message(numeric, HL7, Ward("w", "u")).decode())
    values = {str(obx(3)).split("^")[0]: (str(obx(5)), str(obx(11))) for obx in message.segments("OBX")}
    assert values["147842"] == ("61.5", "R")
    assert values["148066"] == ("", "X")
    assert message.unescape(values["184327"][0]) == rhythm
    bundle = Bundle.model_validate_json(json.dumps(numeric_bundle(numeric, Ward("w", "u"))))
    assert bundle.entry[0].resource.valueQuantity.value == pytest.approx(61.5)


@given(bed=BED, text=LONG, name=BED)
@settings(max_examples=60, deadline=None)
def test_fhir_comes_back_out_of_its_parser(bed: str, text: str, name: str) -> None:
    event = alert(bed=bed, text=text, emit_time="2026-01-02T03:04:05.678901Z")
    made = json.loads(json.dumps(alert_bundle(event, CODES, Ward(name, name))))
    bundle = Bundle.model_validate_json(json.dumps(made))
    communication, observation = (entry.resource for entry in bundle.entry)
    shown = communication.subject.identifier.value
    assert shown == bed or any(ord(c) < 32 for c in bed) or not bed.strip()
    assert communication.priority == "stat"
    assert observation.status == "preliminary"
    Bundle.model_validate_json(json.dumps(device_bundle(Heartbeat(10**18, [bed], [event]), Ward(name, name))))


@given(name=BED)
def test_a_name_is_one_level_of_a_topic_and_comes_back(name: str) -> None:
    level = token(name, 1000)
    assert not set(level) & set("/+#.*> \t\r\n$\\|") and level.isascii()
    assert unquote(level) == name
    assert len(token(name, 100)) <= 100  # for a routing key


@given(first=BED, second=BED)
def test_two_long_names_are_two_tokens(first: str, second: str) -> None:
    assert (token(first, 60) == token(second, 60)) == (first == second)


@given(bed=BED, text=LONG)
def test_json_comes_back(bed: str, text: str) -> None:
    event = alert(bed=bed, text=text, reason=text)
    back: dict[str, Any] = json.loads(body(event))
    assert (back["bed"], back["text"], back["simulated"]) == (bed, text, True)
    assert b"\n" not in body(event)
    beat = json.loads(standing_body(Heartbeat(1, [bed], [event]), Ward(bed, bed)))
    assert (beat["ward"], beat["beds"], beat["standing"][0]["text"]) == (bed, [bed], text)


def test_a_code_that_is_no_term_is_rejected_and_named() -> None:
    for mdc in ("", "VTACH", "1^2", "1|2^A^B", "x^MDC_A^MDC"):
        with pytest.raises(Rejected, match="code LOCAL: mdc"):
            alert_message(alert(code="LOCAL", mdc=mdc), HL7, CODES, Ward("w", "u"))


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for kept, torn in (("", '{"t'), ('{"a":1}\n', '{"b'), ('{"a":1}\n' * 9000, "x" * 70_000), ('{"a":1}\n', "")):
        path.write_text(kept + torn)

        async def write() -> None:
            bridge = JsonlBridge("f", JsonlSettings(path=str(path)), Ward("w", "u"))
            await bridge.open()
            await asyncio.gather(bridge.alert(alert("a")), bridge.alert(alert("b")))
            await bridge.close()

        asyncio.run(write())
        lines = path.read_text().removeprefix(kept).splitlines()
        assert [json.loads(line)["alert_id"] for line in lines] == ["a", "b"]
