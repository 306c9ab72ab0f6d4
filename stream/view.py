"""The ward in a terminal: a row per bed, and below it the alerts as they happen.

A client of the gateway like any other. Three ways to show the same items, made by `open_view`: a
live screen on a terminal, plain lines where standard output is none, log events for `--headless`.

    with open_view("ward 3") as view:
        while ...:
            for item in subscriber.poll(0.05):
                view.take(item)
            view.refresh()

`view.stream` is where this process's log may go meanwhile; None for standard error.
"""

import io
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO

import structlog
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream.subscriber import Joined, Publication
from stream.wire import Action, AlertEvent, BeatJudgement, BedStatus, Numeric, Reply

log = structlog.get_logger()

NOTICE = "RESEARCH SOFTWARE, NOT FOR CLINICAL USE: simulated or replayed patients"
REFRESH_S = 0.25
STATE_S = 10.0  # plain lines tell the state of the beds so often
STALE_S = 3.0
N_ALERTS = 200
N_LEFT = 20  # lines left on the terminal at the end
_TREND = 30  # heart rates in a sparkline
_LATENCIES = 200
_BARS = "▁▂▃▄▅▆▇█"
_ORDER = {"high": 0, "medium": 1, "low": 2}
_LOG_HEAD = re.compile(r"^timestamp=\S*T(\d\d:\d\d:\d\d)\S* level=\S+ role=\S+ ")
_TOLD = frozenset({"start", "end", "reset"})  # phases that are worth a line

Item = Joined | Publication | Reply


@dataclass(slots=True)
class Row:
    """What is known of a bed. `standing`: its alerts that are active or latched, by id, with the time
    (UTC ns) at which each was first seen."""

    numeric: Numeric | None = None
    numeric_at: float = 0.0
    status: BedStatus | None = None
    status_at: float = 0.0
    rates: deque[float | None] = field(default_factory=lambda: deque(maxlen=_TREND))
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    standing: dict[str, tuple[AlertEvent, int]] = field(default_factory=dict)
    last: tuple[AlertEvent, int] | None = None


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

    def take(self, item: Item) -> list[str | AlertEvent | Action]:
        """Take what the subscriber handed out; returns what is worth a line: alerts, actions, words."""
        self.heard_at = self.monotonic()
        if isinstance(item, Joined):
            return self._joined(item)
        if isinstance(item, Reply):
            return [] if item.ok else [f"refused: {item.text}"]
        message = item.message
        if isinstance(message, BedStatus):
            if item.topic == "gateway":
                self.gateway = message
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
        elif isinstance(message, AlertEvent):
            self._settle(message)
            return [message] if message.phase in _TOLD else []
        elif isinstance(message, Action):
            return [message] if message.sample is None else []
        return []

    def _joined(self, joined: Joined) -> list[str | AlertEvent | Action]:
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
        over = [f"{event.bed}: {_words(event)} is over meanwhile" for event in joined.ended]
        return [f"{why}; what stands is known again", *over]

    def _settle(self, event: AlertEvent) -> None:
        row = self._row(event.bed)
        since_ns = row.standing.pop(event.alert_id, (event, event.stamps.committed or self.utc_ns()))[1]
        if event.state != "inactive":
            row.standing[event.alert_id] = event, since_ns
        if event.phase == "start" and event.suppressed_by is None:
            row.last = event, since_ns

    def _row(self, bed: str) -> Row:
        return self.rows.setdefault(bed, Row())


