"""The micro-batcher: not too late, not too early, no class starved, nothing lost or mixed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.batcher import CALM_WAITS, URGENT_STREAK, Batch, Batcher
from stream.wire import BEAT, CALM, URGENT, Kind, Tensor, WireError, Work

MS = 1_000_000


def block(first_id: int, n: int, kind: Kind = "beat", urgency: int = BEAT) -> Work:
    values = np.arange(first_id, first_id + n, dtype=np.float32)[:, None]
    return Work(kind=kind, urgency=urgency, first_id=first_id, n=n, arrays={"wave": Tensor.of(values)})


def ids(batch: Batch) -> list[int]:
    return [i for part in batch.slices for i in range(part.first_id, part.first_id + part.n)]


def test_it_waits_no_longer_than_the_oldest_item_may() -> None:
    batcher = Batcher(max_batch=8, max_wait_s=0.020)
    batcher.add(b"a", block(0, 1), 0)
    batcher.add(b"a", block(1, 1), 19 * MS)
    assert batcher.next(20 * MS - 1, idle=False) is None
    batch = batcher.next(20 * MS, idle=False)
    assert batch is not None
    assert ids(batch) == [0, 1]
    assert batch.waited_ns == 20 * MS


def test_it_goes_at_once_when_full_and_when_nothing_more_is_coming() -> None:
    batcher = Batcher(max_batch=4, max_wait_s=1.0)
    batcher.add(b"a", block(0, 3), 0)
    assert batcher.next(0, idle=False) is None
    batcher.add(b"a", block(3, 1), 0)
    full = batcher.next(0, idle=False)
    assert full is not None
    assert full.n == 4
    batcher.add(b"a", block(4, 1), 0)
    assert batcher.next(0, idle=True) is not None
    assert batcher.next(10**12, idle=True) is None


def test_calm_windows_wait_longer_to_fill_and_hold_nothing_else_up() -> None:
    batcher = Batcher(max_batch=8, max_wait_s=0.020)
    batcher.add(b"a", block(0, 1, "window", CALM), 0)
    assert batcher.next(CALM_WAITS * 20 * MS - 1, idle=False) is None
    batcher.add(b"a", block(1, 1), 30 * MS)
    assert batcher.wait_s(35 * MS) == pytest.approx(0.005)
    first, second = batcher.next(40 * MS, idle=False), batcher.next(50 * MS, idle=False)
    assert first is not None
    assert second is not None
    assert (first.kind, second.kind) == ("window", "beat")  # each when it is due
    batcher.add(b"a", block(2, 1, "window", URGENT), 100 * MS)
    assert batcher.wait_s(100 * MS) == pytest.approx(0.020)


def test_urgent_windows_go_before_beats_and_beats_before_calm_windows() -> None:
    batcher = Batcher(max_batch=4)
    batcher.add(b"a", block(0, 1, "window", CALM), 0)
    batcher.add(b"a", block(1, 1, "beat", BEAT), 1)
    batcher.add(b"a", block(2, 1, "window", URGENT), 2)
    order = [ids(batch)[0] for _ in range(3) if (batch := batcher.next(3, idle=True))]
    assert order == [2, 1, 0]


def test_a_calm_window_that_has_waited_goes_before_newer_beats() -> None:
    batcher = Batcher(max_batch=1, ageing_s=0.25)
    batcher.add(b"a", block(0, 1, "window", CALM), 0)
    for i in range(1, 4):
        batcher.add(b"a", block(i, 1), 200 * MS)
    first, second = batcher.next(201 * MS, idle=True), batcher.next(260 * MS, idle=True)
    assert first is not None
    assert second is not None
    assert (first.kind, second.kind) == ("beat", "window")


def test_a_stream_of_urgent_windows_lets_others_through() -> None:
    batcher = Batcher(max_batch=1)
    batcher.add(b"a", block(0, 1, "beat", BEAT), 0)
    batcher.add(b"a", block(100, 50, "window", URGENT), 0)
    kinds = [batch.kind for i in range(URGENT_STREAK + 2) if (batch := batcher.next(i, idle=True))]
    assert kinds.index("beat") == URGENT_STREAK


def test_a_shard_that_is_gone_is_forgotten_and_its_items_counted() -> None:
    batcher = Batcher(max_batch=8)
    batcher.add(b"a", block(0, 3), 0)
    batcher.add(b"b", block(50, 2), 0)
    assert batcher.forget(b"a") == 3
    batch = batcher.next(1, idle=True)
    assert batch is not None
    assert ids(batch) == [50, 51]
    assert len(batcher) == 0


def test_an_array_without_a_row_for_each_item_is_refused() -> None:
    work = Work(kind="beat", urgency=BEAT, first_id=0, n=3, arrays={"wave": Tensor.of(np.zeros((2, 4), np.float32))})
    with pytest.raises(WireError, match=r"arrays\.wave.*3 items"):
        Batcher().add(b"a", work, 0)


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_batch: 0"):
        Batcher(max_batch=0)


@given(
    st.lists(st.tuples(st.integers(1, 20), st.sampled_from([URGENT, BEAT, CALM]), st.sampled_from("ab")), max_size=30)
)
def test_every_item_comes_out_once_with_its_own_row_and_each_shards_in_order(
    blocks: list[tuple[int, int, str]],
) -> None:
    batcher = Batcher(max_batch=7)
    sent: dict[tuple[str, int], list[int]] = {}
    next_id = 0
    for now, (n, urgency, shard) in enumerate(blocks):
        kind: Kind = "beat" if urgency == BEAT else "window"
        batcher.add(shard.encode(), block(next_id, n, kind, urgency), now)
        sent.setdefault((shard, urgency), []).extend(range(next_id, next_id + n))
        next_id += n
    came: list[int] = []
    while batch := batcher.next(len(blocks), idle=True):
        assert 1 <= batch.n <= 7
        assert batch.arrays["wave"][:, 0].tolist() == ids(batch)
        came += ids(batch)
    assert sorted(came) == list(range(next_id))
    for items in sent.values():
        assert [i for i in came if i in set(items)] == items


def test_a_full_queue_gives_up_calm_windows_then_beats_the_newest_first_and_nothing_urgent() -> None:
    batcher = Batcher(max_queued=10)
    assert batcher.add(b"a", block(0, 4, "window", CALM), 0) == []
    assert batcher.add(b"a", block(10, 4, "hop", CALM), 1) == []
    assert batcher.add(b"b", block(20, 4, "beat", BEAT), 2) == [(b"a", 10, 4)]
    assert batcher.add(b"b", block(30, 4, "beat", BEAT), 3) == [(b"a", 0, 4)]
    assert batcher.add(b"b", block(40, 6, "window", URGENT), 4) == [(b"b", 30, 4)]
    assert batcher.add(b"b", block(50, 20, "window", URGENT), 5) == [(b"b", 20, 4)]
    assert len(batcher) == 26
    assert batcher.add(b"b", block(70, 1, "window", CALM), 6) == [(b"b", 70, 1)]


def test_of_a_block_that_is_given_up_what_was_judged_is_not() -> None:
    batcher = Batcher(max_batch=3, max_queued=5)
    batcher.add(b"a", block(0, 5), 0)
    assert batcher.next(0, idle=True) is not None
    assert batcher.add(b"a", block(9, 4, "window", URGENT), 1) == [(b"a", 3, 2)]


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from([URGENT, BEAT, CALM])), max_size=40))
def test_what_waits_is_bounded_whatever_comes_but_for_what_is_urgent(blocks: list[tuple[int, int]]) -> None:
    batcher = Batcher(max_queued=20)
    n_urgent = next_id = 0
    gone: set[int] = set()
    for n, urgency in blocks:
        n_urgent += n if urgency == URGENT else 0
        for _, first_id, n_given in batcher.add(b"a", block(next_id, n, "window", urgency), next_id):
            gone |= set(range(first_id, first_id + n_given))
        next_id += n
        assert len(batcher) <= max(20, n_urgent)
    came = {i for batch in iter(lambda: batcher.next(next_id, idle=True), None) for i in ids(batch)}
    assert came | gone == set(range(next_id))
    assert not came & gone


def test_small_batches_when_idle_and_full_ones_under_load() -> None:
    """The device takes 10 ms for a batch of any size: what comes meanwhile is the next batch."""
    sizes = {}
    for every_ms in (20, 1):
        batcher, free_ms, batches = Batcher(max_batch=8), 0, []
        for now_ms in range(400):
            if now_ms % every_ms == 0:
                batcher.add(b"a", block(now_ms, 1), now_ms * MS)
            if now_ms >= free_ms and (batch := batcher.next(now_ms * MS, idle=True)):
                batches.append(batch.n)
                free_ms = now_ms + 10
        sizes[every_ms] = batches[5:]
    assert set(sizes[20]) == {1}
    assert set(sizes[1]) == {8}


def test_it_says_how_long_it_may_be_left_alone() -> None:
    batcher = Batcher(max_batch=4, max_wait_s=0.020)
    assert batcher.wait_s(0) == 0
    batcher.add(b"a", block(0, 1), 5 * MS)
    assert batcher.wait_s(10 * MS) == 0.015
    assert batcher.wait_s(25 * MS) == 0
    batcher.add(b"a", block(1, 3), 6 * MS)
    assert batcher.wait_s(10 * MS) == 0
