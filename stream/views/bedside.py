"""What a view knows of the ward, and the words, marks and numbers that it tells it in.

No terminal here: `stream.views.view` shows this in three ways.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.text import Text

from stream.gateway.subscriber import Joined, Publication
from stream.views.waveline import WaveLine
from stream.wire import Action, AlertEvent, BeatJudgement, BedStatus, Numeric, Reply, Waves

STALE_S = 3.0
NOT_RECORDED = "ALARMS NOT RECORDED"
TREND = 30  # heart rates kept for a sparkline
_LATENCIES = 200
_ORDER = {"high": 0, "medium": 1, "low": 2}
_TOLD = frozenset({"start", "end", "reset"})  # phases that are worth a line

Item = Joined | Publication | Reply
Word = str | AlertEvent | Action


@dataclass(slots=True)
class Row:
    """What is known of a bed. `standing`: its alerts that are active or latched, by id, with the time
    (UTC ns) at which each was first seen."""

    numeric: Numeric | None = None
    numeric_at: float = 0.0
    status: BedStatus | None = None
    status_at: float = 0.0
    rates: deque[float | None] = field(default_factory=lambda: deque(maxlen=TREND))
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    standing: dict[str, tuple[AlertEvent, int]] = field(default_factory=dict)
    last: tuple[AlertEvent, int] | None = None
    wave: WaveLine = field(default_factory=WaveLine)
    wave_at: float = 0.0


class Ward:
    """The state that all three ways show. Clocks are passed in."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, utc_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.monotonic, self.utc_ns = monotonic, utc_ns
        self.rows: dict[str, Row] = {}
        self.gateway: BedStatus | None = None
        self.heard_at: float | None = None
        self.n_missed = 0

    @property
    def unrecorded(self) -> int:
        """Alert events that were published though the journal does not have them."""
        return 0 if self.gateway is None else self.gateway.counts.get("events_unrecorded", 0)

    def take(self, item: Item) -> list[Word]:
        """Take what the subscriber handed out; returns what is worth a line: alerts, actions, words."""
        self.heard_at = self.monotonic()
        if isinstance(item, Joined):
            return self._joined(item)
        if isinstance(item, Reply):
            return [] if item.ok else [f"refused: {item.text}"]
        message = item.message
        if isinstance(message, BedStatus):
            if item.topic == "gateway":
                before, self.gateway = self.unrecorded, message
                return _recording(before, self.unrecorded)
            else:
                row = self._row(message.bed)
                row.status, row.status_at = message, self.heard_at
        elif isinstance(message, Numeric):
            row = self._row(message.bed)
            row.numeric, row.numeric_at = message, self.heard_at
            row.rates.append(message.hr)
        elif isinstance(message, BeatJudgement):
            if message.stamps.received and message.stamps.published:
                latency_ms = (message.stamps.published - message.stamps.received) / 1e6
                self._row(message.bed).latencies.append(latency_ms)
        elif isinstance(message, Waves):
            row = self._row(message.bed)
            row.wave.take(message)
            row.wave_at = self.heard_at
        elif isinstance(message, AlertEvent):
            self._settle(message)
            return [message] if message.phase in _TOLD else []
        elif isinstance(message, Action):
            return [message] if message.sample is None else []
        return []

    def _joined(self, joined: Joined) -> list[Word]:
        for row in self.rows.values():
            row.standing.clear()
        for event in joined.active:
            self._settle(event)
        for numeric in joined.numerics:
            row = self._row(numeric.bed)
            row.numeric, row.numeric_at = numeric, self.monotonic()
        if joined.n_missed == 0:
            return [*joined.active]
        self.n_missed += joined.n_missed or 0
        why = "the gateway started again" if joined.n_missed is None else f"{joined.n_missed} publications were missed"
        over = [f"{event.bed}: {words(event)} is over meanwhile" for event in joined.ended]
        return [f"{why}; what stands is known again", *over]

    def _settle(self, event: AlertEvent) -> None:
        row = self._row(event.bed)
        since_ns = row.standing.pop(event.alert_id, (event, _told_ns(event) or self.utc_ns()))[1]
        if event.state != "inactive":
            row.standing[event.alert_id] = event, since_ns
        if event.phase == "start" and event.suppressed_by is None:
            row.last = event, since_ns

    def _row(self, bed: str) -> Row:
        return self.rows.setdefault(bed, Row())


def _told_ns(event: AlertEvent) -> int:
    """When an alert was on disk; of one that is not, when it was decided; 0 where neither is known."""
    return event.stamps.committed or event.stamps.decided


def _recording(before: int, now: int) -> list[Word]:
    """What is to be said where the journal has just failed, or has what it lacked."""
    if now and not before:
        return [f"{NOT_RECORDED}: the journal cannot be written; see the gateway's log"]
    return ["alarms are recorded again, and so are those that came meanwhile"] if before and not now else []


