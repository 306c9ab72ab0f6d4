import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from model.datasets import (
    DatasetError,
    age_and_sex,
    alarms_2015,
    annotations,
    find,
    info,
    kind_of,
    labels_2017,
    ludb_labels,
    patients,
    physical,
    read,
    rhythm_spans,
    rr_cases,
    rr_rows,
    shockable_5s,
)

MISSING = -32768


def write(folder: Path, name: str, digital: np.ndarray, fmt: str = "16", **options: Any) -> Path:
    """A WFDB record of int digital samples (signals, n); gain 200, baseline 0 unless told."""
    n = len(digital)
    header = {"fs": 250, "units": ["mV"] * n, "sig_name": ["II", "V1", "V2"][:n], "adc_gain": [200.0] * n}
    header |= {"baseline": [0] * n} | options
    wfdb.wrsamp(name, d_signal=digital.T.astype(np.int64), fmt=[fmt] * n, write_dir=str(folder), **header)
    return folder / name


def ramp(n: int = 1000, top: int = 800) -> np.ndarray:
    wave = (np.arange(n) * 37 % (2 * top)) - top
    return np.stack([wave, wave[::-1]])


def edited(path: Path, old: str, new: str) -> Path:
    header = path.with_suffix(".hea")
    text = header.read_text()
    assert old in text
    header.write_text(text.replace(old, new))
    return path


def packed(digital: np.ndarray, fmt: str) -> bytes:
    """Samples in the formats that wfdb reads and does not write, as signal(5) of WFDB defines them."""
    flat = digital.T.reshape(-1)
    if fmt == "160":
        return (flat + 32768).astype("<u2").tobytes()
    a, b, c = (flat & 0x3FF).reshape(-1, 3).T
    if fmt == "310":
        return np.stack([a << 1 | (c & 31) << 11, b << 1 | c >> 5 << 11], 1).astype("<u2").tobytes()
    return (a | b << 10 | c << 20).astype("<u4").tobytes()


@pytest.mark.parametrize("fmt", ["160", "310", "311"])
def test_formats_that_are_only_read_give_the_samples_that_were_packed(tmp_path: Path, fmt: str) -> None:
    digital = ramp(900, top=200)
    path = edited(write(tmp_path, "r", digital), "r.dat 16 ", f"r.dat {fmt} ")
    path.with_suffix(".dat").write_bytes(packed(digital, fmt))
    np.testing.assert_array_equal(read(path).digital, digital)


@pytest.mark.parametrize("fmt", ["16", "212", "24", "32", "508", "516", "524"])
def test_each_format_gives_the_samples_that_were_written(tmp_path: Path, fmt: str) -> None:
    digital = ramp(top=100)
    record = read(write(tmp_path, "r", digital, fmt))
    assert record.digital.dtype == np.int16
    np.testing.assert_array_equal(record.digital, digital)
    np.testing.assert_allclose(physical(record), digital / 200, atol=1e-6)


@pytest.mark.parametrize(
    ("fmt", "mark"), [("16", -32768), ("212", -2048), ("24", -(2**23)), ("32", -(2**31)), ("516", -32768)]
)
def test_the_mark_of_a_missing_sample_of_each_format_becomes_one_mark(tmp_path: Path, fmt: str, mark: int) -> None:
    digital = ramp()
    digital[0, 100:120] = mark
    record = read(write(tmp_path, "r", digital, fmt))
    assert (record.digital[0, 100:120] == MISSING).all()
    assert np.isnan(physical(record)[0]).sum() == 20
    assert not np.isnan(physical(record)[1]).any()


@given(start=st.integers(0, 998), n=st.integers(1, 1200), fmt=st.sampled_from(["16", "212", "516", "24"]))
def test_a_part_that_is_read_alone_equals_the_same_part_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, start: int, n: int, fmt: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"parts{fmt}"
    if not folder.exists():
        folder.mkdir()
        write(folder, "r", ramp() * (5000 if fmt == "24" else 1), fmt)
    whole = read(folder / "r")
    part = read(folder / "r", start / 250, n / 250)
    assert part.first == start
    assert part.signals == whole.signals
    np.testing.assert_array_equal(part.digital, whole.digital[:, start : start + n])


