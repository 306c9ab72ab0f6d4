"""What all tests share.

RECORDINGS names the folder of public recordings; a test marked `recordings` is skipped without it.
WARDBEAT_REQUIRE=recordings (names of marks, with commas) makes such a skip a failure: for machines
that have what the tests need, so that a test cannot vanish there unseen.
"""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before a test imports numpy or torch: two cores are shared by the processes that tests start.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

REQUIRED = frozenset(filter(None, os.environ.get("WARDBEAT_REQUIRE", "").split(",")))


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of public recordings (mitdb, vfdb, ...)."""
    folder = os.environ.get("RECORDINGS", "")
    if not folder or not (Path(folder) / "mitdb").is_dir():
        pytest.skip(f"RECORDINGS={folder!r} is not a folder with mitdb in it; set it to the public recordings")
    return Path(folder).resolve()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives a TCP port of 127.0.0.1 that is free now, a different one at each call."""
    taken: set[int] = set()

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            if port not in taken:
                taken.add(port)
                return port

    return find


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    missing = REQUIRED.intersection(mark.name for mark in item.iter_markers())
    if missing and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but WARDBEAT_REQUIRE wants {', '.join(sorted(missing))}"
    return report
