"""Each row of the table: what raises it, a near miss that must not, and its end."""

import itertools
from typing import NamedTuple

import msgpack
import pytest

from model.quality import REASONS
from stream.alarms import criteria
from stream.alarms.bed import BedAlarms
from stream.alarms.conditions import TABLE
from stream.alarms.criteria import WATERMARK
from stream.alarms.runs import NARROW
from tests.stream.playing import DECIDED, Player, ticks

# What the model's beats raise -----------------------------------------------------------------------------------------

N, S = 0.8, 0.3


class Row(NamedTuple):
    """Beats that raise a code, and beats that just do not; `rr`: seconds before a beat, by label or by beat."""

    code: str
    raising: str
    rr: float | dict[str, float] | list[float]
    miss: str
    miss_rr: float | dict[str, float] | list[float]
    changes: dict[str, dict[str, object]] = {}  # noqa: RUF012
    forms: tuple[int, ...] = ()
    miss_forms: tuple[int, ...] = ()


SLOW_V = {"VENT_BRADY": {"enabled": True}, "ASYSTOLE": {"time_s": 10}}
ROWS = [
    Row("VTACH", "VVVVV", 0.5, "VVVVN", 0.5),
    Row("VTACH", "VVVVV", 0.59, "VVVVV", 0.61),
    Row("VTACH", "sssss", 0.5, "sSsss", 0.5),  # may be ventricular, each of them
    Row("VTACH", "VsfqV", 0.59, "sssss", 0.61),
    Row("NSVT", "VVV", 0.5, "VVN", 0.5),
    Row("NSVT", "VVV", 0.59, "VVV", 0.61),
    Row("RUN_PVC", "VVV", 0.7, "VVN", 0.7),
    Row("RUN_PVC", "VVV", 0.61, "VVV", 0.59),
    Row("VENT_RHYTHM", "V" * 15, 0.8, "V" * 14, 0.8),
    Row("VENT_BRADY", "V" * 5, 1.55, "V" * 5, 1.45, SLOW_V),
    Row("VENT_BRADY", "V" * 5, 1.55, "V" * 4 + "N", 1.55, SLOW_V),
    Row("PAIR_PVC", "VVN", 0.5, "VN", 0.5),
    Row("PAIR_PVC", "VVN", {"V": 0.59, "N": 0.8}, "VVN", {"V": 0.61, "N": 0.8}),
    Row("PAIR_PVC", "VVN", 0.5, "VVVN", 0.5),
    Row("PAIR_PVC", "VVN", 0.5, "VV?N", 0.5),
    Row("R_ON_T", "VN", [0.26, 1.1], "VN", [0.28, 1.1]),
    Row("R_ON_T", "VN", [0.26, 1.1], "VN", [0.26, 0.9]),
    Row("R_ON_T", "VN", [0.26, 1.1], "VVN", [0.26, 0.4, 1.1]),
    Row("BIGEMINY", "VNVNV", {"V": 0.6, "N": 0.9}, "VNVNN", {"V": 0.6, "N": 0.9}),
    Row("TRIGEMINY", "VNNVNNV", 0.7, "VNNVNV", 0.7),
    Row("MULTIFORM_PVC", "VNNNV", 0.7, "VNNNV", 0.7, {}, (1, 0, 0, 0, 2), (2, 0, 0, 0, 2)),
    Row(
        "MULTIFORM_PVC",
        "V" + "N" * 13 + "V",
        0.7,
        "V" + "N" * 14 + "V",
        0.7,
        {},
        (1, *13 * (0,), 2),
        (1, *14 * (0,), 2),
    ),
    Row("PVC_RATE", "VNNNN" * 11, 0.7, "VNNNN" * 10, 0.7),
    Row("SVT", "SSSSS", S, "SSSSN", S),
    Row("SVT", "SSSSS", 0.33, "SSSSS", 0.34),
    Row("MISSED_BEAT", "N", 1.45, "N", 1.35),
    Row("MISSED_BEAT", "N", 1.45, "S", 1.45),
    Row("MISSED_BEAT", "N", 1.45, "VN", [0.5, 1.45]),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.code}-{row.miss[:6]}-{row.miss_rr}")
def test_beats_raise_it_and_a_near_miss_does_not(row: Row) -> None:
    player = Player(row.changes)
    player.beats(row.raising, row.rr, row.forms)
    assert player.started(row.code)
    near = Player(row.changes)
    near.beats(row.miss, row.miss_rr, row.miss_forms)
    if row.miss.endswith("N"):
        near.beats("NNN", N)
    assert not near.started(row.code)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.code}-{row.raising[:6]}-{row.rr}")
