"""What waits for the model: items sent to the worker, their answers, and the tokens that windows attend to.

Per bed, items stand in the order of `ready`, the tick that their last sample needed. A beat or a hop
that is answered gives its token to the bed's cache; when a hop's turn comes, every beat and hop before
it is in the cache, and the window that ends with it is sent with that cache. Answers are handed on in
the same order, so alarms see the same sequence whatever the batches were. That a beat is judged is told
before that, in the order of beats: for this it waits for no hop and no window. What has not been answered
is kept as it was sent: a fresh worker gets it again, and a checkpoint holds it.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from model.form_votes import FormVotes
from model.labels import BEATS
from model.rows import ALL, Rows
from model.segments import HOP_TICKS, N_WINDOW_FEATURES, TICK_HZ, TOKEN_BEATS, TOKEN_HOPS
from stream.wire import BEAT, CALM, URGENT, Judged, Kind, Stamps, Tensor, WireError, Work, decode, encode

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


MAX_BLOCK = 128  # items in one message: windows, the largest, stay well below the wire's limit
ANSWER = {
    "beat": {"probs", "token", "gates"},
    "hop": {"token"},
    "window": {
        "rhythm", "shockable", "quality", "rr_ms", "age", "male", "potassium", "arrhythmia", "gates",
    },
}  # fmt: skip


@dataclass(slots=True)
class Item:
    """A beat, hop or window of a row. `at`: tick of its R peak or its end; `ready`: of the last sample needed."""

    kind: Kind
    row: int
    at: int
    ready: int
    urgent: bool
    stamps: Stamps
    features: Array | None = None
    form: int = 0  # of a beat, as `model.segments.CutBeats` has it
    vf_index: float = math.nan  # of a hop or window, at its end; NaN: not known
    leads_on: bool = True  # of a hop or window: whether any lead was there in its last 4 s
    answer: Arrays | None = None
    batched_ns: int = 0
    judged_ns: int = 0


@dataclass(slots=True)
class _Queue:
    staging: deque[tuple[int, Item]] = field(default_factory=deque)  # tokens not yet in the cache
    applying: deque[tuple[int, Item]] = field(default_factory=deque)  # answers not yet handed on
    telling: deque[tuple[int, Item]] = field(default_factory=deque)  # of all these, beats not yet told


def _turn(entry: tuple[int, Item]) -> tuple[int, bool, int]:
    """Beats and hops of a bed in the order of their turn: a beat that is ready with a hop comes first."""
    item_id, item = entry
    return item.ready, item.kind == "hop", item_id


class Judging(Rows):
    """The items of all rows that are with the worker.

    `first_id`: greater than any id that a session before may have given: the worker knows a shard again after a
    restart, and what it still answers to the old session must not be taken for the answer to a new item."""

    STATE = ("_hop_numbers", "_beat_features", "_beat_ticks", "_n_beats")

    def __init__(self, n_rows: int, first_id: int) -> None:
        self._queues = [_Queue() for _ in range(n_rows)]
        self._items: dict[int, Item] = {}
        self._next_id = first_id
        self._unsent: dict[int, Work] = {}
        self._unanswered: dict[int, tuple[Work, set[int]]] = {}
        self._work_of: dict[int, int] = {}
        self._n_rows = n_rows
        self._hop_tokens: Array | None = None
        self._hop_numbers = np.full((n_rows, TOKEN_HOPS), -1, np.int64)
        self._beat_tokens: Array | None = None
        self._beat_features = np.zeros((n_rows, TOKEN_BEATS, N_WINDOW_FEATURES), np.float32)
        self._beat_ticks = np.full((n_rows, TOKEN_BEATS), -(2**62), np.int64)
        self._n_beats = np.zeros(n_rows, np.int64)
        self._votes = FormVotes(n_rows)
        self._touched: set[int] = set()  # rows in which something may have come to its turn

    def __len__(self) -> int:
        """Items that the worker has not answered."""
        return len(self._work_of)

    def add(
        self,
        beats: Sequence[Item],
        hops: Sequence[Item],
        beat_arrays: Arrays,
        hop_arrays: Arrays,
        passed: Iterable[Item] = (),
    ) -> None:
        """Send beats and hops; row i of each array belongs to item i. What is added later is ready later.
        `passed`: beats that are handed on in their turn without the model's answer, for want of time."""
        new = [*self._send("beat", beats, beat_arrays), *self._send("hop", hops, hop_arrays)]
        for item in passed:
            new.append((self._next_id, item))
            self._items[self._next_id] = item
            self._next_id += 1
            self._touched.add(item.row)
        for item_id, item in sorted(new, key=_turn):
            self._queues[item.row].staging.append((item_id, item))
            if item.kind == "beat":
                self._queues[item.row].telling.append((item_id, item))

    def work(self) -> list[Work]:
        """Blocks that have not been sent yet."""
        unsent, self._unsent = self._unsent, {}
        return list(unsent.values())

    def oldest_ns(self) -> int | None:
        """When the oldest block not fully answered was queued (UTC, ns); None where all are answered."""
        return min((work.queued_ns for work, _ in self._unanswered.values()), default=None)

    def send_again(self) -> list[Work]:
        """Every block not fully answered: for a worker that is new, or that has lost them."""
        self._unsent = {}
        return [work for work, _ in self._unanswered.values()]

    def accept(self, judged: Judged) -> None:
        """Take in answers, to be followed by `stage`; those that nobody waits for any more are passed over.

        Raises WireError for answers without the arrays that their kind has, or without a row for each item."""
        ids = judged.ids.array()
        arrays = {name: tensor.array() for name, tensor in judged.arrays.items()}
        _check(judged.kind, ids, arrays)
        for i, item_id in enumerate(ids.tolist()):
            item = self._items.get(item_id)
            if item is None or item_id not in self._work_of:
                continue
            item.answer = {name: array[i] for name, array in arrays.items()}
            item.batched_ns, item.judged_ns = judged.batched_ns, judged.judged_ns
            self._answered(item_id)
            self._touched.add(item.row)

    def shed(self, ids: Iterable[int]) -> list[Item]:
        """The worker had no room for these: they are waited for no more, and `stage` is to follow. Those that were."""
        items = [self._items[item_id] for item_id in ids if item_id in self._work_of]
        for item_id in ids:
            if item_id in self._work_of:
                self._answered(item_id)
        self._touched.update(item.row for item in items)
        return items

    def told(self) -> Iterator[Item]:
        """Beats that are known to be judged, or not to be, each bed's in order; they come again when `applied`, which
        is to be asked after this. What beats of a form are likely to be is weighed here, into their `probs`."""
        for row in sorted(self._touched):
            telling = self._queues[row].telling
            while telling and self._settled(*telling[0]):
                _, item = telling.popleft()
                if item.answer is not None:
                    item.answer["probs"] = self._votes.vote(item.row, item.form, item.answer["probs"])
                yield item

    def applied(self) -> Iterator[Item]:
        """Items whose turn has come, each bed's in order; an item without an answer was forgone."""
        touched, self._touched = sorted(self._touched), set()
        for row in touched:
            applying = self._queues[row].applying
            while applying and self._settled(*applying[0]):
                item_id, item = applying.popleft()
                self._items.pop(item_id, None)
                yield item

    def _settled(self, item_id: int, item: Item) -> bool:
        """Whether an item is answered, or waits for no answer."""
        return item.answer is not None or item_id not in self._work_of

    def first_ready(self, row: int) -> int | None:
        """Tick of the oldest item of a row that still waits; None where none does."""
        queue = self._queues[row]
        heads = [part[0][1].ready for part in (queue.applying, queue.staging) if part]
        return min(heads, default=None)

    def forgo(self, row: int, before: int) -> int:
        """Wait no more for a row's items that were ready before tick `before`; `stage` is to follow. The number of
        items."""
        queue = self._queues[row]
        n = 0
        for part in (queue.staging, queue.applying):
            for item_id, item in part:
                if item.ready < before and item.answer is None and item_id in self._work_of:
                    self._answered(item_id)
                    n += 1
        if n:
            self._touched.add(row)
        return n

    def reset(self, rows: npt.NDArray[np.int64]) -> None:
        """A new epoch: forget the tokens of the rows. Items on their way are still handed on."""
        self._hop_numbers[rows] = -1
        self._beat_ticks[rows] = -(2**62)
        self._n_beats[rows] = 0
        self._votes.reset(rows)

    def forget(self, row: int) -> None:
        """Let go of the items of a row in which there is nobody any more."""
        queue, self._queues[row] = self._queues[row], _Queue()
        for item_id, _ in (*queue.staging, *queue.applying):
            if item_id in self._work_of:
                self._answered(item_id)
            self._items.pop(item_id, None)

    def state_dict(self, rows: slice = ALL) -> dict[str, Any]:
        """For the checkpoint: tokens of these rows, and every item of them that waits, with the blocks it is in."""
        queues = self._queues[rows]
        queued = {
            item_id: [
                where, msgspec.structs.asdict(item.stamps), item.kind, item.row, item.at, item.ready, item.urgent,
                item.features, item.form, item.vf_index, item.leads_on, item.answer, item.batched_ns, item.judged_ns,
            ]
            for row in queues
            for where, part in enumerate((row.staging, row.applying))
            for item_id, item in part
        }  # fmt: skip
        waiting = [item_id for item_id in queued if item_id in self._work_of]
        return {
            "next_id": self._next_id,
            "items": queued,
            "untold": [item_id for row in queues for item_id, _ in row.telling],
            "blocks": [encode(self._unanswered[first][0]) for first in sorted({self._work_of[i] for i in waiting})],
            "waiting": waiting,
            "hop_tokens": None if self._hop_tokens is None else self._hop_tokens[rows].copy(),
            "beat_tokens": None if self._beat_tokens is None else self._beat_tokens[rows].copy(),
            **super().state_dict(rows),
            "votes": self._votes.state_dict(rows),
        }

    def load_state_dict(self, state: dict[str, Any], rows: slice = ALL) -> None:
        """Go on from a `state_dict` of these rows; what waited is to be sent again."""
        self._next_id = max(self._next_id, state["next_id"])
        for item_id, (where, stamps, kind, row, at, ready, urgent, *rest) in state["items"].items():
            item = Item(kind, row, at, ready, urgent, Stamps(**stamps), *rest)
            self._items[item_id] = item
            queue = self._queues[row]
            (queue.staging, queue.applying)[where].append((item_id, item))
        for item_id in state["untold"]:
            item = self._items[item_id]
            self._queues[item.row].telling.append((item_id, item))
        waiting = set(state["waiting"])
        for frame in state["blocks"]:
            work = decode(frame)
            assert isinstance(work, Work)
            ids = set(range(work.first_id, work.first_id + work.n)) & waiting
            self._unanswered.setdefault(work.first_id, (work, set()))[1].update(ids)
            self._work_of.update(dict.fromkeys(ids, work.first_id))
            self._unsent[work.first_id] = work
        self._touched = set(range(self._n_rows))
        if (hops := state["hop_tokens"]) is not None:
            self._hop_tokens = self._fitting(self._hop_tokens, TOKEN_HOPS, hops.shape[2])
            self._hop_tokens[rows] = hops
        if (beats := state["beat_tokens"]) is not None:
            self._beat_tokens = self._fitting(self._beat_tokens, TOKEN_BEATS, beats.shape[2])
            self._beat_tokens[rows] = beats
        super().load_state_dict(state, rows)
        self._votes.load_state_dict(state["votes"], rows)

    def _send(self, kind: Kind, items: Sequence[Item], arrays: Arrays) -> list[tuple[int, Item]]:
        """Blocks of the urgent items and of the others; the items with their ids."""
        new: list[tuple[int, Item]] = []
        for urgent in (True, False):
            chosen = [i for i, item in enumerate(items) if item.urgent == urgent]
            for at in range(0, len(chosen), MAX_BLOCK):
                block = chosen[at : at + MAX_BLOCK]
                part = arrays if len(block) == len(items) else {name: a[block] for name, a in arrays.items()}
                new += self._send_block(kind, urgent, [items[i] for i in block], part)
        return new

    def _send_block(self, kind: Kind, urgent: bool, items: Sequence[Item], arrays: Arrays) -> list[tuple[int, Item]]:
        ids = range(self._next_id, self._next_id + len(items))
        self._next_id = ids.stop
        work = Work(
            kind=kind,
            urgency=URGENT if urgent else BEAT if kind == "beat" else CALM,
            first_id=ids.start,
            n=len(items),
            arrays={name: Tensor.of(array) for name, array in arrays.items()},
            queued_ns=max(item.stamps.queued for item in items),
        )
        self._unsent[ids.start] = work
        self._unanswered[ids.start] = (work, set(ids))
        self._items.update(zip(ids, items, strict=True))
        self._work_of.update(dict.fromkeys(ids, ids.start))
        return list(zip(ids, items, strict=True))

    def _answered(self, item_id: int) -> None:
        first_id = self._work_of.pop(item_id)
        _, missing = self._unanswered[first_id]
        missing.discard(item_id)
        if not missing:
            del self._unanswered[first_id]
            self._unsent.pop(first_id, None)

    def stage(self) -> None:
        """Give tokens to the caches in order; stop each row at a hop to send its window with the cache as it is."""
        while True:
            windows: list[Item] = []
            for row in sorted(self._touched):
                window = self._stage_row(self._queues[row])
                if window is not None:
                    windows.append(window)
            if not windows:
                return
            for item_id, window in self._send("window", windows, self._window_arrays(windows)):
                self._queues[window.row].applying.append((item_id, window))

    def _stage_row(self, queue: _Queue) -> Item | None:
        staging = queue.staging
        while staging and self._settled(*staging[0]):
            item_id, item = staging.popleft()
            if item.kind == "beat":
                if item.answer is not None:
                    self._cache_beat(item)
                queue.applying.append((item_id, item))
                continue
            self._items.pop(item_id, None)
            if item.answer is not None:
                self._cache_hop(item)
                return replace(item, kind="window", answer=None, batched_ns=0, judged_ns=0)
        return None

    def _cache_beat(self, item: Item) -> None:
        assert item.answer is not None and item.features is not None
        token = item.answer["token"]
        self._beat_tokens = self._fitting(self._beat_tokens, TOKEN_BEATS, token.size)
        slot = self._n_beats[item.row] % TOKEN_BEATS
        self._beat_tokens[item.row, slot] = token
        self._beat_features[item.row, slot] = item.features[:N_WINDOW_FEATURES]
        self._beat_ticks[item.row, slot] = item.at
        self._n_beats[item.row] += 1

    def _cache_hop(self, item: Item) -> None:
        assert item.answer is not None
        token = item.answer["token"]
        self._hop_tokens = self._fitting(self._hop_tokens, TOKEN_HOPS, token.size)
        number = item.at // HOP_TICKS
        self._hop_tokens[item.row, number % TOKEN_HOPS] = token
        self._hop_numbers[item.row, number % TOKEN_HOPS] = number

    def _fitting(self, tokens: Array | None, n: int, width: int) -> Array:
        """The cache, or an empty one where tokens have another width: other weights do not know the old ones."""
        if tokens is not None and tokens.shape[2] == width:
            return tokens
        if tokens is not None:
            self.reset(np.arange(self._n_rows))
        return np.zeros((self._n_rows, n, width), np.float32)

    def _window_arrays(self, windows: Iterable[Item]) -> Arrays:
        """The caches of the rows as they are now, oldest first, with masks of what is there and recent."""
        rows = np.array([item.row for item in windows])
        ends = np.array([item.at for item in windows])
        numbers = ends[:, None] // HOP_TICKS + np.arange(-TOKEN_HOPS + 1, 1)
        hop_slots = numbers % TOKEN_HOPS
        assert self._hop_tokens is not None
        order = (self._n_beats[rows][:, None] + np.arange(TOKEN_BEATS)) % TOKEN_BEATS
        ticks = self._beat_ticks[rows[:, None], order]
        # Where no beat was judged yet: its tokens are as long as a hop's.
        self._beat_tokens = self._fitting(self._beat_tokens, TOKEN_BEATS, self._hop_tokens.shape[2])
        return {
            "hop_tokens": self._hop_tokens[rows[:, None], hop_slots],
            "hop_mask": (self._hop_numbers[rows[:, None], hop_slots] == numbers) & (numbers >= 0),
            "beat_tokens": self._beat_tokens[rows[:, None], order],
            "beat_features": self._beat_features[rows[:, None], order],
            "beat_age": ((ends[:, None] - ticks) / TICK_HZ).astype(np.float32),
            "beat_mask": (ticks > (ends - TOKEN_HOPS * HOP_TICKS)[:, None]) & (ticks <= ends[:, None]),
        }


def _check(kind: Kind, ids: Array, arrays: Arrays) -> None:
    missing = ANSWER[kind] - arrays.keys()
    if missing:
        raise WireError("field", f"arrays: {kind} answers lack {sorted(missing)}; use a worker of this version")
    for name, array in arrays.items():
        if array.ndim == 0 or array.shape[0] != ids.size:
            raise WireError("field", f"arrays.{name}: shape {array.shape} for {ids.size} items; send a row for each")
    if kind == "beat" and (*(probs := arrays["probs"]).shape[1:], probs.dtype) != (len(BEATS), np.float32):
        text = f"arrays.probs: {probs.dtype} {probs.shape}; send float32, a column for each of {', '.join(BEATS)}"
        raise WireError("field", text)  # compiled code reads them
