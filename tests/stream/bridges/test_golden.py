"""What goes out for each alarm code, byte for byte. `python -m tests.stream.bridges.test_golden` writes the files."""

import json
from pathlib import Path

import hl7
import pytest
from fhir.resources.R4B.bundle import Bundle

from stream.alarms.conditions import CONDITIONS
from stream.bridges.bridge import Ward
from stream.bridges.codes import Codes
from stream.bridges.fhir import alert_bundle
from stream.bridges.hl7 import Hl7Settings, alert_message
from stream.wire import AlertEvent, Moment, Stamps
from tests.stream.bridges.buses import decoded

FOLDER = Path(__file__).parent / "golden"
WARD, CODES = Ward("ICU 3", "cardiology"), Codes({}, pending=True)
NS = 1_767_268_804_980_000_000  # 2026-01-01 12:00:04.98 UTC


def lives(code: str) -> list[AlertEvent]:
    """A start, a change of marks, what follows it, and the end, as the alarm's row has it."""
    row = CONDITIONS[code]
    value, limits = {"bpm": (162.0, (50.0, 120.0)), "/min": (12.0, (None, 10.0)), "s": (4.2, (None, 4.0))}.get(
        row.unit, (None, (None, None))
    )
    steps = [
        ("start", "active", (), 0),
        ("update", "active", ("alert-acknowledged", "audio-paused"), 1),
        ("continue", "active", ("alert-acknowledged",), 1000),
        *(
            [("update", "latched", (), 2000), ("reset", "inactive", (), 2001)]
            if row.latching
            else [("end", "inactive", (), 2000)]
        ),
    ]
    return [
        AlertEvent(
            alert_id="9f2c5e0011aa22bb", event_id=f"9f2c5e0011aa22bb-{seq}", seq=seq, bed="bed07", epoch="epoch-1",
            code=code, mdc=row.mdc, text=f"{row.words} & more", phase=phase, state=state, inactivation=inactivation,
            priority=row.priority, kind=row.kind, latching=row.latching, onset=Moment(1000, 250.0),
            stream_time=Moment(2000 + seq, 250.0),
            emit_time="2026-01-01T12:00:05.250000Z", value=value, unit=row.unit, limits=limits, chain=row.chain,
            stamps=Stamps(device=NS, decided=NS + 10**8, committed=NS + 27 * 10**7),
        )
        for phase, state, inactivation, seq in steps
    ]  # fmt: skip


def texts(code: str) -> dict[str, str]:
    """The files of a code by name."""
    events = lives(code)
    messages = [alert_message(event, Hl7Settings(), CODES, WARD).decode().replace("\r", "\n") for event in events]
    bundles = [alert_bundle(event, CODES, WARD) for event in events]
    return {
        f"{code}.hl7": "\n".join(messages),
        f"{code}.fhir.json": json.dumps(bundles, indent=1, ensure_ascii=False) + "\n",
    }


@pytest.mark.parametrize("code", CONDITIONS)
def test_a_code_goes_out_as_its_golden_file_and_parses(code: str) -> None:
    for name, text in texts(code).items():
        assert text == (FOLDER / name).read_text(encoding="utf-8"), name
    for event in lives(code):
        message = hl7.parse(alert_message(event, Hl7Settings(), CODES, WARD).decode())
        assert decoded(message)["event_id"] == event.event_id
        facets = [str(obx(4)) for obx in message.segments("OBX")]
        assert facets == ["1.0.0.0", "1.1.0.0", "1.1.1.0", *(f"1.1.1.1.{k}" for k in range(1, 8))]
        bundle = Bundle.model_validate_json(json.dumps(alert_bundle(event, CODES, WARD)))
        assert [entry.resource.get_resource_type() for entry in bundle.entry] == ["Communication", "Observation"]


def test_there_is_no_golden_file_of_a_code_that_is_gone() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {name for code in CONDITIONS for name in texts(code)}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in CONDITIONS:
        for filename, content in texts(each).items():
            (FOLDER / filename).write_text(content, encoding="utf-8")