def test_normal_beats_end_what_beats_raised(row: Row) -> None:
    player = Player(row.changes)
    player.beats(row.raising, row.rr, row.forms)
    player.beats("N" * 100, N)
    assert player.standing(row.code) == ("latched" if row.code == "VTACH" else "inactive")
    assert len(player.of(row.code, "start")) == 1


def test_a_run_that_grows_supersedes_what_it_was() -> None:
    player = Player()
    player.beats("VVVVV", 0.5)
    nsvt, vtach = player.of("NSVT", "start")[0], player.of("VTACH", "start")[0]
    assert vtach.supersedes == nsvt.alert_id
    assert vtach.onset == nsvt.onset
    assert player.of("NSVT", "end")[0].reason == "superseded by VTACH"
    assert vtach.text == "***VTACH 120>100" and vtach.limits == (None, 100.0)
    assert not player.started("RUN_PVC")


def test_a_run_that_speeds_up_goes_from_run_to_nonsustained() -> None:
    player = Player()
    player.beats("VVVV", [0.7, 0.7, 0.7, 0.3])
    assert player.patient_codes()[:2] == ["RUN_PVC", "NSVT"]


def test_a_vt_with_a_misjudged_beat_in_it_is_one_episode() -> None:
    player = Player()
    player.beats("VVVVVVNVVVVVVQVVVVVV", 0.4)
    player.beats("N" * 20, N)
    assert len(player.of("VTACH", "start")) == 1
    assert player.standing("VTACH") == "latched"


def test_a_vt_is_over_five_seconds_after_its_last_beat() -> None:
    player = Player()
    player.beats("VVVVVV", 0.5)
    last = player.last
    player.beats("N" * 10, N)
    over = next(e for e in player.of("VTACH") if e.state == "latched")
    assert over.stream_time.sample == last + 60 + ticks(5)


def test_a_slowed_run_after_vt_may_be_a_ventricular_rhythm() -> None:
    player = Player()
    player.beats("V" * 8, 0.4)
    player.beats("V" * 30, 0.8)
    assert player.standing("VTACH") == "latched"
    assert player.started("VENT_RHYTHM")


def test_the_pvc_rate_ends_below_four_fifths_of_its_limit() -> None:
    player = Player()
    player.beats("VNNNN" * 12, 0.7)
    start = player.of("PVC_RATE", "start")[0]
    assert start.text == "*PVCs/min 11>10"
    player.beats("NNNNN" * 3, 0.7)
    assert player.standing("PVC_RATE") == "active"  # below the limit by now, not by enough
    player.beats("NNNNN" * 6, 0.7)
    assert player.standing("PVC_RATE") == "inactive"


def test_supraventricular_beats_count_as_normal_in_a_bigeminy() -> None:
    player = Player()
    player.beats("VSVSV", 0.7)
    assert player.started("BIGEMINY")


def test_svt_is_also_normal_beats_where_the_rhythm_is_svt() -> None:
    player = Player()
    player.windows("SVT", 1)
    player.last = player.now
    player.beats("NNNNNN", 0.3)
    assert player.started("SVT")
    without = Player()
    without.windows("N", 1)
    without.last = without.now
    without.beats("NNNNNN", 0.3)
    assert not without.started("SVT")


# What windows raise ---------------------------------------------------------------------------------------------------


def test_af_that_lasts_a_minute_raises_afib_once() -> None:
    player = Player()
    player.rhythm("AF", 200)
    start = player.of("AFIB", "start")
    assert len(start) == 1 and start[0].text == "**AFIB"
    assert 60 <= (start[0].stream_time.sample - ticks(8)) / 250 <= 66
    assert abs(start[0].onset.sample - ticks(8)) <= ticks(5)
    assert player.standing("AFIB") == "active"


def test_af_of_less_than_a_minute_or_in_half_the_windows_raises_nothing() -> None:
    player = Player()
    player.rhythm("AF", 55)
    player.rhythm("N", 120)
    for _ in range(60):
        player.rhythm("AF", 2)
        player.rhythm("N", 2)
    assert not player.started("AFIB")


def test_afib_ends_after_two_regular_minutes_and_says_so() -> None:
    player = Player()
    player.rhythm("AF", 100)
    player.rhythm("N", 110)
    assert player.standing("AFIB") == "active"
    player.rhythm("N", 30)
    assert player.standing("AFIB") == "inactive"
    end = player.of("END_AFIB", "start")
    assert len(end) == 1 and end[0].kind == "advisory" and end[0].text == "END AFIB"
    player.rhythm("N", 20)
    assert player.standing("END_AFIB") == "inactive"


