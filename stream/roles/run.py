"""A whole ward on this machine: its roles under a supervisor, what they publish on the screen, a summary at the end."""

import importlib.util
import itertools
import os
import sys
import time
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import structlog
from rich.console import RenderableType

from stream import check, checkpoint, config, log
from stream.config import BedSettings, Settings, SettingsError
from stream.gateway.subscriber import Publication, Subscriber
from stream.process import Stop
from stream.roles.child import Role
from stream.roles.supervisor import Supervisor
from stream.views.bedside import NOT_RECORDED
from stream.views.tally import Tally
from stream.views.view import View, open_view, printed

READY_S = 120.0  # to load and warm the model, on a slow machine
QUIET_S = 2.5  # nothing new published for so long after the last source ended: all is judged
SETTLE_S = 30.0  # but no longer than this is waited for it
STOPPING_S = 0.8  # and no longer than this, in all, after Ctrl-C
POLL_S = 0.05
SPARE_AFTER_S = 10.0
KEPT_S = 1.5  # in which every bed that shards have kept is told of: its account goes out once a second
PRODUCER = "producer"
ACCOUNT = "sent.json"  # what the producer has sent, by bed


def in_folder(settings: Settings, folder: Path) -> Settings:
    """The same ward with all that it writes in one folder."""
    folder = folder.resolve()
    replace = msgspec.structs.replace
    return replace(
        settings,
        gateway=replace(settings.gateway, journal=str(folder / "journal.sqlite")),
        supervisor=replace(settings.supervisor, state_dir=str(folder)),
        shards={
            name: replace(shard, state_dir=str(folder / f"shard-{name}")) for name, shard in settings.shards.items()
        },
    )


def with_beds(settings: Settings, sources: Sequence[str], n_beds: int | None = None) -> Settings:
    """The same ward with a bed for each source, in turn on each shard; `n_beds`: sources are used again, or cut off.

    A bed has the name of its record, a simulated patient's is `bed1` and on. Raises SettingsError where the
    settings name sources of their own, or the shards have too few places."""
    if any(bed.source for bed in settings.beds.values()):
        raise SettingsError(["beds: the configuration names sources; leave out --source and --beds, or them"])
    n_beds = n_beds or len(sources)
    capacity = sum(shard.capacity for shard in settings.shards.values())
    if n_beds > capacity:
        raise SettingsError([f"beds: {n_beds} are over the {capacity} of shards.*.capacity; raise it, or add a shard"])
    places = itertools.cycle(settings.shards)
    free = {name: shard.capacity for name, shard in settings.shards.items()}
    beds: dict[str, BedSettings] = {}
    for number, source in enumerate(itertools.islice(itertools.cycle(sources), n_beds), 1):
        shard = next(name for name in places if free[name])
        free[shard] -= 1
        name = f"bed{number}" if source.startswith("sim:") else Path(source).name
        again = sum(known.partition("#")[0] == name for known in beds)
        beds[f"{name}#{again + 1}" if again else name] = BedSettings(shard=shard, source=source)
    return msgspec.structs.replace(settings, beds=settings.beds | beds)


def serve(
    settings: Settings, produce: Sequence[str], *, duration_s: float | None = None, headless: bool = False
) -> int:
    """Run the ward until all sources have ended and been judged, `duration_s` has passed, or SIGINT or SIGTERM.

    `produce`: the options of the producer's command line, none for a ward whose sources are elsewhere.
    `headless`: logs of all roles on standard error in place of the terminal view. Returns the exit code: 0, or 1
    where a role was given up, the producer failed, or what was sent is not all accounted for. Raises SettingsError
    where an address is taken or a role cannot use its settings."""
    faults = check.taken(settings)
    if faults:
        raise SettingsError(faults)
    state = Path(settings.supervisor.state_dir)
    state.mkdir(parents=True, exist_ok=True)
    settings, words = _what_is_free(settings)
    page = settings.dashboard.url if settings.dashboard.enabled else ""
    config.save(settings, state / "settings.json")
    display = open_view(f"{settings.ward.name}  {page}".rstrip(), headless=headless)
    quiet = {"debug": "debug", "info": "warning"}  # the view tells the usual course of things itself
    level = settings.supervisor.log_level
    log.configure("supervisor", level if headless else quiet.get(level, level), display.stream)
    for word in words:
        structlog.get_logger().warning("without", what=word)
    roles = _roles(settings, state / "settings.json", produce)
    kept = any(checkpoint.paths(Path(shard.state_dir)) for shard in settings.shards.values())
    echo = sys.stderr if headless else None
    with (
        Stop() as stop,
        display,
        Subscriber(settings.gateway.publish, settings.gateway.control) as news,
        Supervisor(roles, state, control=settings.supervisor.control, echo=echo) as supervisor,
    ):
        ward = _Ward(supervisor, news, display, state / ACCOUNT, kept)
        ward.run(bool(produce), duration_s, lambda: stop.asked, "" if headless else page)
    if supervisor.wrong_usage:
        raise SettingsError([supervisor.given_up])
    printed().print(*ward.closing(), f"state and logs: {state}", sep="\n")
    return 1 if supervisor.given_up or ward.fell_short else 0