def test_samples_over_16_bits_are_scaled_and_keep_their_physical_values(tmp_path: Path) -> None:
    digital = ramp() * 5000 + 3_000_000
    path = write(tmp_path, "r", digital, "24", adc_gain=[100_000.0] * 2, baseline=[1000, -1000])
    record = read(path)
    wanted = (digital - np.array([[1000], [-1000]])) / 100_000
    assert np.abs(record.digital).max() <= 32767
    step = 1 / np.array([[signal.gain] for signal in record.signals])
    assert (np.abs(physical(record) - wanted) <= 0.51 * step + 1e-4).all()
    assert step.max() < np.ptp(wanted) / 60_000  # the resolution of 16 bits is used


def test_a_signal_of_a_lower_rate_is_held_up_to_the_highest(tmp_path: Path) -> None:
    fast, slow = np.arange(400) % 90, np.arange(100) % 70
    wfdb.wrsamp(
        "r",
        fs=62.5,
        units=["mV", "mmHg"],
        sig_name=["II", "ABP"],
        e_d_signal=[fast, slow],
        samps_per_frame=[4, 1],
        fmt=["16", "16"],
        adc_gain=[200.0, 10.0],
        baseline=[0, 0],
        write_dir=str(tmp_path),
    )
    wfdb.wrann("r", "atr", sample=np.array([10, 50]), symbol=["N", "V"], write_dir=str(tmp_path))
    record = read(tmp_path / "r")
    assert (record.fs, record.frame) == (250.0, 4)
    np.testing.assert_array_equal(record.digital[0], fast)
    np.testing.assert_array_equal(record.digital[1], np.repeat(slow, 4))
    assert record.annotations is not None
    assert record.annotations.sample.tolist() == [40, 200]  # annotation files count frames
    part = read(tmp_path / "r", 101 / 250, 50 / 250)
    np.testing.assert_array_equal(part.digital, record.digital[:, 101:151])


def multi_segment(folder: Path) -> Path:
    """Three segments, one a gap, the last with a gain of its own and without V1."""
    first, last = ramp(300), ramp(200)[:1]
    write(folder, "m_1", first)
    write(folder, "m_2", last, adc_gain=[400.0], baseline=[10])
    (folder / "m_0.hea").write_text("m_0 2 250 0\n~ 16 200 16 0 0 0 0 II\n~ 16 200 16 0 0 0 0 V1\n")
    (folder / "m.hea").write_text("m/4 2 250 600\nm_0 0\nm_1 300\n~ 100\nm_2 200\n")
    return folder / "m"


def test_segments_come_as_one_record_at_one_gain_with_gaps_missing(tmp_path: Path) -> None:
    record = read(multi_segment(tmp_path))
    values = physical(record)
    assert values.shape == (2, 600)
    np.testing.assert_allclose(values[:, :300], ramp(300) / 200, atol=1e-6)
    assert np.isnan(values[:, 300:400]).all()
    np.testing.assert_allclose(values[0, 400:], (ramp(200)[0] - 10) / 400, atol=0.5 / 200 + 1e-6)
    assert np.isnan(values[1, 400:]).all()
    part = read(tmp_path / "m", 250 / 250, 200 / 250)
    np.testing.assert_array_equal(part.digital, record.digital[:, 250:450])


def test_segments_are_not_records_of_their_own(tmp_path: Path) -> None:
    multi_segment(tmp_path)
    write(tmp_path, "r10", ramp())
    write(tmp_path, "r9", ramp())
    assert [path.name for path in find(tmp_path)] == ["m", "r9", "r10"]


def test_a_negative_gain_is_turned_over(tmp_path: Path) -> None:
    digital = ramp()
    path = edited(write(tmp_path, "r", digital), "200.0(0)/mV", "-200.0(5)/mV")
    record = read(path)
    assert all(signal.gain == 200 for signal in record.signals)
    np.testing.assert_allclose(physical(record), (digital - 5) / -200, atol=1e-6)


def test_an_ecg_in_microvolts_is_told_in_millivolts(tmp_path: Path) -> None:
    digital = ramp()
    record = read(write(tmp_path, "r", digital, units=["uV", "uV"], adc_gain=[2.0, 2.0]))
    assert {signal.unit for signal in record.signals} == {"mV"}
    np.testing.assert_allclose(physical(record), digital / 2000, atol=1e-6)


def test_an_ecg_in_no_voltage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="signal II is an ECG in 'furlong'; put its gain per mV"):
        read(write(tmp_path, "r", ramp(), units=["furlong", "mV"]))