def uneven() -> "itertools.cycle[float]":
    return itertools.cycle([0.7, 0.95, 0.62, 1.05, 0.8, 0.66, 0.9])


def test_uneven_intervals_without_af_raise_irregular_hr_and_its_end() -> None:
    player = Player()
    player.rhythm("N", 110, uneven())
    start = player.of("IRREGULAR_HR", "start")
    assert len(start) == 1 and start[0].priority == "low"
    player.rhythm("N", 170)
    assert player.standing("IRREGULAR_HR") == "inactive"
    assert player.started("END_IRREGULAR")


def test_a_breathing_sinus_rhythm_is_not_irregular() -> None:
    player = Player()
    player.rhythm("N", 200, itertools.cycle([0.8, 0.84, 0.9, 0.94, 0.9, 0.84]))
    assert not player.started("IRREGULAR_HR")


def test_irregular_hr_that_turns_out_af_is_superseded() -> None:
    player = Player()
    player.rhythm("N", 110, uneven())
    player.rhythm("AF", 120, uneven())
    assert player.of("AFIB", "start")[0].supersedes == player.of("IRREGULAR_HR", "start")[0].alert_id
    assert player.standing("IRREGULAR_HR") == "inactive"


def test_vt_and_vf_windows_raise_reds_apart_from_the_beats() -> None:
    player = Player()
    player.rhythm("VT", 12, 0.4, label="F")
    assert player.of("VTACH", "start")[0].evidence["path"] == "rhythm"
    player = Player()
    player.windows("VF", 2)
    start = player.of("VFIB", "start")[0]
    assert start.evidence["path"] == "rhythm" and start.priority == "high"
    player.wait(6)
    assert player.standing("VFIB") == "latched"


@pytest.mark.parametrize(("rhythm", "code"), [("VT", "VTACH"), ("VF", "VFIB")])
def test_one_window_or_an_unsure_or_a_noisy_one_is_no_red(rhythm: str, code: str) -> None:
    player = Player()
    player.beats("F" * 12, 0.4)
    player.windows(rhythm, 1)
    player.windows("N", 1)
    player.windows(rhythm, 3, p=0.65)
    player.windows(rhythm, 3, quality=0.2)
    assert not player.started(code)


def test_two_vt_of_one_string_of_windows_are_two_alerts() -> None:
    player = Player()
    for rr in (0.4, 1.0, 0.4):
        player.rhythm("VT", 14, rr, label="F", p=0.75)
    first, second = player.of("VTACH", "start")
    assert first.alert_id != second.alert_id and second.supersedes == first.alert_id


def test_vt_windows_at_a_slow_rate_are_no_vt_unless_they_are_sure() -> None:
    player = Player()
    player.rhythm("VT", 20, 0.8, label="F", p=0.79)
    assert not player.started("VTACH")
    player.rhythm("VT", 20, 0.8, label="F", p=0.8)
    assert player.started("VTACH")


@pytest.mark.parametrize("label", ["N", "S"])
def test_a_fast_rhythm_whose_beats_are_surely_not_ventricular_is_no_vt_by_windows(label: str) -> None:
    player = Player()
    player.beats(label * NARROW, 0.32)
    player.rhythm("VT", 20, 0.32, label=label)
    assert not player.started("VTACH")
    player.beats("V", 0.32)  # one that is, and the experts are believed until there are as many again
    player.windows("VT", 1)
    assert player.started("VTACH")
    player.rhythm("VT", 20, 0.32, label=label)
    assert player.standing("VTACH") == "active" and len(player.of("VTACH", "start")) == 1


def test_seven_such_beats_do_not_keep_a_vt_from_being_told() -> None:
    player = Player()
    player.beats("V" + "S" * (NARROW - 1), 0.32)
    player.windows("VT", 2)
    assert player.started("VTACH")
    surely = Player()
    surely.beats("V" + "S" * NARROW, 0.32)
    surely.windows("VT", 2)
    assert not surely.started("VTACH")


def test_such_beats_of_before_the_window_are_nothing_to_a_vt_in_which_none_are_found() -> None:
    player = Player()
    player.beats("N" * 20, 0.8)
    player.windows("VT", 2, p=0.95)
    assert not player.started("VTACH"), "eight of them are in both windows"
    player.windows("VT", 1, p=0.95)
    assert player.started("VTACH")


def test_such_beats_are_nothing_to_a_vf() -> None:
    player = Player()
    player.beats("N" * 20, 0.4)
    player.windows("VF", 2)
    assert player.started("VFIB")


