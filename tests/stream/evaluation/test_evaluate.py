"""`evaluate` end to end on a small record: its annotations given, or made here."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from rich.console import Console

from model.datasets import DatasetError
from model.ec57.marks import Marks, marks, write_marks
from stream.evaluation.evaluate import EvaluateError, detection_delays, evaluate

FS = 250
N = 400 * FS
BEATS = np.arange(FS, N - FS, FS)  # one a second


def ecg() -> np.ndarray[Any, np.dtype[np.float64]]:
    """A QRS of 1 mV at each beat, 0.1 s wide."""
    signal = np.zeros(N)
    shape = np.concatenate([np.linspace(0, 1, 12), np.linspace(1, -0.3, 8), np.linspace(-0.3, 0, 5)])
    for at in BEATS:
        signal[at - 11 : at + 14] += shape
    return signal


def write_record(folder: Path, name: str = "r1") -> None:
    wfdb.wrsamp(name, fs=FS, units=["mV"], sig_name=["II"], p_signal=ecg()[:, None], fmt=["16"], write_dir=str(folder))


def reference() -> Marks:
    symbols = ["N"] * len(BEATS)
    symbols[320:326] = ["V"] * 6
    return marks([10, *BEATS], ["+", *symbols], aux=["(N", *[""] * len(BEATS)])


def red(code: str, onset: int, decided: int, ended: int) -> list[dict[str, Any]]:
    common = {
        "alert_id": f"{code}{onset}",
        "code": code,
        "priority": "high",
        "kind": "physiological",
        "onset": {"sample": onset, "fs": FS},
        "suppressed_by": None,
        "model_version": "weights-7",
    }
    return [
        {**common, "seq": i, "state": state, "stream_time": {"sample": sample, "fs": FS}}
        for i, (state, sample) in enumerate((("active", decided), ("latched", ended)))
    ]


@pytest.fixture
def ward(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A record with its reference; call it with what was found to get the JSON of its evaluation."""
    data, given = tmp_path / "data", tmp_path / "given"
    data.mkdir()
    given.mkdir()
    write_record(data)
    write_marks(data / "r1", "atr", reference(), FS)

    def score(test: Marks, alerts: list[dict[str, Any]] | None = None, **options: Any) -> dict[str, Any]:
        write_marks(given / "r1", "moe", test, FS)
        if alerts is not None:
            (given / "r1.alerts.jsonl").write_text("".join(json.dumps(a) + "\n" for a in alerts))
        out = io.StringIO()
        paths = tmp_path / "result.json", tmp_path / "result.html"
        console = Console(file=out, width=200)
        assert evaluate(str(data), *paths, annotations=given, console=console, **options) == []
        result: dict[str, Any] = json.loads(paths[0].read_text())
        return {**result, "terminal": out.getvalue(), "page": paths[1].read_text()}

    return score


def test_the_reference_scored_against_itself_is_right_throughout(ward: Callable[..., dict[str, Any]]) -> None:
    found = ward(reference())
    for label_map in ("bxb", "literature"):
        summary = found["beat_tables"][label_map]["summary"]
        assert summary["QRS Se"]["gross"]["value"] == summary["VEB +P"]["gross"]["value"] == 1.0
    counted = int((BEATS >= 300 * FS).sum())
    assert found["beat_tables"]["bxb"]["summary"]["QRS Se"]["gross"]["denominator"] == counted
    assert found["other_tables"]["records"]["r1"]["VE long Se"] == [1, 1]
    assert found["heart_rate"]["gross_bpm"] == 0.0
    assert found["rr_error"]["bxb"]["gross_ms"] == 0.0


def test_every_rate_of_the_json_carries_what_it_is_made_of(ward: Callable[..., dict[str, Any]]) -> None:
    wrong = marks(
        [10, *BEATS[:330], *BEATS[333:]], ["+", *["N"] * (len(BEATS) - 3)], aux=["(N", *[""] * (len(BEATS) - 3)]
    )
    found = ward(wrong)
    qrs = found["beat_tables"]["bxb"]["summary"]["QRS Se"]["gross"]
    assert qrs["denominator"] - qrs["numerator"] == 3
    assert qrs["low"] < qrs["value"] < qrs["high"]
    veb = found["beat_tables"]["bxb"]["records"]["r1"]["rates"]["VEB Se"]
    assert veb == [0, 6]
    assert np.array(found["beat_tables"]["bxb"]["confusion"]).sum() == qrs["denominator"]
    for key in ("source", "split", "seed", "weights", "beats", "rules"):
        assert key in found


def test_alarms_are_scored_by_episode_delay_and_truth(ward: Callable[..., dict[str, Any]]) -> None:
    # The six V beats go at 60 per minute: no tachycardia, so an alarm for them is false.
    found = ward(
        reference(), [*red("VTACH", 321 * FS, 325 * FS, 327 * FS), *red("ASYSTOLE", 50 * FS, 54 * FS, 60 * FS)]
    )
    assert found["weights"] == ["weights-7"]
    assert found["alarms"]["reds"]["VTACH"]["false"] == 1
    assert found["alarms"]["quiet"] == {"records": ["r1"], "hours": pytest.approx(400 / 3600), "false_reds": 2}
    assert "without VF, VT or asystole: 1 record, 0.11 h, 2 false reds" in " ".join(found["terminal"].split())
    assert {f["code"] for f in found["alarms"]["false_reds"]} == {"VTACH", "ASYSTOLE"}
    assert found["alarms"]["per_bed_and_day"]["high"]["announced"] == pytest.approx(2 * 86_400 / 400)
    assert "false: ASYSTOLE r1 at 54 s" in found["terminal"]
    assert "false VTACH, decided at 325.0 s" in found["page"]


