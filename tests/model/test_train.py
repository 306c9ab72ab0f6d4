"""Training: labels laid on rightly, patients kept apart, a broken-off run that ends as an unbroken one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import course, phases, rr_beats
from model import train as trainer
from model.beat_phase import RrTask
from model.calibration import Line
from model.datasets import RrRows
from model.ecg_moe import EcgMoe, example_inputs
from model.examples import Cut, cut_signal, match, window_index
from model.fetch import FetchError
from model.figures import FoldResult, beat_figures, figures
from model.judge import Judge
from model.kernels import N_CONTEXT
from model.labels import BEATS, RHYTHMS
from model.pool import Pool, join
from model.rr_beats import RrBeats
from model.segments import HOP_SAMPLES
from model.work import claim
from tests.benchmarks import baselines

SMALL = replace(
    trainer.Settings(),
    sources=(),
    folds=2,
    scored=1,
    views=6,
    band=6,
    beats=30,
    windows=6,
    batch=32,
    sequences=0,
    rr=60,
)


def _simulated(name: str, seed: int, every: int = 4, seconds: int = 60) -> Cut:
    """A simulated recording at 250 Hz whose every nth beat is early, wide and upside down, labelled V."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.01, (2, seconds * 250)).astype(np.float32)
    tick, i, truth = 200, 0, []
    while tick < x.shape[1] - 100:
        wide = i % every == every - 1
        shape = np.exp(-0.5 * (np.arange(-40, 41) / (14.0 if wide else 4.0)) ** 2) * (-1.5 if wide else 1.0)
        x[:, tick - 40 : tick + 41] += shape
        truth.append((tick, wide))
        tick += int(rng.normal(200, 3)) + (60 if wide else -70 if i % every == every - 2 else 0)
        i += 1
    cut = cut_signal(x, 250.0, "mitdb", name, f"mitdb/{name}")
    at = np.array([t for t, _ in truth])
    partner = match(cut.beat_at, at)
    cut.beat[:] = [BEATS.index("Q" if p < 0 else "V" if truth[p][1] else "N") for p in partner]
    cut.rhythm[:] = RHYTHMS.index("OTHER" if every < 8 else "N")
    cut.shockable[:], cut.quality[:], cut.rr_ms[:] = 0, 1, 800.0
    cut.age, cut.male = 50.0 + seed, float(seed % 2)
    return cut


@pytest.fixture(scope="module")
def pool() -> Pool:
    return join(
        [_simulated(name, seed, every=4 if seed % 2 else 12) for seed, name in enumerate(("209", "207", "118", "220"))]
    )


def test_calibration_takes_back_what_the_heads_of_age_and_sex_do_not_know() -> None:
    torch.manual_seed(0)
    model = EcgMoe().eval()
    inputs = [torch.randn_like(x) if x.is_floating_point() else x for x in example_inputs("window", 3)]
    before = model.windows(*inputs)
    trainer.calibrate(model, {"beats": 1.0}, {"age": Line(30.0, 0.25), "male": Line(0.4, 0.5)})
    after = model.windows(*inputs)
    assert torch.allclose(after["age"], 30.0 + 0.25 * before["age"], atol=1e-4)
    assert torch.allclose(torch.logit(after["male"]), 0.4 + 0.5 * torch.logit(before["male"]), atol=1e-5)
    assert torch.equal(after["rhythm"], before["rhythm"])


def test_each_beat_is_matched_once_and_only_within_the_tolerance() -> None:
    reference = np.array([100, 300, 500])
    assert match(np.array([90, 110, 337, 338, 499]), reference).tolist() == [0, -1, 1, -1, 2]
    assert match(np.array([5]), np.zeros(0, np.int64)).tolist() == [-1]


def test_a_window_holds_only_beats_that_were_ready_at_its_end_and_of_the_last_thirty_seconds() -> None:
    cut = _simulated("209", 0)
    hops, beats = window_index(cut, np.arange(cut.hop_end.size))
    for k, end in enumerate(cut.hop_end):
        mine = beats[k][beats[k] >= 0]
        assert (cut.beat_ready[mine] <= end).all()
        assert (cut.beat_at[mine] >= end - 7500).all()
        assert hops[k, -1] == k
        assert (np.diff(mine) == 1).all()
        assert beats[k, -1] == (mine[-1] if mine.size else -1)


