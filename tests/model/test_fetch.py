import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model.datasets import DatasetError, find
from model.fetch import FetchError, fetch

HEADER = b"r1 1 250 4\nr1.dat 16 200.0(0)/mV 16 0 0 0 0 II\n"


class PhysioNet(ThreadingHTTPServer):
    """A server with one database in two versions; `files` by path, `cut`: paths that break off halfway, once each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: PhysioNet

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if wanted and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.path in self.server.cut:
            self.server.cut.discard(self.path)
            self.wfile.write(content[start : start + (len(content) - start) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def physionet() -> Iterator[PhysioNet]:
    with PhysioNet() as server:
        base = "/files/tinydb/1.10.0/"
        server.files = {
            "/content/tinydb/": b'<a href="/content/tinydb/1.9.0/">old</a> <a href="/files/tinydb/1.10.0/">new</a>',
            base + "RECORDS": b"r1\nsub/r2\n",
            base + "ANNOTATORS": b"atr\treference\n",
            base + "r1.hea": HEADER,
            base + "r1.dat": bytes(8),
            base + "r1.atr": b"\0\0",
            base + "sub/r2.hea": HEADER.replace(b"r1", b"r2"),
            base + "sub/r2.dat": bytes(range(8)),
        }
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def with_sums(server: PhysioNet) -> None:
    base = "/files/tinydb/1.10.0/"
    lines = [
        f"{hashlib.sha256(content).hexdigest()} {path.removeprefix(base)}"
        for path, content in server.files.items()
        if path.startswith(base) and "." in path.removeprefix(base)
    ]
    server.files[base + "SHA256SUMS.txt"] = "\n".join(lines).encode()


@pytest.mark.parametrize("sums", [False, True])
def test_a_database_comes_whole_from_its_newest_version(physionet: PhysioNet, tmp_path: Path, sums: bool) -> None:
    if sums:
        with_sums(physionet)
    folder = fetch("tinydb", tmp_path, host=physionet.url)
    got = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*") if path.name != ".complete"}
    base = "/files/tinydb/1.10.0/"
    assert got == {
        name: physionet.files[base + name] for name in ("r1.hea", "r1.dat", "r1.atr", "sub/r2.hea", "sub/r2.dat")
    }
    assert [path.name for path in find(folder)] == ["r1", "r2"]


def test_one_record_comes_alone(physionet: PhysioNet, tmp_path: Path) -> None:
    with_sums(physionet)
    folder = fetch("tinydb/r2", tmp_path, host=physionet.url)
    assert sorted(path.name for path in folder.rglob("r*")) == ["r2.dat", "r2.hea"]
    assert not (folder / ".complete").exists()


def test_what_broke_off_goes_on_where_it_was(physionet: PhysioNet, tmp_path: Path) -> None:
    path = "/files/tinydb/1.10.0/r1.dat"
    physionet.files[path] = bytes(range(256)) * 40
    with_sums(physionet)
    physionet.cut.add(path)
    folder = fetch("tinydb", tmp_path, host=physionet.url)
    assert (folder / "r1.dat").read_bytes() == physionet.files[path]
    assert [wanted for asked, wanted in physionet.asked if asked == path] == [None, "bytes=5120-"]


def test_what_is_there_and_right_is_not_got_again(physionet: PhysioNet, tmp_path: Path) -> None:
    with_sums(physionet)
    folder = fetch("tinydb", tmp_path, host=physionet.url)
    (folder / "r1.dat").write_bytes(b"damaged")
    physionet.asked.clear()
    fetch("tinydb", tmp_path, host=physionet.url)
    assert [path.rpartition("/")[2] for path, _ in physionet.asked if not path.endswith("/")] == [
        "SHA256SUMS.txt",
        "r1.dat",
    ]
    assert (folder / "r1.dat").read_bytes() == bytes(8)


def test_a_file_with_a_wrong_checksum_is_refused_and_leaves_nothing(physionet: PhysioNet, tmp_path: Path) -> None:
    with_sums(physionet)
    physionet.files["/files/tinydb/1.10.0/r1.dat"] = b"forged.."
    with pytest.raises(FetchError, match=r"r1\.dat: what comes does not have the SHA-256"):
        fetch("tinydb", tmp_path, host=physionet.url)
    assert not list(tmp_path.rglob("r1.dat*"))
    assert not (tmp_path / "tinydb" / ".complete").exists()


def test_progress_is_told_in_bytes(physionet: PhysioNet, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    fetch("tinydb", tmp_path, host=physionet.url, progress=lambda *step: told.append(step))
    assert ("r1.dat", 8, 8) in told


def test_a_name_outside_the_cache_is_never_written(physionet: PhysioNet, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"evil").hexdigest()
    physionet.files["/files/tinydb/1.10.0/SHA256SUMS.txt"] = f"{digest} ../../evil.dat\n{digest} /evil.dat\n".encode()
    with pytest.raises(FetchError):
        fetch("tinydb/r9", tmp_path / "cache", host=physionet.url)
    fetch("tinydb", tmp_path / "cache", host=physionet.url)
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("name", ["no-such-db", "tinydb/none", "../etc/passwd", "tinydb/../x", "Tiny"])
def test_what_is_not_there_is_refused_in_one_line(physionet: PhysioNet, tmp_path: Path, name: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch(name, tmp_path, host=physionet.url)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)
    assert not list(tmp_path.rglob("*.hea"))


def test_without_a_network_a_source_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDBEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECORDINGS", str(tmp_path / "own"))
    monkeypatch.setattr("model.fetch.HOST", "http://127.0.0.1:9")
    with pytest.raises(DatasetError, match=r"mitdb/208: not found under .*own nor .*cache, nor on PhysioNet"):
        find("mitdb/208")