def test_beats_in_a_window_that_can_hardly_be_read_make_no_vt_until_one_can_be_read_again() -> None:
    player = Player()
    player.windows("NOISE", 1, quality=0.29)
    player.beats("V" * 6, 0.4)
    assert not player.started("VTACH")
    player.windows("OTHER", 1, quality=0.3)
    player.beats("V", 0.4)
    assert player.started("VTACH")


def test_a_vt_by_windows_over_slow_found_beats_tells_no_rate() -> None:
    slow, fast = Player(), Player()
    slow.rhythm("VT", 20, 0.8, label="F", p=0.9)
    fast.beats("N" * 20, 0.4)
    fast.rhythm("VT", 20, 0.4, label="F", p=0.9)
    assert slow.of("VTACH", "start")[0].text == "***VTACH"
    assert fast.of("VTACH", "start")[0].text == "***VTACH 150>100"


def test_noise_is_no_end_of_a_vt_that_goes_on() -> None:
    player = Player()
    player.beats("V" * 6, 0.4)
    player.windows("NOISE", 1, quality=0.1)
    player.beats("V" * 12, 0.4)
    assert player.standing("VTACH") == "active" and len(player.of("VTACH", "start")) == 1


# What needs no model --------------------------------------------------------------------------------------------------


def test_four_seconds_without_a_beat_are_asystole() -> None:
    player = Player()
    last = player.last
    player.to(last + ticks(4) + WATERMARK)
    assert not player.started("ASYSTOLE")
    player.to(last + ticks(4) + 63)
    start = player.of("ASYSTOLE", "start")[0]
    assert (start.onset.sample, start.stream_time.sample) == (last, last + ticks(4) + WATERMARK)
    assert start.text == "***ASYSTOLE" and start.evidence["path"] == "detector"


def test_a_beat_just_before_four_seconds_is_none() -> None:
    player = Player()
    player.beats("NN", 3.99)
    assert not player.started("ASYSTOLE") and player.started("PAUSE")


def test_a_beat_after_four_seconds_tells_of_the_asystole_before_the_timer_does() -> None:
    player = Player()
    last = player.last
    player.beats("N", 4.02)
    start = player.of("ASYSTOLE", "start")[0]
    assert (start.onset.sample, start.stream_time.sample) == (last, player.last + DECIDED)
    assert player.standing("PAUSE") == "inactive"
    player.beats("N", N)
    assert player.standing("ASYSTOLE") == "latched"


def test_asystole_ends_with_the_second_beat() -> None:
    player = Player()
    player.wait(8)
    player.beats("N", 0.0)
    assert player.standing("ASYSTOLE") == "active"
    player.beats("N", 3.0)
    assert player.standing("ASYSTOLE") == "latched"
    assert player.of("ASYSTOLE")[-1].phase == "update"


def test_lone_beats_five_seconds_apart_stay_one_asystole() -> None:
    player = Player()
    player.beats("NNNN", 5.0)
    assert len(player.of("ASYSTOLE", "start")) == 1 and player.standing("ASYSTOLE") == "active"


def test_an_asystole_from_the_first_sample_on_is_told_while_learning() -> None:
    player = Player(learnt=False)
    player.wait(5)
    assert player.started("ASYSTOLE")


def test_two_seconds_without_a_beat_are_a_pause_and_longer_ones_become_asystole() -> None:
    player = Player()
    last = player.last
    player.beats("N", 1.99)
    assert not player.started("PAUSE")
    player.beats("N", 2.4)
    start, update = player.of("PAUSE")[:2] if len(player.of("PAUSE")) > 1 else (player.of("PAUSE")[0], None)
    assert start.onset.sample == last + ticks(1.99) and start.text == "**PAUSE 2.0 s" and update is None
    player.beats("N" * 7, N)
    assert player.of("PAUSE")[-1].phase == "end" and player.of("PAUSE")[-1].text == "**PAUSE 2.4 s"
    player.wait(6)
    assert player.of("ASYSTOLE", "start")[0].supersedes == player.of("PAUSE", "start")[-1].alert_id
    assert player.standing("PAUSE") == "inactive"


def test_a_pause_that_ends_before_its_timer_is_told_by_its_beat() -> None:
    player = Player()
    player.beats("N", 2.02)
    start = player.of("PAUSE", "start")[0]
    assert start.stream_time.sample == player.last + DECIDED and start.value == pytest.approx(2.02, abs=0.004)


