"""What was found, as WFDB annotations that `wfdb` reads back."""

from pathlib import Path

import msgspec
import wfdb

from stream.marks import Mark, marks, spans, write
from stream.wire import AlertEvent, BeatJudgement, Moment, WindowJudgement

FS = 250.0


def beat(second: float, label: str = "N") -> BeatJudgement:
    return BeatJudgement(
        bed="b", epoch="e", at=Moment(round(second * FS), FS), label=label, confidence=1.0, rr_ms=800.0
    )  # type: ignore[arg-type]


def window(second: float, rhythm: str) -> WindowJudgement:
    at = Moment(round(second * FS), FS)
    return WindowJudgement(
        bed="b", epoch="e", at=at, rhythm=rhythm, confidence=1.0, rhythms={rhythm: 1.0}, shockable=0.0, quality=1.0
    )


def alert(code: str, onset: float, now: float, state: str = "active", number: int = 0) -> AlertEvent:
    return AlertEvent(
        alert_id=f"{code}{number}", event_id=f"{code}{number}-{state}", seq=0, bed="b", epoch="e", code=code, mdc="",
        text="", phase="start", state=state, inactivation=(), priority="high", kind="physiological", latching=True,
        onset=Moment(round(onset * FS), FS), stream_time=Moment(round(now * FS), FS), emit_time="",
    )  # type: ignore[arg-type]  # fmt: skip


def test_vf_stands_between_brackets_from_its_onset_to_its_end() -> None:
    latched = msgspec.structs.replace(
        alert("VFIB", 10, 30, "latched"), evidence={"over": {"sample": 24 * 250, "fs": FS}}
    )
    events = [alert("VFIB", 10, 14), latched, alert("VFIB", 10, 50, "inactive")]
    found = marks([], [], events, 20_000)
    end = round(24 * FS)  # the alarm lets go some time after the waveform
    assert [(m.sample, m.symbol) for m in found if m.symbol in "[]"] == [(2500, "["), (end, "]")]
    assert [(m.sample, m.note) for m in found if m.symbol == "+"] == [(0, "(N"), (2500, "(VF"), (end, "(N")]


def test_an_alert_that_did_not_end_lasts_to_the_end_of_the_record() -> None:
    assert [tuple(span) for span in spans([alert("VFIB", 10, 14)], 9000)] == [(2500, 9000, "VFIB")]


def test_two_paths_to_one_vf_make_one_pair_of_brackets() -> None:
    events = [
        alert("VFIB", 10, 14), alert("VFIB", 12, 20, number=1), alert("VFIB", 10, 30, "inactive"),
        alert("VFIB", 12, 32, "inactive", number=1),
    ]  # fmt: skip
    found = marks([], [], events, 20_000)
    assert [m.symbol for m in found if m.symbol in "[]"] == ["[", "]"]


def test_a_window_that_does_not_tell_its_rhythm_neither_starts_nor_ends_one() -> None:
    told = [window(10, "AF"), window(12, "AF"), window(14, "AF")]
    unsure = [window(10, "AF"), window(12, "?"), window(14, "AF"), window(16, "?"), window(18, "AF")]
    assert [m.note for m in marks([], unsure, [], 20_000)] == [m.note for m in marks([], told, [], 20_000)]
    assert [m.note for m in marks([], [window(10, "?"), window(12, "?")], [], 20_000)] == ["(N"]


def test_a_rhythm_must_hold_for_two_windows_and_stands_at_its_onset() -> None:
    windows = [window(10, "N"), window(12, "AF"), window(14, "N"), window(16, "AF"), window(18, "AF"), window(20, "AF")]
    found = marks([], windows, [], 20_000)
    assert [(m.sample, m.note) for m in found] == [(0, "(N"), (round(14 * FS), "(AFIB")]


def test_what_cannot_be_read_is_told_with_subtype_minus_one() -> None:
    events = [alert("LEADS_OFF", 10, 12), alert("LEADS_OFF", 10, 20, "inactive")]
    found = [m for m in marks([], [], events, 20_000) if m.symbol == "~"]
    assert [(m.sample, m.subtype) for m in found] == [(2500, -1), (5000, 0)]


def test_the_file_is_read_back_by_wfdb(tmp_path: Path) -> None:
    events = [alert("VFIB", 10, 14), alert("VFIB", 10, 30, "inactive"), alert("NOISY_ECG", 40, 42)]
    found = marks([beat(1), beat(2, "V"), beat(3, "?")], [], events, 20_000)
    write(tmp_path / "r1.moe", found, FS)
    back = wfdb.rdann(str(tmp_path / "r1"), "moe")
    assert list(back.sample) == [m.sample for m in found]
    assert list(back.symbol) == [m.symbol for m in found]
    assert [note.rstrip("\x00") for note in back.aux_note] == [m.note for m in found]
    assert list(back.subtype) == [m.subtype for m in found]


def test_a_record_with_nothing_found_has_a_file_all_the_same(tmp_path: Path) -> None:
    write(tmp_path / "r2.moe", [], FS)
    assert len(wfdb.rdann(str(tmp_path / "r2"), "moe").sample) == 0


def test_marks_beyond_the_record_are_left_out() -> None:
    found = marks([beat(1), beat(1000)], [], [alert("VFIB", 10, 14)], 5000)
    assert max(m.sample for m in found) < 5000
    assert isinstance(found[0], Mark)
