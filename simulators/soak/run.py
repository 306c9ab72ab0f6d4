"""The course of a soak: start, warm, measure while faults happen, end, judge, report."""

import json
import os
import platform
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import numpy as np
import psutil

from simulators.soak import truth
from simulators.soak.account import Account, account, logged_gaps, settled
from simulators.soak.faults import Fault
from simulators.soak.observe import _AT, TOTAL, Observer, Processes, Slot
from simulators.soak.plan import Plan, PlanError, schedule
from simulators.soak.progress import Progress
from simulators.soak.report import page
from simulators.soak.stage import Stage, StageError
from simulators.ward import patient_of

SETTLE_S = 40.0  # what was sent may take so long to be analysed at the end
FLAT_AFTER_S = 300.0  # memory is judged from here on
LATE_MS = 1000.0  # slower than this is behind
MAX_SLOTS = 600
STAMP_OF = {"worker": "batched", "shard": "received", "producer": "sent", "gateway": "published"}


@dataclass(slots=True)
class Struck:
    """A fault that was done, `at_s` into the measurement. `resumed_s`: from a kill to the first judgement published
    that needed what was killed; `caught_up_s`: to the last that was over a second late."""

    kind: str
    at_s: float
    for_s: float
    killed: str
    begun_ns: int
    resumed_s: float | None = None
    caught_up_s: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)


class _Asked:
    """Whether Ctrl-C or SIGTERM came; at the second, all is let go at once."""

    def __init__(self) -> None:
        self.n = 0

    def __enter__(self) -> "_Asked":
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.n += 1
        if self.n > 1:
            raise KeyboardInterrupt