RATES = [
    ("HR_HIGH", 125, 118, "**HR 125>120"),
    ("X_TACHY", 150, 138, "***xTACHY 150>140"),
    ("HR_LOW", 47, 52, "**HR 47<50"),
    ("X_BRADY", 38, 43, "***xBRADY 38<40"),
]


@pytest.mark.parametrize(("code", "bpm", "miss", "text"), RATES, ids=[row[0] for row in RATES])
def test_the_averaged_rate_raises_its_limits(code: str, bpm: float, miss: float, text: str) -> None:
    player = Player()
    player.beats("N" * 30, 60 / bpm)
    start = player.of(code, "start")
    assert len(start) == 1
    player.beats("N" * 40, N)
    assert player.of(code)[-1].text == text  # the worst value
    assert player.standing(code) == ("latched" if code.startswith("X_") else "inactive")
    near = Player()
    near.beats("N" * 30, 60 / miss)
    assert not near.started(code)


@pytest.mark.parametrize(("plain", "extreme", "bpm"), [("HR_HIGH", "X_TACHY", 150), ("HR_LOW", "X_BRADY", 35)])
def test_a_limit_passed_further_is_a_new_alert_that_supersedes(plain: str, extreme: str, bpm: float) -> None:
    player = Player()
    player.beats("N" * 15, 60 / (bpm + (100 - bpm) * 0.25))
    player.beats("N" * 15, 60 / bpm)
    assert player.of(extreme, "start")[0].supersedes == player.of(plain, "start")[0].alert_id
    assert player.standing(plain) == "inactive" and player.standing(extreme) == "active"


def test_a_rate_that_hovers_at_its_limit_is_one_episode() -> None:
    player = Player()
    for _ in range(20):
        player.beats("N" * 13, 60 / 122)
        player.beats("N" * 13, 60 / 118.5)
    assert len(player.of("HR_HIGH", "start")) == 1
    for _ in range(4):
        player.beats("N" * 16, 60 / 110)
        player.beats("N" * 3, 60 / 122)
    assert len(player.of("HR_HIGH", "start")) == 1 and player.standing("HR_HIGH") == "inactive"


def test_a_rate_just_inside_its_limit_does_not_end_the_alert() -> None:
    player = Player()
    player.beats("N" * 20, 60 / 130)
    player.beats("N" * 80, 60 / 118.5)
    assert player.standing("HR_HIGH") == "active"
    inside = 0
    while not inside:
        player.beats("N", 60 / 114)
        if player.alarms.state()["detectors"]["rates"][0][1] <= 117:  # the limit less the hysteresis
            inside = player.last + DECIDED
    player.beats("N" * 20, 60 / 114)
    assert player.of("HR_HIGH", "end")[0].stream_time.sample == inside + ticks(5)


def test_with_a_limit_beyond_the_clamp_only_the_extreme_alarm_is_left() -> None:
    player = Player({"HR_LOW": {"limit": 35}})
    player.beats("N" * 12, 60 / 38)
    assert player.started("X_BRADY") and not player.started("HR_LOW")


def test_the_vf_index_raises_vfib_after_four_seconds_of_it() -> None:
    player = Player()
    onset = player.now
    player.take(player.alarms.vf(True, onset, onset + ticks(2.5)))
    player.to(onset + ticks(3.9))
    assert not player.started("VFIB")
    player.to(onset + ticks(4.1))
    start = player.of("VFIB", "start")[0]
    assert (start.onset.sample, start.stream_time.sample) == (onset, onset + ticks(4))
    assert start.mdc == "0^MDCX_EVT_ECG_V_FIB^MDC" and start.evidence["path"] == "index"
    player.take(player.alarms.vf(False, onset + ticks(9), onset + ticks(10)))
    player.to(onset + ticks(13))
    assert player.standing("VFIB") == "active"
    player.to(onset + ticks(13) + 1)
    assert player.standing("VFIB") == "latched"


def test_a_vf_that_the_index_lets_go_for_a_moment_is_one_episode() -> None:
    player = Player()
    onset = player.now
    for second in (0, 8, 16):
        player.take(player.alarms.vf(True, onset + ticks(second), onset + ticks(second + 1)))
        player.take(player.alarms.vf(False, onset + ticks(second + 6), onset + ticks(second + 7)))
    player.to(onset + ticks(30))
    assert [(event.phase, event.state) for event in player.of("VFIB")] == [("start", "active"), ("update", "latched")]