def mark(event: AlertEvent) -> str:
    """The mark of an alert's priority, never told by colour alone: *** ** * and !! for technical ones."""
    return "!!" if event.kind == "technical" else {"high": "***", "medium": "**", "low": "*"}[event.priority]


def shown(rows: dict[str, Row], n: int) -> list[str]:
    """The beds to show in the order of their names; where not all can be, those with the highest alerts."""
    beds = sorted(rows, key=_natural)
    if n < len(beds):
        rank = {bed: _ORDER[top[0].priority] if (top := highest(rows[bed])) else len(_ORDER) for bed in beds}
        chosen = set(sorted(beds, key=lambda bed: rank[bed])[:n])
        beds = [bed for bed in beds if bed in chosen]
    return beds


def _natural(name: str) -> tuple[str, int, str]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0), name


def highest(row: Row) -> tuple[AlertEvent, int] | None:
    """The highest alert of a bed that stands and is not suppressed, the newest of several; with its time."""
    standing = [one for one in row.standing.values() if one[0].suppressed_by is None]
    return min(standing, key=lambda one: (_ORDER[one[0].priority], -one[1]), default=None)


def style(event: AlertEvent) -> str:
    """The colours of an alert, which only repeat what its mark says."""
    if event.suppressed_by is not None or event.state == "inactive":
        return "dim"
    if event.kind == "technical":
        return "bold cyan"
    return {"high": "bold white on red", "medium": "bold black on yellow", "low": "bold cyan"}[event.priority]


def words(event: AlertEvent) -> str:
    """The ward's words for it, without the mark that they may begin with: `HR 134>120`, `PAUSE 2.4 s`."""
    words = clean(event.text or event.code).lstrip("*! ")
    if event.value is None or any(letter.isdigit() for letter in words):
        return words
    return f"{words} {event.value:.3g} {clean(event.unit)}".rstrip()


def sentence(bed: str, row: Row, now: float) -> str:
    """The state of a bed in a line of plain text."""
    numeric = row.numeric
    rate, pvc = (numeric.hr, numeric.pvc_per_min) if numeric else (None, None)
    rhythm = clean(numeric.rhythm) if numeric else "-?-"
    state = f"{clean(bed)}: {rhythm} HR {number(rate)} PVC/min {number(pvc)}"
    return f"{state} age {data_age(row, now).plain} latency {latency(row.latencies)} ms"


def line(word: Word) -> Text:
    """A line of the list of what happens."""
    if isinstance(word, str):
        return Text(clean(word), "yellow")
    if isinstance(word, Action):
        moment = datetime.fromtimestamp(word.at_ns / 1e9, UTC)
        return Text(f"{moment:%H:%M:%S} {clean(word.bed)}: {word.kind} by {clean(word.who)}")
    moment = datetime.fromtimestamp(_told_ns(word) / 1e9, UTC)
    at_s = word.stream_time.sample / word.stream_time.fs
    ending = {"start": "", "end": " ends", "reset": " reset"}.get(word.phase, "")
    notes = ", latched" if word.state == "latched" else ""
    notes += ", suppressed" if word.suppressed_by is not None else ""
    notes += f" ({clean(word.reason)})" if word.reason else ""
    text = f"{moment:%H:%M:%S} {clean(word.bed)} {mark(word):>3} {words(word)}{ending}{notes} at {at_s:.1f} s"
    return Text(text, style(word))


def clean(text: str) -> str:
    """Text from outside, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def number(value: float | None) -> str:
    """A figure, or `-?-` where it is not to be told now."""
    return "-?-" if value is None else f"{value:.0f}"


def sparkline(rates: Iterable[float | None], bars: str) -> str:
    """A bar for each heart rate, between the lowest and the highest of them."""
    known = [rate for rate in rates if rate is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    # A range of 20 bpm at least: a steady pulse is a flat line, not noise blown up.
    low, span = min(low, (low + high) / 2 - 10), max(high - low, 20.0)
    return "".join(" " if rate is None else bars[round((rate - low) / span * (len(bars) - 1))] for rate in rates)


def latency(latencies: Iterable[float]) -> str:
    """p50 and p99 in ms."""
    ordered = sorted(latencies)
    if not ordered:
        return "-"
    return f"{ordered[len(ordered) // 2]:.0f}/{ordered[len(ordered) * 99 // 100]:.0f}"


def data_age(row: Row, now: float) -> Text:
    """How old the newest sample is; red where that is stale."""
    if row.status is None:
        return Text("-")
    silent_s = now - row.status_at
    age_s = row.status.age_ms / 1e3 + (silent_s if silent_s > STALE_S / 2 else 0.0)
    return Text(age(age_s), "bold red" if age_s > STALE_S else "")


def age(seconds: float) -> str:
    """A time for a column: `2.5 s`, `42 s`, `3:07`, `1 h 12`."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d}" if hours else f"{minutes}:{rest:02d}" if minutes else f"{rest} s"
