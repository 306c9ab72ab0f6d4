"""The whole comparison against the control flow of the WFDB programs.

The expected figures in ec57_cases.json came out of bxb.c, rxr.c and epicmp.c (revision of April 2020): their control
flow was typed off, compiled with arrays in place of annotation files, and run on random pairs of annotations with
every kind of trouble (extra, missed and shifted beats, shutdown, lone and unended marks, VF, flutter waves, AF). The
programs as shipped were not at hand. Each pass of rxr starts afresh there, as in ours.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.ec57.beats import compare_marks
from model.ec57.episodes import AF, compare_episodes, rhythm_episodes, vf_episodes
from model.ec57.marks import Marks, marks
from model.ec57.runs import compare_runs

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "ec57_cases.json").read_text())


def unpack(of: dict[str, Any]) -> Marks:
    n = len(of["at"])
    subtypes = [of["subtype"].get(str(i), 0) for i in range(n)]
    return marks(of["at"], list(of["is"]), subtypes, [of["aux"].get(str(i), "") for i in range(n)])


def matrix(cells: list[list[int]]) -> np.ndarray[Any, Any]:
    full = np.zeros((7, 7), np.int64)
    for i, j, n in cells:
        full[i, j] = n
    return full


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_beats_come_out_as_from_the_control_flow_of_bxb(case: dict[str, Any]) -> None:
    found = compare_marks(unpack(case["ref"]), unpack(case["test"]), case["fs"], case["start_s"], case["end"])
    expected = case["bxb"]
    np.testing.assert_array_equal(found.counts, matrix(expected["counts"]))
    assert found.n_rr == expected["n_rr"]
    assert (found.rr_ms if found.n_rr else 0.0) == pytest.approx(expected["rr_ms"], abs=1e-6)
    assert found.shutdown_s * case["fs"] == pytest.approx(expected["shutdown"])


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_runs_come_out_as_from_the_control_flow_of_rxr(case: dict[str, Any]) -> None:
    ref, test = unpack(case["ref"]), unpack(case["test"])
    for kind in ("V", "S"):
        found = compare_runs(ref, test, case["fs"], kind, case["start_s"], case["length"])
        by_reference, by_test = case["rxr"][kind]
        np.testing.assert_array_equal(found.by_reference, matrix(by_reference))
        np.testing.assert_array_equal(found.by_test, matrix(by_test))


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_episodes_come_out_as_from_the_control_flow_of_epicmp(case: dict[str, Any]) -> None:
    ref, test, end = unpack(case["ref"]), unpack(case["test"]), case["length"]
    for kind, episodes in (("AF", lambda of: rhythm_episodes(of, AF, end)), ("VF", lambda of: vf_episodes(of, end))):
        found = compare_episodes(episodes(ref), episodes(test), case["fs"], end, case["start_s"])
        by_reference, by_test = case["epicmp"][kind]
        hits, asked = found.rates()["episode Se"]
        assert [hits, asked - hits, found.ref_duration, found.ref_overlap] == by_reference
        hits, told = found.rates()["episode +P"]
        assert [hits, told - hits, found.test_duration, found.test_overlap] == by_test