def test_the_end_of_a_vf_by_the_index_tells_where_its_waveform_was_over() -> None:
    player = Player(fs=500.0)
    onset = player.now
    player.take(player.alarms.vf(True, onset, onset + ticks(2)))
    player.take(player.alarms.vf(False, onset + ticks(6), onset + ticks(7)))
    player.take(player.alarms.vf(True, onset + ticks(8), onset + ticks(9)))  # not over yet
    player.take(player.alarms.vf(False, onset + ticks(12), onset + ticks(14)))
    after = BedAlarms("bed-1", "epoch-1", 500.0)
    after.restore(msgpack.unpackb(msgpack.packb(player.alarms.state()), strict_map_key=False))
    for event in (*player.alarms.advance(onset + ticks(18)), *after.advance(onset + ticks(18))):
        if event.code == "VFIB":
            assert (event.phase, event.state) == ("update", "latched")
            assert event.evidence == {"path": "index", "over": {"sample": 2 * (onset + ticks(12)), "fs": 500.0}}
            player.take([event])
    assert len(player.of("VFIB", "update")) == 2
    assert "over" not in player.of("VFIB", "start")[0].evidence


def test_a_vf_that_leads_off_cut_short_tells_no_end_of_its_waveform() -> None:
    player = Player()
    player.take(player.alarms.vf(True, player.now, player.now + ticks(3)))
    player.to(player.now + ticks(4.1))
    player.quality([1, 1], 4)
    end = player.of("VFIB")[-1]
    assert (end.state, end.reason) == ("latched", "inop") and "over" not in end.evidence


def test_a_vf_of_less_than_four_seconds_is_none() -> None:
    player = Player()
    onset = player.now
    player.take(player.alarms.vf(True, onset, onset + ticks(2.5)))
    player.take(player.alarms.vf(False, onset + ticks(3), onset + ticks(3.5)))
    player.beats("N" * 5, 1.0)
    assert not player.started("VFIB")


def test_in_vf_no_beat_counts_and_nothing_is_asystole_pause_or_rate() -> None:
    player = Player()
    onset = player.now
    player.take(player.alarms.vf(True, onset, onset + ticks(1)))
    player.wait(20)
    player.beats("N" * 20, 0.3)
    player.beats("N" * 10, 3.0)
    assert player.patient_codes() == ["VFIB"]


def test_asystole_after_vf_counts_from_the_end_of_the_vf() -> None:
    player = Player()
    onset = player.now
    player.take(player.alarms.vf(True, onset, onset + ticks(3)))
    off = onset + ticks(10)
    player.take(player.alarms.vf(False, off, off + ticks(1)))
    player.to(off + ticks(5))
    assert player.of("ASYSTOLE", "start")[0].stream_time.sample == off + ticks(4) + WATERMARK


@pytest.mark.parametrize("latched", [False, True])
def test_a_late_vf_supersedes_an_asystole_that_went_out(latched: bool) -> None:
    player = Player()
    player.wait(5)
    if latched:
        player.beats("NN", 1.0)
    asystole = player.of("ASYSTOLE", "start")[0]
    player.take(player.alarms.vf(True, player.now - ticks(4), player.now))
    player.to(player.now + 1)
    assert player.of("VFIB", "start")[0].supersedes == asystole.alert_id
    gone = player.of("ASYSTOLE")[-1]
    assert (gone.phase, gone.state, gone.reason) == ("reset" if latched else "end", "inactive", "superseded by VFIB")


# Technical alarms, and what they keep from being told ---------------------------------------------------------------


@pytest.mark.parametrize("off", [[1, 1], [2, 2], [3, 1]])
def test_leads_off_is_told_and_is_never_asystole(off: list[int]) -> None:
    player = Player()
    player.beats("N", N)
    player.quality(off, 30)
    assert player.standing("LEADS_OFF") == "active"
    assert player.patient_codes() == []
    player.quality([0, 0], 2)
    assert player.standing("LEADS_OFF") == "inactive"
    assert player.standing("LEARNING") == "active"


def test_one_bad_second_or_one_good_lead_is_no_leads_off() -> None:
    player = Player()
    player.beats("N" * 3, N)
    player.quality([1, 1], 1)
    player.quality([0, 0], 2)
    player.quality([1, 0], 5)
    assert not player.started("LEADS_OFF")
    assert [e.text for e in player.of("LEAD_OFF", "start")] == ["LEAD OFF 1"]
    player.quality([0, 0], 1)
    assert player.standing("LEAD_OFF") == "inactive"


