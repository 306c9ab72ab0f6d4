"""The command line: a thin door. Each command imports what it runs when it runs."""

import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

if TYPE_CHECKING:
    from simulators.soak.plan import Plan
    from stream.config import Settings

OURS = {"model", "simulators", "stream"}
EXTRAS = {"psutil": "soak"}  # packages that are not of the core, by the extra that has them
FELL_SHORT, WRONG_USAGE = 1, 2
RUNS = Path("runs")  # each run of a ward without a ward.toml has a folder of its own there


class Number(click.FloatRange):
    """A number in a range, as click's, but for `nan` and `inf`, which it lets through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no number of use; give one in the range {self._describe_range()}.", param, ctx)
        return number


class Written(click.Path):
    """A file to be written, refused before the work where it cannot be; its folder must be there."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not path.parent.is_dir():
            self.fail(f"{path}: there is no folder {path.parent}; make it, or name another.", param, ctx)
        return path


config_option = click.option(
    "--config", "-c", "config_path", type=click.Path(), help="A ward.toml; without it, defaults."
)


def playing_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of what plays sources."""
    options = (
        click.option(
            "--source", "-s", "sources", multiple=True, help="A record, folder, `mitdb/208` or `sim:vf`; repeatable."
        ),
        click.option("--beds", type=click.IntRange(1, 4096), help="How many beds; fewer sources are used again."),
        click.option("--speed", default="1", show_default=True, help="0.25 to 100 times life, or `max`."),
        click.option("--packet-ms", type=Number(4, 10_000), default=100.0, show_default=True, help="Of a packet."),
        click.option("--start", type=Number(0), default=0.0, help="Begin each recording at this second."),
        click.option("--loop/--no-loop", default=False, help="Start recordings again at their end."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def weights_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of what runs the model."""
    options = (
        click.option("--weights", type=click.Path(dir_okay=False, path_type=Path), help="Other than the package's."),
        click.option(
            "--device", default="cpu", show_default=True, help="Where the model runs: cpu, cuda, mps or auto."
        ),
        click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="CPU threads of it."),
    )
    for option in reversed(options):
        command = option(command)
    return command


class Door(click.Group):
    """Runs `run` where no command is named, and says faults of use in one line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in {"-h", "--help"}):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            # What our packages raise under names of their own is meant for the user, and so is a file or folder that
            # cannot be used; all else is a fault of ours.
            if isinstance(error, OSError) and error.filename is not None:
                click.echo(f"wardbeat: {error.filename}: {error.strerror}; name a place that can be used", err=True)
                ctx.exit(WRONG_USAGE)
            if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get(error.name or "")):
                click.echo(f"wardbeat: {error.name} is not installed; pip install -e '.[{extra}]'", err=True)
                ctx.exit(WRONG_USAGE)
            if type(error).__module__.partition(".")[0] not in OURS:
                raise
            for line in str(error).splitlines():
                click.echo(f"wardbeat: {line}", err=True)
            ctx.exit(WRONG_USAGE if isinstance(error, ValueError) else FELL_SHORT)


@click.group(cls=Door, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Wardbeat: a streaming bedside monitor around ECG-MoE. Research software, not a medical device.

    Without a command: `run`. Exit codes: 0 done, 1 ran and fell short, 2 wrong usage or configuration.
    """


