"""The terminal view shows what the gateway published, whatever the terminal, and obeys no text from outside."""

import io

import msgspec
import numpy as np
import pytest
import structlog
from rich.console import Console

from stream.gateway.subscriber import Joined, Publication
from stream.views.bedside import Ward, mark
from stream.views.view import Lines, Logs, Screen, open_view
from stream.wire import (
    MISSING,
    Action,
    AlertEvent,
    BeatJudgement,
    BedStatus,
    Moment,
    Numeric,
    Reply,
    Signal,
    Stamps,
    Waves,
)
from tests.stream.events import FS, alert

AT = Moment(1000, FS)
START_NS = 1_795_000_000 * 10**9


class Stage:
    """A view with its clocks in hand, and what it wrote."""

    def __init__(self, kind: type, width: int = 120, height: int = 30, encoding: str = "utf-8") -> None:
        self.now = 100.0
        self.bytes = io.BytesIO()
        out = io.TextIOWrapper(self.bytes, encoding=encoding, write_through=True)
        terminal = kind is Screen
        self.console = Console(
            file=out,
            width=width,
            height=height,
            force_terminal=terminal,
            color_system="truecolor" if terminal else None,
        )
        ward = Ward(lambda: self.now, lambda: START_NS + int(self.now * 1e9))
        self.view = Logs(ward) if kind is Logs else kind("ward", ward, self.console)
        self.number = 0

    def publish(self, *messages: object) -> None:
        for message in messages:
            self.number += 1
            topic = "gateway" if getattr(message, "shard", "") == "gateway" else "any"
            self.view.take(Publication(self.number, topic, message))

    def lines(self) -> list[str]:
        """The screen as text, without colours."""
        plain = Console(file=io.StringIO(), width=self.console.width, color_system=None)
        plain.print(self.view.render())
        return plain.file.getvalue().rstrip("\n").split("\n")

    def written(self) -> str:
        return self.bytes.getvalue().decode(self.console.encoding)


def numeric(bed: str = "bed1", hr: float | None = 72.0, rhythm: str = "N", pvc: float | None = 3.0) -> Numeric:
    return Numeric(bed=bed, epoch="e", at=AT, hr=hr, pvc_per_min=pvc, rhythm=rhythm, confidence=0.9, quality=(1.0,))


def status(bed: str = "bed1", age_ms: float = 140.0, **changes: object) -> BedStatus:
    fields = {"shard": "a", "epoch": "e", "at": AT, "counts": {}, "clock_offset_ms": 0.0, "clock_drift_ppm": 0.0}
    return BedStatus(bed=bed, age_ms=age_ms, **(fields | changes))


def beat(latency_ms: float, bed: str = "bed1") -> BeatJudgement:
    stamps = Stamps(received=10**9, published=10**9 + int(latency_ms * 1e6))
    return BeatJudgement(bed=bed, epoch="e", at=AT, label="N", confidence=0.9, rr_ms=800.0, stamps=stamps)


def timed(event: AlertEvent, ago_s: float, stage: Stage) -> AlertEvent:
    committed = START_NS + int((stage.now - ago_s) * 1e9)
    return msgspec.structs.replace(event, stamps=Stamps(committed=committed))


def test_a_row_tells_bed_rhythm_rate_ventricular_beats_alert_age_and_latency() -> None:
    stage = Stage(Screen)
    stage.publish(numeric(rhythm="AF"), status(), *(beat(100.0 + i) for i in range(100)))
    stage.publish(timed(alert(bed="bed1", value=4.1, unit="s"), 23, stage))
    (row,) = [line for line in stage.lines() if line.startswith("bed1")]
    assert row.split()[:3] == ["bed1", "AF", "72"]
    assert row.split()[4:] == ["3", "***", "ASYSTOLE", "4.1", "s", "23", "s", "0.1", "s", "150/199"]