def _what_is_free(settings: Settings) -> tuple[Settings, list[str]]:
    """The settings without what a ward can do without and whose address is taken, and what to say of that."""
    replace, own, words = msgspec.structs.replace, settings.dashboard, []
    if own.enabled:
        fault = check.fault_of("dashboard.port", f"tcp://{own.host}:{own.port}")
        if not importlib.util.find_spec("uvicorn"):
            fault = "dashboard: uvicorn is not installed; pip install -e '.[dashboard]', or set enabled = false"
        if fault:
            words.append(f"no dashboard: {fault}")
            settings = replace(settings, dashboard=replace(own, enabled=False))
    control = settings.producer.control
    fault = "" if control is None else check.fault_of("producer.control", control)
    if fault:
        words.append(f"no faults on demand: {fault}")
        settings = replace(settings, producer=replace(settings.producer, control=None))
    return settings, words


def _open(page: str) -> None:
    """Show the page to who sits here; over SSH and in a container nobody does."""
    seen = sys.platform in {"darwin", "win32"} or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if seen and sys.stdout.isatty() and not os.environ.get("SSH_CONNECTION"):
        webbrowser.open(page)


def _roles(settings: Settings, path: Path, produce: Sequence[str]) -> list[Role]:
    given = ("--config", str(path))
    # One after the other and when the ward is up: loading takes a core for seconds.
    spare_s = itertools.count(SPARE_AFTER_S, SPARE_AFTER_S) if settings.supervisor.spares else itertools.repeat(None)
    roles = [Role("worker", ("worker", *given), spare_after_s=next(spare_s)), Role("gateway", ("gateway", *given))]
    roles += [Role(f"shard.{name}", ("shard", name, *given), spare_after_s=next(spare_s)) for name in settings.shards]
    if produce:
        account = ("--account", str(path.with_name(ACCOUNT)))
        control = ("--control", settings.producer.control) if settings.producer.control else ()
        roles.append(Role(PRODUCER, ("produce", *given, *account, *control, *produce), once=True))
    return roles


