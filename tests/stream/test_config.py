"""ward.toml: what is read from it, and what is refused with which words."""

from pathlib import Path

import msgspec
import pytest

from stream import config
from stream.config import Settings, SettingsError

DOCS = Path(__file__).resolve().parents[2] / "docs"


def problems(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "ward.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        config.load(path)
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


def test_an_empty_file_gives_a_ward_of_one_shard_with_defaults(tmp_path: Path) -> None:
    path = tmp_path / "ward.toml"
    path.write_text("")
    settings = config.load(path)
    assert list(settings.shards) == ["a"]
    assert settings.shards["a"].state_dir == str(tmp_path / "var" / "shard-a")
    assert settings.gateway.journal == str(tmp_path / "var" / "journal.sqlite")
    assert settings.worker == Settings().worker


def test_a_shard_talks_to_the_worker_and_gateway_of_its_ward(tmp_path: Path) -> None:
    path = tmp_path / "ward.toml"
    path.write_text('[worker]\nbind = "ipc:///tmp/worker"\n[gateway]\nbind = "tcp://127.0.0.1:7000"\n[shards.icu]\n')
    shard = config.load(path).shards["icu"]
    assert (shard.worker, shard.gateway) == ("ipc:///tmp/worker", "tcp://127.0.0.1:7000")


def test_settings_that_are_saved_load_the_same(tmp_path: Path) -> None:
    settings = config.build(
        {
            "shards": {"a": {"n_leads": 3}, "b": {"bind": "tcp://127.0.0.1:5602"}},
            "worker": {"max_wait_ms": 5, "weights": "w.safetensors"},
            "alarms": {"HR_HIGH": {"limit": 130}},
            "beds": {"bed 1": {"shard": "b", "source": "mitdb/208", "alarms": {"AFIB": {"enabled": False}}}},
        },
        folder=tmp_path,
    )
    config.save(settings, tmp_path / "settings.json")
    assert config.load(tmp_path / "settings.json") == settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "[worker]\nmax_bach = 1", "worker.max_bach: unknown key; did you mean max_batch? known: bind,", id="key"
        ),
        pytest.param("[wurd]\nname = 1", "wurd: unknown key; did you mean ward? known: alarms, beds,", id="section"),
        pytest.param("[shards.a]\nx = 1", "shards.a.x: unknown key; known: bind, capacity,", id="key of a shard"),
        pytest.param(
            "[shards.a]\nn_leads = 99",
            "shards.a.n_leads = 99: expected int <= 12; give a value from 1 to 12",
            id="high",
        ),
        pytest.param(
            "[gateway]\nretention_days = 0",
            "gateway.retention_days = 0: expected float > 0.0; give a value over 0 to 36500 (default 30.0)",
            id="low",
        ),
        pytest.param(
            '[worker]\ndevice = "gpu"', 'worker.device = "gpu": expected str that is auto, cpu, mps, cuda', id="device"
        ),
        pytest.param(
            '[gateway]\nbind = "5621"', 'gateway.bind = "5621": expected str like tcp://127.0.0.1:5601', id="address"
        ),
        pytest.param(
            '[gateway]\nbind = "tcp://*:99999"',
            'gateway.bind = "tcp://*:99999": port 99999 is not one of 1 to 65535',
            id="port",
        ),
        pytest.param("worker = 3", "worker = 3: a table is wanted; write [worker]", id="no table"),
        pytest.param("beds = 3", "beds = 3: tables are wanted; write [beds.NAME]", id="no tables"),
        pytest.param('[supervisor]\nlog_level = "loud"', "give one of debug, info, warning, error", id="words"),
        pytest.param("[alarms]\nHR_HIGH = 130", "alarms = {'HR_HIGH': 130}: a table is wanted, got int", id="alarm"),
        pytest.param("[beds.x]\nsource = 1", "beds.x.source = 1: expected str | null, got int", id="type"),
        pytest.param('[beds."a\\nb"]', 'beds."a\\nb": the name "a\\nb" cannot be used: expected str without', id="bed"),
        pytest.param(f"[beds.{'x' * 65}]", "expected str of length <= 64", id="long name"),
        pytest.param(
            '[shards."a/b"]', 'shards."a/b": the name "a/b" cannot be used: expected str of 1 to 32', id="name"
        ),
        pytest.param('[beds.x]\nshard = "b"', 'beds.x.shard = "b": no such shard; known: a', id="no such shard"),
        pytest.param("[shards]", "shards: a ward needs one; write [shards.a]", id="no shard"),
        pytest.param(
            "[shards.a]\ncapacity = 1\n[beds.x]\n[beds.y]",
            "shards.a.capacity = 1: 2 beds name this shard; raise it",
            id="full",
        ),
        pytest.param(
            '[worker]\nbind = "tcp://127.0.0.1:5601"',
            'worker.bind = "tcp://127.0.0.1:5601": shards.a.bind has this address too',
            id="address twice",
        ),
        pytest.param(
            '[shards.a]\nstate_dir = "s"\n[shards.b]\nstate_dir = "s"\nbind = "ipc:///tmp/b"',
            'shards.b.state_dir = "s": shards.a.state_dir has this folder too',
            id="folder twice",
        ),
        pytest.param("[alarms.HR_HI]\nlimit = 1", "alarms.HR_HI: no such alarm; known are", id="alarm"),
        pytest.param(
            "[beds.x.alarms.HR_HIGH]\nlimit = 999",
            "beds.x.alarms.HR_HIGH.limit: 999 is refused; it may be 60 to 300 bpm",
            id="limit of a bed",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_key_value_and_mend(tmp_path: Path, text: str, said: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert said in problem


def test_each_alarm_that_is_set_wrong_is_told() -> None:
    raw = {"alarms": {"HR_HIGH": {"limit": 9999}, "FOO": {"limit": 1}, "PAUSE": {"time_s": 2}}}
    with pytest.raises(SettingsError) as refused:
        config.build(raw)
    told = str(refused.value)
    assert "alarms.HR_HIGH.limit: 9999 is refused" in told
    assert "alarms.FOO: no such alarm" in told


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "[worker]\nthreads = 0\nspeed = 1\n[shards.a]\nn_leads = 0\n[ward]\nname = ''")
    assert [problem.split(" = ")[0].split(":")[0] for problem in found] == [
        "worker.threads", "worker.speed", "shards.a.n_leads", "ward.name",
    ]  # fmt: skip


def test_a_bed_must_name_its_shard_where_there_are_several(tmp_path: Path) -> None:
    text = '[shards.a]\n[shards.b]\nbind = "ipc:///tmp/b"\n[beds.x]\n'
    assert problems(tmp_path, text) == ["beds.x.shard: not set, and there are 2 shards; known: a, b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"[worker", "not TOML: "), (b"\xff\xfe", "not UTF-8; give the path of a ward.toml")],
    ids=["cut off", "other encoding"],
)
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "ward.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=said):
        config.load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read: No such file or directory; give the path"):
        config.load(tmp_path / "none.toml")


def test_the_example_in_the_docs_is_a_ward_that_loads() -> None:
    settings = config.load(DOCS / "ward.toml")
    assert len(settings.shards) == 2
    assert {bed.shard for bed in settings.beds.values()} == set(settings.shards)


def test_the_docs_tell_every_key_and_its_default() -> None:
    text = (DOCS / "configuration.md").read_text()
    sections = {
        "ward": config.WardSettings, "shards.NAME": config.ShardSettings, "worker": config.WorkerSettings,
        "gateway": config.GatewaySettings, "supervisor": config.SupervisorSettings, "producer": config.ProducerSettings,
        "dashboard": config.DashboardSettings, "dashboard.users.NAME": config.UserSettings,
        "beds.NAME": config.BedSettings,
    }  # fmt: skip
    for section, kind in sections.items():
        _, heading, rest = text.partition(f"## `[{section}]`")
        assert heading, f"docs/configuration.md has no section for [{section}]"
        table = rest.partition("\n## ")[0]
        told = {line.split("|")[1].strip(" `"): line for line in table.splitlines() if line.startswith("| `")}
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        assert set(told) == set(fields), f"[{section}]"
        for name, field in fields.items():
            default = field.default
            if (
                isinstance(default, str | int | float)
                and default != ""
                and name not in {"state_dir", "worker", "gateway"}
            ):
                default = str(default).lower() if isinstance(default, bool) else default  # as TOML has it
                assert f"`{default}`" in told[name], f"[{section}] {name}: default {default!r}"


def test_a_bed_has_the_profile_that_it_names_and_a_wrong_one_is_told_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "child.toml").write_text('base = "adult"\n[HR_HIGH]\nlimits.limit = { default = 160 }\n')
    raw = {"beds": {"a": {"profile": "child.toml", "alarms": {"HR_LOW": {"limit": 70}}}, "b": {}}}
    settings = config.build(raw, folder=tmp_path)
    limits = {bed: config.profile_of(settings, bed).limit("HR_HIGH", "limit") for bed in ("a", "b", "c", "")}
    assert limits == {"a": 160, "b": 120, "c": 120, "": 120}
    assert config.profile_of(settings, "a").limit("HR_LOW", "limit") == 70
    with pytest.raises(config.SettingsError) as refused:
        config.build({"ward": {"profile": "x"}, "beds": {"a": {"profile": "y.toml"}}}, folder=tmp_path)
    first, second = refused.value.problems
    assert first.startswith('settings: ward.profile = "x": ') and "known profiles are adult" in first
    assert second.startswith("settings: beds.a.profile = ") and f"{tmp_path}/y.toml: cannot be read" in second