def test_the_page_needs_nothing_else_and_shows_the_worst_strips(ward: Callable[..., dict[str, Any]]) -> None:
    test = reference()
    found = ward(marks(test.sample[:-40], list(test.symbol[:-40]), aux=list(test.aux[:-40])))
    page, n_strips = re.subn(r'src="data:image/png;base64,[^"]*"', "", found["page"])  # what is in the page itself
    assert "<script" not in page and "http" not in page and "src=" not in page
    assert "r1 at 360.0 s: 10 beats missed, invented or misnamed" in page
    assert n_strips >= 1
    assert "not a medical device" in page


def test_terminal_tables_tell_counts_and_what_was_left_out(ward: Callable[..., dict[str, Any]]) -> None:
    found = ward(reference(), split="fold 3", seed=7, start_s=60.0)
    terminal = found["terminal"]
    assert "split: fold 3" in terminal and "seed: 7" in terminal
    assert "non-standard: the learning period is 60 s" in terminal
    assert "QRS Se" in terminal and "100.00 (" in terminal


def test_a_paced_record_stays_out_of_the_tables_and_is_named(
    ward: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    of = reference()
    paced = marks(of.sample, ["/" if s == "V" else s for s in of.symbol], aux=list(of.aux))
    write_marks(tmp_path / "data" / "r1", "atr", paced, FS)
    found = ward(of)
    assert found["left_out_as_paced"] == ["r1"]
    assert found["beat_tables"] == {} and found["other_tables"] == {}
    assert found["records"][0]["paced_rates"]["QRS Se"][0] > 0
    assert "left out of the EC57 tables as paced: r1" in found["terminal"]


def test_the_challenge_is_scored_from_its_own_file(ward: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "data" / "ALARMS").write_text("r1,Ventricular_Tachycardia,1\n")
    found = ward(reference(), red("VTACH", 294 * FS, 296 * FS, 299 * FS))
    whole = found["challenge2015"]["by_type"]["all"]
    assert (whole["tp"], whole["fn"], whole["score"]) == (1, 0, 100.0)
    missed = ward(reference(), red("VTACH", 100 * FS, 102 * FS, 110 * FS))["challenge2015"]["by_type"]["all"]
    assert (missed["fn"], missed["score"]) == (1, 0.0)


def test_shockable_segments_and_labels_of_af_are_scored_from_their_files(
    ward: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    rows = [f"r1,{i},{i * 1250},{(i + 1) * 1250},{int(i >= 40)}" for i in range(80)]
    header = "record,segment,start_sample,end_sample,shockable"
    (tmp_path / "data" / "labels_5s.csv").write_text("\n".join([header, *rows]) + "\n")
    (tmp_path / "data" / "REFERENCE-v3.csv").write_text("r1,A\n")
    test = marks([10, 50_000, 75_000], ["+", "[", "]"], aux=["(AFIB", "", ""])
    found = ward(test)
    assert found["segments"]["shockable 5 s"]["counts"] == {"TP": 19, "FN": 20, "FP": 0, "TN": 39}
    assert found["af_by_record"]["A"]["numerator"] == 1


def test_what_cannot_be_scored_is_said_in_one_line(tmp_path: Path) -> None:
    write_record(tmp_path)
    with pytest.raises(EvaluateError, match="is no folder"):
        evaluate(str(tmp_path), annotations=tmp_path / "nowhere")
    with pytest.raises(EvaluateError, match="no annotations of r1"):
        evaluate(str(tmp_path), annotations=tmp_path)
    write_marks(tmp_path / "r1", "moe", marks([], []), FS)
    with pytest.raises(EvaluateError, match="no record has reference labels"):
        evaluate(str(tmp_path), annotations=tmp_path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "it is empty"),
        (np.random.default_rng(1).bytes(2000), "it does not end as one"),
        (b"\x12\x04" * 9, "it does not end as one"),  # cut short
        (np.random.default_rng(1).bytes(2000) + b"\0\0", "it places an annotation at sample -"),
    ],
    ids=["empty", "noise", "cut", "noise with an end"],
)
def test_annotations_that_are_none_are_refused_by_name(tmp_path: Path, content: bytes, fault: str) -> None:
    write_record(tmp_path)
    write_marks(tmp_path / "r1", "atr", reference(), FS)
    (tmp_path / "r1.moe").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"r1\.moe cannot be read \(.*{fault}.*\); get it again, or annotate"):
        evaluate(str(tmp_path), annotations=tmp_path)


def test_the_detector_decides_within_its_bound_on_the_sample_clock(tmp_path: Path) -> None:
    write_record(tmp_path)
    delays = detection_delays(tmp_path / "r1")
    assert abs(delays.size - len(BEATS)) <= 3
    assert delays.min() >= 0 and delays.max() <= 0.25


def test_without_annotations_the_records_are_annotated_by_the_streaming_stages(tmp_path: Path) -> None:
    write_record(tmp_path)
    write_marks(tmp_path / "r1", "atr", reference(), FS)
    out = io.StringIO()
    paths = tmp_path / "o.json", tmp_path / "o.html"
    assert evaluate(str(tmp_path), *paths, progress=False, console=Console(file=out, width=200)) == []
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["beats"] == "ours, online, by this version"
    assert found["beat_tables"]["bxb"]["summary"]["QRS Se"]["gross"]["value"] > 0.95
    assert found["beat_delay"]["max_ms"] <= 250
    assert sum(found["beat_delay"]["histogram_10_ms"]) == found["beat_delay"]["n"]
    assert "R peak to decision" in (tmp_path / "o.html").read_text()
    assert "R peak to decision" in out.getvalue()
