"""The supervisor with real processes: small scripts stand in for the roles."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from structlog.testing import capture_logs

from stream.process import BindError
from stream.roles import child
from stream.roles.child import Role, Tail
from stream.roles.supervisor import Answer, Supervisor, ask

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from stream.log import mark_ready
from stream.process import stand_by
from stream.roles.child import follow_parent
follow_parent()
how = sys.argv[1]
if how == "spared":
    time.sleep(0.5)  # loads
    stand_by()
if how == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if how == "broken":
    sys.exit("worker.weights: nothing fits")
if how == "wrong":
    print("shards.a.bind: port taken", flush=True)
    sys.exit(2)
mark_ready(how)
print("line of", how, flush=True)
if how == "short":
    sys.exit(0)
if how == "fails":
    sys.exit("record: cannot be read any more")
time.sleep(100)
"""


@pytest.fixture
def program(tmp_path: Path) -> tuple[str, str]:
    script = tmp_path / "role.py"
    script.write_text(SCRIPT.format(root=str(ROOT)))
    return sys.executable, str(script)


@pytest.fixture
def ward(tmp_path: Path, program: tuple[str, str]) -> Iterator[Callable[..., Supervisor]]:
    made: list[Supervisor] = []

    def make(*hows: str, once: bool = False, spare_after_s: float | None = None, **rest: object) -> Supervisor:
        roles = [Role(how, (how,), once, spare_after_s) for how in hows]
        made.append(Supervisor(roles, tmp_path / "state", program=program, **rest))  # type: ignore[arg-type]
        made[-1].start(*hows)
        return made[-1]

    yield make
    for one in made:
        one.__exit__()


