from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from model.datasets import DatasetError, find, read
from simulators.feed import Feed
from simulators.patients import Patient
from simulators.replay import BedReplay, PatientFeed, RecordFeed
from stream.wire import Truth, Waveform, decode, encode

FS = 360
SCRIPT = [("sinus", 20), ("lead_off", 7), ("sinus", 10), ("lead_off", 5, {"lead": 0}), ("sinus", 8)]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 s of a simulated patient at 360 Hz, as a file."""
    folder = tmp_path_factory.mktemp("records")
    return Patient("r", SCRIPT, seed=1, fs=FS).write(folder, 50)


def played(feed: Feed, **cut: Any) -> tuple[list[Waveform], list[Truth]]:
    replay = BedReplay("bed1", feed, **cut)
    replay.begin("e.0")
    messages = []
    while not replay.over:
        messages += [decode(encode(message)) for message in replay.packets(10**18, 10**18 + 5)]
    waves = [message for message in messages if isinstance(message, Waveform)]
    truths = [message for message in messages if isinstance(message, Truth)]
    assert len(waves) + len(truths) == len(messages)
    return waves, truths


def joined(waves: list[Waveform]) -> np.ndarray:
    """All samples, once it is sure that they are in order and whole."""
    at = 0
    for seq, wave in enumerate(waves):
        assert (wave.seq, wave.first, wave.epoch, wave.bed) == (seq, at, "e.0", "bed1")
        at += wave.n
    return np.concatenate([wave.samples() for wave in waves], axis=1)


@settings(max_examples=25, deadline=None)
@given(packet_ms=st.floats(4, 10_000))
def test_packets_of_any_length_carry_each_sample_once(record: Path, packet_ms: float) -> None:
    waves, _ = played(RecordFeed(record), packet_ms=packet_ms)
    np.testing.assert_array_equal(joined(waves), read(record).digital)
    lengths = {wave.n for wave in waves[:-1]}
    assert max(lengths, default=0) - min(lengths, default=0) <= 1


def test_each_packet_is_due_when_its_last_sample_was_taken(record: Path) -> None:
    replay = BedReplay("bed1", RecordFeed(record), packet_ms=20)
    replay.begin("e.0")
    due = []
    while not replay.over:
        due.append((replay.due_s, replay.sent))
        list(replay.packets(0, 0))
    sent = np.array([first for _, first in due[1:]] + [replay.sent])
    np.testing.assert_allclose(sent / FS, [s for s, _ in due], atol=0.5 / FS)


def test_start_and_stop_cut_the_stream_and_its_truth(record: Path) -> None:
    waves, truths = played(RecordFeed(record), start_s=10.0, stop_s=25.0)
    np.testing.assert_array_equal(joined(waves), read(record, 10.0, 25.0).digital)
    notes = read(record, 10.0, 25.0).annotations
    assert notes is not None
    assert [s for truth in truths for s in truth.samples] == notes.sample.tolist()
    assert [s for truth in truths for s in truth.symbols] == notes.symbols


def test_truth_comes_with_the_packet_of_its_samples(record: Path) -> None:
    replay = BedReplay("bed1", RecordFeed(record), packet_ms=1000)
    replay.begin("e.0")
    n = 0
    while not replay.over:
        first = replay.sent
        for message in replay.packets(0, 0):
            if isinstance(message, Truth):
                assert all(first <= sample < replay.sent for sample in message.samples)
                n += len(message.samples)
    notes = read(record).annotations
    assert notes is not None
    assert n == len(notes.symbols)


def test_an_unreadable_stretch_says_so_in_its_note(record: Path) -> None:
    _, truths = played(RecordFeed(record))
    marks = [(note, s) for t in truths for s, c, note in zip(t.samples, t.symbols, t.notes, strict=True) if c == "~"]
    assert marks == [("subtype -1", 20 * FS), ("subtype 0", 27 * FS)]


def test_lead_off_bits_hold_for_every_sample_of_their_packet() -> None:
    patient = Patient("bed1", SCRIPT, seed=2)
    for packet_ms in (20.0, 333.0, 4000.0):
        waves, _ = played(PatientFeed(patient), packet_ms=packet_ms, stop_s=50.0)
        np.testing.assert_array_equal(joined(waves), patient.render(0, 50 * 250))
        off = np.concatenate([np.full(wave.n, wave.off) for wave in waves])
        wanted = np.zeros(50 * 250, int)
        wanted[20 * 250 : 27 * 250] = 0b11
        wanted[37 * 250 : 42 * 250] = 0b01
        np.testing.assert_array_equal(off, wanted)


def test_device_time_is_that_of_the_last_sample_of_each_packet() -> None:
    waves, _ = played(PatientFeed(Patient("bed1", SCRIPT)), packet_ms=10_000, stop_s=30.0)
    ends = {wave.first + wave.n: wave.device_ns for wave in waves}
    assert ends[20 * 250] == ends[30 * 250] == 10**18
    assert ends[27 * 250] == 10**18 - 3 * 10**9


def test_a_patient_has_no_end_of_its_own() -> None:
    feed = PatientFeed(Patient("bed1", [("sinus", 4)]))
    assert feed.n_samples is None
    waves, _ = played(feed, stop_s=30.0, packet_ms=500)
    assert joined(waves).shape == (2, 7500)


def test_the_ecg_goes_first_where_there_are_more_signals_than_a_packet_takes(tmp_path: Path) -> None:
    names = [*(f"RESP{i}" for i in range(10)), *(f"ECG{i}" for i in range(10))]
    samples = np.arange(20)[None, :] + np.arange(500)[:, None]
    wfdb.wrsamp("w", 250, ["mV"] * 20, names, d_signal=samples, fmt=["16"] * 20, adc_gain=[200.0] * 20,
                baseline=[0] * 20, write_dir=str(tmp_path))  # fmt: skip
    feed = RecordFeed(tmp_path / "w")
    assert [signal.name for signal in feed.signals] == [
        *(f"RESP{i}" for i in range(6)),
        *(f"ECG{i}" for i in range(10)),
    ]
    chosen = RecordFeed(tmp_path / "w", ("ECG3", "RESP1"))
    np.testing.assert_array_equal(joined(played(chosen)[0]), samples.T[[13, 1]])


def test_what_cannot_be_played_is_refused_by_name(record: Path, tmp_path: Path) -> None:
    slow = Patient("slow", [("sinus", 10)], fs=50).write(tmp_path, 10)
    header = slow.with_suffix(".hea")
    header.write_text(header.read_text().replace("slow 2 50", "slow 2 40"))
    with pytest.raises(DatasetError, match=r"slow: the rate is 40 Hz, and 50 to 2000 Hz can be sent"):
        RecordFeed(slow)
    with pytest.raises(DatasetError, match="lead 'X' is not in the record"):
        RecordFeed(record, ("X",))
    feed = RecordFeed(record)
    for cut, says in (
        ({"packet_ms": 1}, "packet_ms: 1;"),
        ({"start_s": 50.0}, "behind the end"),
        ({"start_s": -1.0}, "start: -1"),
    ):
        with pytest.raises(ValueError, match=says):
            BedReplay("bed1", feed, **cut)  # type: ignore[arg-type]


@pytest.mark.recordings
def test_a_public_record_is_played_whole(recordings: Path) -> None:
    path = find(recordings / "mitdb" / "208")[0]
    whole = read(path)
    waves, truths = played(RecordFeed(path), packet_ms=1000)
    np.testing.assert_array_equal(joined(waves), whole.digital)
    assert whole.annotations is not None
    assert sum(len(truth.samples) for truth in truths) == len(whole.annotations.symbols)
    assert [note for truth in truths for note in truth.notes if note][:1] == ["(N"]
