"""What each role's process sets for itself."""

import ctypes
import subprocess
import sys

import pytest

PAGES = 8 * 256  # of eight pieces of a MiB, as a model has them between its layers
TIMES = 50
CHURN = f"""
import resource, sys
import numpy as np
from stream.process import steady_heap

if sys.argv[1] == "steady":
    steady_heap()
[np.ones(1 << 17) for _ in range(8)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    [np.ones(1 << 17) for _ in range(8)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Page faults of a process that takes and frees pieces of memory, with the limits that a role begins with."""
    done = subprocess.run([sys.executable, "-c", CHURN, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="wants glibc, whose heap this is about")
def test_memory_that_is_freed_is_there_for_the_next_call() -> None:
    assert faults("steady") < PAGES * TIMES / 10 < faults("plain")
