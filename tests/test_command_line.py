"""The command line as a user meets it: help, refusals in one line, and a ward of real processes."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import wfdb
from click.testing import CliRunner, Result

from model.ec57.marks import marks, write_marks
from run_pipeline import main
from stream import config

ROOT = Path(__file__).resolve().parents[1]
DOOR = [sys.executable, str(ROOT / "run_pipeline.py")]
COMMANDS = sorted(main.commands)


@pytest.fixture
def call() -> Iterator[Callable[..., Result]]:
    """Runs a command in this process."""
    yield lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])
    structlog.reset_defaults()  # a command has set logs up on an output that is closed by now


@pytest.fixture
def ward(tmp_path: Path, free_port: Callable[[], int]) -> Path:
    """A ward.toml of its own ports."""
    ports = {
        "shards.a": ("bind",),
        "worker": ("bind",),
        "gateway": ("bind", "publish", "control"),
        "supervisor": ("control",),
    }
    lines = []
    for section, keys in ports.items():
        lines += [f"[{section}]", *(f'{key} = "tcp://127.0.0.1:{free_port()}"' for key in keys)]
    path = tmp_path / "ward.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A WFDB record of 12 s with one lead, II."""
    beats = np.zeros(3000)
    beats[125::200] = 1.0
    signal_mv = np.convolve(beats, np.hanning(15), "same")[:, None]
    wfdb.wrsamp("short", 250, ["mV"], ["II"], signal_mv, fmt=["16"], write_dir=str(tmp_path))
    return tmp_path / "short"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(call: Callable[..., Result], command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"run_pipeline.py {command}" in re.sub(r"\s+", " ", result.output)


def test_help_comes_without_loading_torch() -> None:
    script = """
import sys, run_pipeline
run_pipeline.main(["run", "--help"], standalone_mode=False)
print("torch" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_without_a_command_it_is_run(call: Callable[..., Result], tmp_path: Path) -> None:
    result = call("--config", tmp_path / "none.toml")
    assert result.exit_code == 2
    assert result.output.startswith(f"wardbeat: {tmp_path}/none.toml: cannot be read")


def test_a_mistyped_command_or_option_is_told_what_is_close(call: Callable[..., Result]) -> None:
    assert "Did you mean 'annotate'?" in call("anotate").output
    result = call("--speeed", "2")
    assert result.exit_code == 2
    assert "'--speed'" in result.output


@pytest.mark.parametrize("command", ["run", "check", "worker", "gateway", "shard", "produce"])
def test_an_unknown_key_in_ward_toml_is_refused_by_all_that_read_it(
    call: Callable[..., Result], tmp_path: Path, command: str
) -> None:
    path = tmp_path / "ward.toml"
    path.write_text("[worker]\nmax_bach = 1\n")
    result = call(command, path) if command == "check" else call(command, "--config", path)
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert line.startswith(f"wardbeat: {path}: worker.max_bach: unknown key; did you mean max_batch?")


def test_a_shard_that_is_not_configured_is_refused(call: Callable[..., Result]) -> None:
    result = call("shard", "aa")
    assert (result.exit_code, result.output) == (
        2,
        "wardbeat: shard 'aa': not in the configuration; did you mean a? known: a\n",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--source", "sim:nothing"), "no simulated patient 'nothing'; choose among default"),
        (("--source", "sim:vf", "--speed", "1000"), "speed: "),
        (("--source", "sim:vf", "--packet-ms", "0"), "--packet-ms"),
        (("--source", "sim:vf", "--packet-ms", "nan"), "--packet-ms"),
        (("--source", "sim:vf", "--start", "-5"), "--start"),
        (("--source", "nowhere/at/all.x"), "nowhere/at/all.x: "),
        (("--source", "sim:vf", "--beds", "65"), "beds: 65 are over the 64 of shards.*.capacity"),
    ],
    ids=["patient", "speed", "packets", "no packets", "start", "source", "too many beds"],
)
def test_what_cannot_be_played_is_refused(call: Callable[..., Result], arguments: tuple[str, ...], said: str) -> None:
    result = call("produce", *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_an_unknown_lead_is_refused_with_those_there_are(call: Callable[..., Result], record: Path) -> None:
    result = call("produce", "--source", record, "--lead", "V9")
    assert result.exit_code == 2
    assert "'V9'" in result.output
    assert "II" in result.output


def test_a_truncated_record_is_refused(call: Callable[..., Result], record: Path, tmp_path: Path) -> None:
    data = record.with_suffix(".dat")
    data.write_bytes(data.read_bytes()[:100])
    for arguments in (("produce", "--source", record), ("annotate", record, "--out", tmp_path / "out")):
        result = call(*arguments)
        assert result.exit_code == 2, arguments
        assert "short" in result.output


def test_a_header_that_names_a_missing_file_is_refused(
    call: Callable[..., Result], record: Path, tmp_path: Path
) -> None:
    record.with_suffix(".dat").unlink()
    result = call("annotate", record, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "short.dat" in result.output


def test_a_record_that_cannot_be_read_is_told_and_the_rest_annotated_and_scored(
    call: Callable[..., Result], record: Path, tmp_path: Path
) -> None:
    write_marks(record, "atr", marks(range(125, 3000, 200), ["N"] * 15), 250)
    for suffix in (".hea", ".dat"):
        content = record.with_suffix(suffix).read_bytes().replace(b"short", b"noise")
        record.with_name("noise").with_suffix(suffix).write_bytes(content)
    record.with_name("noise.dat").write_bytes(np.random.default_rng(0).bytes(6000))
    annotated = call("annotate", tmp_path, "--out", tmp_path / "out")
    assert annotated.exit_code == 1
    assert "1 record, 15 beats, " in annotated.output
    scored = call("evaluate", tmp_path, "--json", tmp_path / "scored.json", "--html", tmp_path / "scored.html")
    assert scored.exit_code == 1, scored.output
    for result in (annotated, scored):
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("wardbeat: ")]
        assert line.startswith("wardbeat: noise: II is corrupt")
    told = json.loads((tmp_path / "scored.json").read_text())
    assert [one["record"] for one in told["records"]] == ["short"]
    assert told["unread"] == [line.removeprefix("wardbeat: ")]
    assert "is not scored: 1 record" in scored.stdout
    assert "noise: II is corrupt" in (tmp_path / "scored.html").read_text()


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_figures_that_could_not_be_written_are_refused_before_they_are_made(
    call: Callable[..., Result], record: Path, tmp_path: Path, option: str
) -> None:
    result = call("evaluate", record, option, tmp_path / "none" / "figures")
    assert result.exit_code == 2
    assert f"there is no folder {tmp_path}/none; make it" in re.sub(r"\s+", " ", result.output)


@pytest.mark.parametrize("arguments", [("annotate", "", "--out", "out"), ("evaluate", ""), ("run", "--source", "")])
def test_no_source_is_not_the_working_folder(call: Callable[..., Result], arguments: tuple[str, ...]) -> None:
    result = call(*arguments)
    assert (result.exit_code, result.output) == (
        2,
        "wardbeat: '' names no source; give a path, or a public name such as mitdb/208\n",
    )


def test_check_passes_a_ward_that_can_run(call: Callable[..., Result], ward: Path, record: Path) -> None:
    with ward.open("a") as more:
        more.write(f'[beds."bed 1"]\nsource = "{record}"\n[beds."bed 2"]\nsource = "sim:vf"\n')
    result = call("check", ward)
    assert result.output == f"{ward}: good; 2 beds, shards a\n"
    assert result.exit_code == 0


def test_check_tells_all_that_would_keep_a_ward_from_running(
    call: Callable[..., Result], ward: Path, tmp_path: Path
) -> None:
    weights, blocked = tmp_path / "other.safetensors", tmp_path / "blocked"
    weights.write_bytes(b"no weights")
    blocked.write_text("a file, not a folder")
    settings = config.load(ward)
    text = ward.read_text().replace("[worker]", f'[worker]\nweights = "{weights}"\ndevice = "cuda:99"')
    text += f'state_dir = "{blocked}"\n[beds."bed 1"]\nsource = "sim:nothing"\n[beds.x]\nsource = "no such/record"\n'
    ward.write_text(text)
    with socket.socket() as taken:
        address = settings.gateway.publish
        taken.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        taken.listen()
        result = call("check", ward)
    assert result.exit_code == 2
    lines = [line.removeprefix(f"wardbeat: {ward}: ") for line in result.output.splitlines()]
    wanted = [
        rf"gateway\.publish: {address} cannot be bound \(Address already in use\); stop what holds it, or set another",
        rf"supervisor\.state_dir: {blocked} is not a folder",
        r'worker\.device = "cuda:99": torch finds \d+ of these here; set it to "auto"',
        rf"worker\.weights: weights {weights}: not a safetensors file .*train",
        r'beds\."bed 1"\.source: .*no simulated patient',
        r"beds\.x\.source: no such/record: ",
    ]
    assert len(lines) == len(wanted), lines
    for line, pattern in zip(lines, wanted, strict=True):
        assert re.match(pattern, line)


def test_a_port_that_is_taken_is_refused_by_run_and_by_the_role(call: Callable[..., Result], ward: Path) -> None:
    address = config.load(ward).gateway.bind
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        taken.listen()
        for command in ("run", "gateway"):
            result = call(command, "--config", ward)
            assert result.exit_code == 2
            (line,) = result.output.splitlines()
            assert line.startswith(f"wardbeat: gateway.bind: {address} cannot be bound (Address already in use")
            assert "set another port" in line


def test_weights_that_do_not_fit_end_a_run_with_the_reason(ward: Path, tmp_path: Path) -> None:
    weights = tmp_path / "other.safetensors"
    weights.write_bytes(b"no weights")
    ward.write_text(ward.read_text().replace("[worker]", f'[worker]\nweights = "{weights}"'))
    done = _run(ward, "--beds", "1", "--headless")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"wardbeat: worker: wardbeat: weights {weights}: not a safetensors file")


def test_alerts_of_a_journal_that_is_not_there_are_refused(call: Callable[..., Result], tmp_path: Path) -> None:
    result = call("alerts", "--journal", tmp_path / "none.sqlite")
    assert result.exit_code == 2
    assert "none.sqlite: there is no journal; start a ward first" in result.output
    assert call("alerts", "--since", "yesterday").exit_code == 2


def test_a_ward_runs_accounts_for_every_sample_and_leaves_its_alerts(call: Callable[..., Result], ward: Path) -> None:
    done = _run(
        ward, "--source", "sim:brady,seed=1", "--source", "sim:tachy,seed=2", "--speed", "4", "--duration", "12"
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"samples: (\d+) sent, \1 judged, 0 missing, 0 unaccounted", done.stdout), done.stdout
    assert "restarts: none" in done.stdout
    assert re.search(r"bed2 .*HR \d+>120", done.stdout), "alerts are told as they happen"
    listed = call("alerts", "--config", ward, "--bed", "bed2", "--code", "HR_HIGH", "--export", "csv")
    assert listed.exit_code == 0
    assert ",bed2," in listed.output
    assert ",bed1," not in listed.output
    assert "HR_HIGH" in call("alerts", "--config", ward).output
    unknown = call("alerts", "--config", ward, "--code", "NOPE")
    assert unknown.exit_code == 2
    assert "NOPE: no such code; known are" in unknown.output
    (found, *_) = csv.DictReader(listed.output.splitlines())
    assert found["alert_id"][:8] in call("alerts", "--config", ward).output, "what `alerts show` asks for is told"
    shown = call("alerts", "show", found["alert_id"][:8], "--config", ward, "--png", ward.parent / "strip.png")
    assert shown.exit_code == 0, shown.output
    assert f"HR_HIGH, bed bed2, alert {found['alert_id']}" in shown.output
    assert (ward.parent / "strip.png").read_bytes().startswith(b"\x89PNG")
    assert "no alert of" in call("alerts", "show", "none", "--config", ward).output


def test_a_ward_ends_when_its_recordings_have_been_judged(ward: Path, record: Path) -> None:
    done = _run(ward, "--source", str(record), "--speed", "20", "--headless")
    assert done.returncode == 0, done.stderr
    assert "samples: 3000 sent, 3000 judged, 0 missing, 0 unaccounted" in done.stdout


def test_ctrl_c_ends_a_ward_and_leaves_no_process(ward: Path) -> None:
    with _started(ward, "--beds", "2", "--headless") as process:
        pids = _wait_for_producer(process)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "state and logs: " in out, "the summary is told"
    assert len(pids) == 4
    assert not [pid for pid in pids if _alive(pid)]


def test_a_ward_whose_supervisor_is_killed_leaves_no_process(ward: Path) -> None:
    with _started(ward, "--beds", "1", "--headless") as process:
        pids = _wait_for_producer(process)
        process.kill()
    until = time.monotonic() + 60
    while left := [pid for pid in pids if _alive(pid)]:
        assert time.monotonic() < until, f"processes {left} outlive their supervisor"
        time.sleep(0.05)


def _run(ward: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [*DOOR, "run", "--config", str(ward), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False, env=_environment())


def _started(ward: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*DOOR, "run", "--config", str(ward), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200"}


def _wait_for_producer(process: "subprocess.Popen[str]") -> list[int]:
    """Read the log until the producer is ready; the ids of all role processes."""
    assert process.stderr is not None
    pids: list[int] = []
    for line in process.stderr:
        found: Any = re.search(r"event=role_started .*pid=(\d+)", line)
        if found:
            pids.append(int(found[1]))
        if "event=role_ready name=producer" in line:
            return pids
    raise AssertionError("the ward ended before its producer was ready")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--speed", "abc"), "speed: 'abc'; give 0.25 to 100"),
        (("run", "--source", "sim:foo"), "no simulated patient 'foo'"),
        (("run", "--source", "{slow}"), "5 Hz is outside 50..2000"),
        (("annotate", "{slow}", "--out", "{folder}/out"), "5 Hz is outside 50..2000"),
        (("annotate", "{slow}", "--out", "{folder}/out", "--device", "cuda:7"), "device: 'cuda:7' cannot be used here"),
        (("run", "--state", "{slow}.hea/state"), "name a place that can be used"),
    ],
    ids=["speed", "patient", "rate-of-a-source", "rate-of-a-record", "device", "folder"],
)
def test_what_cannot_be_done_is_said_in_one_line_before_anything_starts(
    call: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    slow = tmp_path / "slow"
    slow.with_suffix(".hea").write_text("slow 1 5 100\nslow.dat 16 200/mV 16 0 0 0 0 II\n")
    slow.with_suffix(".dat").write_bytes(bytes(200))
    result = call(*(argument.format(slow=slow, folder=tmp_path) for argument in arguments))
    assert result.exit_code == 2
    assert said in result.output
    assert len(result.output.splitlines()) == 1


def test_a_command_without_its_extra_says_which_to_install() -> None:
    without = "import sys; sys.modules['psutil'] = None; from run_pipeline import main; main(['soak', 'small'])"
    done = subprocess.run([sys.executable, "-c", without], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "wardbeat: psutil is not installed; pip install -e '.[soak]'\n"
