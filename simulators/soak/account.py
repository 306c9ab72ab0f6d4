"""Every sample that was sent, by what became of it: analysed, missing by a cause that the pipeline told, or dead with a
producer that was killed. What is none of these is unaccounted for.

What was sent is in the producer's ledger, which outlives it. What became of it is told by the shards' accounts: samples
by fate over all epochs of a bed, and (`closed`) how long the epochs before the present one were. So of an epoch whose
producer was killed it is known which samples never left it: those from the length that the shard knows on.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from simulators.ledger import Read


class BedCounts(Protocol):
    """The newest account of a bed: `BedStatus`."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Samples and packets by fate."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Samples first <= s < first + n of an epoch that did not come, and why."""

    bed: str
    epoch: str
    first: int
    n: int
    cause: str


@dataclass(slots=True)
class Account:
    """All beds together, but for `unaccounted_by_bed`. `counters`: what the counters of samples said in the shard."""

    sent: int = 0
    analysed: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    named: list[Missing] = field(default_factory=list)
    unaccounted: int = 0
    unaccounted_by_bed: dict[str, int] = field(default_factory=dict)
    packets: Counter[str] = field(default_factory=Counter)
    proved: int = 0
    misplaced: int = 0
    unproved: int = 0
    unjudged: int = 0
    unpublished: int = 0


def settled(newest: Read, accounts: Mapping[str, BedCounts], closed: Mapping[tuple[str, str], int]) -> bool:
    """Whether all that the newest producer sent is analysed or missing; those before it are dead."""
    for bed, sent in newest.beds.items():
        counts = accounts[bed].counts if bed in accounts else {}
        length = counts.get("delivered", 0) + counts.get("gap", 0) - closed.get((bed, f"{newest.epoch}.0"), 0)
        if length < sent.n_samples or counts.get("analysed", 0) != counts.get("delivered", 0):
            return False
    return True


def account(
    ledgers: Sequence[tuple[Read, bool]],
    accounts: Mapping[str, BedCounts],
    closed: Mapping[tuple[str, str], int],
    gaps: Iterable[Missing],
) -> Account:
    """`ledgers`: of each producer, in order, with whether it was killed. `closed`: (bed, epoch) to the length of all
    epochs of the bed before it. `gaps`: as the shards logged them."""
    total = Account(named=list(gaps))
    named = Counter[str]()
    for one in total.named:
        named[one.bed] += one.n
    for bed in ledgers[0][0].beds:
        counts = accounts[bed].counts if bed in accounts else {}
        sent = sum(ledger.beds[bed].n_samples for ledger, _ in ledgers)
        delivered, gap = counts.get("delivered", 0), counts.get("gap", 0)
        dead = 0
        for (ledger, killed), after in zip(ledgers, [entry[0] for entry in ledgers[1:]], strict=False):
            if not killed:
                continue
            begun, ended = closed.get((bed, f"{ledger.epoch}.0")), closed.get((bed, f"{after.epoch}.0"))
            if ended is None and after.beds[bed].n_samples == 0:  # the next one never came to send
                ended = delivered + gap
            if begun is None or ended is None or ended < begun:
                continue
            length = ended - begun
            n = ledger.beds[bed].n_samples - length
            if n > 0:
                dead += n
                last = ledger.beds[bed]
                epoch = f"{ledger.epoch}.{last.n_epochs - 1}"
                total.named.append(Missing(bed, epoch, last.n_newest - n, n, "died with its producer"))
        left = sent - delivered - gap - dead
        left += abs(gap - named[bed])  # a gap without a cause is none that was told
        left += abs(delivered - counts.get("analysed", 0))
        total.sent += sent
        total.analysed += counts.get("analysed", 0)
        total.missing["died with its producer"] += dead
        total.missing.update({k.removeprefix("gap."): n for k, n in counts.items() if k.startswith("gap.")})
        for fate in ("received", "accepted", "duplicate", "late", "reordered", "dropped", "refused"):
            total.packets[fate] += counts.get(fate, 0)
        if "proved" in counts:
            total.proved += counts["proved"]
            total.misplaced += counts["misplaced"]
            total.unproved += abs(delivered - counts["proved"] - counts["misplaced"])
        total.unjudged += counts.get("unjudged", 0)
        total.unpublished += counts.get("dropped_messages", 0)
        if left:
            total.unaccounted += abs(left)
            total.unaccounted_by_bed[bed] = left
    total.missing += Counter()  # without those that are 0
    return total


def logged_gaps(folder: Path) -> list[Missing]:
    """The gaps that the shards logged (as JSON), each once: a shard that was killed tells some of them again."""
    gaps: dict[tuple[str, str, int], Missing] = {}
    for path in sorted(folder.glob("shard.*.log")):
        for line in path.read_text(errors="replace").splitlines():
            if '"gap"' not in line:
                continue
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if said.get("event") == "gap":
                gap = Missing(said["bed"], said["epoch"], said["first"], said["n_samples"], said["cause"])
                gaps[gap.bed, gap.epoch, gap.first] = gap
    return list(gaps.values())
