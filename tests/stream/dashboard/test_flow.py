"""What the engineering page shows of the way of the data."""

from stream import wire
from stream.dashboard.flow import MOST_PER_S, Flow

MS = 1_000_000


def beat(received_ns: int, late_ms: int, batched_ns: int = 0) -> wire.BeatJudgement:
    stamps = wire.Stamps(received=received_ns, batched=batched_ns, judged=batched_ns and batched_ns + 3 * MS,
                         published=received_ns + late_ms * MS)  # fmt: skip
    return wire.BeatJudgement(bed="bed-1", epoch="e", at=wire.Moment(1, 250.0), label="N", confidence=0.9, rr_ms=800.0,
                              gates=(), quality=1.0, form=0, stamps=stamps)  # fmt: skip


def test_rates_batches_and_the_share_in_which_the_device_is_busy() -> None:
    now = 0.0
    flow = Flow(lambda: now)
    flow.figures(None)
    for batch in range(6):
        for _ in range(10):
            flow.take(beat(10**9, 50, batched_ns=10**9 + batch * 100 * MS))
    now = 1.0
    shown = flow.figures(None)
    assert shown["per_s"]["beats"] == 60.0
    assert shown["batch"] == {"mean": 10.0, "max": 10}
    assert shown["device_busy"] == round(5 * 0.003 / 5, 3), "five batches are whole, of the last five seconds"


def test_of_a_large_ward_the_durations_of_a_few_judgements_spread_over_the_second_are_kept() -> None:
    now = 0.0
    flow = Flow(lambda: now)
    n = 8 * MOST_PER_S
    for _ in range(5):  # each second the first half of the judgements is fast, the second slow
        for i in range(n):
            flow.take(beat(10**9, 50 if i < n // 2 else 250))
        now += 1.0
        shown = flow.figures(None)
    stages = dict(zip(shown["quantiles"], shown["stages"]["received>published"], strict=True))
    assert stages[10] == 50.0
    assert stages[90] == 250.0
    kept = flow._durations["received>published"]
    assert len(kept) <= n + 4 * MOST_PER_S, "all of the first second, a few of the others"
    assert 0.4 < sum(ms == 50.0 for ms in list(kept)[-2 * MOST_PER_S :]) / (2 * MOST_PER_S) < 0.6