@main.command(
    epilog="""\b
Examples:
  python run_pipeline.py                                      eight simulated patients, until Ctrl-C
  python run_pipeline.py --source mitdb/208 --speed 4 --duration 120
  python run_pipeline.py run --config docs/ward.toml --headless"""
)
@config_option
@playing_options
@click.option("--duration", type=Number(0, min_open=True), help="Seconds (wall clock) until the end.")
@click.option("--headless", is_flag=True, help="Logs only, no terminal view.")
@click.option(
    "--state", "state_dir", type=click.Path(file_okay=False), help="For state and logs, where no --config is given."
)
def run(
    config_path: str | None,
    sources: tuple[str, ...],
    beds: int | None,
    speed: str,
    packet_ms: float,
    start: float,
    loop: bool,
    duration: float | None,
    headless: bool,
    state_dir: str | None,
) -> None:
    """Run a ward on this machine: producer, shards, worker, gateway, view; a summary at the end."""
    from stream.roles import run as ward
    from stream.roles.child import follow_parent

    follow_parent()  # of a soak
    settings = _settings(config_path)
    if config_path is None:
        settings = ward.in_folder(settings, Path(state_dir) if state_dir else _fresh_folder())
    elif state_dir is not None:
        raise click.UsageError(f"--state {state_dir!r}: goes without --config; set state_dir and journal in the file")
    settings = _with_sources(settings, sources, beds, config_path)
    _check_playing(settings, speed)
    produce = ["--speed", speed, "--packet-ms", str(packet_ms), "--start", str(start), *(["--loop"] if loop else [])]
    played = any(bed.source for bed in settings.beds.values())
    sys.exit(ward.serve(settings, produce if played else [], duration_s=duration, headless=headless))


@main.command(epilog="Example: python run_pipeline.py produce --source mitdb/208 --speed 4")
@config_option
@playing_options
@click.option("--stop", type=float, help="End each recording after so many seconds of it.")
@click.option("--lead", "leads", multiple=True, help="Send only this signal of each record; repeatable.")
@click.option("--account", type=Written(), help="At the end, samples sent by bed (JSON).")
@click.option("--spread", is_flag=True, help="Beds begin at different times, within 10 s, not all at once.")
@click.option("--control", help="Address to be told of faults at, such as tcp://127.0.0.1:5641.")
@click.option("--ledger", type=Written(), help="Keep what has been sent here, as it goes.")
def produce(
    config_path: str | None,
    sources: tuple[str, ...],
    beds: int | None,
    speed: str,
    packet_ms: float,
    start: float,
    loop: bool,
    stop: float | None,
    leads: tuple[str, ...],
    account: Path | None,
    spread: bool,
    control: str | None,
    ledger: Path | None,
) -> None:
    """Play recordings and simulated patients to the shards of their beds, as monitors would."""
    settings = _with_sources(_settings(config_path), sources, beds, config_path)
    _role("producer", settings)
    from simulators.plays import Bed
    from simulators.producer import Producer
    from stream.config import reached
    from stream.process import Stop

    played = [
        Bed(name, bed.source, reached(settings.shards[bed.shard].bind), leads or None)
        for name, bed in settings.beds.items()
        if bed.source
    ]
    try:
        producer = Producer(
            played,
            speed=speed,
            packet_ms=packet_ms,
            start_s=start,
            stop_s=stop,
            loop=loop,
            spread=spread,
            control=control,
            ledger=ledger,
        )
    except ValueError as error:  # what its arguments cannot be; nothing has been sent
        raise click.UsageError(str(error)) from None
    with Stop() as asked:
        code = producer.run(lambda: asked.asked)
    if account is not None:
        account.write_text(json.dumps(producer.samples))
    _leave(code)


@main.command(epilog="Example: python run_pipeline.py shard a --config ward.toml")
@click.argument("name", default="a")
@config_option
def shard(name: str, config_path: str | None) -> None:
    """Run one shard alone: the rings, detectors and alarm states of its beds."""
    from stream.config import SettingsError, suggest

    settings = _settings(config_path)
    if name not in settings.shards:
        raise SettingsError([f"shard {name!r}: not in the configuration; {suggest(name, settings.shards)}"])
    _role(f"shard.{name}", settings)
    from stream.roles import shard as role

    _leave(role.serve(settings, name))


@main.command(epilog="Example: python run_pipeline.py worker --config ward.toml")
@config_option
def worker(config_path: str | None) -> None:
    """Run the worker alone: the model on one device."""
    settings = _settings(config_path)
    _role("worker", settings)
    from stream.roles import worker as role

    _leave(role.serve(settings))


@main.command(epilog="Example: python run_pipeline.py gateway --config ward.toml")
@config_option
def gateway(config_path: str | None) -> None:
    """Run the gateway alone: journal, publisher, operators' actions."""
    settings = _settings(config_path)
    _role("gateway", settings)
    from stream.roles import gateway as role

    _leave(role.serve(settings))


