"""Who gets in and who may act; what is refused, and that nothing breaks of it."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
import zmq
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from stream.config import DashboardSettings, SettingsError, UserSettings, build
from stream.dashboard.access import Access, Rate
from tests.stream.dashboard.station import Station, sinus
from tests.stream.events import alert

TOKENS = {"look": "look-look-look-look", "nurse": "nurse-nurse-nurse-1", "tech": "tech-tech-tech-tech"}
USERS = {
    "look": UserSettings(token=TOKENS["look"]),
    "nurse": UserSettings(token=TOKENS["nurse"], role="operator"),
    "tech": UserSettings(token=TOKENS["tech"], role="engineer"),
}


PLAYED = {"bed1": "sim:sinus", "bed2": "mitdb/208"}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """A dashboard that asks who it is."""
    with Station(tmp_path_factory.mktemp("closed"), USERS, sources=PLAYED) as station:
        station.play("bed1", sinus)
        yield station


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """One of this machine only, as it is by default."""
    with Station(tmp_path_factory.mktemp("open")) as station:
        station.play("bed1", sinus)
        yield station


def enter(station: Station, token: str = "", **options: object) -> ClientConnection:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    address = f"ws://127.0.0.1:{station.port}/ws"
    return connect(address, additional_headers=headers, proxy=None, **options)  # type: ignore[arg-type]


def items(socket: ClientConnection, kind: str, within_s: float = 10.0) -> dict:
    """The next item of a kind."""
    until = time.monotonic() + within_s
    while True:
        message = socket.recv(timeout=max(0.01, until - time.monotonic()))
        if isinstance(message, str):
            for item in json.loads(message)["items"]:
                if item["k"] == kind:
                    return item


def answer(socket: ClientConnection, request: dict) -> dict:
    socket.send(json.dumps(request))
    return items(socket, "reply")


@contextlib.contextmanager
def answering(address: str | None, asked: list[dict], **more: object) -> Iterator[None]:
    """A control socket that takes down what is asked, and says yes to all."""
    over = threading.Event()

    def answer_all() -> None:
        with zmq.Context.instance().socket(zmq.ROUTER) as control:
            control.setsockopt(zmq.LINGER, 200)
            control.bind(address)
            while not over.is_set():
                if control.poll(20):
                    client, frame = control.recv_multipart()
                    asked.append(msgspec.msgpack.decode(frame))
                    control.send_multipart([client, msgspec.msgpack.encode({"ok": True, "text": "done", **more})])

    thread = threading.Thread(target=answer_all)
    thread.start()
    yield
    over.set()
    thread.join()


def test_without_a_token_nobody_sees_anything(closed: Station) -> None:
    for path in ("", "api/alerts", "api/limits/bed1", "api/trend/bed1", "static/app.js"):
        assert httpx.get(closed.url + path).status_code == 401
    for token in ("", "wrong-wrong-wrong-wrong"):
        with pytest.raises(InvalidStatus) as refused:
            enter(closed, token)
        assert refused.value.response.status_code == 403


def test_a_token_lets_in_by_cookie_or_bearer(closed: Station) -> None:
    with httpx.Client(follow_redirects=True) as browser:
        page = browser.get(closed.url, params={"token": TOKENS["look"]})
        assert page.status_code == 200
        assert "token" not in str(page.url)
        assert browser.get(closed.url + "api/alerts").status_code == 200
    cookie = httpx.get(closed.url, params={"token": TOKENS["look"]}).headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    with enter(closed, TOKENS["look"]) as socket:
        assert items(socket, "snapshot")["you"] == {"who": "look", "role": "viewer"}


def test_what_one_may_do_is_by_role_and_the_journal_names_who_did_it(closed: Station) -> None:
    act = {"t": "action", "id": "1", "bed": "bed1", "kind": "audio_pause", "until_s": 30, "who": "somebody else"}
    with enter(closed, TOKENS["look"]) as socket:
        refused = answer(socket, act)
        assert not refused["ok"]
        assert "look is a viewer" in refused["text"]
    with enter(closed, TOKENS["nurse"]) as socket:
        assert answer(socket, act)["ok"]
        kill = answer(socket, {"t": "kill", "id": "2", "role": "worker"})
        assert not kill["ok"]
        assert "role engineer" in kill["text"]
    with closed.journal() as journal:
        assert [(action.kind, action.who) for action in journal.actions("bed1")] == [("audio_pause", "nurse")]


def test_a_page_of_another_site_gets_no_socket(local: Station) -> None:
    with pytest.raises(InvalidStatus) as refused:
        enter(local, origin="http://evil.example")
    assert refused.value.response.status_code == 403
    with enter(local, origin=f"http://127.0.0.1:{local.port}") as socket:
        assert items(socket, "snapshot")["you"]["role"] == "engineer"


def test_another_sites_name_that_points_here_is_not_let_in(local: Station) -> None:
    refused = httpx.get(local.url, headers={"host": f"evil.example:{local.port}"})
    assert refused.status_code == 421
    assert httpx.get(local.url, headers={"host": f"localhost:{local.port}"}).status_code == 200


def test_every_answer_forbids_what_is_not_ours(local: Station) -> None:
    for path in ("", "static/app.js", "api/alerts", "nowhere"):
        headers = httpx.get(local.url + path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (["x" * 100_000], 1009),
        (['{"t":"view","beds":[]}'] * 500, 1008),
        ([b"binary"], 1008),
    ],
    ids=["a frame of 100 kB", "a flood", "binary"],
)
def test_a_client_that_misbehaves_is_closed_and_others_go_on(local: Station, frames: list, code: int) -> None:
    with enter(local) as other:
        items(other, "snapshot")
        with enter(local) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                for frame in frames:
                    socket.send(frame)
                while True:
                    socket.recv(timeout=10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == code
        assert items(other, "numeric")["hr"] == 72


@pytest.mark.parametrize(
    "text", ["not json", "[]", '{"t":"dance"}', '{"t":"action","id":"1"}', '{"t":"view","beds":[5]}', "[" * 5000]
)
def test_what_is_no_request_is_answered_and_the_connection_stays(local: Station, text: str) -> None:
    with enter(local) as socket:
        socket.send(text)
        assert not items(socket, "reply")["ok"]
        assert items(socket, "numeric")["bed"] == "bed1"


def test_nothing_can_be_made_to_happen_to_what_the_ward_does_not_play(local: Station) -> None:
    fault = {"t": "fault", "id": "1", "what": "loss"}
    with enter(local) as socket:
        for request in (fault, fault | {"what": "lead_off", "bed": "bed1"}, {"t": "kill", "id": "2", "role": "worker"}):
            refused = answer(socket, request)
            assert not refused["ok"]
            assert "nothing can be made to happen to it" in refused["text"]


def test_a_recording_keeps_its_rhythm_and_a_network_is_cut_for_all(closed: Station) -> None:
    asked: list[dict] = []
    with enter(closed, TOKENS["tech"]) as socket, answering(closed.settings.producer.control, asked):
        assert items(socket, "snapshot")["origins"] == {"bed1": "simulated", "bed2": "replayed"}
        rhythm = {"t": "fault", "id": "1", "what": "rhythm", "rhythm": "vf"}
        assert answer(socket, rhythm | {"bed": "bed1"})["ok"]
        assert "replayed from a recording" in answer(socket, rhythm | {"bed": "bed2"})["text"]
        assert "not played by this ward" in answer(socket, rhythm | {"bed": "bed9"})["text"]
        assert answer(socket, {"t": "fault", "id": "2", "what": "lead_off", "bed": "bed2", "lead": 0})["ok"]
        assert "cut off all" in answer(socket, {"t": "fault", "id": "3", "what": "loss", "bed": "bed1"})["text"]
        assert answer(socket, {"t": "fault", "id": "4", "what": "loss"})["ok"]
    assert [(one["kind"], one["bed"]) for one in asked] == [("rhythm", "bed1"), ("lead_off", "bed2"), ("loss", "")]


def test_the_gateway_answers_before_it_is_killed(closed: Station) -> None:
    asked: list[dict] = []
    kill = {"t": "kill", "id": "1", "role": "gateway"}
    with enter(closed, TOKENS["tech"]) as socket:
        assert "nobody answers" in answer(socket, kill)["text"]
        with answering(closed.settings.supervisor.control, asked, roles={"gateway": {}}):
            assert answer(socket, kill)["ok"]
            assert [one["command"] for one in asked] == ["status"], "killed before it could answer"
            until = time.monotonic() + 5
            while len(asked) < 2 and time.monotonic() < until:
                time.sleep(0.02)
    assert [(one["command"], one["role"]) for one in asked] == [("status", "gateway"), ("kill", "gateway")]


def test_an_alert_reaches_a_browser_and_its_acknowledgement_the_shard(local: Station) -> None:
    with enter(local) as socket:
        items(socket, "snapshot")
        local.alert(alert("a1", bed="bed1"))
        assert items(socket, "alert")["e"]["alert_id"] == "a1"
        request = {"t": "action", "id": "7", "bed": "bed1", "kind": "acknowledge", "alert_id": "a1", "who": "Anna"}
        assert answer(socket, request) == {"k": "reply", "id": "7", "ok": True, "text": "the shard has it"}
    until = time.monotonic() + 5
    while not local.actions and time.monotonic() < until:
        time.sleep(0.02)
    assert [(action.alert_id, action.who) for action in local.actions] == [("a1", "Anna")]


def test_who_shows_a_bed_gets_its_waves_and_nobody_pays_for_others(local: Station) -> None:
    with enter(local) as socket:
        items(socket, "snapshot")
        socket.send('{"t":"view","beds":["bed1"],"every":false}')
        while isinstance(socket.recv(timeout=10), str):
            pass
        assert local.watched == ("bed1",)


def test_beyond_this_machine_only_with_users(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"dashboard\.host = .*other machines .*dashboard\.users\.NAME"):
        build({"dashboard": {"host": "0.0.0.0"}})
    with pytest.raises(SettingsError, match="token"):
        build({"dashboard": {"users": {"me": {"token": "short"}}}})
    assert Access(DashboardSettings(host="0.0.0.0")).user("") is None


def test_a_rate_allows_a_burst_and_then_so_many_a_second() -> None:
    now = [0.0]
    rate = Rate(10, 3, lambda: now[0])
    assert [rate.take() for _ in range(5)] == [True, True, True, False, False]
    now[0] += 0.2
    assert [rate.take() for _ in range(3)] == [True, True, False]