def test_noise_is_told_then_said_to_be_unreadable_and_is_never_asystole_or_vf() -> None:
    player = Player()
    player.quality([4, 1], 3)
    assert player.standing("NOISY_ECG") == "active"
    player.take(player.alarms.vf(True, player.now, player.now + 100))
    player.quality([4, 4], 30)
    assert player.standing("CANNOT_ANALYZE") == "active"
    assert player.patient_codes() == []
    player.take(player.alarms.vf(False, player.now, player.now + 10))
    player.quality([0, 4], 2)
    assert player.standing("NOISY_ECG") == player.standing("CANNOT_ANALYZE") == "inactive"


def vf_by_the_index_in_noise() -> Player:
    player = Player()
    player.quality([4, 4], 3)
    player.take(player.alarms.vf(True, player.now, player.now + 100))
    player.quality([4, 4], 3)
    return player


def test_a_vf_that_is_still_there_when_the_noise_is_over_is_told() -> None:
    player = vf_by_the_index_in_noise()
    player.quality([0, 0], 9)
    assert player.started("VFIB")


def test_what_the_vf_index_made_of_noise_is_no_vf_while_it_still_sees_the_noise() -> None:
    player = vf_by_the_index_in_noise()
    player.quality([0, 0], 7)
    player.take(player.alarms.vf(False, player.now - 1000, player.now))
    player.quality([0, 0], 5)
    assert not player.started("VFIB")


def test_noise_does_not_end_a_vf_that_went_out_and_leads_off_do() -> None:
    player = Player()
    player.take(player.alarms.vf(True, player.now, player.now + ticks(3)))
    player.to(player.now + ticks(4.1))
    player.quality([4, 4], 12)
    player.act("acknowledge")
    player.quality([0, 0], 8)
    assert player.standing("VFIB") == "active" and player.of("VFIB")[-1].ack  # the same episode, not a new one
    player.quality([1, 1], 4)
    assert player.standing("VFIB") == "inactive"
    assert player.of("VFIB")[-1].reason == "inop"


@pytest.mark.parametrize("gap_s", [0.1, 0.9, 3.0, 30.0])
def test_a_gap_is_never_asystole_and_always_told(gap_s: float) -> None:
    player = Player()
    player.wait(1.5)
    first, n = player.now, ticks(gap_s)
    player.take(player.alarms.gap(first, n, first + n))
    player.now = player.last = first + n
    start = player.of("SIGNAL_LOST", "start")[0]
    assert (start.onset.sample, start.stream_time.sample) == (first, first + n)
    player.wait(3.8)
    assert player.patient_codes() == []
    player.wait(1.5)
    assert player.patient_codes() == ["ASYSTOLE"]
    assert player.of("ASYSTOLE", "start")[0].onset.sample == first + n
    assert player.standing("SIGNAL_LOST") == "inactive"


def test_a_gap_ends_what_stands_with_inop_and_latches_the_reds() -> None:
    player = Player()
    player.beats("N" * 20, 60 / 130)
    player.beats("V" * 6, 0.4)
    player.take(player.alarms.gap(player.now, ticks(2), player.now + ticks(2)))
    player.to(player.now + ticks(2.1))
    assert [(e.phase, e.state, e.reason) for e in player.of("VTACH")[-1:]] == [("update", "latched", "inop")]
    assert not [code for code in ("HR_HIGH", "X_TACHY", "NSVT") if player.standing(code) == "active"]


def test_a_run_does_not_join_across_a_gap() -> None:
    player = Player()
    player.beats("VVV", 0.45)
    first = player.now
    player.take(player.alarms.gap(first, 50, first + 50))
    player.last = first + 50
    player.beats("VV", 0.3)
    assert not player.started("VTACH")
    player.beats("VVV", 0.3)
    assert player.started("VTACH")


def test_a_bad_second_starts_the_clock_of_asystole_anew() -> None:
    player = Player()
    player.quality([0, 0], 1)
    player.quality([4, 1], 1)
    bad = player.now
    player.quality([0, 0], 3)
    player.to(bad + ticks(4) + WATERMARK)
    assert player.patient_codes() == []
    player.to(bad + ticks(4) + 63)
    assert player.of("ASYSTOLE", "start")[0].onset.sample == bad


def test_a_short_gap_in_vf_starts_its_clock_anew() -> None:
    player = Player()
    onset = player.now
    player.take(player.alarms.vf(True, onset, onset + ticks(3)))
    first = onset + ticks(3.2)
    player.take(player.alarms.gap(first, 50, first + 50))
    player.to(first + 50 + ticks(4) + 1)
    start = player.of("VFIB", "start")[0]
    assert (start.onset.sample, start.stream_time.sample) == (first + 50, first + 50 + ticks(4))