class _Ward:
    """The loop of `serve`. `kept`: shards have the state of an earlier run."""

    def __init__(
        self, supervisor: Supervisor, news: Subscriber, display: View, account: Path, kept: bool = False
    ) -> None:
        self._supervisor, self._news, self._display, self._kept = supervisor, news, display, kept
        self._account = account
        self._tally = Tally()
        self._began = time.monotonic()
        self._settled = self._stopped = False

    def run(self, produced: bool, duration_s: float | None, asked: Callable[[], bool], page: str = "") -> None:
        self._account.unlink(missing_ok=True)
        first = [name for name in self._supervisor.status() if name != PRODUCER]
        self._supervisor.start(*first)
        if not self._supervisor.wait_ready(first, READY_S, asked):
            return
        if page:
            _open(page)
        if self._kept:
            told = time.monotonic() + KEPT_S
            while time.monotonic() < told and not asked():
                self.turn()
            self._tally = Tally(before=self._tally.accounts())
        if produced:
            self._supervisor.start(PRODUCER)
            ready = self._supervisor.wait_ready([PRODUCER], READY_S, lambda: asked() or self._produced_all(True))
            if not (ready or self._produced_all(True)):
                return
        self._began = time.monotonic()
        until = self._began + duration_s if duration_s is not None else float("inf")

        def stopped() -> bool:
            return asked() or self._supervisor.stop_asked or bool(self._supervisor.given_up)

        while not stopped() and time.monotonic() < until and not self._produced_all(produced):
            self.turn()
        self._end(produced, stopped)

    def turn(self) -> None:
        self._supervisor.poll(POLL_S)
        elapsed_s = time.monotonic() - self._began
        for item in self._news.poll():
            if isinstance(item, Publication):
                self._tally.take(item.message, elapsed_s)
            self._display.take(item)
        self._display.refresh()
        self._news.watch(self._display.watched)

    def closing(self) -> list[RenderableType]:
        """The summary: the beds, then what holds for all of them."""
        tally = self._tally
        lines: list[RenderableType] = []
        first = "never" if tally.first_alert_s is None else f"after {tally.first_alert_s:.1f} s"
        n_alerts = ", ".join(f"{tally.priorities[priority]} {priority}" for priority in ("high", "medium", "low"))
        lines.append(f"alerts: {n_alerts}; the first of a patient {first}")
        if tally.unrecorded:
            lines.append(
                f"{NOT_RECORDED}: {tally.unrecorded} alert events were shown and are not in the journal; "
                "the shards keep them in their folders and hand them over when they are started there again"
            )
        lines.append(f"samples: {self._samples()}")
        kinds = ", ".join(f"{kind} {p50:.0f}/{p99:.0f}" for kind, (p50, p99) in tally.latencies().items())
        lines.append(f"sample received to message published, p50/p99 in ms: {kinds or 'not told'}")
        restarts = {name: role.restarts for name, role in self._supervisor.status().items() if role.restarts}
        lines.append("restarts: " + (", ".join(f"{name} {n}" for name, n in restarts.items()) or "none"))
        for bed, lost in tally.lost().items():
            lines.append(f"{bed}: " + ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in lost.items()))
        if self._supervisor.given_up:
            lines.append(f"given up: {self._supervisor.given_up}")
        if self._producer_failed:
            lines.append(f"producer failed: {self._supervisor.last_line(PRODUCER)}")
        return [tally.summary(), *lines] if tally.beds else lines

    @property
    def fell_short(self) -> bool:
        """Whether samples are unaccounted for, or that could not be told in time, alerts are not on disk, or the
        producer failed."""
        untold = self._sent_is_known and not (self._settled or self._stopped)
        return bool(untold or self.unaccounted or self._tally.unrecorded or self._producer_failed)

    @property
    def _producer_failed(self) -> bool:
        return self._produced_all(PRODUCER in self._supervisor.status()) and self._supervisor.exit_code(PRODUCER) != 0

    @property
    def _sent_is_known(self) -> bool:
        """Whether the producer told what it sent; one that was killed took that with it."""
        return self._account.exists() and not self._supervisor.status()[PRODUCER].restarts

    @property
    def unaccounted(self) -> int:
        """Samples that were sent and are neither judged nor known to be missing; 0 where that cannot be told."""
        if not (self._settled and self._sent_is_known):
            return 0
        known = self._tally.samples()
        return sum(abs(n - sum(known.get(bed, (0, 0)))) for bed, n in self._sent().items())

    def _samples(self) -> str:
        judged, missing = (sum(column) for column in zip((0, 0), *self._tally.samples().values(), strict=True))
        if not self._sent_is_known:
            why = "; the producer was killed, so what it sent is not known" if self._account.exists() else ""
            return f"{judged} judged, {missing} missing{why}"
        sent = sum(self._sent().values())
        late = "stopped with judgements under way" if self._stopped else f"not all were judged after {SETTLE_S:g} s"
        rest = f"{self.unaccounted} unaccounted" if self._settled else late
        return f"{sent} sent, {judged} judged, {missing} missing, {rest}"

    def _sent(self) -> dict[str, int]:
        return msgspec.json.decode(self._account.read_bytes(), type=dict[str, int])

    def _produced_all(self, produced: bool) -> bool:
        return produced and self._supervisor.finished(PRODUCER)

    def _end(self, produced: bool, stopped: Callable[[], bool]) -> None:
        """End the sources, and wait for what they sent to be judged."""
        until = time.monotonic() + SETTLE_S
        if produced:
            self._supervisor.finish(PRODUCER)
        progress, since = -1, time.monotonic()
        while time.monotonic() < until:
            if stopped() and not self._stopped:
                self._stopped, until = True, time.monotonic() + STOPPING_S
            self.turn()
            ready = not any(role.state in {"waiting", "starting"} for role in self._supervisor.status().values())
            if self._tally.progress != progress or not ready or (produced and not self._produced_all(produced)):
                progress, since = self._tally.progress, time.monotonic()
            elif time.monotonic() - since > QUIET_S:
                self._settled = True
                return
