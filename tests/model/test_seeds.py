"""The table over seeds."""

import json

import pytest
from click.testing import CliRunner

from tests.benchmarks import seeds


def _run(seed: int, f1: float, recipe: str = "ecg-moe-0", **settings: object) -> dict[str, object]:
    about = {"version": f"{recipe}-seed{seed}", "settings": {"seed": seed, "folds": 4, **settings}}
    return about | {"figures": {"beats": {"VEB": {"f1": f1}}}}


def test_a_figure_is_told_as_mean_and_sd_of_a_sample_where_all_runs_have_it() -> None:
    runs = [_run(0, 92.0), _run(1, 94.0), _run(2, 96.0)]
    assert seeds.summary(runs) == [("VEB, mitdb: F1", "94.00 ± 2.00", "92, 94, 96")]
    assert seeds.summary([*runs, {"settings": {"seed": 3}, "figures": {}}]) == []


@pytest.mark.parametrize(("folds", "code"), [(4, 0), (3, 2)])
def test_runs_that_differ_in_more_than_the_seed_are_refused(tmp_path, folds: int, code: int) -> None:
    paths = [tmp_path / "0.json", tmp_path / "1.json"]
    for path, run in zip(paths, (_run(0, 92.0), _run(1, 94.0, folds=folds)), strict=True):
        path.write_text(json.dumps(run))
    result = CliRunner().invoke(seeds.main, [str(path) for path in paths])
    assert result.exit_code == code
    assert ("seeds 0, 1" in result.output) == (code == 0)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (json.dumps(_run(0, 94.0)), "the same seed"),
        (json.dumps(_run(1, 94.0, recipe="ecg-moe-1")), "of ecg-moe-0 and ecg-moe-1"),
        ("# a text", "1.json: no figures.json of a training"),
        ("[]", "1.json: no figures.json of a training"),
        (json.dumps({"version": 1, "settings": {}, "figures": []}), "1.json: no figures.json of a training"),
        (json.dumps(_run(1, 94.0) | {"settings": {}}), "1.json: no figures.json of a training"),
    ],
)
def test_runs_of_one_seed_or_of_two_recipes_and_other_files_are_refused(tmp_path, second: str, told: str) -> None:
    (tmp_path / "0.json").write_text(json.dumps(_run(0, 92.0)))
    (tmp_path / "1.json").write_text(second)
    result = CliRunner().invoke(seeds.main, [str(tmp_path / "0.json"), str(tmp_path / "1.json")])
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())
