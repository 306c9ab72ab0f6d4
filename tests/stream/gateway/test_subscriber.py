"""A subscriber knows exactly what stands, whenever it comes and whatever it misses."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stream.gateway.subscriber import Joined, Publication, Subscriber
from stream.roles.gateway import Gateway
from stream.wire import AlertEvent, Reply
from tests.stream.events import alert
from tests.stream.test_gateway import Bench, action, alerts, greeting, numeric


@pytest.fixture
def bench(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Bench]:
    bench = Bench(tmp_path, free_port)
    yield bench
    bench.close()


@pytest.fixture
def join(bench: Bench) -> Iterator[Callable[..., Subscriber]]:
    made: list[Subscriber] = []

    def make(**options: object) -> Subscriber:
        own = bench.settings.gateway
        made.append(Subscriber(own.publish, own.control, **options))
        return made[-1]

    yield make
    for subscriber in made:
        subscriber.close()


def listen(bench: Bench, subscriber: Subscriber, enough: Callable[[list], bool], turns: int = 400) -> list:
    """What the subscriber hands out while the gateway is stepped, until it is enough."""
    items: list = []
    for _ in range(turns):
        bench.gateway.step(1)
        items += subscriber.poll(0.005)
        if enough(items):
            return items
    raise AssertionError(f"not enough: {items}")


def joined(items: list) -> bool:
    return any(isinstance(item, Joined) for item in items)


def test_a_late_joiner_gets_exactly_what_is_active(bench: Bench, join: Callable[..., Subscriber]) -> None:
    bench.send(alerts(alert("stands"), alert("over"), alert("over", 1, "inactive")), numeric(hr=64.0))
    bench.settle()
    late = join()
    items = listen(bench, late, joined)
    assert items[0] == Joined(tuple(late.active.values()), (late.numerics["bed-1"],), ended=(), n_missed=0)
    assert set(late.active) == {"stands"}
    assert late.numerics["bed-1"].hr == 64.0


def test_nothing_is_lost_or_doubled_between_snapshot_and_stream(bench: Bench, join: Callable[..., Subscriber]) -> None:
    """Alerts go on while subscribers join; each ends up with the same as the gateway, each event once."""
    chance = random.Random(3)
    subscribers: list[Subscriber] = []
    heard: list[list] = []
    first = 0
    for turn in range(150):
        if turn % 15 == 0:
            subscribers.append(join())
            heard.append([])
        number = chance.randrange(12)
        events = tuple(
            alert(f"a{number}", turn * 3 + k, chance.choice(["active", "latched", "inactive"])) for k in range(3)
        )
        bench.send(alerts(*events, first=first))
        first += len(events)
        bench.gateway.step(2)
        for subscriber, items in zip(subscribers, heard, strict=True):
            items.extend(subscriber.poll())
    for subscriber, items in zip(subscribers, heard, strict=True):
        items.extend(listen(bench, subscriber, lambda _, s=subscriber: s.active == bench.gateway.register.active))
        assert sum(isinstance(item, Joined) for item in items) == 1
        assert isinstance(items[0], Joined)
        numbers = [item.number for item in items if isinstance(item, Publication)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        ids = [item.message.event_id for item in items if isinstance(getattr(item, "message", None), AlertEvent)]
        assert len(ids) == len(set(ids))
    assert bench.gateway.register.active


def test_a_hole_is_seen_and_mended_and_an_end_that_was_missed_is_told(
    bench: Bench, join: Callable[..., Subscriber]
) -> None:
    subscriber = join()
    listen(bench, subscriber, joined)
    bench.send(alerts(alert("ends"), alert("stays")))
    listen(bench, subscriber, lambda _: len(subscriber.active) == 2)
    bench.settle(5)
    subscriber.poll(0.05)
    # Two publications that never arrive, as where a slow subscriber's queue is full.
    put = bench.gateway._publisher
    bench.gateway._publisher = type("Nobody", (), {"send": lambda *_: None})()
    bench.send(alerts(alert("ends", 1, "inactive"), alert("begins"), first=2))
    bench.gateway._status_due_ns = 1 << 62
    for _ in range(20):
        Gateway._drain(bench.gateway, bench.gateway._shards, bench.gateway._from_shard)
        time.sleep(0.005)
    bench.gateway._commit()
    bench.gateway._publisher = put
    bench.gateway._status_due_ns = 0
    items = listen(bench, subscriber, joined)
    again = next(item for item in items if isinstance(item, Joined))
    assert [event.alert_id for event in again.ended] == ["ends"]
    assert again.n_missed == 2
    assert set(subscriber.active) == {"stays", "begins"}
    assert subscriber.counts["holes"] == 1


def test_a_gateway_that_starts_again_is_joined_again(bench: Bench, join: Callable[..., Subscriber]) -> None:
    subscriber = join()
    bench.send(alerts(alert("kept"), alert("ends")))
    listen(bench, subscriber, lambda _: len(subscriber.active) == 2)
    bench.journal.append([alert("ends", 1, "inactive")])
    started = Gateway(
        bench.settings,
        bench.journal,
        bench.gateway._shards,
        bench.gateway._publisher,
        bench.gateway._control,
        utc_ns=lambda: time.time_ns() + 3_600_000_000_000,
    )
    bench.gateway = started
    items = listen(bench, subscriber, joined)
    again = next(item for item in items if isinstance(item, Joined))
    assert again.n_missed is None
    assert [event.alert_id for event in again.ended] == ["ends"]
    assert set(subscriber.active) == {"kept"}


def test_only_the_topics_asked_for_are_handed_out_and_alerts_are_kept_all_the_same(
    bench: Bench, join: Callable[..., Subscriber]
) -> None:
    subscriber = join(topics=("numeric",))
    listen(bench, subscriber, joined)
    bench.send(alerts(alert("a1")), numeric(hr=50.0))
    items = listen(bench, subscriber, lambda items: any(isinstance(item, Publication) for item in items))
    assert {item.topic for item in items if isinstance(item, Publication)} == {"numeric"}
    assert set(subscriber.active) == {"a1"}
    with pytest.raises(ValueError, match="topics: nmeric not known; known: alert, beat"):
        join(topics=("nmeric",))


def test_an_action_is_answered(bench: Bench, join: Callable[..., Subscriber]) -> None:
    subscriber = join()
    bench.send(greeting())
    listen(bench, subscriber, joined)
    subscriber.act(action(bed="bed-9"))
    items = listen(bench, subscriber, lambda items: any(isinstance(item, Reply) for item in items))
    (reply,) = [item for item in items if isinstance(item, Reply)]
    assert (reply.id, reply.ok) == ("act-1", False)


def test_what_is_no_publication_is_counted_and_passed_over(bench: Bench, join: Callable[..., Subscriber]) -> None:
    subscriber = join()
    listen(bench, subscriber, joined)
    number = bench.gateway._number
    for parts in ([b"alert.x"], [b"alert.x", b"1", b"x"], [b"alert.x", (number + 1).to_bytes(8, "big"), b"\xc1"]):
        bench.gateway._publisher.send_multipart(parts)
    bench.gateway._number += 1
    bench.send(numeric(hr=51.0))
    listen(bench, subscriber, lambda _: subscriber.numerics.get("bed-1") is not None)
    assert subscriber.counts["refused"] == 3
    assert subscriber.joined


def test_silence_of_the_gateway_is_told(free_port: Callable[[], int]) -> None:
    now = [0]
    with Subscriber(
        f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}", monotonic_ns=lambda: now[0]
    ) as alone:
        now[0] = 2_500_000_000
        assert alone.poll(0.01) == []
        assert alone.silent_s() == 2.5
        assert not alone.joined


def test_closing_leaves_no_socket_behind(bench: Bench, join: Callable[..., Subscriber]) -> None:
    subscriber = join()
    subscriber.close()
    assert subscriber._stream.closed
    assert subscriber._control.closed
