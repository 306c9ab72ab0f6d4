"""A shard: its beds from packets in order to alerts. No sockets and no clocks of its own.

    shard.feed(ingest.take())        samples, gaps, epochs ▶ rings, periods, items for the model, detector alarms
    for work in shard.work(): ...    to the worker
    shard.answer(judged)             from the worker ▶ judgements, model alarms
    shard.messages, shard.outbox     to the gateway

The beds are rows of the arrays of one `Analysis`; a bed's alarms see its events in the order of their ticks.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from model.pulse import SIGNALS
from stream import wire
from stream.alarms.bed import BedAlarms
from stream.alarms.book import NEVER
from stream.alarms.conditions import Profile, ProfileError
from stream.analysis import MAX_CHUNK_S, TICKS_PER_S, Analysis, Findings
from stream.beds import Bed
from stream.counters import Counters
from stream.judging import Item, Judging
from stream.leads import Leads
from stream.messages import beat_message, decided, likeliest, perhaps_ventricular, window_message
from stream.outbox import Outbox
from stream.relief import TOLD, Relief
from stream.strips import Strips
from stream.told import by_row, tick_of
from stream.transport.arrivals import BedEvent, Block, joined
from stream.transport.ingest import BedAccount
from stream.transport.sequence import Chunk, Ended, Event, Gap, NewEpoch, TruthSeen

log = structlog.get_logger()

AHEAD_TICKS = 20 * TICKS_PER_S  # so far a bed may be ahead of its judgements: the samples of strips are kept
FORGO_TICKS = 30 * TICKS_PER_S  # a live bed waits no longer for the model; a replay waits for ever
EPOCH_WAIT_NS = 1_000_000_000  # so long a live bed's new epoch may wait for the old one's judgements
SIGNAL_LOST_S = 2.0
STREAM_LATE_MS = 2000.0


class ShardFull(ValueError):
    """More beds than the shard's capacity."""