class Screen:
    """A live screen, redrawn in place: the whole ward that fits, those with alerts first if not all do."""

    def __init__(self, title: str, ward: Ward, console: Console) -> None:
        self._title, self._ward, self._console = title, ward, console
        self._lines: deque[Text] = deque(maxlen=N_ALERTS)
        self._drawn_at = 0.0
        self._bars = _BARS if console.encoding.lower().startswith("utf") else ""
        self._live = Live(console=console, screen=True, auto_refresh=False, get_renderable=self.render)
        self.stream: IO[str] | None = _Said(self._lines, self._live)

    def __enter__(self) -> "Screen":
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back, and leave the last alerts on it."""
        self._live.stop()
        for line in list(self._lines)[-N_LEFT:]:
            self._console.print(line, soft_wrap=True)

    def take(self, item: Item) -> None:
        self._lines.extend(_line(word) for word in self._ward.take(item))

    def refresh(self) -> None:
        """Redraw, four times a second at most."""
        now = self._ward.monotonic()
        if now - self._drawn_at >= REFRESH_S:
            self._drawn_at = now
            self._live.refresh()

    def render(self) -> RenderableType:
        """The screen as it is now, no higher than the terminal."""
        ward = self._ward
        height = max(self._console.height, 10)
        n_beds = min(len(ward.rows), max(height - 10, 3))
        table = Table(expand=True, box=None, pad_edge=False, header_style="bold")
        for name, justify, least in (("bed", "left", 6), ("rhythm", "left", 6), ("HR", "right", 4)):
            table.add_column(name, justify=justify, min_width=least, no_wrap=True)  # type: ignore[arg-type]
        if self._bars:
            table.add_column("", no_wrap=True)
        for name in ("PVC/min", "alert", "since", "data age", "ms p50/p99"):
            right = name != "alert"
            table.add_column(name, justify="right" if right else "left", no_wrap=True, ratio=None if right else 1)
        for bed in _shown(ward.rows, n_beds):
            table.add_row(*self._cells(bed, ward.rows[bed]))
        hidden = len(ward.rows) - n_beds
        parts: list[RenderableType] = [Text(NOTICE, "bold black on yellow"), self._state(), Text(), table]
        if hidden:
            parts.append(Text(f"and {hidden} more beds, none with a higher alert", "dim"))
        parts += [Text(), Text("alerts", "bold")]
        room = height - n_beds - len(parts) - bool(hidden)
        parts += list(self._lines)[-max(room, 3) :] if self._lines else [Text("none yet", "dim")]
        return Group(*parts)

    def _state(self) -> Text:
        ward = self._ward
        text = Text(_clean(self._title), "bold")
        if ward.heard_at is None:
            return text.append("  waiting for the gateway", "not bold yellow")
        silent_s = ward.monotonic() - ward.heard_at
        if silent_s > STALE_S:
            return text.append(f"  GATEWAY SILENT for {_age(silent_s)}", "bold red")
        words = [f"{len(ward.rows)} beds"]
        if ward.gateway is not None:
            counts, latency = ward.gateway.counts, ward.gateway.latency_ms
            words.append(f"{counts.get('events_committed', 0)} alert events on disk")
            if counts.get("events_not_committed"):
                words.append(f"JOURNAL FAILED {counts.get('journal_failed', 0)} times")
            if "decided>committed" in latency:
                words.append("decided to disk {:.0f}/{:.0f} ms".format(*latency["decided>committed"]))
        if ward.n_missed:
            words.append(f"{ward.n_missed} publications missed")
        return text.append("  " + ", ".join(words), "not bold")

    def _cells(self, bed: str, row: Row) -> list[Text]:
        now = self._ward.monotonic()
        numeric = row.numeric
        known = numeric is not None and now - row.numeric_at <= STALE_S
        rhythm = _clean(numeric.rhythm) if numeric and known else "-?-"
        cells = [
            Text(_clean(bed)),
            Text(rhythm),
            Text(_number(numeric.hr if numeric and known else None), "bold green"),
        ]
        if self._bars:
            cells.append(Text(_sparkline(list(row.rates)[-self._trend() :], self._bars), "green"))
        cells.append(Text(_number(numeric.pvc_per_min if numeric and known else None)))
        cells += self._alert(row)
        cells.append(_data_age(row, now))
        return [*cells, Text(_latency(row.latencies))]

    def _trend(self) -> int:
        """How many heart rates there is room for: 8 at 80 columns, all at 124."""
        return min(8 + max(self._console.width - 80, 0) // 2, _TREND)

    def _alert(self, row: Row) -> list[Text]:
        """The highest alert that stands, or the last that is over; and since when."""
        standing = _highest(row)
        shown = standing or row.last
        if shown is None:
            return [Text(""), Text("")]
        event, since_ns = shown
        style = _style(event) if standing else "dim"
        note = ", latched" if event.state == "latched" else "" if standing else ", over"
        age = _age((self._ward.utc_ns() - since_ns) / 1e9)
        return [Text(f"{mark(event)} {_words(event)}{note}", style), Text(age, "" if standing else "dim")]


class _Said(io.StringIO):
    """Takes the log of the process that shows the screen, a line of it like an alert, since anything
    written past the screen would spoil it. Once the screen is gone it goes to standard error."""

    def __init__(self, lines: deque[Text], live: Live) -> None:
        self._lines, self._live = lines, live

    def write(self, text: str) -> int:
        if self._live.is_started:
            short = _LOG_HEAD.sub(r"\1 ", text)
            self._lines.extend(Text(_clean(line), "yellow") for line in short.splitlines() if line)
            return len(text)
        return sys.stderr.write(text)


class Lines:
    """Plain lines on an output that is no terminal: alerts as they happen, the beds every 10 s."""

    def __init__(self, title: str, ward: Ward, console: Console) -> None:
        self._title, self._ward, self._console = title, ward, console
        self._told_at = ward.monotonic()
        self.stream: IO[str] | None = None

    def __enter__(self) -> "Lines":
        self._print(f"{self._title}: {NOTICE}")
        return self

    def __exit__(self, *_: object) -> None:
        return

    def take(self, item: Item) -> None:
        for word in self._ward.take(item):
            self._print(_line(word).plain)

    def refresh(self) -> None:
        """Tell the state of the beds where that is due."""
        now = self._ward.monotonic()
        if now - self._told_at < STATE_S:
            return
        self._told_at = now
        for bed in _shown(self._ward.rows, len(self._ward.rows)):
            row = self._ward.rows[bed]
            numeric = row.numeric
            rate, pvc = (numeric.hr, numeric.pvc_per_min) if numeric else (None, None)
            rhythm = _clean(numeric.rhythm) if numeric else "-?-"
            age, latency = _data_age(row, now).plain, _latency(row.latencies)
            self._print(
                f"{_clean(bed)}: {rhythm} HR {_number(rate)} PVC/min {_number(pvc)} age {age} latency {latency} ms"
            )

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Logs:
    """Log events: `alert`, `action` and `note`, with fields."""

    def __init__(self, ward: Ward) -> None:
        self._ward = ward
        self.stream: IO[str] | None = None

    def __enter__(self) -> "Logs":
        log.info("view", notice=NOTICE)
        return self

    def __exit__(self, *_: object) -> None:
        return

    def take(self, item: Item) -> None:
        for word in self._ward.take(item):
            if isinstance(word, AlertEvent):
                fields = {name: getattr(word, name) for name in ("bed", "code", "phase", "state", "priority", "value")}
                sample = word.stream_time.sample
                log.info("alert", **fields, sample=sample, alert_id=word.alert_id, suppressed_by=word.suppressed_by)
            elif isinstance(word, Action):
                log.info("action", bed=word.bed, kind=word.kind, who=word.who)
            else:
                log.info("note", text=word)

    def refresh(self) -> None:
        """Nothing is due by time."""


View = Screen | Lines | Logs


def open_view(title: str, *, headless: bool = False, console: Console | None = None) -> View:
    """The view that fits: logs where `headless`, a live screen on a terminal, else plain lines."""
    console = console or Console()
    if headless:
        return Logs(Ward())
    return (
        Screen(title, Ward(), console)
        if console.is_terminal and not console.is_dumb_terminal
        else Lines(title, Ward(), console)
    )


def mark(event: AlertEvent) -> str:
    """The mark of an alert's priority, never told by colour alone: *** ** * and !! for technical ones."""
    return "!!" if event.kind == "technical" else {"high": "***", "medium": "**", "low": "*"}[event.priority]


