import re
from pathlib import Path

import pytest

from stream.alarms.conditions import CONDITIONS, FOLDER, GENERAL, TABLE, Profile, ProfileError, table

# fmt: off
ROWS = {
    "ASYSTOLE", "VFIB", "VTACH", "X_TACHY", "X_BRADY", "PACER_NOT_CAPTURE", "PACER_NOT_PACING", "PAUSE",
    "MISSED_BEAT", "NSVT", "VENT_RHYTHM", "VENT_BRADY", "RUN_PVC", "PAIR_PVC", "R_ON_T", "BIGEMINY", "TRIGEMINY",
    "MULTIFORM_PVC", "PVC_RATE", "SVT", "HR_HIGH", "HR_LOW", "AFIB", "IRREGULAR_HR", "END_AFIB", "END_IRREGULAR",
    "LEADS_OFF", "LEAD_OFF", "NOISY_ECG", "CANNOT_ANALYZE", "LEARNING", "SIGNAL_LOST", "ALARMS_OFF",
    "ASYSTOLE_WITHHELD", "VFIB_WITHHELD", "VTACH_WITHHELD",
    "SOME_ALARMS_OFF", "MODEL_STALLED", "MODEL_OVERLOADED", "BUS_DOWN", "BUS_BEHIND", "BUS_REJECTED", "STREAM_LATE",
    "CLOCK_UNSYNC",
}
# fmt: on


def test_the_table_has_every_row_once() -> None:
    assert {row.code for row in TABLE} == ROWS
    assert len(TABLE) == len(ROWS)


def test_reds_latch_and_cannot_be_switched_off_and_nothing_else_latches() -> None:
    reds = {row.code for row in TABLE if row.priority == "high"}
    assert reds == {"ASYSTOLE", "VFIB", "VTACH", "X_TACHY", "X_BRADY"}
    assert {row.code for row in TABLE if row.latching} == reds
    assert not any(CONDITIONS[code].can_be_off for code in reds)


def test_ranks_of_a_chain_differ() -> None:
    places = [(row.chain, row.rank) for row in TABLE]
    assert len(places) == len(set(places))


def test_bus_codes_are_code_name_and_system() -> None:
    for row in TABLE:
        assert re.fullmatch(r"\d+\^MDCX?_EVT_\w+\^MDC", row.mdc), row
        assert row.mdc.startswith("0^MDCX") == ("MDCX" in row.mdc)
    numbers = [row.mdc.split("^")[0] for row in TABLE if not row.mdc.startswith("0^")]
    assert len(numbers) == len(set(numbers))
    assert CONDITIONS["VTACH"].mdc == "199832^MDC_EVT_ECG_V_TACHY^MDC"


def test_every_default_lies_in_its_range() -> None:
    settings = [(row.code, row.limits) for row in TABLE] + list(GENERAL.items())
    for code, limits in settings:
        for name, limit in limits.items():
            assert limit.low <= limit.default <= limit.high, (code, name)


def test_the_adult_profile_has_the_published_limits() -> None:
    profile = Profile()
    assert profile.limit("ASYSTOLE", "time_s") == 4.0
    assert (profile.limit("VTACH", "run"), profile.limit("VTACH", "rate")) == (5, 100)
    assert (profile.extreme_low, profile.extreme_high) == (40, 140)
    assert not profile.enabled("VENT_BRADY") and not profile.enabled("PACER_NOT_PACING")
    assert list(profile.switched_off()) == []