def test_joined_recordings_keep_their_windows_to_themselves(pool: Pool) -> None:
    for k in range(pool.of_hop.size):
        hops, beats = pool.window_hops[k], pool.window_beats[k]
        assert (pool.of_hop[hops[hops >= 0]] == pool.of_hop[k]).all()
        assert (pool.of_beat[beats[beats >= 0]] == pool.of_hop[k]).all()


def test_folds_keep_the_recordings_of_a_patient_together(pool: Pool) -> None:
    same = replace(
        pool,
        patient=np.array(["mitdb/209", "mitdb/207", "mitdb/209", "x/1"]),
        source=np.array(["mitdb", "mitdb", "flat", "x"]),
    )
    fold = same.folds(2, seed=0)
    assert fold[0] == fold[2] != fold[1]


def test_a_pool_is_read_as_it_was_written(pool: Pool, tmp_path: Path) -> None:
    pool.save(tmp_path / "pool.npz")
    again = Pool.load(tmp_path / "pool.npz")
    for name in Pool.__slots__:
        np.testing.assert_array_equal(getattr(again, name), getattr(pool, name))


def _weights(model: EcgMoe) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_run_that_broke_off_ends_with_the_same_weights(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = np.arange(4)
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole = _weights(trainer._train_one(pool, records, SMALL, tmp_path / "whole", "all", "cpu"))
    monkeypatch.setattr(course, "CHECKPOINT_STEPS", 10)
    real, calls = course.beat_loss, 0

    def fails_at_step_15(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 16:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(course, "beat_loss", fails_at_step_15)
    with pytest.raises(KeyboardInterrupt):
        trainer._train_one(pool, records, SMALL, tmp_path / "broken", "all", "cpu")
    again = _weights(trainer._train_one(pool, records, SMALL, tmp_path / "broken", "all", "cpu"))
    assert calls == 16 + 20  # steps 10 to 29 again
    for name, tensor in whole.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (["--seed", "-1"], "--seed: -1; give 0 to 2147483647"),
        (["--threads", "0"], "--threads: 0; give 1 to 256"),
        (["--device", "tpu9"], "--device: tpu9 cannot be used here"),
        (["--scored", "9"], "--scored: 9; give 1 to 4"),
        (["--folds", "1"], "--folds: 1; give 2 to 20"),
        (["--folds", "5", "--scored", "6"], "--scored: 6; give 1 to 5"),
        (["--source", "ptb"], "--source: ptb; give the folder of mimic-iv-ecg"),
    ],
)
def test_an_option_that_cannot_be_is_refused_at_once(
    option: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        trainer.main(["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), *option])
    assert left.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_training_learns_and_what_it_writes_is_served(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_pool", lambda *_: pool)
    about = trainer.train(replace(SMALL, beats=120, band=40, windows=60), tmp_path / "out", tmp_path / "work")
    found = about["figures"]
    assert isinstance(found, dict)
    assert found["beats"]["VEB"]["f1"] > 90
    judge = Judge.load(tmp_path / "out" / "ecg_moe.safetensors", "cpu")
    assert judge.untrained == {"potassium"}
    beats = judge.beats(pool.beat_wave.astype(np.float32), pool.beat_features)
    right = beats["probs"].argmax(1) == pool.beat
    assert right.mean() > 0.9 > (pool.beat == BEATS.index("N")).mean()
    assert (
        json.loads((tmp_path / "out" / "figures.json").read_text())["figures"]["beats"]["VEB"] == found["beats"]["VEB"]
    )
    assert "Potassium**: untrained" in (tmp_path / "out" / "README.md").read_text()


def test_potassium_is_learnt_where_levels_are_known_and_its_unseen_patients_are_only_scored(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = replace(
        pool,
        source=np.array(["mitdb", "mitdb", "potassium", "potassium-unseen"]),
        potassium=np.array([np.nan, np.nan, 1, 1], np.float32),
    )
    taught: list[set[int]] = []
    real = trainer._train_one

    def train_one(pool: Pool, records: np.ndarray, *rest: object) -> EcgMoe:
        taught.append(set(records.tolist()))
        return real(pool, records, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "_pool", lambda *_: kept)
    monkeypatch.setattr(trainer, "_train_one", train_one)
    trainer.train(replace(SMALL, scored=2), tmp_path / "out", tmp_path / "work")
    assert all(3 not in records for records in taught)
    judge = Judge.load(tmp_path / "out" / "ecg_moe.safetensors", "cpu")
    assert judge.untrained == frozenset()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Potassium abnormal: simulated patients" in card
    assert "potassium-unseen | 1 | 1 |" in card


@pytest.mark.parametrize("there", [False, True])
def test_simulated_patients_are_written_only_where_there_are_none_and_the_training_may_begin(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainer, "load", lambda *_: iter([_simulated("209", 0)]))
    asked: list[tuple[Path, bool]] = []

    def simulate(folder: Path, few: bool) -> None:
        asked.append((folder, few))

    def train(settings: course.Settings, out: Path, work: Path, *rest: Any) -> dict[str, object]:
        claim(work, settings)
        trainer._pool(settings, work, rest[-1])
        return {"figures": {}}

    monkeypatch.setattr(trainer, "train", train)
    folder = Path("runs/simulated-quick")
    if there:
        for name in ("potassium", "potassium-unseen"):
            (folder / name).mkdir(parents=True)
            (folder / name / "potassium.csv").write_text("record,potassium_mmol_l\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit):
        trainer.main(["--quick", "--out", "out", "--work", "other"], simulate)
    assert asked == []
    trainer.main(["--quick", "--out", "out", "--work", "work"], simulate)
    assert asked == ([] if there else [(folder, True)])


def test_a_start_that_finds_no_database_leaves_the_work_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECORDINGS", str(tmp_path / "none"))
    monkeypatch.setattr("model.fetch.fetch", _no_network)
    with pytest.raises(SystemExit) as left:
        trainer.main(["--quick", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")])
    assert left.value.code == 2
    assert "mitdb: not found" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def _no_network(*_: Any) -> None:
    raise FetchError("no network")


def test_the_rr_expert_tells_early_beats_by_their_time_and_is_frozen_then(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(3000) < 0.1).astype(np.int8)
    context = rng.normal(0, 0.05, (3000, N_CONTEXT)).astype(np.float32)
    context[:, 0] -= 0.4 * label
    beats = RrBeats(np.arange(3000) // 300, context, label)
    expert = EcgMoe().morphology.rr
    task = RrTask(expert, beats, "cpu")
    optimizer = torch.optim.Adam(expert.parameters(), 5e-3)
    for i in range(60):
        optimizer.zero_grad()
        task.loss(128, np.random.default_rng(i)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    log = expert.eval()(torch.from_numpy(beats.features(np.arange(3000)))).detach()
    before = log[:, 1] - log[:, 0]
    assert ((before > 0).numpy() == label).mean() > 0.97
    task.settle()  # early beats were drawn more often than there are
    log = expert(torch.from_numpy(beats.features(np.arange(3000))))
    after = log[:, 1] - log[:, 0]
    np.testing.assert_allclose(before - after, 0.5 * task.surplus, atol=1e-4)
    assert task.surplus > 0.5
    assert not any(parameter.requires_grad for parameter in expert.parameters())


def test_the_database_of_beats_by_time_has_fibrillation_as_normal_beats_and_leaves_out_what_it_does_not_know() -> None:
    rows = RrRows(
        np.arange(6) * 0.8, ["N", "S", "S", "S", "", "V"], ["N", "N", "AFIB/AFL", "SND", "N", "N"],
        np.array([False, False, False, False, False, True]),
    )  # fmt: skip
    context, label = rr_beats._cut(rows)
    assert label.tolist() == [0, 1, 0]
    assert context.shape == (3, N_CONTEXT)


def test_the_frozen_views_do_not_learn_from_labels(pool: Pool, tmp_path: Path) -> None:
    few = _weights(trainer._train_one(pool, np.arange(4), SMALL, tmp_path, "few", "cpu"))
    more = _weights(
        trainer._train_one(pool, np.arange(4), replace(SMALL, band=12, beats=40, windows=12), tmp_path, "more", "cpu")
    )
    for name, tensor in few.items():
        if name.startswith("encoder.") and not name.startswith("encoder.band"):
            torch.testing.assert_close(more[name], tensor, rtol=0, atol=0)
    assert not torch.equal(more["encoder.band.out.weight"], few["encoder.band.out.weight"])


def test_the_stem_learns_from_windows_of_hops_that_do_not_overlap(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    real = phases.hop_batch

    def hop_batch(pool: Pool, index: np.ndarray, rng: Any, device: str, group: np.ndarray, noise: Any) -> Any:
        drawn.append((index, group))
        return real(pool, index, rng, device, group, noise)

    monkeypatch.setattr(phases, "hop_batch", hop_batch)
    first = int(np.flatnonzero(pool.of_hop == 1)[0])
    torch.manual_seed(0)
    task = phases.BandTask(EcgMoe().encoder)
    loss = task(pool, np.array([first + 20, first + 3]), np.random.default_rng(0), None, "cpu")
    assert torch.isfinite(loss)
    ((hops, window),) = drawn
    assert hops[window == 0].tolist() == [first + k for k in (14, 16, 18, 20)]
    assert hops[window == 1].tolist() == [first + 1, first + 3]
    assert (np.diff(pool.hop_end[hops[window == 0]]) >= 2 * HOP_SAMPLES).all()  # 250 ticks and 125 samples a second


def test_a_detection_without_a_beat_is_a_false_vb_and_a_fusion_is_none(pool: Pool) -> None:
    beats = np.flatnonzero(pool.of_beat == 0)[:6]
    one = replace(pool, beat=pool.beat.copy(), extra=pool.extra.copy(), missed=np.array([[0, 0, 2, 0, 0]] * 4))
    v, f, q, n = (BEATS.index(c) for c in "VFQN")
    one.beat[beats] = [v, v, f, q, q, n]
    one.extra[beats] = [False, False, False, False, True, False]
    table = beat_figures(one, np.array([0]), beats, np.array([v, n, v, v, v, n]))
    assert table["VEB"] == {"n": 4, "se": 25.0, "ppv": 50.0, "f1": 33.33}
    assert table["confusion"]["V"] == [1, 0, 1, 0, 0, 2]


@pytest.mark.recordings
@pytest.mark.timeout(900)
def test_a_quick_training_beats_the_constant_predictors(recordings: Path, tmp_path: Path) -> None:
    """VEB, the Challenge's classes, RR and asystole, on patients left out; smaller still than `--quick`."""
    sources = (("mitdb", None), ("cinc2017", 120))
    settings = replace(trainer.Settings().quick(), sources=sources, views=20, band=60, beats=200, windows=120)
    about = trainer.train(settings, tmp_path / "out", tmp_path / "work")
    found = about["figures"]
    assert isinstance(found, dict)
    assert found["beats"]["VEB"]["f1"] > 50
    assert found["rr"]["mae_ms"] < 0.5 * found["rr"]["constant_mae_ms"]
    assert found["cinc2017"]["mean_f1_NAO"] > 100 * 0.75 / 3  # always N: F1 of N about 0.73, of the others 0


@pytest.mark.parametrize("net", [baselines.Shared(8), baselines.Ensemble(8)], ids=["shared", "ensemble"])
def test_the_baselines_of_the_comparison_learn_from_the_same_pool(pool: Pool, net: torch.nn.Module) -> None:
    before = [parameter.clone() for parameter in net.parameters()]
    baselines.fit(net, pool, np.array([0, 1, 2]), seed=0, steps=3, batch=16, text="baseline")
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    hops = np.flatnonzero(pool.of_hop == 3)
    answers = baselines.answers(net, pool, hops)
    assert {name: len(answer) for name, answer in answers.items()} == dict.fromkeys(baselines.TASKS, hops.size)
    again = baselines.answers(net.train(), pool, hops)
    for name, answer in answers.items():
        np.testing.assert_array_equal(again[name], answer)


def test_a_result_is_scored_only_on_its_own_records(pool: Pool) -> None:
    model = EcgMoe().eval()
    result = FoldResult.of(model, pool, np.array([1, 2]), "cpu")
    found = figures([result], pool)
    assert found["n_records"] == {"mitdb": 2}
    assert set(pool.of_beat[result.beats]) == {1, 2}
    assert found["rr"]["n"] == int(np.isin(pool.of_hop, [1, 2]).sum())


@pytest.mark.parametrize(
    ("given", "told"), [(["--scored", "9"], "--scored: 9; give 1 to 4"), (["--potassium", "/none"], "/none has no")]
)
def test_what_a_training_cannot_be_run_with_is_said_at_once(
    given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        trainer.main(["--out", "out", *given])
    assert told in capsys.readouterr().err