def waves(first: int, mv: np.ndarray, bed: str = "bed1") -> Waves:
    data = np.where(np.isnan(mv), MISSING, np.nan_to_num(mv) * 200).astype("<i2").data.cast("B")
    signals = (Signal("II", "ecg", "mV", 200.0),)
    return Waves(bed=bed, epoch="e", first=first, rate=250.0, n=len(mv), signals=signals, data=data)


def test_a_bed_has_its_ecg_in_a_line_with_gaps_as_gaps_and_none_that_stands_still() -> None:
    stage = Stage(Screen, width=160)
    mv = np.zeros(750, np.float32)
    mv[370:380] = 1.5  # one spike, in the middle
    mv[500:625] = np.nan
    for first in range(0, 750, 25):
        stage.publish(waves(first, mv[first : first + 25]))
    line = next(line for line in stage.lines() if line.startswith("bed1"))
    assert stage.view.watched == {"bed1"}
    drawn = stage.view._ward.rows["bed1"].wave.text(40)
    assert drawn.strip() in line
    assert len(drawn) == 40
    full = [i for i, letter in enumerate(drawn) if ord(letter) - 0x2800 & 0x09]  # the top row of dots
    assert full and all(18 <= i <= 21 for i in full)
    assert drawn[27:33].isspace(), "the gap"
    stage.now += 4
    assert drawn.strip() not in "\n".join(stage.lines())


def test_the_header_says_research_and_simulated_at_every_width() -> None:
    for width in (60, 80, 200):
        assert "RESEARCH SOFTWARE, NOT FOR CLINICAL USE" in "".join(Stage(Screen, width).lines()[:2])


def test_a_numeric_that_is_old_is_not_shown_as_if_it_were_new() -> None:
    stage = Stage(Screen)
    stage.publish(numeric(), status())
    stage.now += 5
    (row,) = [line for line in stage.lines() if line.startswith("bed1")]
    assert row.split()[1:3] == ["-?-", "-?-"]
    assert "5.1 s" in row


def test_a_gateway_that_is_silent_is_said_so() -> None:
    stage = Stage(Screen)
    assert any("waiting for the gateway" in line for line in stage.lines())
    stage.publish(numeric())
    assert not any("SILENT" in line for line in stage.lines())
    stage.now += 4
    assert any("GATEWAY SILENT for 4.0 s" in line for line in stage.lines())


def test_the_highest_alert_that_stands_is_shown_and_then_the_last_that_is_over() -> None:
    stage = Stage(Screen)

    def shown() -> str:
        (row,) = [line for line in stage.lines() if line.startswith("bed1")]
        return row

    stage.publish(alert("low", bed="bed1", priority="low", text="BIGEMINY"))
    stage.publish(alert("red", bed="bed1"))
    stage.publish(alert("yellow", bed="bed1", priority="medium", text="PAUSE"))
    stage.publish(alert("hidden", bed="bed1", text="VTACH", suppressed_by="red"))
    assert "*** ASYSTOLE" in shown()
    stage.publish(alert("red", 1, "latched", bed="bed1"))
    assert "*** ASYSTOLE, latched" in shown()
    stage.publish(alert("red", 2, "inactive", bed="bed1"))
    assert "** PAUSE" in shown()
    stage.publish(alert("yellow", 1, "inactive", bed="bed1"), alert("low", 1, "inactive", bed="bed1"))
    assert "** PAUSE, over" in shown()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "***"),
        ({"priority": "medium"}, "**"),
        ({"priority": "low"}, "*"),
        ({"priority": "low", "kind": "technical"}, "!!"),
    ],
)
def test_priority_is_a_mark_and_not_a_colour_alone(changes: dict[str, str], expected: str) -> None:
    assert mark(alert(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": "**HR 134>120", "value": 134.2, "unit": "bpm"}, "** HR 134>120"),
        ({"text": "**HR 41<50", "value": 41.0, "unit": "bpm"}, "** HR 41<50"),
        ({"text": "**SVT 191", "value": 191.1, "unit": "bpm"}, "** SVT 191"),
        ({"text": "PAUSE", "value": 2.4123, "unit": "s"}, "** PAUSE 2.41 s"),
        ({"text": "", "code": "PAUSE"}, "** PAUSE"),
    ],
)
def test_an_alert_is_told_in_the_words_of_the_ward_with_its_value_and_mark_once(
    changes: dict[str, object], words: str
) -> None:
    stage = Stage(Screen)
    stage.publish(alert(bed="bed1", priority="medium", **changes))
    (row,) = [line for line in stage.lines() if line.startswith("bed1")]
    assert f" {words}  " in row


