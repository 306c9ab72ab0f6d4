"""The account of a soak: a sample is analysed, missing by a told cause, dead with its producer, or unaccounted."""

from dataclasses import dataclass
from pathlib import Path

from simulators.ledger import Read, Sent
from simulators.soak.account import Missing, account, logged_gaps, settled


@dataclass
class Told:
    """The newest account of a bed."""

    counts: dict[str, int]


def ledger(epoch: str, n: int) -> Read:
    return Read(epoch, 0, {"bed1": 0.0}, {"bed1": Sent(1, n, n)})


def told(delivered: int, gap: int = 0, closed: int = 0, **more: int) -> dict[str, Told]:
    causes = {"gap.timeout": gap} if gap else {}
    return {
        "bed1": Told({"delivered": delivered, "analysed": delivered, "gap": gap, "closed": closed, **causes, **more})
    }


def test_what_is_analysed_or_missing_by_a_told_cause_is_accounted_for() -> None:
    gap = Missing("bed1", "a.0", 500, 25, "timeout")
    done = account([(ledger("a", 1000), False)], told(975, gap=25), {("bed1", "a.0"): 0}, [gap])
    assert (done.sent, done.analysed, done.unaccounted) == (1000, 975, 0)
    assert done.missing == {"timeout": 25}


def test_a_sample_that_nobody_told_of_is_unaccounted_for_and_so_is_a_gap_without_its_cause() -> None:
    assert account([(ledger("a", 1000), False)], told(999), {("bed1", "a.0"): 0}, []).unaccounted == 1
    assert account([(ledger("a", 1000), False)], told(975, gap=25), {("bed1", "a.0"): 0}, []).unaccounted_by_bed == {
        "bed1": 25
    }


def test_a_sample_that_came_twice_is_unaccounted_for() -> None:
    assert account([(ledger("a", 1000), False)], told(1001), {("bed1", "a.0"): 0}, []).unaccounted == 1


def test_what_never_left_a_killed_producer_is_named_by_its_samples() -> None:
    ledgers = [(ledger("a", 1000), True), (ledger("b", 400), False)]
    closed = {("bed1", "a.0"): 0, ("bed1", "b.0"): 950}
    done = account(ledgers, told(1350, closed=950), closed, [])
    assert (done.sent, done.unaccounted) == (1400, 0)
    assert done.named == [Missing("bed1", "a.0", 950, 50, "died with its producer")]


def test_the_same_loss_without_a_kill_is_unaccounted_for() -> None:
    ledgers = [(ledger("a", 1000), False), (ledger("b", 400), False)]
    closed = {("bed1", "a.0"): 0, ("bed1", "b.0"): 950}
    assert account(ledgers, told(1350, closed=950), closed, []).unaccounted == 50


def test_a_counter_that_disagrees_or_did_not_see_all_is_told() -> None:
    done = account([(ledger("a", 1000), False)], told(1000, proved=900, misplaced=25), {("bed1", "a.0"): 0}, [])
    assert (done.proved, done.misplaced, done.unproved) == (900, 25, 75)


def test_a_soak_waits_for_the_newest_producer_alone() -> None:
    closed = {("bed1", "b.0"): 950}
    assert not settled(ledger("b", 400), told(1300, closed=950), closed)
    assert settled(ledger("b", 400), told(1350, closed=950), closed)
    assert not settled(ledger("b", 400), {}, closed)


def test_gaps_are_read_from_the_logs_of_the_shards_each_once(tmp_path: Path) -> None:
    line = '{"bed": "b", "epoch": "e", "first": 5, "n_samples": 25, "cause": "timeout", "event": "gap"}\n'
    (tmp_path / "shard.a.log").write_text(line + 'not JSON with a "gap"\n' + line)
    assert logged_gaps(tmp_path) == [Missing("b", "e", 5, 25, "timeout")]