def poll_until(ward: Supervisor, done: Callable[[], bool], timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < until, f"not so within {timeout_s} s: {ward.status()}"
        ward.poll(0.01)


def gone(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def test_a_role_is_ready_when_it_says_so(ward: Callable[..., Supervisor]) -> None:
    one = ward("good")
    assert one.status()["good"].state == "starting"
    assert one.wait_ready(["good"], 60)
    assert one.status()["good"].state == "ready"


def test_a_killed_role_is_started_again_and_that_is_said(ward: Callable[..., Supervisor]) -> None:
    one = ward("good")
    assert one.wait_ready(["good"], 60)
    first = one.status()["good"].pid
    assert first is not None
    with capture_logs() as events:
        os.kill(first, signal.SIGKILL)
        poll_until(one, lambda: one.status()["good"].restarts == 1 and one.status()["good"].state == "ready")
    assert one.status()["good"].pid != first
    (said,) = [event for event in events if event["event"] == "role_restarted"]
    assert said["name"] == "good"
    assert said["died"] == "signal SIGKILL"
    assert said["restarts"] == 1


def test_a_spare_takes_over_from_a_killed_role_and_another_stands_by(ward: Callable[..., Supervisor]) -> None:
    one = ward("spared", spare_after_s=0.0)
    poll_until(one, lambda: one.status()["spared"].spare is not None)
    first, spare = one.status()["spared"].pid, one.status()["spared"].spare
    assert first is not None
    assert spare is not None
    os.kill(first, signal.SIGKILL)
    poll_until(one, lambda: one.status()["spared"].restarts == 1 and one.status()["spared"].state == "ready")
    assert one.status()["spared"].pid == spare
    poll_until(one, lambda: one.status()["spared"].spare is not None)
    last = one.status()["spared"].spare
    assert last is not None
    assert len({first, spare, last}) == 3
    one.stop()
    assert gone(spare)
    assert gone(last)


def test_a_spare_waits_without_being_ready_and_a_dead_one_is_not_used(
    ward: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "SPARE_AGAIN_S", 0.1)
    one = ward("spared", spare_after_s=0.0)
    poll_until(one, lambda: one.status()["spared"].spare is not None)
    first, spare = one.status()["spared"].pid, one.status()["spared"].spare
    assert first is not None
    assert spare is not None
    with capture_logs() as events:
        os.kill(spare, signal.SIGKILL)
        poll_until(one, lambda: one.status()["spared"].spare not in {None, spare})
    assert "spare_died" in [event["event"] for event in events]
    second = one.status()["spared"].spare
    assert second is not None
    os.kill(second, signal.SIGKILL)
    os.kill(first, signal.SIGKILL)
    poll_until(one, lambda: one.status()["spared"].restarts == 1 and one.status()["spared"].state == "ready")
    assert one.status()["spared"].pid not in {first, spare, second}


def test_a_spare_dies_with_its_supervisor(tmp_path: Path, program: tuple[str, str]) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from stream.roles.child import Role
from stream.roles.supervisor import Supervisor
one = Supervisor([Role("spared", ("spared",), spare_after_s=0.0)], {str(tmp_path / "state")!r}, program={program!r})
one.start("spared")
while one.status()["spared"].spare is None:
    one.poll(0.01)
print("pids", one.status()["spared"].pid, one.status()["spared"].spare, flush=True)
while True:
    one.poll(0.1)
"""
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    said = next(line.split()[1:] for line in parent.stdout if line.startswith("pids"))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while not all(gone(int(pid)) for pid in said):
        assert time.monotonic() < until, said
        time.sleep(0.02)


def test_a_role_that_dies_at_once_is_given_up_with_its_last_line(
    ward: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "BACKOFF_S", 0.001)
    one = ward("broken")
    poll_until(one, lambda: bool(one.given_up))
    assert one.given_up == "broken: worker.weights: nothing fits (exit code 1)"
    assert one.status()["broken"].restarts == child.MAX_DEATHS_AT_ONCE - 1
    assert not one.wrong_usage


def test_a_role_that_cannot_use_its_settings_is_not_started_again(ward: Callable[..., Supervisor]) -> None:
    one = ward("wrong")
    assert not one.wait_ready(["wrong"], 60)
    assert one.given_up == "wrong: shards.a.bind: port taken (exit code 2)"
    assert one.wrong_usage
    assert one.status()["wrong"].restarts == 0


def test_the_wait_before_a_new_start_doubles_up_to_its_bound(tmp_path: Path) -> None:
    now = [0.0]
    role = Role("broken", ("-c", "raise SystemExit(1)"))
    (tmp_path / "logs").mkdir()
    one = child.Child(role, tmp_path, program=(sys.executable,), clock=lambda: now[0])
    one.start()
    with capture_logs() as events:
        while one.state != "given_up":
            one.poll()
            now[0] += 0.01
            time.sleep(0.001)
    one.close()
    waits = [event["after_s"] for event in events if event["event"] == "role_restarted"]
    assert waits == [0.2, 0.4, 0.8, 1.6]


def test_a_role_that_runs_once_is_finished_and_not_started_again(ward: Callable[..., Supervisor]) -> None:
    one = ward("short", once=True)
    poll_until(one, lambda: one.finished("short"))
    one.poll(0.05)
    assert one.status()["short"] == child.RoleStatus(None, "finished", 0, "exit code 0")


def test_a_role_that_runs_once_and_failed_after_it_was_ready_is_finished_with_its_exit_code(
    ward: Callable[..., Supervisor],
) -> None:
    one = ward("fails", once=True)
    poll_until(one, lambda: one.finished("fails"))
    one.poll(0.05)
    assert one.status()["fails"] == child.RoleStatus(None, "finished", 0, "exit code 1")
    assert one.exit_code("fails") == 1


def test_a_role_that_runs_once_and_was_killed_is_started_again(ward: Callable[..., Supervisor]) -> None:
    one = ward("good", once=True)
    assert one.wait_ready(["good"], 60)
    first = one.status()["good"].pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    poll_until(one, lambda: one.status()["good"].restarts == 1 and one.status()["good"].state == "ready")


def test_stopping_ends_all_roles_even_one_that_is_deaf_to_it(ward: Callable[..., Supervisor]) -> None:
    one = ward("good", "deaf")
    assert one.wait_ready(["good", "deaf"], 60)
    pids = [status.pid for status in one.status().values()]
    with capture_logs() as events:
        one.stop()
    assert all(pid is not None and gone(pid) for pid in pids)
    assert [event["name"] for event in events if event["event"] == "role_killed"] == ["deaf"]


def test_no_role_outlives_a_supervisor_that_was_killed(tmp_path: Path, program: tuple[str, str]) -> None:
    parent = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from stream.roles.child import Role
from stream.roles.supervisor import Supervisor
ward = Supervisor([Role("good", ("good",)), Role("deaf", ("deaf",))], {str(tmp_path / "state")!r}, program={program!r})
ward.start("good", "deaf")
assert ward.wait_ready(["good", "deaf"], 60)
print(*[status.pid for status in ward.status().values()], flush=True)
while True:
    ward.poll(0.1)
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        while not (words := process.stdout.readline().split()) or not all(word.isdigit() for word in words):
            assert process.poll() is None
        pids = [int(word) for word in words]
        assert not any(gone(pid) for pid in pids)
        process.kill()
    until = time.monotonic() + 30
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < until, "a role outlived its supervisor"
        time.sleep(0.01)


def test_the_control_socket_tells_kills_and_stops(
    ward: Callable[..., Supervisor], free_port: Callable[[], int], tmp_path: Path, program: tuple[str, str]
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    client = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from stream.roles.supervisor import ask
for command, role in (("status", ""), ("kill", "good"), ("kill", "nobody"), ("stop", "")):
    answer = ask({address!r}, command, role, 30)
    print(answer.ok, answer.text, sorted(answer.roles))
"""
    one = ward("good", control=address)
    assert one.wait_ready(["good"], 60)
    with subprocess.Popen([sys.executable, "-c", client], stdout=subprocess.PIPE, text=True) as process:
        poll_until(one, lambda: one.stop_asked)
        said, _ = process.communicate()
    poll_until(one, lambda: one.status()["good"].restarts == 1)
    assert said.splitlines() == [
        "True done ['good']",
        "True done ['good']",
        "False role 'nobody': not running; known: good ['good']",
        "True done ['good']",
    ]


@pytest.mark.parametrize(
    "frame", [b"\x82\xa1t\xa7comm\xffnd\xa2id\xa1a", b"\x82\xa1t\xa7command\xa2id\xa1\xff", b"\x91" * 100_000]
)
def test_a_frame_that_is_no_command_is_answered_so(
    ward: Callable[..., Supervisor], free_port: Callable[[], int], frame: bytes
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    one = ward(control=address)
    with zmq.Context.instance().socket(zmq.DEALER) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.connect(address)
        client.send(frame)
        poll_until(one, lambda: bool(client.poll(0)))
        answer = msgspec.msgpack.decode(client.recv(), type=Answer)
    assert not answer.ok and answer.text.startswith("not a command: ")


def test_a_second_supervisor_is_refused_with_the_setting_and_the_address(
    ward: Callable[..., Supervisor], free_port: Callable[[], int], tmp_path: Path
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    ward("good", control=address)
    with pytest.raises(BindError, match=rf"supervisor\.control: {address} cannot be bound .*another port"):
        Supervisor([], tmp_path / "other", control=address)


def test_asking_where_no_supervisor_is_says_where_it_was_looked_for(free_port: Callable[[], int]) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(TimeoutError, match=f"nobody answers at {address} within 0.05 s; is a ward running"):
        ask(address, "status", timeout_s=0.05)


def test_a_log_that_grows_is_followed_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "role.log"
    path.write_text("one\ntw")
    echoed = (tmp_path / "echo").open("w+")
    with path.open("a") as more, echoed:
        tail = Tail(path, echoed)
        tail.read()
        assert tail.last == "tw"
        more.write("o\n\n")
        more.flush()
        tail.read()
        tail.close()
        echoed.seek(0)
        assert echoed.read() == "one\ntwo\n\n"
        assert tail.last == "two"