@main.command(epilog="Example: RECORDINGS=recordings python run_pipeline.py annotate mitdb/208 --out out/")
@click.argument("source")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    help="Folder to write to; made if need be.",
)
@click.option(
    "--windows",
    is_flag=True,
    help="Write RECORD.windows.jsonl too: each window's rhythms, RR interval, age, sex, potassium, N A O ~ (research; "
    "docs/wire.md#window says what the fields are).",
)
@click.option("--strips", is_flag=True, help="Draw the strip of each red and yellow alert too, to OUT/strips.")
@weights_options
def annotate(
    source: str, out: Path, windows: bool, strips: bool, weights: Path | None, device: str, threads: int
) -> None:
    """Annotate recordings on a virtual clock: RECORD.moe (WFDB) and RECORD.alerts.jsonl for each record of SOURCE."""
    _threads(threads)
    from stream import annotate as annotator
    from stream import log

    log.configure("annotate", "warning")
    done = annotator.annotate(
        source, out, weights=weights, device=device, windows=windows, strips=strips, progress=sys.stderr.isatty()
    )
    n_beats, n_alerts = (sum(len(getattr(one, what)) for one in done.records) for what in ("beats", "alerts"))
    counts = _count(len(done.records), "record"), _count(n_beats, "beat"), _count(n_alerts, "alert event")
    click.echo(f"{', '.join(counts)}: {out}")
    _end_without(done.refused)