class Shard:
    """Up to `capacity` beds of up to `n_leads` ECG leads each.

    `profile_of`: the alarm profile of a bed, by name. `now_ns`: UTC in ns, for stamps and nothing else.
    `messages`: what has been judged, for the gateway to publish; the caller takes and clears it. `spill`: a folder for
    alerts and strips that the gateway does not take."""

    def __init__(
        self,
        name: str,
        capacity: int,
        n_leads: int,
        profile_of: Callable[[str], Profile],
        now_ns: Callable[[], int],
        session: str,
        spill: Path | None = None,
    ) -> None:
        self.name = name
        self.beds: dict[str, Bed] = {}
        self.messages: list[wire.AnyMessage] = []
        self.outbox = Outbox(name, session, spill)
        self.judging = Judging(capacity, first_id=now_ns())  # ids are given more slowly than time goes by
        self.relief = Relief()
        self.model_version = ""
        self._capacity, self._n_leads = capacity, n_leads
        self._profile_of, self._now_ns = profile_of, now_ns
        self._analysis = Analysis(capacity, n_leads)
        self._leads = Leads(capacity, n_leads)
        self._pulses = Leads(capacity, len(SIGNALS), np.inf)
        self._counters = Counters(capacity)
        self._n_samples = np.zeros(capacity, np.int64)  # analysed, all epochs together
        self._stamps = np.zeros((capacity, 4), np.int64)  # of the newest samples: device, sent, received, detected
        self._next_due = np.zeros(capacity, np.int64)  # of the alarms of each row
        self._strips = Strips(capacity)
        self._judged_to = np.zeros(capacity, np.int64)  # the tick that the model had come to when it was last looked at
        self._rows: list[Bed] = []  # a row that is free keeps its last bed, which is closed
        self._free: list[int] = []
        self._replays: set[Bed] = set()  # played faster than life, and not over
        self._closing: set[Bed] = set()  # over, and not judged to the end

    def feed(self, events: Iterable[Event]) -> None:
        """Take events of any beds, each bed's in order. Raises ShardFull for a bed too many."""
        queues: dict[str, deque[BedEvent]] = {}
        blocks: list[Block] = []  # they come before all else of their beds
        for event in events:
            if isinstance(event, Block):
                blocks.append(event)
            else:
                queues.setdefault(event.bed, deque()).append(event)
        for block in joined(blocks):
            self._push_block(block)
        while queues:
            runs = [run for queue in queues.values() if (run := self._next_run(queue)) is not None]
            if runs:
                self._push(runs)
            queues = {bed: queue for bed, queue in queues.items() if queue}

    def not_now(self, crowded: bool) -> set[str]:
        """Beds whose samples should wait where they are: those whose last epoch is not judged yet; those that are far
        ahead of their judgements; and, while the worker has too much to do (`crowded`), replays. What is live waits
        neither for a replay nor for a model that is away, and nobody for one that never was there."""
        waiting = {bed.name for bed in self._closing}
        if crowded:
            waiting |= {bed.name for bed in self._rows if not bed.live and self.judging.first_ready(bed.row)}
        far = np.flatnonzero(self._analysis.head - self._judged_to > AHEAD_TICKS)  # by what was known a moment ago
        return waiting | {bed.name for row in far.tolist() if self._ahead(bed := self._rows[row])}

    def _ahead(self, bed: Bed) -> bool:
        alone = "MODEL_STALLED" in bed.technical and (bed.live or not self.model_version)
        return not alone and int(self._analysis.head[bed.row]) - self._judged_now(bed) > AHEAD_TICKS

    def _next_run(self, queue: deque[BedEvent]) -> tuple[Bed, list[Chunk], int] | None:
        """Handle what is no signal; then the chunks that follow one another, MAX_CHUNK_S of them at most."""
        while queue and not isinstance(queue[0], Chunk):
            self._handle(queue.popleft())
        chunks: list[Chunk] = []
        n = 0
        while queue and isinstance(chunk := queue[0], Chunk):
            most = int(MAX_CHUNK_S * chunk.rate)
            if n + chunk.samples.shape[1] > most:
                if not chunks:  # one chunk longer than a push may be: cut it
                    queue[0] = chunk._replace(samples=chunk.samples[:, most:], first=chunk.first + most)
                    chunks, n = [chunk._replace(samples=chunk.samples[:, :most])], most
                break
            chunks.append(chunk)
            n += chunk.samples.shape[1]
            queue.popleft()
        return (self.beds[chunks[0].bed], chunks, n) if chunks else None

    def _push(self, runs: list[tuple[Bed, list[Chunk], int]]) -> None:
        rows = np.array([bed.row for bed, _, _ in runs])
        n = np.array([length for _, _, length in runs])
        x = np.full((len(runs), self._n_leads, int(n.max())), np.nan, np.float32)
        pulsing = np.array([bed.pulsing for bed, _, _ in runs])
        pulse = np.full((int(pulsing.sum()), len(SIGNALS), x.shape[2]), np.nan, np.float32)
        pulse_of = np.cumsum(pulsing) - 1
        for i, (_, chunks, _) in enumerate(runs):
            at = 0
            for chunk in chunks:
                row, samples, off = rows[i : i + 1], chunk.samples[None], np.array([chunk.off], np.int32)
                end = at + samples.shape[2]
                self._leads.convert(row, samples, off, x[i : i + 1, :, at:end])
                if pulsing[i]:
                    self._pulses.convert(row, samples, off, pulse[pulse_of[i], None, :, at:end])
                self._strips.raw.push(row, np.array([chunk.first]), samples)
                self._counters.check(row, np.array([chunk.first]), samples)
                at = end
            last = chunks[-1]
            self._stamps[rows[i], :3] = last.device_ns, last.sent_ns, last.received_ns
        self._analyse(rows, x, n, pulsing, pulse)

    def _push_block(self, block: Block) -> None:
        """Runs of one length of many beds."""
        rows = np.array([self.beds[name].row for name in block.beds])
        n = block.samples.shape[2]
        x = np.empty((len(rows), self._n_leads, n), np.float32)
        self._leads.convert(rows, block.samples, block.off, x)
        pulsing = np.array([self.beds[name].pulsing for name in block.beds])
        pulse = np.empty((int(pulsing.sum()), len(SIGNALS), n), np.float32)
        if pulsing.any():
            self._pulses.convert(rows[pulsing], block.samples[pulsing], block.off[pulsing], pulse)
        self._stamps[rows, 0] = block.device_ns
        self._stamps[rows, 1:3] = block.sent_ns, block.received_ns
        self._strips.raw.push(rows, block.first, block.samples)
        self._counters.check(rows, block.first, block.samples)
        self._analyse(rows, x, np.full(len(rows), n), pulsing, pulse)

    def _analyse(
        self,
        rows: npt.NDArray[np.int64],
        x: npt.NDArray[np.float32],
        n: npt.NDArray[np.int64],
        pulsing: npt.NDArray[np.bool_],
        pulse: npt.NDArray[np.float32],
    ) -> None:
        self._n_samples[rows] += n
        self._found(rows, self._analysis.push(rows, x, n, pulsing, pulse))

    def _handle(self, event: BedEvent) -> None:
        if isinstance(event, NewEpoch):
            self._start(event)
            return
        bed = self.beds[event.bed]
        if isinstance(event, Gap):
            self._gap(bed, event)
        elif isinstance(event, Ended):
            self._end(bed)
        elif isinstance(event, TruthSeen):
            truth = wire.Truth(
                bed=bed.name, epoch=bed.epoch, samples=event.samples, symbols=event.symbols, notes=event.notes
            )
            self.messages.append(truth)

    def _start(self, event: NewEpoch) -> None:
        alarms = BedAlarms(event.bed, event.epoch, event.rate, self._profile_of(event.bed))
        bed = self.beds.get(event.bed)
        if bed is None:
            bed = self._seat(event.bed, alarms)
        else:
            self.judging.forgo(bed.row, NEVER)
            self.apply()
            self._close(bed)
            alarms.inherit(bed.alarms)
        bed.epoch, bed.fs, bed.live = event.epoch, event.rate, event.speed == 1.0
        bed.alarms, bed.ended, bed.closed = alarms, False, False
        self._took_turn(bed)
        bed.signals_are(event.signals, self._n_leads)
        self._leads.are(bed.row, bed.leads, bed.signals)
        self._pulses.are(bed.row, bed.pulses, bed.signals)
        self._counters.are(bed.row, bed.signals)
        self._next_due[bed.row] = alarms.next_due
        self._analysis.start(bed.row, bed.fs)
        self._strips.start(bed.row, event.signals, bed.fs)
        self._judged_to[bed.row] = 0
        self.judging.reset(np.array([bed.row]))
        log.info("epoch", bed=bed.name, epoch=bed.epoch, fs=bed.fs, leads=[event.signals[i].name for i in bed.leads])

    def _seat(self, name: str, alarms: BedAlarms) -> Bed:
        if not self._free and len(self._rows) == self._capacity:
            raise ShardFull(f"bed {name}: shard {self.name} has its {self._capacity} beds; raise capacity")
        bed = self.beds[name] = Bed(self._free.pop() if self._free else len(self._rows), name, alarms)
        self._rows[bed.row : bed.row + 1] = [bed]
        self._n_samples[bed.row] = self._counters.proved[bed.row] = self._counters.misplaced[bed.row] = 0
        self._stamps[bed.row] = 0
        return bed

    def release(self, name: str) -> bool:
        """Give the place of a bed that is over to another; False where it is not over."""
        bed = self.beds.get(name)
        if bed is None or not bed.closed:
            return bed is None
        del self.beds[name]
        self._free.append(bed.row)
        return True

    def _gap(self, bed: Bed, event: Gap) -> None:
        rows = np.array([bed.row])
        self._found(rows, self._analysis.flush(rows))
        begin = int(self._analysis.head[bed.row])
        self._analysis.reset(rows, np.array([event.first + event.n]))
        end = int(self._analysis.head[bed.row])
        self._strips.raw.skip_to(bed.row, event.first + event.n)
        self._alert(bed, bed.alarms.gap(begin, end - begin, begin))  # known where it begins: no timer runs into it
        log.warning("gap", bed=bed.name, epoch=bed.epoch, first=event.first, n_samples=event.n, cause=event.cause)

    def _end(self, bed: Bed) -> None:
        """The record is over: what is pending is decided with what there is."""
        rows = np.array([bed.row])
        self._found(rows, self._analysis.flush(rows))
        bed.ended, bed.ended_ns = True, self._now_ns()
        self._took_turn(bed)
        self._alert(bed, bed.alarms.advance(int(self._analysis.head[bed.row]) + 1))
        self._model_clock([bed])
        log.info("ended", bed=bed.name, epoch=bed.epoch, n_beats=bed.n_beats)

    def _found(self, rows: npt.NDArray[np.int64], found: Findings) -> None:
        """Hand items to the model and events to the detector side of the alarms."""
        self._stamps[rows, 3] = self._now_ns()
        if self.relief.level:
            found = self._thinned(found)
        told_of = np.union1d(found.complete.row, found.hop_row).tolist()
        stamps = dict(zip(told_of, map(self._stamped, told_of), strict=True))
        beats = [
            Item("beat", row, at, ready, urgent, stamps[row], features, form)
            for row, at, ready, urgent, features, form in zip(
                found.complete.row.tolist(), found.complete.at.tolist(), found.complete.ready.tolist(),
                found.beat_urgent.tolist(), found.features, found.form.tolist(), strict=True,
            )
        ]  # fmt: skip
        hops = [
            Item("hop", row, end, ready, urgent, stamps[row], vf_index=vf_index, leads_on=leads_on)
            for row, end, ready, urgent, vf_index, leads_on in zip(
                found.hop_row.tolist(), found.hop_end.tolist(), found.hop_ready.tolist(), found.hop_urgent.tolist(),
                found.hop_vf.tolist(), found.hop_leads_on.tolist(), strict=True,
            )
        ]  # fmt: skip
        kept = self.relief.beats(found.beat_urgent)
        self.judging.add(
            [beats[i] for i in np.flatnonzero(kept).tolist()],
            hops,
            {"wave": found.wave[kept], "features": found.features[kept]},
            {"wave": found.hop_wave, "mask": found.hop_mask},
            [beats[i] for i in np.flatnonzero(~kept).tolist()],
        )
        stirred: dict[int, Bed] = {}
        for row, told in by_row(found, lambda row: len(self._rows[row].leads)).items():
            bed = stirred[row] = self._rows[row]
            for _, tell, arguments in sorted(told, key=tick_of):
                if events := getattr(bed.alarms, tell)(*arguments):
                    self._alert(bed, events)
            self._next_due[row] = bed.alarms.next_due
        due = rows[self._analysis.head[rows] > self._next_due[rows]]
        for row, head in zip(due.tolist(), self._analysis.head[due].tolist(), strict=True):
            bed = stirred[row] = self._rows[row]
            self._alert(bed, bed.alarms.advance(head - 1))
        self._model_clock(stirred.values())

    def _thinned(self, found: Findings) -> Findings:
        """Without the hops that are left out for want of time."""
        kept = self.relief.hops(found.hop_end, found.hop_urgent)
        for row in found.hop_row[~kept].tolist():
            self._rows[row].n_thinned += 1
        return found._replace(**{k: v[kept] for k, v in found._asdict().items() if k.startswith("hop_")})

    def work(self) -> list[wire.Work]:
        """Blocks for the worker, not sent yet."""
        return self.judging.work()

    def answer(self, judged: wire.Judged) -> None:
        """Take the worker's answers to a block. Raises WireError where they do not fit."""
        self.judging.accept(judged)
        self.apply()

    def shed(self, message: wire.Shed) -> None:
        """The worker had no room for some of the items that it was given."""
        for item in self.judging.shed(range(message.first_id, message.first_id + message.n)):
            bed = self._rows[item.row]
            bed.n_unjudged += item.kind == "beat"
            bed.n_thinned += item.kind != "beat"
        self.apply()

    def forgo(self) -> None:
        """Live beds wait no longer for what the model has not judged within 30 s of signal, and hardly for the rest of
        an epoch that is over; it is counted."""
        now_ns = self._now_ns()
        for bed in self._rows:
            if not bed.live or bed.closed or (bed.ended and now_ns - bed.ended_ns <= EPOCH_WAIT_NS):
                continue
            before = NEVER if bed.ended else int(self._analysis.head[bed.row]) - FORGO_TICKS
            n = self.judging.forgo(bed.row, before)
            bed.n_unjudged += n
            if n:
                log.warning("unjudged", bed=bed.name, items=n)
        self.apply()

    def apply(self) -> None:
        """Go on with what `judging` has taken in: hand on what has come to its turn, to gateway and alarms."""
        self.judging.stage()
        touched: dict[int, Bed] = {}
        decided_ns = self._now_ns()
        for item in self.judging.told():
            self._beat_told(self._rows[item.row], item, decided(item, decided_ns))
        for item in self.judging.applied():
            bed = touched.setdefault(item.row, self._rows[item.row])
            self._judged(bed, item, decided_ns)
        self._model_clock(touched.values())

    def _beat_told(self, bed: Bed, item: Item, stamps: wire.Stamps) -> None:
        beat = beat_message(bed, item, stamps)
        bed.n_beats += 1
        self._strips.beat(bed.row, beat.at.sample, beat.label)
        self.messages.append(beat)

    def _judged(self, bed: Bed, item: Item, decided_ns: int) -> None:
        if (answer := item.answer) is None:
            return
        if item.kind == "beat":
            found = (*likeliest(answer["probs"]), item.form, perhaps_ventricular(answer["probs"]))
            told = bed.alarms.judged_beat(item.at, item.ready, *found)
        else:
            window = window_message(bed, item, answer, decided(item, decided_ns))
            bed.n_windows += 1
            self.messages.append(window)
            told = bed.alarms.judged_window(
                item.at, item.ready, window.rhythm, window.rhythms, window.shockable, window.quality
            )
        if told:
            self._alert(bed, told, decided(item, decided_ns))

    def _model_clock(self, beds: Iterable[Bed]) -> None:
        """Tell the alarms how far the model has come, and take the numerics that are due."""
        for bed in beds:
            waiting, head = self.judging.first_ready(bed.row), int(self._analysis.head[bed.row])
            until = self._judged_to[bed.row] = self._judged_until(bed, waiting)
            events = bed.alarms.advance_model(until)
            if head > bed.alarms.next_due:  # judgements wait for the detector's clock, not for a packet
                events += bed.alarms.advance(head - 1)
            self._alert(bed, events)
            self._collect(bed)
            if self._strips.waiting(bed.row):
                self.outbox.add(self._strips.ready(bed.row, until))
            if bed.ended and waiting is None:
                self._close(bed)

    def _judged_now(self, bed: Bed) -> int:
        return self._judged_until(bed, self.judging.first_ready(bed.row))

    def _judged_until(self, bed: Bed, waiting: int | None) -> int:
        """The tick by which all that was ready is judged; `waiting`: `first_ready` of the bed."""
        return int(self._analysis.head[bed.row]) - (not bed.ended) if waiting is None else waiting - 1

    def _collect(self, bed: Bed) -> None:
        for numeric in bed.alarms.take_numerics():
            self.messages.append(msgspec.structs.replace(numeric, stamps=self._stamped(bed.row)))
        for refused in bed.alarms.take_refused():
            log.warning("limits_refused", bed=bed.name, text=refused)

    def _close(self, bed: Bed) -> None:
        """The epoch is over and judged: its conditions end. Reds that nobody acknowledged stay latched."""
        if not bed.closed:
            bed.closed = True
            self._took_turn(bed)
            bed.technical.clear()
            self._alert(bed, bed.alarms.close(int(self._analysis.head[bed.row])))
            self._collect(bed)
            self.outbox.add(self._strips.rest(bed.row))

    def act(self, action: wire.Action) -> wire.Action | None:
        """Apply an operator's action; the echo says where. None where the bed is not here or its epoch is over."""
        bed = self.beds.get(action.bed)
        if bed is None or (action.epoch and action.epoch != bed.epoch):
            return None
        tick = int(self._analysis.head[bed.row])
        if action.sample is not None:
            tick = round(action.sample * TICKS_PER_S / bed.fs)
        try:
            self._alert(bed, bed.alarms.action(action, tick))
        except ProfileError as error:
            log.warning("action_refused", bed=bed.name, kind=action.kind, text=str(error))
            return None
        return msgspec.structs.replace(action, epoch=bed.epoch, sample=bed.moment(tick).sample)

    def watch(self, model_stalled: bool, accounts: Iterable[BedAccount]) -> None:
        """Technical alarms of the wall clock: no samples, samples that are old, a clock that stepped, no model."""
        for account in accounts:
            bed = self.beds.get(account.bed)
            if bed is None:
                continue
            silent = not bed.ended and account.silent_s > SIGNAL_LOST_S
            late = bed.live and not bed.ended and account.age_ms > STREAM_LATE_MS and not silent
            self._technical(bed, "SIGNAL_LOST", silent, f"no samples for {SIGNAL_LOST_S:g} s")
            self._technical(bed, "STREAM_LATE", late, f"samples are over {STREAM_LATE_MS / 1e3:g} s old")
            self._technical(bed, "CLOCK_UNSYNC", account.clock_stepped, "the source's clock stepped")
            away = model_stalled and not bed.ended
            self._technical(bed, "MODEL_STALLED", away, "the worker does not answer")
            bed.alarms.model_away(away)
            self._technical(bed, "MODEL_OVERLOADED", self._overloaded(bed), TOLD[self.relief.level])

    def watched(self, model_stalled: bool) -> set[str]:
        """Beds at which `watch` may have something to end, or to begin because of the model."""
        return {
            bed.name
            for bed in self.beds.values()
            if bed.technical or self._overloaded(bed) or model_stalled != ("MODEL_STALLED" in bed.technical)
        }

    def _overloaded(self, bed: Bed) -> bool:
        return self.relief.level > 0 and bed.live and not bed.ended

    def _technical(self, bed: Bed, code: str, on: bool, reason: str) -> None:
        if on != (code in bed.technical):
            bed.technical ^= {code}
            self._alert(
                bed, bed.alarms.technical(code, on, reason if on else "over", int(self._analysis.head[bed.row]))
            )

    def _alert(self, bed: Bed, events: list[wire.AlertEvent], stamps: wire.Stamps | None = None) -> None:
        """Stamp what the alarms of a bed told, and put it on its way."""
        self._next_due[bed.row] = bed.alarms.next_due
        if not events:
            return
        for event in events:
            if event.phase == "start" and event.strip is not None:
                self._strips.want(bed.row, event)
        now_ns = self._now_ns()
        stamped = msgspec.structs.replace(stamps or self._stamped(bed.row), decided=now_ns)
        self.outbox.add(
            msgspec.structs.replace(event, stamps=stamped, model_version=self.model_version) for event in events
        )

    def _stamped(self, row: int) -> wire.Stamps:
        """Stamps of the newest samples of a row."""
        device, sent, received, detected = self._stamps[row].tolist()
        return wire.Stamps(device=device, sent=sent, received=received, detected=detected, queued=detected)

    @property
    def live(self) -> bool:
        """Whether no bed is played faster than life: then there is time to let packets gather."""
        return not self._replays

    def _took_turn(self, bed: Bed) -> None:
        """Its epoch has begun, ended or closed: know at once, and not by a look at all beds, who needs what."""
        self._replays.discard(bed)
        self._closing.discard(bed)
        if not (bed.live or bed.ended):
            self._replays.add(bed)
        if bed.ended and not bed.closed:
            self._closing.add(bed)

    def dropped(self, messages: Iterable[wire.AnyMessage]) -> None:
        """The gateway did not take these: count the judgements and numerics among them."""
        for message in messages:
            if isinstance(message, wire.BeatJudgement | wire.WindowJudgement | wire.Numeric | wire.Truth):
                bed = self.beds.get(message.bed)
                if bed is not None:
                    bed.n_dropped += 1

    def positions(self) -> tuple[tuple[str, str, int], ...]:
        """(bed, epoch, sample) up to which the alarms of each bed have come."""
        return tuple(
            (bed.name, bed.epoch, bed.moment(int(self._analysis.head[bed.row])).sample) for bed in self.beds.values()
        )

    def status(
        self, accounts: Iterable[BedAccount], latency_ms: dict[str, tuple[float, float]]
    ) -> Iterator[wire.BedStatus]:
        """The account of each bed, for the gateway."""
        for account in accounts:
            bed = self.beds.get(account.bed)
            if bed is None:
                continue
            yield wire.BedStatus(
                shard=self.name, bed=bed.name, epoch=bed.epoch, at=bed.moment(int(self._analysis.head[bed.row])),
                counts={**account.counts, **self._judged_counts(bed)},
                age_ms=account.age_ms, clock_offset_ms=account.clock_offset_ms,
                clock_drift_ppm=account.clock_drift_ppm, latency_ms=latency_ms,
            )  # fmt: skip

    def _judged_counts(self, bed: Bed) -> dict[str, int]:
        """`analysed`: samples that the detectors and the model have passed, counted where they went through."""
        waiting = self.judging.first_ready(bed.row)
        ticks = 0 if waiting is None else max(0, int(self._analysis.head[bed.row]) - waiting)
        return {
            "analysed": max(0, int(self._n_samples[bed.row]) - bed.moment(ticks).sample),
            "unjudged": bed.n_unjudged,
            "dropped_messages": bed.n_dropped,
            "thinned": bed.n_thinned,
            "beats": bed.n_beats,
            "windows": bed.n_windows,
            **self._counters.counts(bed.row),
        }

    def beds_of(self, part: int, of: int) -> list[str]:
        """The beds in every `of`-th row, from row `part` on: a part of the shard that is saved by itself."""
        return [bed.name for bed in self._rows[part::of] if self.beds.get(bed.name) is bed]

    def state_dict(self, part: int = 0, of: int = 1) -> dict[str, Any]:
        """For the checkpoint of a part: what is not to be had again. Its arrays are copies, other values are not."""
        rows = slice(part, len(self._rows), of)
        seats = {self.beds[name].row: self.beds[name] for name in self.beds_of(part, of)}
        return {
            "size": [self._capacity, self._n_leads],
            "rows": [part, len(self._rows), of],
            "analysis": self._analysis.state_dict(rows),
            "judging": self.judging.state_dict(rows),
            "outbox": self.outbox.state(lambda bed: self.beds[bed].row in seats if bed in self.beds else True),
            "n_samples": self._n_samples[rows].copy(),
            "counters": self._counters.state_dict(rows),
            "beds": {row: [bed.state(), self._strips.state(row, self._judged_now(bed))] for row, bed in seats.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`, part by part as they were saved. Raises ValueError for another size of shard."""
        if state["size"] != [self._capacity, self._n_leads]:
            raise ValueError(f"capacity, n_leads: {state['size']}, not {[self._capacity, self._n_leads]}")
        rows = slice(*state["rows"])
        while len(self._rows) < rows.stop:
            self._vacate(len(self._rows))
        self._analysis.load_state_dict(state["analysis"], rows)
        self.judging.load_state_dict(state["judging"], rows)
        self.outbox.restore(state["outbox"], rows.start)
        self._n_samples[rows] = state["n_samples"]
        self._counters.load_state_dict(state["counters"], rows)
        for row, (bed, strips) in state["beds"].items():
            self._restore(row, bed, strips)

    def _vacate(self, row: int) -> None:
        """A row of which nothing is known is free."""
        self.judging.forget(row)
        self._strips.forget(row)
        self._rows[row : row + 1] = [Bed(row, "", BedAlarms("", "", TICKS_PER_S, self._profile_of("")), closed=True)]
        self._free.append(row)

    def _restore(self, row: int, saved: dict[str, Any], strips: dict[str, Any]) -> None:
        if (before := self.beds.pop(saved["name"], None)) is not None:  # it had another row when that was saved
            self._vacate(before.row)
        bed = Bed.restored(row, saved, self._profile_of(saved["name"]), self._n_leads, self._now_ns())
        self._leads.are(row, bed.leads, bed.signals)
        self._pulses.are(row, bed.pulses, bed.signals)
        self._counters.are(row, bed.signals)
        self._next_due[row] = bed.alarms.next_due
        self._strips.restore(row, bed.signals, bed.fs, strips)
        self._rows[row] = self.beds[bed.name] = bed
        self._free.remove(row)
        self._took_turn(bed)