def test_learning_keeps_back_all_but_asystole_and_vf_for_eight_beats_or_ten_seconds() -> None:
    player = Player(learnt=False)
    player.beats("V" * 7, 0.4)
    assert player.standing("LEARNING") == "active" and player.patient_codes() == []
    player.beats("V", 0.4)
    assert player.standing("LEARNING") == "inactive"
    assert player.of("LEARNING", "end")[0].stream_time.sample == player.last + DECIDED
    player.beats("VV", 0.4)
    assert player.started("VTACH")
    slow = Player(learnt=False)
    slow.beats("NNN", 3.2)
    slow.to(ticks(10) + 1)
    assert slow.of("LEARNING", "end")[0].stream_time.sample == ticks(10)


def test_alarms_off_is_told_while_alarms_are_paused_or_off() -> None:
    player = Player()
    player.act("audio_pause")
    assert not player.started("ALARMS_OFF")
    player.act("alarm_pause", until_s=5.0)
    assert player.of("ALARMS_OFF", "start")[0].reason == "alarms paused"
    player.beats("N" * 8, N)
    end = player.of("ALARMS_OFF", "end")[0]
    assert end.stream_time.sample == player.of("ALARMS_OFF", "start")[0].onset.sample + ticks(5)


def test_alarms_switched_off_singly_are_named() -> None:
    player = Player({"AFIB": {"enabled": False}})
    assert player.of("SOME_ALARMS_OFF", "start")[0].evidence == {"codes": "AFIB"}
    player.rhythm("AF", 100)
    assert not player.started("AFIB")
    player.act("limits", limits={"AFIB": {"enabled": True}})
    assert player.standing("SOME_ALARMS_OFF") == "inactive"
    player.rhythm("AF", 100)
    assert player.started("AFIB")


@pytest.mark.parametrize("code", ["SIGNAL_LOST", "MODEL_STALLED", "STREAM_LATE", "CLOCK_UNSYNC", "BUS_DOWN"])
def test_watchdogs_of_the_wall_clock_start_and_end_technical_alarms(code: str) -> None:
    player = Player()
    assert player.alarms.technical(code, False, "", player.now) == []
    (start,) = player.alarms.technical(code, True, "why", player.now)
    assert (start.phase, start.kind, start.reason, start.code) == ("start", "technical", "why", code)
    assert player.alarms.technical(code, True, "why", player.now + 5) == []
    (end,) = player.alarms.technical(code, False, "", player.now + 9)
    assert (end.phase, end.alert_id, end.stream_time.sample) == ("end", start.alert_id, player.now + 9)


def test_a_patients_alarm_is_no_technical_one() -> None:
    with pytest.raises(ValueError, match="VTACH: no technical alarm; known are SIGNAL_LOST"):
        Player().alarms.technical("VTACH", True, "", 0)


def test_reasons_are_numbered_as_the_quality_stage_numbers_them() -> None:
    assert [REASONS[why] for why in criteria.OFF_REASONS] == ["off", "flat", "saturated"]
    assert REASONS[criteria.NOISY_REASON] == "noisy" and REASONS[0] == "ok"


def test_every_row_that_can_be_raised_has_a_test_here() -> None:
    tested = {row.code for row in ROWS} | {row[0] for row in RATES}
    tested |= {"ASYSTOLE_WITHHELD", "VFIB_WITHHELD", "VTACH_WITHHELD"}  # in test_pulse
    tested |= {"AFIB", "END_AFIB", "IRREGULAR_HR", "END_IRREGULAR", "VFIB", "ASYSTOLE", "PAUSE"}
    patient = {row.code for row in TABLE if row.kind != "technical" and not row.code.startswith("PACER")}
    assert patient == tested


def test_vt_and_vf_are_one_suspicion_of_a_vt_and_the_rate_of_found_beats_does_not_overrule_a_sure_one() -> None:
    for vt, vf, rr_s, told in (
        (0.6, 0.35, 1.0, True),
        (0.1, 0.75, 1.0, True),
        (0.5, 0.25, 1.0, False),
        (0.5, 0.25, 0.5, True),
        (0.3, 0.35, 0.5, False),
    ):
        player = Player()
        player.beats("F" * 8, rr_s)
        player.windows("VT", 3, p=vt, VF=vf)
        assert player.started("VTACH") == told, (vt, vf, rr_s)


def test_three_slow_intervals_are_an_extreme_bradycardia_and_a_pause_among_faster_ones_is_none() -> None:
    slow, paused = Player(), Player()
    slow.beats("NNN", 1.5)
    assert slow.started("X_BRADY")
    paused.beats("NNN", [0.9, 1.9, 1.9])
    assert not paused.started("X_BRADY")
