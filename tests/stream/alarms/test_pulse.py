"""Pulse evidence: it withholds a red only where a good pulse is seen, and what is withheld is told."""

import pytest

from model.pulse import DELAY
from stream.alarms.conditions import TICK_HZ
from tests.stream.playing import Player, ticks

PLETH, ABP = 0, 1


class Bedside(Player):
    """A bed with a pulse that can be had apart from the ECG's beats."""

    def pulses(self, at_s: list[float], ratio: float = 1.0, likeness: float = 0.98, signal: int = PLETH) -> None:
        """Pulse beats at seconds from now on; they are heard in the order of ticks as time goes by."""
        self.waiting = sorted(
            [*getattr(self, "waiting", []), *((self.now + ticks(at), signal, ratio, likeness) for at in at_s)]
        )

    def to(self, tick: int) -> None:
        waiting = getattr(self, "waiting", [])
        while waiting and waiting[0][0] + DELAY < tick:
            at, signal, ratio, likeness = waiting.pop(0)
            self.take(self.alarms.pulse(signal, at, at + DELAY, ratio, likeness))
        super().to(tick)

    def sinus(self, seconds: float, rr_s: float = 0.8) -> None:
        """Beats with a pulse after each."""
        n = int(seconds / rr_s)
        self.pulses([rr_s * (i + 1) + 0.25 for i in range(n)])
        self.beats("N" * n, rr_s)

    def reds(self, code: str) -> list[str]:
        return [event.phase for event in self.of(code)]


def test_a_silent_ecg_with_a_pulse_is_no_asystole_and_is_told_as_withheld() -> None:
    bed = Bedside()
    bed.sinus(12)
    bed.pulses([0.5 + 0.8 * i for i in range(20)])
    bed.wait(8)
    assert bed.reds("ASYSTOLE") == []
    event = bed.of("ASYSTOLE_WITHHELD", "start")[0]
    assert event.suppressed_by == "pulse" and event.kind == "advisory" and not event.latching
    assert event.evidence["pulse"] == {"signal": "pleth", "beats": 4, "rate": 75, "decided": "against"}


def test_a_withheld_asystole_is_announced_when_the_pulse_stops() -> None:
    bed = Bedside()
    bed.sinus(12)
    bed.pulses([0.5 + 0.8 * i for i in range(10)])
    bed.wait(14)
    start = bed.of("ASYSTOLE", "start")[0]
    assert start.suppressed_by is None
    assert start.stream_time.sample / TICK_HZ < 10 * 0.8 + 12 + 8 + 4
    assert bed.of("ASYSTOLE_WITHHELD", "end")[0].reason == "announced"


@pytest.mark.parametrize(
    "pulse",
    [
        {},
        {"at_s": [0.5 + 0.8 * i for i in range(10)], "ratio": 0.2},  # far smaller than usual
        {"at_s": [0.5 + 0.8 * i for i in range(10)], "likeness": 0.4},  # no pulse wave
        {"at_s": [0.5, 0.9]},  # stops
        {"at_s": [0.5, 3.4]},  # a single artefact
    ],
)
def test_a_missing_weak_or_noisy_pulse_withholds_no_asystole(pulse: dict[str, object]) -> None:
    bed = Bedside()
    bed.sinus(12)
    if pulse:
        bed.pulses(**pulse)  # type: ignore[arg-type]
    bed.wait(6)
    assert bed.reds("ASYSTOLE") == ["start"] and bed.reds("ASYSTOLE_WITHHELD") == []


def test_a_pulse_that_stops_with_the_ecg_tells_an_asystole_sooner() -> None:
    with_pulse, without = Bedside(), Bedside()
    with_pulse.sinus(16)
    without.beats("N" * 20, 0.8)
    for bed in (with_pulse, without):
        bed.wait(6)
    sooner, plain = (bed.of("ASYSTOLE", "start")[0] for bed in (with_pulse, without))
    assert plain.stream_time.sample - sooner.stream_time.sample == ticks(0.5)
    assert sooner.evidence["pulse"]["decided"] == "for" and "pulse" not in plain.evidence


def test_an_asystole_ends_when_a_pulse_is_seen_though_the_ecg_stays_silent() -> None:
    bed = Bedside()
    bed.sinus(12)
    bed.pulses([5.5 + 0.8 * i for i in range(20)])
    bed.wait(18)
    over = bed.of("ASYSTOLE")[1]
    assert bed.reds("ASYSTOLE")[0] == "start" and (over.state, over.reason) == ("latched", "pulse")
    assert bed.of("ASYSTOLE_WITHHELD", "start")


def test_vf_is_withheld_by_a_pulse_that_goes_on_and_announced_without_one() -> None:
    for beats, told in (([0.5 + 0.8 * i for i in range(14)], []), ([0.3], ["start"]), ([], ["start"])):
        bed = Bedside()
        bed.sinus(12)
        bed.pulses(beats)
        bed.take(bed.alarms.vf(True, bed.now, bed.now + 1))
        bed.to(bed.now + ticks(9))
        assert bed.reds("VFIB") == told
        assert bool(bed.of("VFIB_WITHHELD", "start")) == (not told)


def test_fast_v_beats_over_an_undisturbed_pulse_are_no_vt() -> None:
    bed = Bedside()
    bed.sinus(16)
    bed.pulses([0.8 * (i + 1) + 0.25 for i in range(12)])
    bed.beats("V" * 7, 0.35)
    bed.beats("N" * 5, 0.8)
    assert bed.reds("VTACH") == []
    event = bed.of("VTACH_WITHHELD", "start")[0]
    assert event.suppressed_by == "pulse" and event.evidence["pulse"]["rate"] == 75


@pytest.mark.parametrize(
    "pulses",
    [
        [],  # none comes
        [0.6, 0.95, 1.3, 1.65, 2.0, 2.35],  # each beat has one
        [1.05, 1.85],  # seems to go on, and then waits as the heart does after the run
    ],
)
def test_a_vt_that_the_pulse_feels_is_announced(pulses: list[float]) -> None:
    bed = Bedside()
    bed.sinus(16)
    bed.pulses(pulses)
    bed.beats("V" * 5, 0.35)
    bed.beats("N" * 3, [1.3, 0.8, 0.8])
    assert bed.reds("VTACH")[:1] == ["start"]


def test_a_vt_at_the_rate_of_the_pulse_is_announced() -> None:
    bed = Bedside()
    bed.sinus(16, 0.55)
    bed.pulses([0.55 * (i + 1) + 0.25 for i in range(14)])
    bed.beats("V" * 8, 0.55)
    assert bed.reds("VTACH") == ["start"]


def test_a_gap_forgets_the_pulse() -> None:
    bed = Bedside()
    bed.sinus(12)
    bed.take(bed.alarms.gap(bed.now, ticks(3), bed.now))
    bed.now += ticks(3)
    bed.last = bed.now
    assert bed.alarms.state()["detectors"]["pulse"] == [[], []]


def test_a_restart_in_the_middle_goes_on_with_the_pulse() -> None:
    bed = Bedside()
    bed.sinus(16)
    bed.pulses([0.8 * (i + 1) + 0.25 for i in range(12)])
    bed.beats("V" * 5, 0.35)
    other = Bedside(learnt=False)
    other.alarms.restore(bed.alarms.state())
    other.now, other.last, other.waiting = bed.now, bed.last, list(bed.waiting)
    seen = len(bed.events)
    for one in (bed, other):
        one.beats("VV", 0.35)
        one.beats("NNN", 0.8)
    assert [event.event_id for event in bed.events[seen:]] == [event.event_id for event in other.events]