def _shown(rows: dict[str, Row], n: int) -> list[str]:
    """The beds to show in the order of their names; where not all can be, those with the highest alerts."""
    beds = sorted(rows, key=_natural)
    if n < len(beds):
        rank = {bed: _ORDER[highest[0].priority] if (highest := _highest(rows[bed])) else 3 for bed in beds}
        chosen = set(sorted(beds, key=lambda bed: rank[bed])[:n])
        beds = [bed for bed in beds if bed in chosen]
    return beds


def _natural(name: str) -> tuple[str, int, str]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0), name


def _highest(row: Row) -> tuple[AlertEvent, int] | None:
    standing = [one for one in row.standing.values() if one[0].suppressed_by is None]
    return min(standing, key=lambda one: (_ORDER[one[0].priority], -one[1]), default=None)


def _style(event: AlertEvent) -> str:
    if event.suppressed_by is not None or event.state == "inactive":
        return "dim"
    if event.kind == "technical":
        return "bold cyan"
    return {"high": "bold white on red", "medium": "bold black on yellow", "low": "bold cyan"}[event.priority]


def _words(event: AlertEvent) -> str:
    """The ward's words for it, without the mark that they may begin with: `HR 134>120`, `PAUSE 2.4 s`."""
    words = _clean(event.text or event.code).lstrip("*! ")
    if event.value is None or ">" in words or "<" in words:
        return words
    return f"{words} {event.value:.3g} {_clean(event.unit)}".rstrip()


