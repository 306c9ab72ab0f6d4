"""The command line: a thin door. Each command imports what it runs when it runs."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from stream.config import Settings

OURS = {"model", "simulators", "stream"}
WRONG_USAGE = 2

config_option = click.option(
    "--config", "-c", "config_path", type=click.Path(), help="A ward.toml; without it, defaults."
)
json_option = click.option(
    "--json", "json_path", type=click.Path(dir_okay=False), help="Write everything to this file."
)


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
            # What our packages raise under names of their own is meant for the user; all else is a fault of ours.
            if type(error).__module__.partition(".")[0] not in OURS:
                raise
            for line in str(error).splitlines():
                click.echo(f"wardbeat: {line}", err=True)
            ctx.exit(WRONG_USAGE)


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
@click.option("--source", "-s", "sources", multiple=True, help="A record, a folder, `mitdb/208`, `sim:vf`; repeatable.")
@config_option
@click.option("--beds", type=click.IntRange(1, 4096), help="How many beds; fewer sources are used again.")
@click.option("--speed", default="1", show_default=True, help="0.25 to 100 times life, or `max`.")
@click.option("--duration", type=click.FloatRange(0, min_open=True), help="Seconds (wall clock) until the end.")
@click.option(
    "--packet-ms", type=click.FloatRange(1, 10_000), default=100.0, show_default=True, help="Length of a packet."
)
@click.option("--loop/--no-loop", default=None, help="Start recordings again at their end.")
@click.option("--headless", is_flag=True, help="Logs only, no terminal view.")
@click.option(
    "--state", "state_dir", type=click.Path(file_okay=False), help="For state and logs, where no --config is given."
)
def run(
    sources: tuple[str, ...],
    config_path: str | None,
    beds: int | None,
    speed: str,
    duration: float | None,
    packet_ms: float,
    loop: bool | None,
    headless: bool,
    state_dir: str | None,
) -> None:
    """Run a ward on this machine: producer, shards, worker, gateway, view; a summary at the end."""
    from stream.roles import run as ward

    settings = _settings_of_run(sources, config_path, beds, state_dir)
    produce = ["--speed", speed, "--packet-ms", str(packet_ms)]
    if loop is not None:
        produce.append("--loop" if loop else "--no-loop")
    if not any(bed.source for bed in settings.beds.values()):
        produce = []
    sys.exit(ward.serve(settings, produce, duration_s=duration, headless=headless))


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

    sys.exit(role.serve(settings, name))


@main.command(epilog="Example: python run_pipeline.py worker --config ward.toml")
@config_option
def worker(config_path: str | None) -> None:
    """Run the worker alone: the model on one device."""
    settings = _settings(config_path)
    _role("worker", settings)
    from stream.roles import worker as role

    sys.exit(role.serve(settings))


@main.command(epilog="Example: python run_pipeline.py gateway --config ward.toml")
@config_option
def gateway(config_path: str | None) -> None:
    """Run the gateway alone: journal, publisher, operators' actions."""
    settings = _settings(config_path)
    _role("gateway", settings)
    from stream.roles import gateway as role

    sys.exit(role.serve(settings))


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
    beds = f"{len(settings.beds)} bed{'s' * (len(settings.beds) != 1)}"
    click.echo(f"{config_path or 'defaults'}: good; {beds}, shards {', '.join(settings.shards)}")


def _settings_of_run(
    sources: tuple[str, ...], config_path: str | None, n_beds: int | None, state_dir: str | None
) -> "Settings":
    from stream.roles.run import in_folder, with_beds

    settings = _settings(config_path)
    if config_path is None:
        settings = in_folder(settings, Path(state_dir) if state_dir else _fresh_folder())
    elif state_dir is not None:
        raise click.UsageError(f"--state {state_dir!r}: goes without --config; set state_dir and journal in the file")
    if config_path is not None and not sources and n_beds is None:
        return settings
    return with_beds(settings, _expanded(sources) or ["sim:default"] * (n_beds or 8), n_beds)


def _fresh_folder() -> Path:
    """Each run of a simulated ward starts with an empty journal, and leaves it to be looked at."""
    return Path("runs") / time.strftime("%Y%m%d-%H%M%S", time.gmtime())


def _expanded(sources: tuple[str, ...]) -> list[str]:
    """Every record of the sources, as paths; simulated patients as they are named."""
    from model.datasets import find

    expanded: list[str] = []
    for source in sources:
        expanded += [source] if source.startswith("sim:") else [str(path.resolve()) for path in find(source)]
    return expanded


def _source_fault(source: str) -> str:
    from model.datasets import find, info

    try:
        if source.startswith("sim:"):
            from simulators.ward import patient_of

            patient_of(source, "bed")
        else:
            for path in find(source, download=False):
                info(path)
    except ValueError as error:  # a DatasetError is one too
        return str(error)
    return ""


def _settings(config_path: str | None) -> "Settings":
    from stream import config

    return config.load(config_path) if config_path else config.build({})


def _role(name: str, settings: "Settings") -> None:
    """What a process does first that is one role: follow its supervisor, and log."""
    from stream import log
    from stream.roles.child import follow_parent

    follow_parent()
    log.configure(name, settings.supervisor.log_level)


if __name__ == "__main__":
    main()