def test_alerts_are_listed_as_they_happen_with_their_end_and_without_updates() -> None:
    stage = Stage(Screen)
    stage.publish(alert(bed="bed1"), alert(seq=1, bed="bed1"), alert(seq=2, state="latched", bed="bed1", reason="inop"))
    listed = [line for line in stage.lines() if "bed1" in line and " at 8.0 s" in line]
    assert len(listed) == 2
    assert "ASYSTOLE ends, latched (inop)" in listed[1]


def test_where_not_all_beds_fit_those_with_alerts_are_shown_and_the_rest_is_counted() -> None:
    stage = Stage(Screen, height=20)
    for i in range(40):
        stage.publish(numeric(f"bed{i}"))
    stage.publish(alert(bed="bed37"))
    lines = stage.lines()
    assert len(lines) <= 20
    assert any(line.startswith("bed37") for line in lines)
    assert any("and 30 more beds" in line for line in lines)
    names = [line.split()[0] for line in lines if line.startswith("bed") and "rhythm" not in line]
    assert names == sorted(names, key=lambda name: int(name[3:]))


def test_text_from_outside_cannot_write_to_the_terminal() -> None:
    for kind in (Screen, Lines):
        stage = Stage(kind)
        with stage.view:
            stage.publish(
                numeric("bed\u009b2J", rhythm="[bold]N\x1b[2J"),
                status("bed\u009b2J"),
                alert(bed="bed\u009b2J", text="\x1b]0;title\x07[red]X", reason="\x1b[2J"),
            )
            stage.now += 60
            stage.view.refresh()
        written = stage.written()
        assert "\x1b[2J" not in written
        assert "\x1b]0;" not in written
        assert "\u009b" not in written
        assert "[red]X" in written


def test_a_terminal_without_unicode_gets_no_sparkline_and_no_error() -> None:
    stage = Stage(Screen, encoding="ascii")
    stage.publish(numeric(), status())
    with stage.view:
        stage.view.refresh()
    assert "bed1" in stage.written()
    assert stage.written().isascii()


def test_the_screen_is_redrawn_four_times_a_second_at_most_and_the_alerts_stay_when_it_is_gone() -> None:
    stage = Stage(Screen)
    with stage.view:
        stage.publish(numeric(), alert(bed="bed1"))
        stage.now += 1
        stage.view.refresh()
        size = len(stage.bytes.getvalue())
        for _ in range(10):
            stage.now += 0.01
            stage.view.refresh()
        assert len(stage.bytes.getvalue()) == size
        stage.now += 0.25
        stage.view.refresh()
        assert len(stage.bytes.getvalue()) > size
    left = stage.written().rpartition("\x1b[?1049l")[2]
    assert "*** ASYSTOLE" in left
    assert "rhythm" not in left


def test_the_log_of_the_process_goes_to_the_screen_and_past_it_once_it_is_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage(Screen)
    assert stage.view.stream is not None
    with stage.view:
        stage.view.stream.write("timestamp=2026-11-22T09:24:17.28Z level=info role=supervisor event=died name=a\n")
        assert "09:24:17 event=died name=a" in stage.lines()
    stage.view.stream.write("event=stopped\n")
    assert capsys.readouterr().err == "event=stopped\n"