@main.command(epilog="Example: RECORDINGS=recordings python run_pipeline.py evaluate mitdb --json mitdb.json")
@click.argument("source")
@click.option("--json", "json_path", type=Written(), help="Write all figures here.")
@click.option("--html", "html_path", type=Written(), help="Write a page here.")
@click.option("--annotations", type=click.Path(file_okay=False, path_type=Path), help="Score these, from `annotate`.")
@weights_options
@click.option("--split", help="What the weights were trained on, for the report.")
@click.option("--seed", type=int, help="The seed they were trained with, for the report.")
def evaluate(
    source: str,
    json_path: Path | None,
    html_path: Path | None,
    annotations: Path | None,
    weights: Path | None,
    device: str,
    threads: int,
    split: str | None,
    seed: int | None,
) -> None:
    """Annotate recordings and score them against their reference annotations: EC57 tables, rhythm, alarms, delays."""
    _threads(threads)
    from stream import log
    from stream.evaluation import evaluate as scorer

    log.configure("evaluate", "warning")
    refused = scorer.evaluate(
        source,
        json_path,
        html_path,
        annotations,
        weights=weights,
        device=device,
        split=split,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    _end_without(refused)


journal_option = click.option(
    "--journal", type=click.Path(dir_okay=False, path_type=Path), help="A journal file; else the last run's."
)


@main.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  python run_pipeline.py alerts --bed bed1 --since 15m --code VFIB
  python run_pipeline.py alerts show 1f0c2a9b --png strip.png""",
)
@config_option
@journal_option
@click.option("--bed", help="Of this bed.")
@click.option("--since", help="Committed since: 90s, 15m, 2h, 3d ago, or 2026-01-31T12:00 (UTC).")
@click.option("--code", help="Of this code, such as VTACH.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The newest so many.")
@click.option("--actions", is_flag=True, help="What operators did, changes of limits too, in place of alerts.")
@click.option("--export", "form", type=click.Choice(["csv", "jsonl"]), help="All of them, as text on standard output.")
@click.pass_context
def alerts(
    ctx: click.Context,
    config_path: str | None,
    journal: Path | None,
    bed: str | None,
    since: str | None,
    code: str | None,
    limit: int,
    actions: bool,
    form: Literal["csv", "jsonl"] | None,
) -> None:
    """Query the journal of alerts; `alerts show ID` for one of them."""
    ctx.obj = path = _journal(config_path, journal)
    if ctx.invoked_subcommand:
        return
    from stream.alarms.conditions import CONDITIONS
    from stream.gateway import export, history
    from stream.gateway.journal import Journal
    from stream.views.view import printed

    try:
        since_ns = export.parse_since(since, time.time_ns()) if since else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None
    if actions and code:
        raise click.UsageError("--code: goes with alerts, an action has none; leave it or --actions out")
    with Journal(path, read_only=True) as opened:
        if code and code not in CONDITIONS and not any(opened.query(code=code, limit=1)):
            raise click.BadParameter(f"{code}: no such code; known are {', '.join(CONDITIONS)}", param_hint="--code")
        if form is not None and actions:
            export.export_actions(opened.actions(bed, since_ns), sys.stdout, form)
        elif form is not None:
            export.export_events(opened.query(bed, since_ns, code), sys.stdout, form)
        else:
            told = (
                history.table_of_actions(opened.actions(bed, since_ns, limit=limit), str(path))
                if actions
                else history.table(opened.query(bed, since_ns, code, limit), str(path))
            )
            printed().print(told)


@alerts.command("show", epilog="Example: python run_pipeline.py alerts show 1f0c2a9b --png strip.png")
@click.argument("alert_id", metavar="ID")
@config_option
@journal_option
@click.option("--png", type=Written(), help="Where to draw the strip; else ID.png.")
@click.option("--dpi", type=click.IntRange(50, 600), default=150, show_default=True, help="Dots per inch.")
@click.pass_obj
def show(path: Path, alert_id: str, config_path: str | None, journal: Path | None, png: Path | None, dpi: int) -> None:
    """One alert from beginning to end, and its strip drawn on ECG paper. ID: of the first column, or more of it."""
    from stream.gateway import history
    from stream.gateway.journal import Journal
    from stream.views import paper
    from stream.views.view import printed

    with Journal(_journal(config_path, journal) if config_path or journal else path, read_only=True) as opened:
        events = history.one(opened, alert_id)
        strip = opened.strip(events[0].strip) if events[0].strip else None
    printed().print(history.story(events))
    if strip is None:
        click.echo("no strip: reds and yellows have one, some seconds after they began" if png else "no strip")
        sys.exit(FELL_SHORT if png else 0)
    png = png or Path(f"{strip.id}.png")
    png.write_bytes(paper.draw(paper.sheet_of(strip), dpi))
    click.echo(f"strip: {png}")


@main.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    epilog="Example: RECORDINGS=recordings python run_pipeline.py train --quick --out out/",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def train(arguments: tuple[str, ...]) -> None:
    """Train ECG-MoE on the public recordings, and on simulated patients for potassium: weights, figures, model card."""
    from model import train as trainer

    def simulate(folder: Path, few: bool) -> None:
        from simulators import potassium

        potassium.write(folder, 40 if few else 400, duration_s=60.0, seed=0)

    sys.exit(trainer.main(list(arguments), simulate))


@main.command(
    epilog="""\b
Examples:
  python run_pipeline.py soak small                      a minute, twenty beds, two faults
  python run_pipeline.py soak thousand --out soak/       1,000 beds for half an hour
  python run_pipeline.py soak small --beds 200 --duration 300"""
)
@click.argument("plan", default="small")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for soak.json, soak.html and logs."
)
@click.option("--beds", type=click.IntRange(1, 20_000), help="In place of the plan's.")
@click.option("--duration", type=Number(5), help="Seconds to measure, in place of the plan's.")
@click.option("--seed", type=click.IntRange(0), help="In place of the plan's.")
@click.option("--find-capacity", is_flag=True, help="Run it with more and more beds: the most that hold its limits.")
def soak(
    plan: str, out: Path | None, beds: int | None, duration: float | None, seed: int | None, find_capacity: bool
) -> None:
    """Load a whole ward for long, with faults by a PLAN (a name or a TOML file): every sample and alert accounted for,
    a report, and exit code 1 when a limit of the plan is broken."""
    from simulators.soak.plan import load
    from simulators.soak.run import soak as run

    chosen = load(plan, beds=beds, duration_s=duration, seed=seed)
    folder = out or _fresh_folder()
    if find_capacity:
        _capacity(chosen, folder)
    result = run(chosen, folder)
    for limit in result["limits"]:
        verdict = {True: "held", False: "BROKEN", None: "not judged"}[limit["held"]]
        click.echo(f"{verdict:10} {limit['name']}: {limit['value']}, at most {limit['limit']}")
    for line in (*result["truth"]["lines"][:10], *result["notes"]):
        click.echo(line)
    cores = {name: round(process["cores"], 2) for name, process in result["processes"].items()}
    click.echo(f"{result['plan']['beds']} beds, {result['beds_per_core'] or 0:.0f} per core; cores: {cores}")
    click.echo(f"{folder / 'soak.html'}, {folder / 'soak.json'}")
    sys.exit(0 if result["held"] else FELL_SHORT)


@main.command(epilog="Example: python run_pipeline.py bench --json bench.json --plot bench.png")
@click.option("--beds", multiple=True, type=click.IntRange(1, 20_000), help="How many; repeatable. 1 to 4,000 if none.")
@click.option("--json", "json_path", type=Written(), help="Write all figures here.")
@click.option("--plot", "plot_path", type=Written(), help="Draw them here (PNG, SVG).")
@click.option("--device", default="cpu", show_default=True, help="Where the model runs: cpu, cuda, mps or auto.")
def bench(beds: tuple[int, ...], json_path: Path | None, plot_path: Path | None, device: str) -> None:
    """Measure what each part costs per bed, how that grows, and the whole against what one would do instead."""
    try:
        from tests.benchmarks import bench as benchmark
    except ImportError as error:
        raise click.ClickException(f"bench: {error}; it runs from a checkout, with the extra `bench`") from None
    benchmark.bench(beds or benchmark.BEDS, json_path, plot_path, device)


@main.command(epilog="Example: python run_pipeline.py fetch mitdb/208")
@click.argument("name")
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Folder; else the usual.")
def fetch(name: str, cache: Path | None) -> None:
    """Get a public database, or one record of it, from PhysioNet into the cache."""
    from model.datasets import cache_folder
    from model.fetch import fetch as get

    click.echo(get(name, cache or cache_folder()))


@main.command(epilog="Example: python run_pipeline.py check docs/ward.toml")
@click.argument("config_path", metavar="[WARD.TOML]", required=False, type=click.Path())
def check(config_path: str | None) -> None:
    """Validate a configuration without starting anything: settings, ports, folders, device, weights, sources."""
    from stream import check as checks
    from stream.config import SettingsError

    settings = _settings(config_path)
    problems = checks.problems(settings, _source_fault)
    if problems:
        raise SettingsError(f"{config_path or 'defaults'}: {problem}" for problem in problems)
    beds = _count(len(settings.beds), "bed")
    click.echo(f"{config_path or 'defaults'}: good; {beds}, shards {', '.join(settings.shards)}")


@main.group(epilog="Example: python run_pipeline.py bridges check ward.toml")
def bridges() -> None:
    """Ward buses: try them, listen to them, deal with what they did not take."""


@bridges.command("check", epilog="Example: python run_pipeline.py bridges check ward.toml")
@click.argument("config_path", metavar="WARD.TOML", type=click.Path())
def bridges_check(config_path: str) -> None:
    """Try every bridge of a configuration against its bus; no alert is sent."""
    from stream.bridges import tools
    from stream.config import SettingsError

    good, wrong = tools.check(_settings(config_path))
    for line in good:
        click.echo(line)
    if wrong:
        raise SettingsError(f"{config_path}: {line}" for line in wrong)
    if not good:
        click.echo(f"{config_path}: no bridges")


@bridges.command("tail", epilog="Example: python run_pipeline.py bridges tail mqtt --config ward.toml")
@click.argument("kind")
@config_option
@click.option("--most", type=click.IntRange(1), help="End after so many messages.")
def bridges_tail(kind: str, config_path: str | None, most: int | None) -> None:
    """Print what arrives at a consumer of a bus (mqtt, nats, amqp, hl7, fhir, jsonl), decoded.

    For hl7 this is the receiver itself: it listens at the bridge's url and acknowledges."""
    from stream.bridges import tools

    tools.tail(_settings(config_path), kind, lambda line: print(line, flush=True), most)


@bridges.command("replay", epilog="Example: python run_pipeline.py bridges replay hl7 --config ward.toml")
@click.argument("name")
@config_option
@click.option("--list", "only_list", is_flag=True, help="Show the dead letters and do nothing.")
@click.option("--discard", is_flag=True, help="Delete them.")
def bridges_replay(name: str, config_path: str | None, only_list: bool, discard: bool) -> None:
    """Let the gateway try the dead letters of the bridge NAME again."""
    from stream.bridges import tools

    for line in tools.letters(_settings(config_path), name, replay=not only_list, discard=discard):
        click.echo(line)


def _capacity(plan: "Plan", folder: Path) -> NoReturn:
    from simulators.soak.capacity import find_capacity

    most, tries = find_capacity(plan, folder, click.echo)
    (folder / "capacity.json").write_text(json.dumps({"beds": most, "tries": tries}, indent=1))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    click.echo(f"{most} beds hold the limits of {plan.name} on {cores} cores: {most / cores:.0f} beds per core")
    sys.exit(0 if most else FELL_SHORT)


def _with_sources(
    settings: "Settings", sources: tuple[str, ...], n_beds: int | None, config_path: str | None
) -> "Settings":
    """Beds for the sources of the command line; simulated patients where nothing names any."""
    from stream.roles.run import with_beds

    if config_path is not None and not sources and n_beds is None:
        return settings
    return with_beds(settings, _expanded(sources) or ["sim:default"] * (n_beds or 8), n_beds)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _end_without(refused: list[str]) -> NoReturn:
    """End a command with the records that it had to leave out, a line each."""
    for line in refused:
        click.echo(f"wardbeat: {line}", err=True)
    sys.exit(FELL_SHORT if refused else 0)


def _threads(n: int) -> None:
    import torch

    torch.set_num_threads(n)


def _check_playing(settings: "Settings", speed: str) -> None:
    """Say what a producer would refuse before anything is started."""
    from simulators.pacing import speed_of
    from stream.config import SettingsError

    try:
        speed_of(speed)
    except ValueError as error:
        raise SettingsError([str(error)]) from None
    faults = [
        _source_fault(source) for source in dict.fromkeys(bed.source for bed in settings.beds.values() if bed.source)
    ]
    if any(faults):
        raise SettingsError(fault for fault in faults if fault)


def _fresh_folder() -> Path:
    """Each run of a simulated ward starts with an empty journal, and leaves it to be looked at."""
    return RUNS / time.strftime("%Y%m%d-%H%M%S", time.gmtime())


def _expanded(sources: tuple[str, ...]) -> list[str]:
    """Every record of the sources, as paths; simulated patients as they are named."""
    from model.datasets import find

    expanded: list[str] = []
    for source in sources:
        expanded += [source] if source.startswith("sim:") else [str(path.resolve()) for path in find(source)]
    return expanded


def _source_fault(source: str) -> str:
    from model.datasets import find, info
    from stream.annotate import rate_fault

    try:
        if source.startswith("sim:"):
            from simulators.ward import patient_of

            patient_of(source, "bed")
        else:
            for path in find(source, download=False):
                rate_fault(info(path))
    except ValueError as error:  # a DatasetError is one too
        return str(error)
    return ""


def _settings(config_path: str | None) -> "Settings":
    from stream import config

    return config.load(config_path) if config_path else config.build({})


def _journal(config_path: str | None, journal: Path | None) -> Path:
    """The journal that is meant: the one named, that of the configuration, or the last run's."""
    from stream.gateway.history import newest_journal

    path = journal or (Path(_settings(config_path).gateway.journal) if config_path else None)
    return path or newest_journal(RUNS) or Path(_settings(None).gateway.journal)


def _leave(code: int) -> NoReturn:
    """End a role's process at once: to take torch apart would cost a second of the three that a ward has to stop."""
    import zmq

    zmq.Context.instance().destroy(linger=200)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _role(name: str, settings: "Settings") -> None:
    """What a process does first that is one role: follow its supervisor, keep its memory, and log."""
    from stream import log
    from stream.process import steady_heap
    from stream.roles.child import follow_parent

    follow_parent()
    steady_heap()
    log.configure(name, settings.supervisor.log_level)


if __name__ == "__main__":
    main()