def _line(word: str | AlertEvent | Action) -> Text:
    if isinstance(word, str):
        return Text(_clean(word), "yellow")
    if isinstance(word, Action):
        moment = datetime.fromtimestamp(word.at_ns / 1e9, UTC)
        return Text(f"{moment:%H:%M:%S} {_clean(word.bed)}: {word.kind} by {_clean(word.who)}")
    moment = datetime.fromtimestamp(word.stamps.committed / 1e9, UTC)
    at_s = word.stream_time.sample / word.stream_time.fs
    ending = {"start": "", "end": " ends", "reset": " reset"}.get(word.phase, "")
    notes = ", latched" if word.state == "latched" else ""
    notes += ", suppressed" if word.suppressed_by is not None else ""
    notes += f" ({_clean(word.reason)})" if word.reason else ""
    text = f"{moment:%H:%M:%S} {_clean(word.bed)} {mark(word):>3} {_words(word)}{ending}{notes} at {at_s:.1f} s"
    return Text(text, _style(word))


def _clean(text: str) -> str:
    """Text from outside, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _number(value: float | None) -> str:
    return "-?-" if value is None else f"{value:.0f}"


def _sparkline(rates: Iterable[float | None], bars: str) -> str:
    known = [rate for rate in rates if rate is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    # A range of 20 bpm at least: a steady pulse is a flat line, not noise blown up.
    low, span = min(low, (low + high) / 2 - 10), max(high - low, 20.0)
    return "".join(" " if rate is None else bars[round((rate - low) / span * (len(bars) - 1))] for rate in rates)


def _latency(latencies: Iterable[float]) -> str:
    ordered = sorted(latencies)
    if not ordered:
        return "-"
    return f"{ordered[len(ordered) // 2]:.0f}/{ordered[len(ordered) * 99 // 100]:.0f}"


def _data_age(row: Row, now: float) -> Text:
    if row.status is None:
        return Text("-")
    silent_s = now - row.status_at
    age_s = row.status.age_ms / 1e3 + (silent_s if silent_s > STALE_S / 2 else 0.0)
    return Text(_age(age_s), "bold red" if age_s > STALE_S else "")


def _age(seconds: float) -> str:
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d}" if hours else f"{minutes}:{rest:02d}" if minutes else f"{rest} s"
