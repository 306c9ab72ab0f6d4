"""A bad configuration is refused by `bridges check`, with a line that names what is wrong."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from run_pipeline import main
from stream import config
from stream.bridges.outbox import Outbox
from stream.config import SettingsError
from stream.gateway.journal import Journal
from tests.stream.bridges.buses import Mqtt, Nats, need_brokers
from tests.stream.events import alert

# paho drops its socket after a handshake that failed, and aiormq its coroutine after a connection that did
libraries = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning")


def refused(**bridge: Any) -> str:
    with pytest.raises(SettingsError) as error:
        config.build({"bridges": {"b": bridge}})
    return str(error.value)


@pytest.mark.parametrize(
    ("bridge", "says"),
    [
        ({}, 'bridges.b.kind = "": no such kind; known: amqp, fhir, hl7, jsonl, mqtt, nats'),
        ({"kind": "mqt"}, 'bridges.b.kind = "mqt": no such kind; did you mean mqtt?'),
        ({"kind": "mqtt", "toppic": "x"}, "bridges.b.toppic: unknown key; known: backoff_cap_s"),
        ({"kind": "mqtt", "urll": "x"}, "bridges.b.urll: unknown key; did you mean url?"),
        ({"kind": "mqtt", "root": "ecg/+/x"}, 'bridges.b.root = "ecg/+/x"'),
        ({"kind": "mqtt", "root": "ecg/#"}, 'bridges.b.root = "ecg/#": expected str without wildcards (+, #)'),
        (
            {"kind": "mqtt", "url": "http://x:1"},
            'bridges.b.url = "http://x:1": expected str like mqtt://host:port or mqtts://host:port',
        ),
        ({"kind": "nats", "url": "nats://u:p@x:1"}, 'bridges.b.url = "nats://u:p@x:1"'),
        ({"kind": "hl7", "url": "127.0.0.1:2575"}, 'bridges.b.url = "127.0.0.1:2575"'),
        ({"kind": "hl7", "heartbeat_s": 60}, "bridges.b.heartbeat_s = 60"),
        ({"kind": "hl7", "codes": {"VFIB": "vf"}}, "bridges.b.codes = {'VFIB': 'vf'}"),
        ({"kind": "hl7", "facility": "A|B"}, 'bridges.b.facility = "A|B"'),
        ({"kind": "jsonl"}, "bridges.b.path: not set"),
        ({"kind": "mqtt", "classes": ["alarms"]}, "bridges.b.classes = ['alarms']"),
    ],
)
def test_what_no_bus_could_take_is_refused_before_anything_is_tried(bridge: dict[str, Any], says: str) -> None:
    assert says in refused(**bridge)


def checked(tmp_path: Path, **bridge: Any) -> tuple[int, str]:
    codes = bridge.pop("codes", {})
    lines = ["[bridges.b]", *(f"{key} = {json.dumps(value)}" for key, value in bridge.items()), "[bridges.b.codes]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in codes.items()]
    path = tmp_path / "ward.toml"
    path.write_text("\n".join(lines if codes else lines[:-1]))
    done = CliRunner().invoke(main, ["bridges", "check", str(path)])
    return done.exit_code, done.output


@libraries
@pytest.mark.parametrize(
    ("bridge", "says"),
    [
        ({"kind": "mqtt"}, 'bridges.b.url = "mqtt://127.0.0.1:{port}": cannot be used'),
        ({"kind": "nats"}, 'bridges.b.url = "nats://127.0.0.1:{port}": cannot be used'),
        ({"kind": "amqp"}, 'bridges.b.url = "amqp://127.0.0.1:{port}": cannot be used'),
        ({"kind": "hl7"}, 'bridges.b.url = "mllp://127.0.0.1:{port}": cannot be used'),
        ({"kind": "fhir"}, 'bridges.b.url = "http://127.0.0.1:{port}": cannot be used'),
    ],
)
def test_a_bus_that_is_not_there_is_told(
    tmp_path: Path, free_port: Callable[[], int], bridge: dict[str, Any], says: str
) -> None:
    port = free_port()
    scheme = {"hl7": "mllp", "fhir": "http"}.get(bridge["kind"], bridge["kind"])
    code, output = checked(tmp_path, url=f"{scheme}://127.0.0.1:{port}", timeout_s=1.0, **bridge)
    assert (code, output.count("\n")) == (2, 1), output
    assert says.format(port=port) in output
    assert "see that the bus runs there" in output


@pytest.mark.parametrize(
    ("bridge", "says"),
    [
        ({"kind": "fhir"}, "bridges.b.url: None, folder: None; give one of the two"),
        ({"kind": "hl7", "codes": {"VFIBB": "1^MDC_A^MDC"}}, "bridges.b.codes.VFIBB: no such alarm"),
        ({"kind": "hl7", "pending_codes": False}, "bridges.b.codes: no term of the standard for VFIB, VENT_BRADY"),
        ({"kind": "mqtt", "password": "env:NO_SUCH_NAME_HERE"}, "bridges.b.password: the environment has no NO_SUCH"),
        ({"kind": "mqtt", "url": "mqtts://127.0.0.1:1", "ca": "nowhere.pem"}, "bridges.b.ca: "),
        ({"kind": "jsonl", "path": "ward.toml/x"}, "ward.toml is not a folder that can be written to"),
        ({"kind": "mqtt", "url": "mqtt://127.0.0.1:99999"}, "bridges.b.url: mqtt://127.0.0.1:99999: Port out of range"),
    ],
)
def test_what_does_not_fit_together_is_told(tmp_path: Path, bridge: dict[str, Any], says: str) -> None:
    code, output = checked(tmp_path, **bridge)
    assert code == 2
    assert says in output


@pytest.fixture
def certificates(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A certificate for `elsewhere.example`, and one for 127.0.0.1, each its own authority."""
    for name, san in (("wrong", "DNS:elsewhere.example"), ("right", "IP:127.0.0.1")):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", f"/CN={name}", "-addext", f"subjectAltName={san}",
             "-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")],
            check=True, capture_output=True,
        )  # fmt: skip
    yield {name: str(tmp_path / name) for name in ("wrong", "right")}