@pytest.mark.parametrize(
    ("high", "low", "extreme_high", "extreme_low"), [(120, 50, 140, 40), (190, 90, 200, 70), (220, 45, 200, 40)]
)
def test_extreme_limits_follow_the_rate_limits_within_their_clamps(
    high: float, low: float, extreme_high: float, extreme_low: float
) -> None:
    profile = Profile({"HR_HIGH": {"limit": high}, "HR_LOW": {"limit": low}})
    assert (profile.extreme_high, profile.extreme_low) == (extreme_high, extreme_low)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"VTAC": {"run": 6}}, "VTAC: no such alarm; known are VFIB, ASYSTOLE"),
        (
            {"VTACH": {"runs": 6}},
            "VTACH.runs: no such setting; known are run, rate, hold_s, probability, windows, enabled",
        ),
        ({"HR_HIGH": {"limit": 500}}, "HR_HIGH.limit: 500 is refused; it may be 60 to 300 bpm"),
        ({"HR_HIGH": {"limit": float("nan")}}, "HR_HIGH.limit: nan is refused; it may be 60 to 300 bpm"),
        ({"HR_HIGH": {"limit": True}}, "HR_HIGH.limit: True is refused"),
        ({"HR_HIGH": {"limit": "130"}}, "HR_HIGH.limit: '130' is refused"),
        ({"HR_HIGH": 130}, "HR_HIGH: 130 is no table of settings"),
        ({"ASYSTOLE": {"time_s": 12}}, "ASYSTOLE.time_s: 12 is refused; it may be 2.5 to 10 s"),
        ({"VTACH": {"enabled": False}}, "VTACH.enabled: false is refused"),
        ({"PACER_NOT_PACING": {"enabled": True}}, "it needs a pace channel"),
        ({"AFIB": {"enabled": "no"}}, "AFIB.enabled: 'no' is neither true nor false"),
        ({"AFIB": {"priority": "high"}}, "AFIB.priority: 'high' is refused; it may be medium or low"),
        ({"NSVT": {"priority": "low"}}, "NSVT.priority: 'low' is refused; it may be only medium"),
        ({"HR_LOW": {"limit": 80}, "HR_HIGH": {"limit": 70}}, "HR_LOW.limit: 80 is not below HR_HIGH.limit 70"),
        ({"TIMEOUTS": {"level_1_s": 301}}, "TIMEOUTS.level_1_s: 301 is refused; it may be 0 to 300 s"),
        ({"PAUSES": {"enabled": False}}, "PAUSES.enabled: no such setting; known are audio_s, alarm_s, off_s"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_may_stand_there(changes: dict, says: str) -> None:
    with pytest.raises(ProfileError, match=re.escape(says)):
        Profile(changes)


def test_changes_come_on_top_and_leave_the_profile_alone() -> None:
    ward = Profile({"HR_HIGH": {"limit": 130}, "AFIB": {"enabled": False}})
    bed = ward.with_changes({"HR_HIGH": {"hold_s": 8}, "PAIR_PVC": {"priority": "low"}})
    assert (bed.limit("HR_HIGH", "limit"), bed.limit("HR_HIGH", "hold_s")) == (130, 8)
    assert (bed.priority("PAIR_PVC"), ward.priority("PAIR_PVC")) == ("low", "medium")
    assert list(bed.switched_off()) == ["AFIB"]
    with pytest.raises(ProfileError):
        ward.with_changes({"HR_HIGH": {"limit": 1000}})
    assert ward.limit("HR_HIGH", "limit") == 130


def test_a_profile_is_made_again_from_its_changes() -> None:
    profile = Profile({"VTACH": {"run": 6}, "TIMEOUTS": {"level_1_s": 60}})
    assert Profile(profile.changes).changes == profile.changes == {"VTACH": {"run": 6}, "TIMEOUTS": {"level_1_s": 60}}


def test_the_page_on_alarms_has_every_limit_and_its_range() -> None:
    page = (Path(__file__).parents[3] / "docs" / "alarms.md").read_text()
    for row in TABLE:
        limits = ", ".join(
            f"{name} {limit.default:.3g} ({limit.low:g}..{limit.high:g}{' ' * bool(limit.unit)}{limit.unit})"
            for name, limit in row.limits.items()
        )
        priority = "/".join(dict.fromkeys((row.priority, *row.priorities)))
        assert f"| {row.code} | {priority} | {row.chain}.{row.rank} | {row.level or ''} | {limits} |" in page


PAGE = (Path(__file__).parents[3] / "docs" / "alarms.md").read_text()


def test_a_further_profile_is_a_file_that_says_what_differs(tmp_path: Path) -> None:
    """The one of the page."""
    path = tmp_path / "child.toml"
    path.write_text(PAGE.partition("```toml\n")[2].partition("```")[0])
    child = Profile(table=table(str(path)))
    assert child.limit("HR_HIGH", "limit") == 160
    assert child.extreme_high == 180
    assert child.priority("PAIR_PVC") == "low"
    assert child.limits("VTACH") == Profile().limits("VTACH")
    assert child.with_changes({"HR_HIGH": {"limit": 190}}).limit("HR_HIGH", "limit") == 190
    with pytest.raises(ProfileError, match=r"HR_HIGH.limit: 70 is refused; it may be 80 to 300 bpm"):
        child.with_changes({"HR_HIGH": {"limit": 70}})
    assert child.table.rows["VTACH"] == CONDITIONS["VTACH"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", 'base: a profile is a variation of the adult one; write base = "adult"'),
        ("base = 3\n[[", "is no TOML"),
        ('base = "adult"\n[HR_HIHG]\non = false', "HR_HIHG: no such alarm; known are VFIB"),
        ('base = "adult"\n[VTACH]\nlatching = false', "VTACH: latching: cannot be varied by a profile"),
        ('base = "adult"\n[VTACH]\non = false', "VTACH: VTACH.enabled: false is refused, this alarm cannot be"),
        ('base = "adult"\n[VTACH]\npriority = "low"', "VTACH: VTACH.priority: 'low' is refused; it may be only high"),
        ('base = "adult"\n[PAUSE]\nlimits.tme_s = {}', "PAUSE: limits.tme_s: no such limit; known are time_s"),
        ('base = "adult"\n[PAUSE]\nlimits.time_s = { default = 9 }', "the default 9 is outside 1.5 to 5"),
        ('base = "adult"\n[PAUSE]\nlimits.time_s = { default = "x" }', "PAUSE: Expected `float`, got `str`"),
        ('base = "adult"\n[HR_LOW]\nlimits.limit = { default = 125, high = 130 }', "HR_LOW.limit: 125 is not below"),
    ],
)
def test_a_wrong_profile_is_refused_with_its_file_and_what_may_stand_there(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ProfileError) as refused:
        table(str(path))
    assert says in str(refused.value)


def test_a_profile_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ProfileError, match=r"nobody.toml: cannot be read; known profiles are adult"):
        table("nobody")
    assert {path.stem for path in FOLDER.glob("*.toml")} == {"adult"}