def test_leads_come_in_the_order_asked_for(tmp_path: Path) -> None:
    record = read(write(tmp_path, "r", ramp()), leads=["v1", "II"])
    assert [signal.name for signal in record.signals] == ["V1", "II"]
    np.testing.assert_array_equal(record.digital, ramp()[::-1])


@pytest.mark.parametrize(
    ("name", "unit", "kind"),
    [
        ("MLII", "mV", "ecg"),
        ("aVR", "mV", "ecg"),
        ("V", "mV", "ecg"),
        ("ECG1", "mV", "ecg"),
        ("PLETH", "NU", "pleth"),
        ("ABP", "mmHg", "abp"),
        ("RESP", "mV", "resp"),
        ("EEG", "uV", "other"),
        ("N", "", "other"),
    ],
)
def test_a_signal_is_known_by_its_name_and_unit(name: str, unit: str, kind: str) -> None:
    assert kind_of(name, unit) == kind


# What is wrong with a record, and what the one line has to name.
def truncated(path: Path) -> None:
    data = path.with_suffix(".dat")
    data.write_bytes(data.read_bytes()[:1001])


def corrupt(path: Path) -> None:
    data = path.with_suffix(".dat")
    content = bytearray(data.read_bytes())
    content[500] ^= 0x40
    data.write_bytes(content)


def no_signal_file(path: Path) -> None:
    path.with_suffix(".dat").unlink()


def rate_of_0(path: Path) -> None:
    edited(path, "r 2 250", "r 2 0")


def garbage_header(path: Path) -> None:
    path.with_suffix(".hea").write_bytes(bytes(range(256)) * 3)


def empty_header(path: Path) -> None:
    path.with_suffix(".hea").write_text("")


def huge_length(path: Path) -> None:
    edited(path, "250 1000", "250 999999999999")


def no_signals(path: Path) -> None:
    path.with_suffix(".hea").write_text("r 0 250 1000\n")


@pytest.mark.parametrize(
    ("damage", "fmt", "says"),
    [
        (truncated, "16", r"r\.dat is cut short: it holds 250 samples per signal of the 1000"),
        (truncated, "212", r"r\.dat is cut short: it holds 333 samples"),
        (truncated, "516", r"cut short|decoded"),
        (corrupt, "16", r"II|V1.*corrupt.*sum"),
        (corrupt, "516", r"corrupt|decoded|cut short"),
        (no_signal_file, "16", r"signal file r\.dat, which is not there"),
        (no_signal_file, "516", r"signal file r\.dat, which is not there"),
        (rate_of_0, "16", r"the rate is 0"),
        (garbage_header, "16", r"header"),
        (empty_header, "16", r"header"),
        (huge_length, "16", r"cut short: it holds 1000 samples per signal of the 999999999999"),
        (no_signals, "16", r"no signal"),
    ],
)
def test_a_bad_record_is_refused_in_one_line(tmp_path: Path, damage: Any, fmt: str, says: str) -> None:
    path = write(tmp_path, "r", ramp(), fmt)
    damage(path)
    with pytest.raises(DatasetError, match=says) as caught:
        read(path)
    assert str(caught.value).startswith("r: ")
    assert "\n" not in str(caught.value)
    assert re.search(r"; [a-z]", str(caught.value)), "it says how to mend it"
    assert caught.value.__cause__ is None


@settings(max_examples=200, deadline=None)
@given(data=st.data(), fmt=st.sampled_from(["16", "212", "516"]), suffix=st.sampled_from([".hea", ".dat", ".atr"]))
def test_whatever_is_damaged_a_record_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, fmt: str, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = write(folder, "r", ramp(300), fmt)
    wfdb.wrann("r", "atr", sample=np.array([5, 200]), symbol=["N", "V"], write_dir=str(folder))
    content = bytearray(path.with_suffix(suffix).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=6))
        content = content or bytearray(b"0")
    path.with_suffix(suffix).write_bytes(content)
    try:
        record = read(path)
    except DatasetError as error:
        assert "\n" not in str(error)
    else:
        assert record.digital.shape == (len(record.signals), info(path).n)


