"""The account of a run, from published messages of known content."""

import io

from rich.console import Console

from stream.views.tally import Tally
from stream.wire import AlertEvent, AnyMessage, BeatJudgement, BedStatus, Moment, Stamps, WindowJudgement

AT = Moment(2500, 250.0)
MS = 1_000_000


def beat(label: str, bed: str = "bed1", latency_ms: int = 10) -> BeatJudgement:
    stamps = Stamps(received=MS, published=(1 + latency_ms) * MS)
    return BeatJudgement(bed=bed, epoch="e", at=AT, label=label, confidence=0.9, rr_ms=800, stamps=stamps)  # type: ignore[arg-type]


def alert(code: str, phase: str = "start", kind: str = "physiological", bed: str = "bed1") -> AlertEvent:
    return AlertEvent(
        alert_id=code, event_id=f"{code}.{phase}", seq=0, bed=bed, epoch="e", code=code, mdc="", text=code,
        phase=phase, state="active", inactivation=(), priority="high", kind=kind, latching=True,  # type: ignore[arg-type]
        onset=AT, stream_time=AT, emit_time="",
    )  # fmt: skip


def status(analysed: int, gap: int = 0, bed: str = "bed1", shard: str = "a", **more: int) -> BedStatus:
    counts = {"delivered": 15_000, "analysed": analysed, "gap": gap, **more}
    return BedStatus(
        shard=shard, bed=bed, epoch="e", at=AT, counts=counts, age_ms=0, clock_offset_ms=0, clock_drift_ppm=0
    )


def tally_of(*messages: AnyMessage) -> Tally:
    tally = Tally()
    for second, message in enumerate(messages):
        tally.take(message, float(second))
    return tally


def shown(tally: Tally) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(tally.summary())
    return captured.get()


def test_beats_alerts_and_samples_are_counted_by_bed() -> None:
    window = WindowJudgement(bed="bed2", epoch="e", at=AT, rhythm="N", confidence=1, rhythms={}, shockable=0, quality=1)
    tally = tally_of(beat("N"), beat("V"), beat("N", "bed2"), window, alert("VFIB"), status(15_000, 250))
    assert tally.beds["bed1"].beats == {"N": 1, "V": 1}
    assert (tally.beds["bed2"].beats.total(), tally.beds["bed2"].n_windows) == (1, 1)
    assert tally.samples() == {"bed1": (15_000, 250), "bed2": (0, 0)}
    (row,) = [line for line in shown(tally).splitlines() if "bed1" in line]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "bed1", "1:00.0", "250 samples", "2", "1", "0", "1", "0", "0", "VFIB",
    ]  # fmt: skip


def test_the_first_alert_of_a_patient_is_no_technical_one() -> None:
    tally = tally_of(alert("LEARNING", kind="technical"), alert("VFIB", "update"), alert("VFIB"), alert("VTACH"))
    assert tally.first_alert_s == 2.0
    assert tally.priorities == {"high": 3}
    assert tally.beds["bed1"].alerts == {"LEARNING": 1, "VFIB": 1, "VTACH": 1}


def test_progress_stands_still_when_no_bed_moves() -> None:
    tally = tally_of(beat("N"), status(100))
    before = tally.progress
    tally.take(status(100), 2.0)
    tally.take(status(0, bed="gateway", shard="gateway"), 3.0)
    assert tally.progress == before
    tally.take(status(101), 4.0)
    assert tally.progress == before + 1


def test_samples_that_were_taken_in_and_never_passed_the_model_are_not_judged() -> None:
    assert tally_of(status(14_000, 250)).samples() == {"bed1": (14_000, 250)}


def test_what_was_given_up_is_told_where_there_is_any() -> None:
    tally = tally_of(
        status(0), status(0, bed="bed2", unjudged=3, dropped_messages=1), status(0, bed="bed3", unjudged=0)
    )
    assert tally.lost() == {"bed2": {"unjudged": 3, "dropped_messages": 1}}


def test_the_gateways_own_account_is_no_bed() -> None:
    tally = tally_of(status(0, bed="gateway", shard="gateway", events_unrecorded=2))
    assert tally.beds == {}
    assert tally.unrecorded == 2


def test_latency_runs_from_receipt_to_publication() -> None:
    tally = tally_of(*(beat("N", latency_ms=latency) for latency in (10, 20, 30)))
    p50, p99 = tally.latencies()["beats"]
    assert p50 == 20.0
    assert 29.0 < p99 <= 30.0


def test_beds_stand_in_the_order_of_their_numbers() -> None:
    text = shown(tally_of(beat("N", "bed10"), beat("N", "bed9")))
    assert text.index("bed9") < text.index("bed10")


def test_what_shards_have_kept_of_an_earlier_run_is_none_of_this_one() -> None:
    tally = Tally(before=tally_of(status(15_000, 250), status(9000, bed="gone")).accounts())
    for message in (status(15_000, 250), status(9000, bed="gone")):
        tally.take(message, 0.0)
    assert tally.samples() == {}
    tally.take(status(15_500, 260), 1.0)
    tally.take(status(100, bed="new"), 1.0)
    assert tally.samples() == {"bed1": (500, 10), "new": (100, 0)}
