"""Alerts of a soak against the truth of its patients: told, missed, excused, false, doubled."""

import msgspec

from simulators.patients import Patient
from simulators.soak.truth import Dark, Verdict, episodes, judge
from stream.wire import AlertEvent, Moment

FS = 250.0
SCRIPT = [("sinus", 30), ("asystole", 10), ("sinus", 60)]
PATIENT = Patient("bed1", SCRIPT, seed=3)
N = round(100 * FS)
KEY = ("bed1", "e")


def alert(code: str, onset_s: float, alert_id: str = "a1", **fields: object) -> AlertEvent:
    at = Moment(round(onset_s * FS), FS)
    plain = AlertEvent(
        alert_id=alert_id, event_id=f"{alert_id}-0", seq=0, bed="bed1", epoch="e", code=code, mdc="", text=code,
        phase="start", state="active", inactivation=(), priority="high", kind="physiological", latching=True, onset=at,
        stream_time=Moment(at.sample + 1000, FS), emit_time="",
    )  # fmt: skip
    return msgspec.structs.replace(plain, **fields)


def judged(*alerts: AlertEvent, dark: tuple[Dark, ...] = ()) -> Verdict:
    return judge(episodes(PATIENT, *KEY, N), alerts, dark, {KEY: N})


def test_an_episode_with_its_alert_in_time_is_told_with_its_delay() -> None:
    verdict = judged(alert("ASYSTOLE", 30))
    assert (verdict.told, verdict.missed, verdict.false, verdict.doubled) == (1, [], [], [])
    assert verdict.delays_s == {"asystole": [4.0]}


def test_an_episode_without_an_alert_is_missed_unless_its_bed_had_no_signal() -> None:
    assert [one.rhythm for one in judged().missed] == ["asystole"]
    assert [one.rhythm for one in judged(alert("ASYSTOLE", 60)).missed] == ["asystole"], "too late is missed"
    dark = Dark("bed1", "e", round(31 * FS), round(33 * FS))
    assert (judged(dark=(dark,)).missed, len(judged(dark=(dark,)).excused)) == ([], 1)


def test_a_red_alert_without_its_rhythm_is_false() -> None:
    verdict = judged(alert("ASYSTOLE", 30), alert("VFIB", 80, "a2"))
    assert [one.code for one in verdict.false] == ["VFIB"]


def test_an_alert_that_starts_twice_is_doubled_and_so_are_two_of_one_onset() -> None:
    assert len(judged(alert("ASYSTOLE", 30), alert("ASYSTOLE", 30)).doubled) == 1
    assert len(judged(alert("ASYSTOLE", 30), alert("ASYSTOLE", 30, "a2")).doubled) == 1
    assert not judged(alert("ASYSTOLE", 30), alert("ASYSTOLE", 30, "a2", suppressed_by="a1")).doubled


def test_a_script_that_starts_again_is_expected_again() -> None:
    found = [one for one in episodes(PATIENT, *KEY, 3 * N) if one.rhythm == "asystole"]
    assert [one.start / FS for one in found] == [30, 130, 230]