def soak(plan: Plan, folder: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Run a plan; its result as written to `folder`/soak.json and soak.html. Raises PlanError, DatasetError or
    StageError where it cannot begin. Whatever ends it later, the result is of what was seen until then."""
    if folder.exists() and any(folder.iterdir()):
        raise PlanError(
            f"--out {folder}: holds what an earlier ward has left, which this one would go on from; name another"
        )
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(plan, folder, progress or Progress(plan))
    with _Asked() as asked:
        run.play(lambda: asked.n > 0)
    result = run.result()
    (folder / "soak.json").write_text(json.dumps(result, indent=1))
    (folder / "soak.html").write_text(page(result))
    return result


class _Run:
    """What `soak` runs."""

    def __init__(self, plan: Plan, folder: Path, progress: Progress) -> None:
        self._plan, self._folder, self._progress = plan, folder, progress
        self._slots: list[Slot] = []
        self._struck: list[Struck] = []
        self._notes: list[str] = []
        self._began, self._load = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), os.getloadavg()[0]
        self._measured_s = 0.0
        self._interrupted = False
        self._rng = random.Random(plan.seed)
        self._slot_s = max(1.0, plan.duration_s / MAX_SLOTS)
        self._account = Account()
        self._settled = False
        self._restarts: dict[str, int] = {}

    def play(self, asked: Callable[[], bool]) -> None:
        """From the start of the ward to its end."""
        self._stage = Stage(self._plan, self._folder)
        counted = [bed for bed, source in self._stage.sources.items() if source.endswith("counter=1")]
        self._observer = Observer(self._stage.publish, counted[: self._plan.watched])
        self._processes = Processes()
        with self._stage, self._progress:
            self._progress.say("starting the ward")
            try:
                if self._stage.start(asked):
                    self._measure(asked)
                    self._finish(asked)
            except StageError as error:
                if not self._slots:
                    raise
                self._notes.append(str(error))
                self._interrupted = True
            except KeyboardInterrupt:
                self._interrupted = True
        self._observer.close()

    def _measure(self, asked: Callable[[], bool]) -> None:
        plan, start = self._plan, time.monotonic() + self._plan.warm_s
        due = schedule(plan)
        slot_began = time.monotonic()
        self._processes.sample(self._stage.roles())
        while (now := time.monotonic()) < start + plan.duration_s:
            if asked():
                self._interrupted = True
                break
            self._observer.poll(0.05)
            self._stage.turn()
            while due and now >= start + due[0][0]:
                self._strike(due.pop(0)[1], start)
            if now - slot_began >= self._slot_s:
                self._close_slot(slot_began - start, now - slot_began)
                slot_began = now
        self._measured_s = max(0.0, time.monotonic() - start)

    def _strike(self, fault: Fault, start: float) -> None:
        struck = Struck(fault.kind, time.monotonic() - start, fault.lasts_s, fault.killed, time.time_ns())
        self._progress.say(f"fault: {fault.kind}")
        try:
            fault.strike(self._stage, self._rng)
        except (StageError, TimeoutError) as error:
            self._notes.append(f"{fault.kind} at {struck.at_s:.0f} s was not done: {error}")
            return
        self._struck.append(struck)

    def _close_slot(self, at_s: float, length_s: float) -> None:
        told = self._stage.status()
        if told is not None:
            self._observer.clock_ns = round(told.clock_ms * 1e6)
        slot, judged = self._observer.slot(at_s, length_s, self._disturbed(at_s, at_s + length_s))
        slot.cpu, slot.rss_mb = self._processes.sample(self._stage.roles() | {"soak": os.getpid()})
        if told is not None:
            slot.pacing_ms = told.late_ms
        self._recoveries(judged)
        self._slots.append(slot)
        self._progress.show(slot, self._observer, self._struck)

    def _disturbed(self, begin_s: float, end_s: float) -> bool:
        for one in self._struck:
            if one.killed and one.resumed_s is None:
                return True
            until_s = one.at_s + one.for_s + (one.resumed_s or 0.0) + self._plan.settle_s
            if begin_s < until_s and end_s > one.at_s:
                return True
        return False

    def _recoveries(self, judged: "np.ndarray[Any, np.dtype[np.int64]]") -> None:
        """See from the judgements of a slot which killed roles are at work again, and who is behind."""
        published = judged[:, _AT["published"]]
        late_ms = (published - judged[:, _AT[TOTAL[0]]] + self._observer.clock_ns) / 1e6
        for i, one in enumerate(self._struck):
            if one.killed and one.resumed_s is None:
                needed = judged[:, _AT[STAMP_OF[one.killed]]] > one.begun_ns
                if one.killed == "gateway":  # the last words of the one that was killed do not count
                    needed &= published > one.begun_ns + 10_000_000
                if needed.any():
                    one.resumed_s = (int(published[needed].min()) - one.begun_ns) / 1e9
            is_newest = i + 1 == len(self._struck)
            behind = published[(late_ms > LATE_MS) & (published > one.begun_ns)]
            if is_newest and behind.size:
                one.caught_up_s = (int(behind.max()) - one.begun_ns) / 1e9

    def _finish(self, asked: Callable[[], bool]) -> None:
        """Let the sources end, and wait for the rest to be analysed."""
        self._progress.say("ending: waiting for what was sent")
        self._stage.status()
        self._stage.finish()
        until = time.monotonic() + SETTLE_S
        while time.monotonic() < until and not self._settled:
            self._observer.poll(0.1)
            ended = self._stage.finished()
            self._settled = ended and settled(
                self._stage.sessions[-1].read(), self._observer.accounts, self._observer.closed
            )
        for _ in range(10):  # the last publications
            self._observer.poll(0.05)
        self._restarts = self._stage.restarts()
        self._stage.stop()

    # The result.

    def result(self) -> dict[str, Any]:
        """All that was seen, as JSON has it."""
        observer, plan = self._observer, self._plan
        sessions = self._stage.sessions
        ledgers = [(session.read(), session.killed_ns > 0) for session in sessions]
        gaps = logged_gaps(self._folder / "logs")
        if ledgers:
            self._account = account(ledgers, observer.accounts, observer.closed, gaps)
        verdict = self._judge_alerts()
        link = Counter[str]()
        for session in sessions:
            link.update(session.told.link if session.told else {})
        measured = [slot for slot in self._slots if slot.at_s >= 0]
        told: dict[str, Any] = {
            "plan": msgspec.to_builtins(plan),
            "command": " ".join(["python", *map(os.path.relpath, sys.argv[:1]), *sys.argv[1:]]),
            "began": self._began,
            "machine": machine(self._load),
            "measured_s": self._measured_s,
            "interrupted": self._interrupted,
            "latency_ms": {
                "calm": {kind: histogram.figures() for kind, histogram in observer.calm.items()},
                "all": {kind: histogram.figures() for kind, histogram in observer.all.items()},
                "stages": {stage: histogram.figures() for stage, histogram in observer.stages.items()},
            },
            "curves": {kind: histogram.curve() for kind, histogram in observer.all.items()},
            "account": {
                **{one.name: getattr(self._account, one.name) for one in fields(Account) if one.name != "named"},
                "missing_named": [asdict(one) for one in self._account.named[:10_000]],
                "waves": dict(observer.waves),
                "order": dict(observer.order),
                "link": dict(link),
                "holes": observer.holes,
                "settled": self._settled,
                "resent_packets": sum(session.told.resent for session in sessions if session.told),
            },
            "faults": [{k: v for k, v in asdict(one).items() if k not in {"begun_ns", "more"}} for one in self._struck],
            "truth": _told(verdict),
            "gateway": dict(observer.gateway),
            "restarts": self._restarts,
            "processes": _processes(measured),
            "slots": _columns(self._slots),
            "notes": self._notes + self._stage.notes,
        }
        ward = sum(p["cores"] for name, p in told["processes"].items() if name != "soak")
        told["beds_per_core"] = self._carried(measured) / ward if ward else None
        told["limits"] = self._limits(told, measured)
        told["held"] = not any(one["held"] is False for one in told["limits"])
        return told

    def _judge_alerts(self) -> truth.Verdict:
        episodes: list[truth.Episode] = []
        sent: dict[tuple[str, str], int] = {}
        dark = [truth.Dark(one.bed, one.epoch, one.first, one.first + one.n) for one in self._account.named]
        dark += [truth.Dark(one.bed, one.epoch, one.first, one.end) for one in self._stage.laid]
        ledgers = [session.read() for session in self._stage.sessions]
        for index, (bed, source) in enumerate(self._stage.sources.items()):
            if not source.startswith("sim:"):
                continue
            patient = patient_of(source, bed, index)
            for ledger in ledgers:
                key = bed, f"{ledger.epoch}.0"
                sent[key] = ledger.beds[bed].n_newest
                episodes += truth.episodes(patient, *key, sent[key])
        for laid in self._stage.laid:
            if laid.kind in {"flat", "lead_off"} and (laid.bed, laid.epoch) in sent:
                episodes.append(truth.Episode(laid.bed, laid.epoch, "lead_off", laid.first, laid.end, 250.0))
        return truth.judge(episodes, self._observer.alerts, dark, sent)

    def _limits(self, told: Mapping[str, Any], measured: list[Slot]) -> list[dict[str, Any]]:
        limits, calm = self._plan.limits, told["latency_ms"]["calm"]
        unaccounted = told["account"]["unaccounted"] if self._settled else None
        checks: list[tuple[str, float | None, float | None]] = [
            ("samples unaccounted for", limits.unaccounted, unaccounted),
            ("samples misplaced", limits.misplaced, self._account.misplaced + self._account.unproved),
            ("samples misplaced, seen from outside", limits.misplaced, self._observer.waves["misplaced"]),
            ("true alerts missed", limits.missed, told["truth"]["missed"]),
            ("alerts doubled", limits.doubled, told["truth"]["doubled"]),
            ("red alerts false", limits.false, told["truth"]["false"]),
            ("beats p99, ms", limits.beat_p99_ms, calm["beats"]["p99"] if calm["beats"]["n"] else None),
            ("windows p99, ms", limits.window_p99_ms, calm["windows"]["p99"] if calm["windows"]["n"] else None),
            (
                "beats and windows p99.9, ms",
                limits.p999_ms,
                max(calm[kind]["p99.9"] for kind in ("beats", "windows")) if calm["beats"]["n"] else None,
            ),
            ("growth of memory after 5 minutes, share", limits.memory_growth, self._growth(measured)),
            ("lateness of the producer p99, ms", limits.pacing_p99_ms, measured[-1].pacing_ms[1] if measured else None),
        ]
        for role, limit in limits.recovery_s.items():
            times = [one.resumed_s for one in self._struck if one.killed == role]
            slowest = None if not times else max(float("inf") if t is None else t for t in times)
            checks.append((f"recovery of the {role}, s", limit, slowest))
        return [
            {
                "name": name,
                "limit": limit,
                "value": None if value == float("inf") else value,  # it never was again
                "held": _held(name, limit, value),
            }
            for name, limit, value in checks
            if limit is not None
        ]

    def _carried(self, measured: list[Slot]) -> float:
        """Beds' worth of signal that was taken in: fewer than there are where the ward did not keep up."""
        rates = [account.at.fs for account in self._observer.accounts.values() if account.at.fs]
        if len(measured) < 2 or not rates:
            return 0.0
        first, last = measured[0], measured[-1]
        n = last.counts.get("delivered", 0) - first.counts.get("delivered", 0)
        return n / statistics.mean(rates) / (last.at_s + last.length_s - first.at_s - first.length_s)

    def _growth(self, measured: list[Slot]) -> float | None:
        """Of the ward's memory, from a tenth of the time after 5 minutes (or after the last kill) to its last tenth."""
        after_s = max([FLAT_AFTER_S, *(one.at_s + FLAT_AFTER_S for one in self._struck if one.killed)])
        mb = [sum(v for k, v in slot.rss_mb.items() if k != "soak") for slot in measured if slot.at_s >= after_s]
        tenth = len(mb) // 10
        if tenth < 1:
            return None
        return statistics.median(mb[-tenth:]) / statistics.median(mb[:tenth]) - 1


def machine(load: float) -> dict[str, Any]:
    """What it ran on; `load`: the machine's load average before it began."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "load": load,
    }


def _held(name: str, limit: float, value: float | None) -> bool | None:
    """None: not judged, as the run was too short or had nothing of it. What has not settled is not accounted for."""
    if value is None:
        return False if name == "samples unaccounted for" else None
    return value <= limit


def _told(verdict: truth.Verdict) -> dict[str, Any]:
    def line(what: str, bed: str, epoch: str, of: str, sample: int, fs: float) -> str:
        return f"{what}: {of} of {bed} at {sample / fs:.1f} s of epoch {epoch}"

    lines = [line("missed", e.bed, e.epoch, e.rhythm, e.start, e.fs) for e in verdict.missed]
    for what in ("doubled", "false"):
        lines += [line(what, a.bed, a.epoch, a.code, a.onset.sample, a.onset.fs or 1.0) for a in getattr(verdict, what)]
    return {
        "told": verdict.told,
        "missed": len(verdict.missed),
        "excused": len(verdict.excused),
        "doubled": len(verdict.doubled),
        "false": len(verdict.false),
        "reds": verdict.n_reds,
        "lines": lines,
        "delays": {
            name: {"n": len(d), "median_s": statistics.median(d), "max_s": max(d)}
            for name, d in verdict.delays_s.items()
        },
    }


def _processes(measured: list[Slot]) -> dict[str, dict[str, float]]:
    names = dict.fromkeys(name for slot in measured for name in slot.cpu)
    told = {}
    for name in names:
        slots = [slot for slot in measured if name in slot.cpu]
        told[name] = {
            "cores": sum(slot.cpu[name] * slot.length_s for slot in slots) / sum(slot.length_s for slot in measured),
            "first_mb": slots[0].rss_mb[name],
            "last_mb": slots[-1].rss_mb[name],
        }
    return told


def _columns(slots: list[Slot]) -> dict[str, Any]:
    """Slots as columns, which is shorter."""
    kinds = ("beats", "windows", "alerts")
    stages = [name for name in (slots[-1].figures if slots else {}) if name not in kinds]

    def of(name: str) -> dict[str, list[float]]:
        return {q: [slot.figures[name][i] for slot in slots] for q, i in (("n", 0), ("p50", 1), ("p99", 2), ("max", 3))}

    samples = [slot.counts.get("delivered", 0) for slot in slots]
    names = dict.fromkeys(name for slot in slots for name in slot.cpu)
    fates = ("gap", "duplicate", "late", "reordered", "dropped", "refused", "unjudged", "dropped_messages")
    return {
        "at_s": [round(slot.at_s, 2) for slot in slots],
        "disturbed": [slot.disturbed for slot in slots],
        "latency_ms": {kind: of(kind) for kind in kinds} if slots else {},
        "stages_ms": {stage: of(stage) for stage in stages},
        "batch_mean": [slot.batch[0] for slot in slots],
        "batch_max": [slot.batch[1] for slot in slots],
        "messages_per_s": [slot.n_messages / slot.length_s for slot in slots],
        "samples_per_s": [
            max(0, n - before) / slot.length_s / 100
            for n, before, slot in zip(samples, samples[:1] + samples, slots, strict=False)
        ],
        "age_ms": [slot.age_ms for slot in slots],
        "counts": {fate: [slot.counts.get(fate, 0) for slot in slots] for fate in fates},
        "cores": {name: [slot.cpu.get(name, 0.0) for slot in slots] for name in names},
        "rss_mb": {name: [slot.rss_mb.get(name, 0.0) for slot in slots] for name in names},
        "pacing_ms": {q: [slot.pacing_ms[i] for slot in slots] for i, q in enumerate(("mean", "p99", "max"))},
    }
