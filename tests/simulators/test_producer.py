import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
from structlog.testing import capture_logs

from model.datasets import read
from simulators.patients import Patient
from simulators.producer import Bed, Producer
from simulators.ward import patient_of
from stream.transport.ingest import Ingest
from stream.transport.sequence import Chunk, Ended, Gap, NewEpoch, TruthSeen
from stream.wire import End, Packets, Truth, Waveform, decode, encode

FS = 250


class Shard:
    """What stands at the other end: a ROUTER and the real ingest, each sample durable once it is taken."""

    def __init__(self) -> None:
        self.socket = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.address = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.ingest = Ingest(capacity=64)
        self.events: list[object] = []
        self.messages: list[list[object]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Shard":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.socket.close(0)

    def _run(self) -> None:
        while not self._stop.is_set():
            while self.socket.poll(10):
                identity, *frames = self.socket.recv_multipart()
                self.messages.append([decode(frame) for frame in frames])
                self.ingest.receive(identity, frames, time.time_ns(), time.monotonic_ns())
            for event in self.ingest.take():
                self.events.append(event)
                if isinstance(event, Chunk):
                    self.ingest.durable(event.bed, event.epoch, event.first + event.samples.shape[1])
                elif isinstance(event, Ended):
                    self.ingest.durable(event.bed, event.epoch, event.n_samples)
            for identity, reply in self.ingest.replies(time.time_ns(), time.monotonic_ns()):
                self.socket.send_multipart([identity, encode(reply)])

    def samples(self, bed: str, epoch: str | None = None) -> np.ndarray:
        """All that came of a bed, in order."""
        chunks = [e for e in self.events if isinstance(e, Chunk) and e.bed == bed and epoch in (None, e.epoch)]
        return np.concatenate([chunk.samples for chunk in chunks], axis=1)

    def of(self, kind: type, bed: str) -> list:  # type: ignore[type-arg]
        return [event for event in self.events if isinstance(event, kind) and event.bed == bed]  # type: ignore[attr-defined]


@pytest.fixture
def shard() -> Iterator[Shard]:
    with Shard() as one:
        yield one


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two records of 20 and 12 s at 360 Hz."""
    folder = tmp_path_factory.mktemp("records")
    Patient("a", [("sinus", 20)], seed=1, fs=360).write(folder, 20)
    Patient("b", [("sinus", 5), ("vt", 7)], seed=2, fs=360).write(folder, 12)
    return folder


def firsts(message: object) -> list[int]:
    """First samples of the packets of a message."""
    if isinstance(message, Packets):
        return [int(first) for first in message.column("first")]
    return [message.first] if isinstance(message, Waveform) else []


def never() -> bool:
    return False


def test_each_sample_of_each_bed_arrives_once_and_is_accounted_for(shard: Shard, records: Path) -> None:
    beds = [
        Bed("rec", str(records / "a"), shard.address),
        Bed("vf", "sim:vf,seed=5", shard.address),
        Bed("off", "sim:lead_off", shard.address),
    ]
    producer = Producer(beds, speed="max", stop_s=40.0)
    with capture_logs() as logs:
        assert producer.run(never) == 0
    np.testing.assert_array_equal(shard.samples("rec"), read(records / "a").digital)
    np.testing.assert_array_equal(shard.samples("vf"), patient_of("sim:vf,seed=5", "vf", 1).render(0, 40 * FS))
    assert producer.samples == {"rec": 20 * 360, "vf": 40 * FS, "off": 40 * FS}
    assert [event for event in shard.events if isinstance(event, Gap)] == []
    summary = logs[-1]
    assert summary["event"] == "producer_summary"
    assert summary["samples_by_bed"] == producer.samples
    assert summary["samples"] == sum(producer.samples.values())
    assert (summary["unconfirmed_packets"], summary["lost_samples"], summary["refused"]) == (0, 0, {})
    for bed, n in producer.samples.items():
        assert [event.n_samples for event in shard.of(Ended, bed)] == [n]


def test_the_truth_goes_alongside(shard: Shard, records: Path) -> None:
    assert Producer([Bed("b", str(records / "b"), shard.address)], speed="max").run(never) == 0
    notes = read(records / "b").annotations
    assert notes is not None
    seen = shard.of(TruthSeen, "b")
    assert [s for truth in seen for s in truth.samples] == notes.sample.tolist()
    assert [s for truth in seen for s in truth.symbols] == notes.symbols


@pytest.mark.parametrize("speed", ["20", "1"])
def test_packets_that_are_due_together_go_out_in_one_message(shard: Shard, speed: str) -> None:
    beds = [Bed(f"bed{i}", "sim:default", shard.address) for i in range(1, 9)]
    assert Producer(beds, speed=speed, stop_s=1.0).run(never) == 0
    together = [[first for m in message for first in firsts(m)] for message in shard.messages]
    assert [len(group) for group in together].count(8) >= 8  # of 10: a first credit may be short
    assert all(len(set(group)) == 1 for group in together if len(group) == 8)


def test_a_loop_is_a_fresh_epoch_each_time(shard: Shard, records: Path) -> None:
    producer = Producer([Bed("b", str(records / "b"), shard.address)], speed="max", loop=True, epoch="run")
    producer.run(lambda: len(shard.of(Ended, "b")) >= 3)
    epochs = [event.epoch for event in shard.of(NewEpoch, "b")]
    assert epochs[:3] == ["run.0", "run.1", "run.2"]
    for epoch in epochs[:3]:
        np.testing.assert_array_equal(shard.samples("b", epoch), read(records / "b").digital)


def test_two_runs_have_different_epochs(shard: Shard, records: Path) -> None:
    for _ in range(2):
        Producer([Bed("b", str(records / "b"), shard.address)], speed="max").run(never)
    epochs = [event.epoch for event in shard.of(NewEpoch, "b")]
    assert len(epochs) == len(set(epochs)) == 2


def test_a_folder_is_played_record_after_record(shard: Shard, records: Path) -> None:
    producer = Producer([Bed("f", str(records), shard.address)], speed="max", epoch="run")
    assert producer.run(never) == 0
    np.testing.assert_array_equal(shard.samples("f", "run.0"), read(records / "a").digital)
    np.testing.assert_array_equal(shard.samples("f", "run.1"), read(records / "b").digital)


def test_a_folder_is_played_in_time_too(shard: Shard, records: Path) -> None:
    producer = Producer([Bed("f", str(records), shard.address)], speed=100, epoch="run")
    began = time.monotonic_ns()
    assert producer.run(never) == 0
    assert time.monotonic_ns() - began >= 0.32e9  # 20 s and 12 s
    assert producer.samples == {"f": 32 * 360}


def test_beds_of_several_shards_do_not_wait_for_each_other(shard: Shard, records: Path) -> None:
    silent = zmq.Context.instance().socket(zmq.ROUTER)  # a shard that is there and never gives credit
    silent.setsockopt(zmq.LINGER, 0)
    there = f"tcp://127.0.0.1:{silent.bind_to_random_port('tcp://127.0.0.1')}"
    beds = [Bed("stuck", str(records / "a"), there), Bed("free", str(records / "a"), shard.address)]
    producer = Producer(beds, speed="max")
    producer.run(lambda: bool(shard.of(Ended, "free")))
    silent.close(0)
    assert producer.samples["free"] == 20 * 360
    assert producer.samples["stuck"] < 20 * 360


def test_asked_to_stop_it_ends_each_epoch_where_it_is(shard: Shard) -> None:
    producer = Producer([Bed("bed1", "sim:sinus", shard.address)], speed=4)
    assert producer.run(lambda: len(shard.of(Chunk, "bed1")) >= 4) == 0
    ends = [m for message in shard.messages for m in message if isinstance(m, End)]
    assert [end.n_samples for end in ends] == [producer.samples["bed1"]]


def test_a_record_that_turns_out_unreadable_ends_there_and_is_told(shard: Shard, records: Path, tmp_path: Path) -> None:
    bad = Patient("bad", [("sinus", 90)], seed=3, fs=360).write(tmp_path, 90)
    data = bad.with_suffix(".dat")
    content = data.read_bytes()
    beds = [Bed("bad", str(bad), shard.address), Bed("good", str(records / "a"), shard.address)]
    producer = Producer(beds, speed="max")
    data.write_bytes(content[: len(content) // 2])  # cut off behind its back
    os.utime(data)
    with capture_logs() as logs:
        assert producer.run(never) == 1
    assert [entry["bed"] for entry in logs if entry["event"] == "recording_unreadable"] == ["bad"]
    n = producer.samples["bad"]
    assert 0 < n < 90 * 360
    assert [event.n_samples for event in shard.of(Ended, "bad")] == [n]
    assert producer.samples["good"] == 20 * 360


def test_truth_of_a_stream_is_counted(shard: Shard, records: Path) -> None:
    with capture_logs() as logs:
        Producer([Bed("b", str(records / "b"), shard.address)], speed="max").run(never)
    sent = {s for message in shard.messages for m in message if isinstance(m, Truth) for s in m.samples}
    notes = read(records / "b").annotations
    assert notes is not None
    assert logs[-1]["annotations"] == len(notes.symbols)
    assert sent == set(notes.sample.tolist())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": "sim:vfib"}, "no simulated patient 'vfib'"),
        ({"source": "/nowhere"}, "no such record or folder"),
        ({"leads": ("III",)}, "lead 'III' is not in the record"),
        ({"source": "sim:vf", "leads": ("II",)}, "leads: II"),
    ],
)
def test_a_bed_that_cannot_be_played_is_refused_before_anything_is_sent(records: Path, change: dict, says: str) -> None:  # type: ignore[type-arg]
    settings = {"name": "bed1", "source": str(records / "a"), "connect": "tcp://127.0.0.1:9"} | change
    with pytest.raises(ValueError, match=says):
        Producer([Bed(**settings)])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"speed": "200"}, "speed: '200'"),
        ({"packet_ms": 0.5}, "packet_ms: 0.5"),
        ({"start_s": -1.0}, "start: -1"),
        ({"start_s": 60.0}, "start: 60 s is behind the end"),
        ({"stop_s": 0.0}, "stop_s: 0"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(records: Path, settings: dict, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=says):
        Producer([Bed("bed1", str(records / "a"), "tcp://127.0.0.1:9")], **settings)


def test_two_beds_of_one_name_a_bad_name_or_none_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="give 1 to 64 printable"):
        Producer([Bed("b" * 65, "sim:vf", "tcp://127.0.0.1:9")])
    with pytest.raises(ValueError, match="'bed1' is there twice"):
        Producer([Bed("bed1", "sim:vf", "tcp://127.0.0.1:9")] * 2)
    with pytest.raises(ValueError, match="there are none"):
        Producer([])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_its_account(shard: Shard, number: signal.Signals) -> None:
    code = (
        "import sys; from simulators.producer import Bed, serve;"
        f"sys.exit(serve([Bed('bed1', 'sim:sinus', {shard.address!r})], speed=2))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        while len(shard.of(Chunk, "bed1")) < 5 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "producer_summary" in said
    ends = [m for message in shard.messages for m in message if isinstance(m, End)]
    assert len(ends) == 1
    assert f"samples={ends[0].n_samples}" in said


@pytest.mark.recordings
def test_public_records_are_played_to_their_end(shard: Shard, recordings: Path) -> None:
    names = ("208", "203")
    producer = Producer(
        [Bed(name, str(recordings / "mitdb" / name), shard.address) for name in names], speed="max", packet_ms=1000
    )
    assert producer.run(never) == 0
    for name in names:
        np.testing.assert_array_equal(shard.samples(name), read(recordings / "mitdb" / name).digital)
