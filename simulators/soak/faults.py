"""The faults of a plan: each a table of it, and each knows how it is done.

[[fault]]
kind = "loss"
at_s = 60
for_s = 30
share = 0.05
"""

import random
from typing import Annotated, Any, ClassVar, Protocol

from msgspec import Meta, Struct

from simulators import control

Seconds = Annotated[float, Meta(ge=0, le=30 * 86_400)]
Share = Annotated[float, Meta(gt=0, le=1)]


class Stage(Protocol):
    """What a fault is done to: see `simulators.soak.stage`."""

    def tell(self, fault: control.Fault) -> None:
        """Have the producer do it."""

    def kill(self, role: str) -> None:
        """SIGKILL a role of the ward; its supervisor starts it again."""

    def kill_producer(self) -> None:
        """SIGKILL the producer, and start another."""

    def dawdle(self, for_s: float) -> None:
        """Have a subscriber that reads nothing for so long."""

    def fill_disk(self, for_s: float) -> None:
        """Leave no room where the journal is, for so long."""

    def some_beds(self, n: int, rng: random.Random) -> list[str]:
        """`n` simulated beds of the ward."""


class _Fault(Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True, kw_only=True):
    """`at_s`: seconds after the measurement began; `for_s`: how long it lasts; `every_s`: it comes again so often."""

    killed: ClassVar[str] = ""  # the role that it kills
    at_s: Seconds
    for_s: Seconds = 10.0
    every_s: Annotated[float, Meta(gt=0)] | None = None

    @property
    def kind(self) -> str:
        """As the plan calls it."""
        return str(self.__struct_config__.tag)

    @property
    def lasts_s(self) -> float:
        """How long it lasts; a kill is done at once."""
        return 0.0 if self.killed else self.for_s

    def strike(self, stage: Stage, rng: random.Random) -> None:
        """Make it happen."""
        raise NotImplementedError


class _Link(_Fault, frozen=True):
    share: Share = 0.05

    def strike(self, stage: Stage, rng: random.Random) -> None:
        fault: Any = self.kind
        stage.tell(control.Fault(kind=fault, for_s=self.for_s, share=self.share))


class Loss(_Link, frozen=True, tag="loss"):
    """Of `share` of all frames between producer and shard, both ways."""


class Duplicate(_Link, frozen=True, tag="duplicate"):
    """Of `share` of all frames."""


class Reorder(_Link, frozen=True, tag="reorder"):
    """`share` of all frames are overtaken."""


class Jitter(_Fault, frozen=True, tag="jitter"):
    """Messages are held back by up to `ms`."""

    ms: Annotated[float, Meta(gt=0, le=60_000)] = 200.0

    def strike(self, stage: Stage, rng: random.Random) -> None:
        stage.tell(control.Fault(kind="jitter", for_s=self.for_s, ms=self.ms))


class ClockStep(_Fault, frozen=True, tag="clock_step"):
    """The source's clock steps by `ms`."""

    ms: float = 500.0

    def strike(self, stage: Stage, rng: random.Random) -> None:
        stage.tell(control.Fault(kind="clock_step", ms=self.ms))


class ClockDrift(_Fault, frozen=True, tag="clock_drift"):
    """The source's clock runs fast by `ppm`."""

    ppm: float = 200.0

    def strike(self, stage: Stage, rng: random.Random) -> None:
        stage.tell(control.Fault(kind="clock_drift", for_s=self.for_s, ppm=self.ppm))


class _OfBeds(_Fault, frozen=True):
    beds: Annotated[int, Meta(ge=1)] = 1
    lead: int = -1

    def strike(self, stage: Stage, rng: random.Random) -> None:
        fault: Any = self.kind
        for bed in stage.some_beds(self.beds, rng):
            stage.tell(control.Fault(kind=fault, bed=bed, for_s=self.for_s, lead=self.lead))


class Flat(_OfBeds, frozen=True, tag="flat"):
    """The ECG of so many beds is a constant, on `lead` or on all (-1)."""


class LeadOff(_OfBeds, frozen=True, tag="lead_off"):
    """The electrodes of so many beds come off."""


class ProducerKill(_Fault, frozen=True, tag="producer_kill"):
    """SIGKILL; another starts at once, with fresh epochs."""

    killed: ClassVar[str] = "producer"

    def strike(self, stage: Stage, rng: random.Random) -> None:
        stage.kill_producer()


class WorkerKill(_Fault, frozen=True, tag="worker_kill"):
    """SIGKILL."""

    killed: ClassVar[str] = "worker"

    def strike(self, stage: Stage, rng: random.Random) -> None:
        stage.kill("worker")


class ShardKill(_Fault, frozen=True, tag="shard_kill"):
    """SIGKILL of shard `shard`."""

    killed: ClassVar[str] = "shard"
    shard: str = "a"

    def strike(self, stage: Stage, rng: random.Random) -> None:
        stage.kill(f"shard.{self.shard}")


class GatewayKill(_Fault, frozen=True, tag="gateway_kill"):
    """SIGKILL."""

    killed: ClassVar[str] = "gateway"

    def strike(self, stage: Stage, rng: random.Random) -> None:
        stage.kill("gateway")


class SlowSubscriber(_Fault, frozen=True, tag="slow_subscriber"):
    """A subscriber of everything that reads nothing."""

    def strike(self, stage: Stage, rng: random.Random) -> None:
        stage.dawdle(self.for_s)


class FullDisk(_Fault, frozen=True, tag="full_disk"):
    """No room where the journal is. It is put on a small file system of its own, which takes root on Linux."""

    def strike(self, stage: Stage, rng: random.Random) -> None:
        stage.fill_disk(self.for_s)


Fault = (
    Loss | Duplicate | Reorder | Jitter | ClockStep | ClockDrift | Flat | LeadOff
    | ProducerKill | WorkerKill | ShardKill | GatewayKill | SlowSubscriber | FullDisk
)  # fmt: skip
