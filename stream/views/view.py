"""The ward in a terminal: a row per bed, and below it the alerts as they happen.

A client of the gateway like any other. Three ways to show the same items, made by `open_view`: a
live screen on a terminal, plain lines where standard output is none, log events for `--headless`.

    with open_view("ward 3") as view:
        while ...:
            for item in subscriber.poll(0.05):
                view.take(item)
            view.refresh()

`view.watched` are the beds whose waves it can show (see `Subscriber.watch`). `view.stream` is where this process's log
may go meanwhile; None for standard error.
"""

import io
import re
import sys
from collections import deque
from typing import IO

import structlog
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream.views import bedside
from stream.views.bedside import Item, Row, Ward
from stream.wire import Action, AlertEvent

log = structlog.get_logger()

NOTICE = "RESEARCH SOFTWARE, NOT FOR CLINICAL USE: simulated or replayed patients"
REFRESH_S = 0.25
STATE_S = 10.0  # plain lines tell the state of the beds so often
N_ALERTS = 200
N_LEFT = 20  # lines left on the terminal at the end
_BARS = "▁▂▃▄▅▆▇█"
_LOG_HEAD = re.compile(r"^timestamp=\S*T(\d\d:\d\d:\d\d)\S* level=\S+ role=\S+ ")


class Screen:
    """A live screen, redrawn in place: the whole ward that fits, those with alerts first if not all do."""

    def __init__(self, title: str, ward: Ward, console: Console) -> None:
        self._title, self._ward, self._console = title, ward, console
        self._lines: deque[Text] = deque(maxlen=N_ALERTS)
        self._drawn_at = 0.0
        self._bars = _BARS if console.encoding.lower().startswith("utf") else ""
        self.watched: frozenset[str] = frozenset()
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
        self._lines.extend(bedside.line(word) for word in self._ward.take(item))

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
            if self._wave():
                table.add_column("ECG", no_wrap=True)
        for name in ("PVC/min", "alert", "since", "data age", "ms p50/p99"):
            right = name != "alert"
            table.add_column(name, justify="right" if right else "left", no_wrap=True, ratio=None if right else 1)
        beds = bedside.shown(ward.rows, n_beds)
        self.watched = frozenset(beds) if self._bars else self.watched
        for bed in beds:
            table.add_row(*self._cells(bed, ward.rows[bed]))
        hidden = len(ward.rows) - n_beds
        parts: list[RenderableType] = [Text(NOTICE, "bold black on yellow"), self._state(), Text(), table]
        if ward.unrecorded:
            words = f"{bedside.NOT_RECORDED}: {ward.unrecorded} alert events are not on disk"
            parts.insert(1, Text(words, "bold white on red"))
        if hidden:
            parts.append(Text(f"and {hidden} more beds, none with a higher alert", "dim"))
        parts += [Text(), Text("alerts", "bold")]
        room = height - n_beds - len(parts) - bool(hidden)
        parts += list(self._lines)[-max(room, 3) :] if self._lines else [Text("none yet", "dim")]
        return Group(*parts)

    def _state(self) -> Text:
        ward = self._ward
        text = Text(bedside.clean(self._title), "bold")
        if ward.heard_at is None:
            return text.append("  waiting for the gateway", "not bold yellow")
        silent_s = ward.monotonic() - ward.heard_at
        if silent_s > bedside.STALE_S:
            return text.append(f"  GATEWAY SILENT for {bedside.age(silent_s)}", "bold red")
        words = [f"{len(ward.rows)} beds"]
        if ward.gateway is not None:
            counts, latency = ward.gateway.counts, ward.gateway.latency_ms
            words.append(f"{counts.get('events_committed', 0)} alert events on disk")
            if counts.get("journal_failed"):
                words.append(f"JOURNAL FAILED {counts['journal_failed']} times")
            if "decided>committed" in latency:
                words.append("decided to disk {:.0f}/{:.0f} ms".format(*latency["decided>committed"]))
        if ward.n_missed:
            words.append(f"{ward.n_missed} publications missed")
        return text.append("  " + ", ".join(words), "not bold")

    def _cells(self, bed: str, row: Row) -> list[Text]:
        now = self._ward.monotonic()
        numeric = row.numeric
        known = numeric is not None and now - row.numeric_at <= bedside.STALE_S
        rhythm = bedside.clean(numeric.rhythm) if numeric and known else "-?-"
        cells = [
            Text(bedside.clean(bed)),
            Text(rhythm),
            Text(bedside.number(numeric.hr if numeric and known else None), "bold green"),
        ]
        if self._bars:
            cells.append(Text(bedside.sparkline(list(row.rates)[-self._trend() :], self._bars), "green"))
            if self._wave():
                fresh = now - row.wave_at <= bedside.STALE_S  # one that stands still would look alive
                cells.append(Text(row.wave.text(self._wave()) if fresh else "", "green"))
        cells.append(Text(bedside.number(numeric.pvc_per_min if numeric and known else None)))
        cells += self._alert(row)
        cells.append(bedside.data_age(row, now))
        return [*cells, Text(bedside.latency(row.latencies))]

    def _trend(self) -> int:
        """How many heart rates there is room for: 8 at 80 columns, all at 168."""
        return min(8 + max(self._console.width - 80, 0) // 4, bedside.TREND)

    def _wave(self) -> int:
        """How many letters of ECG there is room for: none at 80 columns, 12 at 96, 40 at 160."""
        room = (self._console.width - 80) * 3 // 4
        return min(room, 40) if room >= 12 else 0

    def _alert(self, row: Row) -> list[Text]:
        """The highest alert that stands, or the last that is over; and since when."""
        standing = bedside.highest(row)
        shown = standing or row.last
        if shown is None:
            return [Text(""), Text("")]
        event, since_ns = shown
        style = bedside.style(event) if standing else "dim"
        note = ", latched" if event.state == "latched" else "" if standing else ", over"
        age = bedside.age((self._ward.utc_ns() - since_ns) / 1e9)
        return [
            Text(f"{bedside.mark(event)} {bedside.words(event)}{note}", style),
            Text(age, "" if standing else "dim"),
        ]


class _Said(io.StringIO):
    """Takes the log of the process that shows the screen, a line of it like an alert, since anything
    written past the screen would spoil it. Once the screen is gone it goes to standard error."""

    def __init__(self, lines: deque[Text], live: Live) -> None:
        self._lines, self._live = lines, live

    def write(self, text: str) -> int:
        if self._live.is_started:
            short = _LOG_HEAD.sub(r"\1 ", text)
            self._lines.extend(Text(bedside.clean(line), "yellow") for line in short.splitlines() if line)
            return len(text)
        return sys.stderr.write(text)


class Lines:
    """Plain lines on an output that is no terminal: alerts as they happen, the beds every 10 s."""

    def __init__(self, title: str, ward: Ward, console: Console) -> None:
        self._title, self._ward, self._console = title, ward, console
        self._told_at = ward.monotonic()
        self.stream: IO[str] | None = None
        self.watched: frozenset[str] = frozenset()

    def __enter__(self) -> "Lines":
        self._print(f"{self._title}: {NOTICE}")
        return self

    def __exit__(self, *_: object) -> None:
        return

    def take(self, item: Item) -> None:
        for word in self._ward.take(item):
            self._print(bedside.line(word).plain)

    def refresh(self) -> None:
        """Tell the state of the beds where that is due."""
        now = self._ward.monotonic()
        if now - self._told_at < STATE_S:
            return
        self._told_at = now
        for bed in bedside.shown(self._ward.rows, len(self._ward.rows)):
            self._print(bedside.sentence(bed, self._ward.rows[bed], now))

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Logs:
    """Log events: `alert`, `action` and `note`, with fields."""

    def __init__(self, ward: Ward) -> None:
        self._ward = ward
        self.stream: IO[str] | None = None
        self.watched: frozenset[str] = frozenset()

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


def printed() -> Console:
    """Standard output for tables. A log or a pipe has no width of its own: nothing is to be cut there."""
    console = Console()
    return console if console.is_terminal else Console(width=140)
