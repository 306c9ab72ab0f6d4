"""The deadline micro-batcher: what the model judges next, and when it starts.

Items come in blocks, of one kind (a batch is one call of the model) and one class: urgent windows,
then beats, then calm windows (design rule 5). The waiting time is counted from the oldest item. A
batch starts when it is full, when its oldest item has waited `max_wait_s` (calm windows twice that:
they have the time, and a call of few costs nearly what one of many does), or at once when nothing more is
on its way (the device would idle). Calm windows move up among the beats when they have waited
`ageing_s`, and urgent ones let one other batch through now and then, so that no class starves; within
a class it is first come, first served.

No more than `max_queued` items wait. Where there are more, calm windows are given up, the newest first, and then
beats; what is urgent never is, and there is little of it (a shard waits for 30 s of a bed at most).

After Triton's dynamic batcher and mosec's `get_batch`; the classes with ageing are ours.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream.wire import BEAT, CALM, URGENT, Kind, WireError, Work

URGENT_STREAK = 8
CALM_WAITS = 2  # times `max_wait_s`

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(slots=True)
class Block:
    """Rows `taken`.. of a `Work` of shard `shard` that are still to be judged."""

    shard: bytes
    kind: Kind
    urgency: int
    first_id: int
    n: int
    arrays: Arrays
    arrived_ns: int
    taken: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """Part of a batch: `n` items of one shard with consecutive ids, from row `first_row` on."""

    shard: bytes
    first_id: int
    first_row: int
    n: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows for one call of the model, and whom each row belongs to."""

    kind: Kind
    n: int
    arrays: Arrays
    slices: tuple[Slice, ...]
    waited_ns: int


class Given(NamedTuple):
    """Items `first_id` and on of a shard that are given up."""

    shard: bytes
    first_id: int
    n: int


class _Key(NamedTuple):
    """What shares a batch: one class, one kind, arrays of the same names and shapes (shards may differ in version)."""

    urgency: int
    kind: Kind
    form: tuple[Any, ...]


class Batcher:
    """Blocks in, batches out; the monotonic time (ns) is passed in."""

    def __init__(
        self, max_batch: int = 256, max_wait_s: float = 0.02, ageing_s: float = 0.25, max_queued: int = 16_384
    ) -> None:
        if max_batch < 1:
            raise ValueError(f"max_batch: {max_batch} is below 1; set it to 1 or more")
        self.max_batch = max_batch
        self.max_queued = max_queued
        self._max_wait_ns = round(max_wait_s * 1e9)
        self._ageing_ns = max(1, round(ageing_s * 1e9))
        self._queues: dict[_Key, deque[Block]] = {}
        self._n: dict[_Key, int] = {}
        self._urgent_streak = 0

    def __len__(self) -> int:
        return sum(self._n.values())

    def add(self, shard: bytes, work: Work, now_ns: int) -> list[Given]:
        """Queue a block; what is given up for want of room, of this block or of others. Raises WireError where an array
        does not have one row for each item."""
        arrays = {name: tensor.array() for name, tensor in work.arrays.items()}
        for name, array in arrays.items():
            if array.ndim == 0 or array.shape[0] != work.n:
                raise WireError("field", f"arrays.{name}: shape {array.shape} for {work.n} items; send a row for each")
        form = tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in arrays.items()))
        key = _Key(work.urgency, work.kind, form)
        self._queues.setdefault(key, deque()).append(
            Block(shard, work.kind, work.urgency, work.first_id, work.n, arrays, now_ns)
        )
        self._n[key] = self._n.get(key, 0) + work.n
        return self._give_up()

    def _give_up(self) -> list[Given]:
        """Make room: the newest blocks of the class that may wait longest, none of the urgent."""
        given: list[Given] = []
        while len(self) > self.max_queued:
            waiting = [key for key, queue in self._queues.items() if queue and key.urgency != URGENT]
            if not waiting:
                break
            key = max(waiting, key=lambda key: (key.urgency, self._queues[key][-1].arrived_ns))
            block = self._queues[key].pop()
            n = block.n - block.taken
            self._n[key] -= n
            if not self._queues[key]:
                del self._queues[key], self._n[key]
            given.append(Given(block.shard, block.first_id + block.taken, n))
        return given

    def next(self, now_ns: int, idle: bool) -> Batch | None:
        """The batch to judge now, or None: wait. `idle`: nothing more is on its way."""
        due = [key for key, queue in self._queues.items() if queue and (idle or self._left_ns(key, now_ns) <= 0)]
        key = self._first(due, now_ns)
        return None if key is None else self._form(key, now_ns - self._queues[key][0].arrived_ns)

    def wait_s(self, now_ns: int) -> float:
        """How long `next` has nothing to give yet to one that is not idle, if nothing comes; 0 where it has."""
        left_ns = min((self._left_ns(key, now_ns) for key, queue in self._queues.items() if queue), default=0)
        return max(0.0, left_ns / 1e9)

    def _left_ns(self, key: _Key, now_ns: int) -> int:
        """How long the batch of a queue may still wait to fill."""
        if self._n[key] >= self.max_batch:
            return 0
        waits_ns = self._max_wait_ns * (CALM_WAITS if key.urgency == CALM else 1)
        return self._queues[key][0].arrived_ns + waits_ns - now_ns

    def forget(self, shard: bytes) -> int:
        """Drop the blocks of a shard that is gone; the number of items dropped."""
        dropped = 0
        for key, queue in self._queues.items():
            kept = deque(block for block in queue if block.shard != shard)
            gone = sum(block.n - block.taken for block in queue if block.shard == shard)
            self._queues[key] = kept
            self._n[key] -= gone
            dropped += gone
        return dropped

    def _first(self, waiting: list[_Key], now_ns: int) -> _Key | None:
        """Of the queues that are `waiting`, the one to serve: by class, then by age of its head.

        A calm block rises among the beats as it ages, never among the urgent; and after
        `URGENT_STREAK` urgent batches in a row one other is served, so that none starves.
        """
        others = [key for key in waiting if key.urgency != URGENT]
        if others and self._urgent_streak >= URGENT_STREAK:
            waiting = others

        def rank(key: _Key) -> tuple[int, int]:
            arrived_ns = self._queues[key][0].arrived_ns
            risen = (now_ns - arrived_ns) // self._ageing_ns
            return (key.urgency if key.urgency <= BEAT else max(BEAT, key.urgency - risen)), arrived_ns

        return min(waiting, key=rank, default=None)

    def _form(self, key: _Key, waited_ns: int) -> Batch:
        queue = self._queues[key]
        slices: list[Slice] = []
        parts: list[Arrays] = []
        n = 0
        while queue and n < self.max_batch:
            block = queue[0]
            take = min(block.n - block.taken, self.max_batch - n)
            rows = slice(block.taken, block.taken + take)
            parts.append({name: array[rows] for name, array in block.arrays.items()})
            slices.append(Slice(block.shard, block.first_id + block.taken, n, take))
            block.taken += take
            n += take
            if block.taken == block.n:
                queue.popleft()
        self._n[key] -= n
        if not queue:  # a form that comes no more leaves nothing behind
            del self._queues[key], self._n[key]
        self._urgent_streak = self._urgent_streak + 1 if key.urgency == URGENT else 0
        arrays = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        return Batch(key.kind, n, arrays, tuple(slices), waited_ns)
