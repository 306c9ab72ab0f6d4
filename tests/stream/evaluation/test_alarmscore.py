"""Alarms against reference episodes, at 100 Hz: what meets, how late, and which reds are false."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.evaluation.alarmscore import Alert, AlertLogError, delay_figures, read_alerts, score_alarms, verdict

FS, N = 100.0, 60_000


def alert(code: str, onset: int, decided: int, ended: int | None = None, **changes: Any) -> Alert:
    fields: dict[str, Any] = {"announced": decided, "priority": "high", "kind": "physiological", **changes}
    return Alert(f"{code}-{onset}", code, onset=onset, decided=decided, ended=ended, **fields)


def spans(*pairs: tuple[int, int]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def event(name: str, seq: int, sample: int, state: str = "active", fs: float = 250.0, **changes: Any) -> dict[str, Any]:
    return {
        "alert_id": name,
        "seq": seq,
        "code": "VTACH",
        "priority": "high",
        "kind": "physiological",
        "state": state,
        "onset": {"sample": 500, "fs": fs},
        "stream_time": {"sample": sample, "fs": fs},
        "suppressed_by": None,
        "model_version": "v1",
        **changes,
    }


def log(folder: Path, *events: dict[str, Any]) -> Path:
    path = folder / "r.alerts.jsonl"
    path.write_text("".join(json.dumps(e) + "\n" for e in events))
    return path


def test_the_transitions_of_an_alert_become_one_span_in_samples_of_the_record(tmp_path: Path) -> None:
    path = log(
        tmp_path,
        event("b", 0, 3000, suppressed_by="a"),
        event("a", 0, 1000),
        event("a", 1, 2000, "latched"),
        event("a", 2, 4000, "inactive"),
        event("b", 1, 3500),
    )
    first, second = read_alerts(path, FS)
    assert (first.id, first.onset, first.decided, first.announced, first.ended) == ("a", 200, 400, 400, 800)
    assert (second.id, second.decided, second.announced, second.ended) == ("b", 1200, 1400, None)
    assert second.model_version == "v1"
    assert (first.kept_back_by, second.kept_back_by) == (None, "a")


def test_an_alert_that_was_only_ever_suppressed_was_never_announced(tmp_path: Path) -> None:
    path = log(tmp_path, event("a", 0, 1000, suppressed_by="b"), event("a", 1, 1500, "inactive"))
    assert read_alerts(path, FS)[0].announced is None


def test_a_line_that_is_no_event_is_named(tmp_path: Path) -> None:
    path = log(tmp_path, event("a", 0, 1000))
    path.write_text(path.read_text() + "{]\n")
    with pytest.raises(AlertLogError, match="line 2"):
        read_alerts(path, FS)
    with pytest.raises(AlertLogError, match="lacks 'state'"):
        read_alerts(log(tmp_path, {"alert_id": "a"}), FS)


def test_the_delay_runs_from_the_reference_to_the_announcement_and_to_the_decision() -> None:
    silent = alert("VTACH", 1000, 1300, 2000, announced=1700)
    found = score_alarms([silent], {"VTACH": spans((1000, 2000))}, FS, N).found[0]
    assert (found.delay_s, found.detected_s, found.any_red) == (7.0, 3.0, True)


def test_what_was_kept_silent_is_detected_and_not_announced() -> None:
    silent = alert("VTACH", 1000, 1300, 2000, announced=None)
    score = score_alarms([silent], {"VTACH": spans((1000, 2000))}, FS, N)
    assert (score.found[0].delay_s, score.found[0].detected_s, score.found[0].any_red) == (None, 3.0, False)
    assert score.reds == ()
    assert score.counts == {"high": (1, 0)}


def test_what_a_red_keeps_back_is_told_by_it_from_when_that_was_announced() -> None:
    vt = {"VTACH": spans((1000, 3000))}
    for vfib_announced, told_s in ((1200, 3.0), (1400, None), (None, None)):
        vfib = alert("VFIB", 900, 1100, 3000, announced=vfib_announced)
        kept = alert("VTACH", 1000, 1300, 2000, announced=None, kept_back_by=vfib.id)
        found = score_alarms([vfib, kept], vt, FS, N).found[0]
        assert (found.delay_s, found.told_s) == (None, told_s), vfib_announced
    apart = alert("VTACH", 1000, 1500, 2000)
    assert score_alarms([apart], vt, FS, N).found[0].told_s == 5.0
    yellow = alert("SVT", 900, 1100, 3000, priority="medium")
    kept = alert("VTACH", 1000, 1300, 2000, announced=None, kept_back_by=yellow.id)
    assert score_alarms([yellow, kept], vt, FS, N).found[0].told_s is None


def test_an_alert_that_is_up_already_counts_as_no_delay() -> None:
    up = alert("AFIB", 100, 6100, None, priority="medium")
    assert score_alarms([up], {"AFIB": spans((8000, 9000))}, FS, N).found[0].delay_s == 0.0


@pytest.mark.parametrize(
    ("onset", "ended", "meets"),
    [(2000, 2100, True), (1200, 1800, True), (1200, 1799, False), (4000, 4100, True), (4001, 4100, False)],
)
def test_an_alert_meets_an_episode_up_to_2_s_before_and_10_s_after_it(onset: int, ended: int, meets: bool) -> None:
    truths = {"VTACH": spans((2000, 3000))}
    assert verdict(alert("VTACH", onset, onset + 10, ended), truths, FS, N) == ("true" if meets else "false")


def test_a_red_that_another_kind_explains_is_related_and_one_the_reference_cannot_judge_is_unknown() -> None:
    truths = {"VTACH": spans((2000, 3000)), "VFIB": spans()}
    assert verdict(alert("VFIB", 2000, 2400), truths, FS, N) == "related"
    assert verdict(alert("X_TACHY", 2000, 2400), truths, FS, N) == "related"
    assert verdict(alert("X_TACHY", 5000, 5400, 5500), truths, FS, N) == "unknown"
    assert verdict(alert("VFIB", 5000, 5400, 5500), truths, FS, N) == "false"


def test_what_is_over_before_the_labels_begin_is_not_judged() -> None:
    alerts = [alert("VTACH", 100, 200, 300), alert("VTACH", 5000, 5100, 5200)]
    score = score_alarms(alerts, {"VTACH": spans((100, 300))}, FS, N, from_sample=1000)
    assert score.found == ()
    assert [(a.onset, v) for a, v in score.reds] == [(5000, "false")]
    assert score.counts == {"high": (2, 2)}
    assert score_alarms(alerts, {"VTACH": spans((100, 300))}, FS, N, from_sample=300).found == ()
    assert len(score_alarms(alerts, {"VTACH": spans((100, 300))}, FS, N, from_sample=299).found) == 1


def test_alarms_are_counted_by_priority_with_technical_ones_apart() -> None:
    alerts = [
        alert("VTACH", 1, 2),
        alert("PAIR_PVC", 1, 2, priority="medium", announced=None),
        alert("PAIR_PVC", 3, 4, priority="medium"),
        alert("LEADS_OFF", 1, 2, priority="low", kind="technical"),
    ]
    assert score_alarms(alerts, {}, FS, N).counts == {"high": (1, 1), "medium": (2, 1), "technical": (1, 1)}


def test_delay_figures_tell_quantiles_and_the_share_within_10_s() -> None:
    found = delay_figures([1.0, 2.0, 3.0, 10.0, 14.0], n_asked=7)
    assert (found["n"], found["asked"], found["p50"], found["max"], found["within_10_s"]) == (5, 7, 3.0, 14.0, 4)
    assert found["p95"] == pytest.approx(13.2)
    assert delay_figures([])["p50"] is None


def test_an_extreme_rate_within_10_percent_of_the_limit_is_related_and_asks_for_no_alarm() -> None:
    truths = {"X_TACHY": spans(), "near X_TACHY": spans((2000, 3000))}
    raised = alert("X_TACHY", 2000, 2100, 3000)
    assert verdict(raised, truths, FS, N) == "related"
    assert score_alarms([raised], truths, FS, N).found == ()
