"""How a soak goes, live: a table that is redrawn on a terminal, a line now and then on anything else."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from simulators.soak.observe import Observer, Slot
from simulators.soak.plan import Plan

LINE_S = 10.0


class Fault(Protocol):
    """A fault that was done."""

    kind: str
    at_s: float


class Progress:
    """Used as a context. `quiet`: says nothing."""

    def __init__(self, plan: Plan, *, quiet: bool = False) -> None:
        self._plan, self._quiet = plan, quiet
        self._console = Console(stderr=True)
        self._live = (
            Live(console=self._console, auto_refresh=False) if self._console.is_terminal and not quiet else None
        )
        self._said = "starting"
        self._line_due = 0.0

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """What happens now."""
        self._said = text
        if self._live is not None:
            self._live.update(f"soak {self._plan.name}: {text}", refresh=True)
        elif not self._quiet:
            self._console.print(f"soak {self._plan.name}: {text}", highlight=False)

    def show(self, slot: Slot, observer: Observer, struck: Sequence[Fault]) -> None:
        """The newest slot."""
        if self._quiet:
            return
        at_s = slot.at_s + slot.length_s
        where = f"{at_s:.0f} of {self._plan.duration_s:.0f} s" if at_s > 0 else f"warming, {-at_s:.0f} s left"
        cores = ", ".join(f"{name} {share:.2f}" for name, share in slot.cpu.items())
        rows: list[tuple[str, Any]] = [
            ("beds", f"{len(observer.accounts)} of {self._plan.beds}"),
            *((kind, _latency(slot, kind)) for kind in ("beats", "windows")),
            ("published", f"{slot.n_messages / slot.length_s:.0f}/s, {observer.holes} missed by us"),
            ("batch", f"{slot.batch[0]:.1f} judgements, {slot.batch[1]} at most"),
            ("samples missing", str(slot.counts.get("gap", 0))),
            ("cores", cores),
            ("memory", f"{sum(slot.rss_mb.values()):.0f} MB"),
            ("faults", f"{len(struck)} so far" + (f", last {struck[-1].kind}" if struck else "")),
            ("alert events", str(len(observer.alerts))),
        ]
        if self._live is not None:
            table = Table(title=f"soak {self._plan.name}: {where}", show_header=False)
            for row in rows:
                table.add_row(*row)
            self._live.update(table, refresh=True)
        elif time.monotonic() >= self._line_due:
            self._line_due = time.monotonic() + LINE_S
            told = "; ".join(
                f"{name} {value}" for name, value in rows if name in {"beats", "windows", "samples missing", "cores"}
            )
            self._console.print(f"{where}: {told}", highlight=False, soft_wrap=True)


def _latency(slot: Slot, kind: str) -> str:
    n, p50, p99, most, _ = slot.figures[kind]
    return f"{n / slot.length_s:.0f}/s, p50 {p50:.0f}, p99 {p99:.0f}, max {most:.0f} ms"