@libraries
@pytest.mark.brokers
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_credentials_and_names_in_certificates_are_checked_against_the_real_broker(
    tmp_path: Path, free_port: Callable[[], int], certificates: dict[str, str]
) -> None:
    need_brokers()

    class Guarded(Mqtt):
        which = "right"

        def command(self) -> list[str]:
            passwords = self.folder / "passwords"
            subprocess.run(
                ["mosquitto_passwd", "-c", "-b", str(passwords), "ward", "secret"], check=True, capture_output=True
            )
            cert = certificates[self.which]
            self.extra = f"password_file {passwords}\nallow_anonymous false\ncertfile {cert}.pem\nkeyfile {cert}.key"
            return super().command()

    class GuardedNats(Nats):
        which = "right"

        def command(self) -> list[str]:
            cert = certificates[self.which]
            users = ["--user", "ward", "--pass", "secret"]
            return [*super().command(), *users, "--tls", "--tlscert", f"{cert}.pem", "--tlskey", f"{cert}.key"]

    for broker, scheme in ((Guarded, "mqtts"), (GuardedNats, "tls")):
        for which in ("right", "wrong"):
            folder = tmp_path / f"{scheme}-{which}"
            folder.mkdir()
            bus: Any = broker(folder, free_port)
            bus.which = which
            asyncio.run(bus.restart())
            given = {"url": f"{scheme}://127.0.0.1:{bus.port}", "ca": f"{certificates[which]}.pem", "timeout_s": 3.0}
            given["kind"] = bus.kind
            try:
                code, output = checked(folder, username="ward", password="secret", **given)
                assert code == (0 if which == "right" else 2), output
                if which == "wrong":
                    assert "the certificate does not fit" in output and "127.0.0.1" in output, output
                    continue
                code, output = checked(folder, username="ward", password="wrong", **given)
                assert code == 2
                assert "bridges.b.username, password" in output, output
                del given["ca"]
                code, output = checked(folder, username="ward", password="secret", **given)
                assert code == 2
                assert "the certificate does not fit" in output, output
            finally:
                asyncio.run(bus.kill())


@pytest.mark.brokers
def test_wrong_credentials_of_rabbitmq_and_a_stream_that_does_not_fit_are_told(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    need_brokers()
    code, output = checked(tmp_path, kind="amqp", username="guest", password="wrong")
    assert code == 2
    assert "bridges.b.username, password: the broker does not take them" in output
    code, output = checked(tmp_path, kind="amqp", url="amqp://127.0.0.1:5672/nowhere")
    assert code == 2
    assert "nowhere" in output

    bus = Nats(tmp_path, free_port)

    async def other_stream() -> None:
        await bus.restart()
        client = await bus.connect()
        await client.jetstream().add_stream(name="WARD", subjects=["else.>"])
        await client.close()

    asyncio.run(other_stream())
    code, output = checked(tmp_path, kind="nats", url=f"nats://127.0.0.1:{bus.port}")
    asyncio.run(bus.kill())
    assert code == 2
    assert "bridges.b.stream: WARD takes ['else.>']" in output


def test_dead_letters_are_listed_replayed_and_deleted(tmp_path: Path) -> None:
    path = tmp_path / "ward.toml"
    path.write_text('[gateway]\njournal = "journal.sqlite"\n[bridges.b]\nkind = "jsonl"\npath = "x.jsonl"\n')
    Journal(tmp_path / "journal.sqlite").close()
    outbox = Outbox(tmp_path / "journal.sqlite", "b")
    outbox.bury(alert("a1"), "the receiver answered AR", 1, 5)

    def call(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["bridges", "replay", "b", "--config", str(path), *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    assert call("--list") == "a1.0 bed-1 ASYSTOLE: the receiver answered AR\n1 dead letters\n"
    assert not outbox.letters(again=True)
    assert "1 dead letters will be tried again" in call()
    assert len(outbox.letters(again=True)) == 1
    assert "1 dead letters deleted" in call("--discard")
    assert not outbox.letters()
    outbox.close()
    done = CliRunner().invoke(main, ["bridges", "replay", "c", "--config", str(path)])
    assert (done.exit_code, done.output) == (2, "wardbeat: bridges.c: not in the configuration; known: b\n")