def test_what_is_asked_for_wrongly_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "r", ramp())
    for asked, says in (
        ({"leads": ["III"]}, r"lead 'III' is not in the record; choose among II, V1"),
        ({"start_s": 5.0}, r"start_s 5 is behind the end at 4 s"),
        ({"start_s": -1.0}, r"start_s -1"),
        ({"duration_s": 0.0}, r"duration_s 0"),
    ):
        with pytest.raises(DatasetError, match=says):
            read(path, **asked)  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=r"no header absent\.hea"):
        read(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no record"):
        find(tmp_path / "empty")
    with pytest.raises(DatasetError, match="no such record or folder"):
        find("/nowhere/at all")


def test_a_public_name_is_looked_for_under_recordings_and_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, cache = tmp_path / "own", tmp_path / "cache"
    for root, name in ((own, "adb"), (cache, "bdb"), (cache, "cdb")):
        (root / name / "sub").mkdir(parents=True)
        write(root / name / "sub", "r1", ramp())
    (cache / "bdb" / ".complete").touch()
    monkeypatch.setenv("RECORDINGS", str(own))
    monkeypatch.setenv("WARDBEAT_CACHE", str(cache))
    assert find("adb") == find("adb/r1") == [own / "adb/sub/r1"]
    assert find("bdb") == [cache / "bdb/sub/r1"]
    assert find("cdb/r1", download=False) == [cache / "cdb/sub/r1"]
    with pytest.raises(DatasetError, match="cdb: not found under"):
        find("cdb", download=False)  # a part of a database does not pass for the whole


def test_annotations_keep_their_notes_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "r", ramp())
    assert annotations(path) is None
    wfdb.wrann(
        "r",
        "atr",
        sample=np.array([0, 5, 400, 700]),
        symbol=["+", "N", "+", "~"],
        aux_note=["(N", "", "(VFIB", ""],
        subtype=np.array([0, 0, 0, -1]),
        write_dir=str(tmp_path),
    )
    record = read(path, 1.0)
    notes = record.annotations
    assert notes is not None
    assert notes.sample.tolist() == [150, 450]
    assert (notes.symbols, notes.aux, notes.subtype.tolist()) == (["+", "~"], ["(VFIB", ""], [0, -1])
    spans = rhythm_spans(read(path))
    assert [(span.start, span.end, span.rhythm) for span in spans] == [(0, 400, "N"), (400, 1000, "VF")]
    (tmp_path / "r.atr").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"r: the annotation file r\.atr cannot be read"):
        read(path)


def test_age_and_sex_are_read_from_the_comments_of_several_databases() -> None:
    assert age_and_sex(("69 M 1085 1629 x1", "Aldomet, Inderal")) == (69, "M")
    assert age_and_sex(("<age>: 51", "<sex>: F")) == (51, "F")
    assert age_and_sex(("-1 F 11 12 x1",)) == (None, None)
    assert age_and_sex(("The PVCs are uniform.",)) == (None, None)


@pytest.mark.recordings
def test_every_record_of_the_public_databases_is_read_with_its_checksums(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDINGS", str(recordings))
    for database, n, fs in (("mitdb", 26, 360), ("vfdb", 14, 250), ("cudb", 18, 250), ("nstdb", 2, 360)):
        paths = find(database)
        assert len(paths) == n
        for path in paths:
            record = read(path)
            assert record.fs == fs
            assert record.signals[0].kind == "ecg"
            assert record.digital.shape[1] == info(path).n
    one = read(find("mitdb/208")[0])
    assert one.annotations is not None
    assert one.annotations.symbols.count("V") == 992
    reference = wfdb.rdrecord(str(recordings / "mitdb/208"))
    np.testing.assert_allclose(physical(one), reference.p_signal.T, atol=1e-6)


@pytest.mark.recordings
def test_labels_of_the_public_databases_are_read(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECORDINGS", str(recordings))
    labels = labels_2017()
    assert len(labels) == 5117
    assert set(labels.values()) == {"N", "A", "O", "~"}
    alarms = alarms_2015()
    assert len(alarms) == 310
    assert alarms["a104s"].kind == "Asystole"
    assert not alarms["a104s"].true
    shockable = shockable_5s()
    assert len(shockable) == 18
    assert shockable["cu01"][0] == (0, 1250, False)
    assert any(flag for _, _, flag in shockable["cu01"])
    assert ludb_labels()["2"]["Age"] == "64"
    assert len(rr_cases()) == 386
    rows = rr_rows("1002")
    assert len(rows.beats) == rows.time_s.size == rows.bad.size > 1000
    assert (np.diff(rows.time_s) >= 0).all()
    people = patients("mitdb")
    assert people["201"] == "mitdb/201"
    assert len(set(people.values())) == 26
    with pytest.raises(DatasetError, match="there is no case '0'"):
        rr_rows("0")
