"""A soak with its real processes: faults are done, all is accounted for, and cut short it has its report too."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from simulators.soak.observe import Observer, Slot
from simulators.soak.plan import PlanError, build
from simulators.soak.progress import Fault, Progress
from simulators.soak.run import soak


class CtrlC(Progress):
    """Presses it some seconds into the measurement."""

    def show(self, slot: Slot, observer: Observer, struck: Sequence[Fault]) -> None:
        if slot.at_s >= 8 and not getattr(self, "pressed", False):
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.timeout(400)
def test_a_soak_that_is_interrupted_accounts_for_every_sample_and_writes_its_report(tmp_path: Path) -> None:
    faults = [{"kind": "loss", "at_s": 2, "for_s": 3, "share": 0.2}, {"kind": "lead_off", "at_s": 1, "for_s": 4}]
    plan = build({"name": "test", "beds": 4, "warm_s": 2, "duration_s": 600, "watched": 2, "fault": faults})
    out = tmp_path / "out"
    result = soak(plan, out, progress=CtrlC(plan, quiet=True))
    account = result["account"]
    assert result["interrupted"] and account["settled"]
    assert (account["unaccounted"], account["misplaced"], account["unproved"]) == (0, 0, 0)
    assert account["analysed"] + sum(account["missing"].values()) == account["sent"] > 4 * 250 * 2
    assert account["proved"] == account["analysed"]
    assert account["link"]["lost"] > 0 and account["waves"]["samples"] > 0 and account["waves"]["misplaced"] == 0
    assert [fault["kind"] for fault in result["faults"]] == ["lead_off", "loss"]
    assert json.loads((out / "soak.json").read_text())["limits"] == result["limits"]
    page = (out / "soak.html").read_text()
    assert page.count("<svg") == 10 and "<script" not in page and "src=" not in page
    with pytest.raises(PlanError, match="name another"):
        soak(plan, out)