def test_an_output_that_is_no_terminal_gets_plain_lines() -> None:
    stage = Stage(Lines, width=40)
    with stage.view:
        stage.publish(numeric(hr=None), status(), alert(bed="bed1", value=4.0, unit="s"))
        stage.view.refresh()
        stage.now += 10
        stage.view.refresh()
    lines = stage.written().splitlines()
    assert lines[0] == "ward: RESEARCH SOFTWARE, NOT FOR CLINICAL USE: simulated or replayed patients"
    assert lines[1].endswith("bed1 *** ASYSTOLE 4 s at 8.0 s")
    assert lines[2] == "bed1: N HR -?- PVC/min 3 age 10 s latency - ms"
    assert len(lines) == 3
    assert "\x1b" not in stage.written()


def test_headless_gives_log_events_with_fields() -> None:
    stage = Stage(Logs)
    with structlog.testing.capture_logs() as logs, stage.view:
        stage.publish(numeric(), alert(bed="bed1", value=4.0))
        stage.publish(Action(id="1", bed="bed1", kind="audio_pause", who="nurse", at_ns=1, until_s=60.0))
        stage.view.take(Reply(id="2", ok=False, text="bed: unknown"))
        stage.view.refresh()
    assert [entry["event"] for entry in logs] == ["view", "alert", "action", "note"]
    assert logs[1]["code"] == "ASYSTOLE"
    assert logs[1]["sample"] == 2000
    assert logs[3]["text"] == "refused: bed: unknown"


def test_a_view_that_joins_or_joins_again_shows_exactly_what_stands() -> None:
    stage = Stage(Screen)
    red = alert("red", bed="bed1")
    stage.view.take(Joined((red,), (numeric(),), ended=(), n_missed=0))
    assert any(line.startswith("bed1") and "*** ASYSTOLE" in line for line in stage.lines())
    stage.view.take(Joined((), (numeric(),), ended=(red,), n_missed=7))
    text = "\n".join(stage.lines())
    assert "7 publications were missed; what stands is known again" in text
    assert "bed1: ASYSTOLE is over meanwhile" in text
    (row,) = [line for line in stage.lines() if line.startswith("bed1 ")]
    assert "ASYSTOLE, over" in row
    stage.view.take(Joined((red,), (), ended=(), n_missed=None))
    assert "the gateway started again" in "\n".join(stage.lines())


def test_a_journal_that_fails_is_shown() -> None:
    stage = Stage(Screen)
    counts = {"events_committed": 5, "events_unrecorded": 2, "journal_failed": 3}
    latency = {"decided>committed": (2.0, 9.0)}
    stage.publish(status("gateway", shard="gateway", counts=counts, latency_ms=latency))
    text = "\n".join(stage.lines())
    assert "5 alert events on disk, JOURNAL FAILED 3 times, decided to disk 2/9 ms" in text
    assert "0 beds" in text
    assert "ALARMS NOT RECORDED: 2 alert events are not on disk" in text
    stage.publish(status("gateway", shard="gateway", counts=counts | {"events_unrecorded": 0}, latency_ms=latency))
    text = "\n".join(stage.lines())
    assert "2 alert events are not on disk" not in text
    assert "alarms are recorded again" in text


def test_plain_lines_tell_once_that_alarms_are_not_recorded() -> None:
    stage = Stage(Lines)
    for n in (0, 1, 2, 0):
        stage.publish(status("gateway", shard="gateway", counts={"events_unrecorded": n}, latency_ms={}))
    text = stage.written()
    assert text.count("ALARMS NOT RECORDED") == 1
    assert text.count("alarms are recorded again") == 1


def test_the_view_fits_the_output() -> None:
    plain = Console(file=io.StringIO())
    terminal = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"})
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(open_view("w", console=plain), Lines)
    assert isinstance(open_view("w", console=terminal), Screen)
    assert isinstance(open_view("w", console=dumb), Lines)
    assert isinstance(open_view("w", headless=True, console=terminal), Logs)
