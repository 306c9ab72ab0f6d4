"""What waits for a browser is bounded: waves and beats go, numerics are overtaken, alarms stay."""

import json

from stream.dashboard.client import MOST_BEATS, MOST_TOLD, MOST_WAVE_BYTES, Client


def test_of_a_browser_that_takes_nothing_waves_are_dropped_and_counted_and_alarms_kept() -> None:
    client = Client("x", "viewer")
    for number in range(1000):
        client.tell(b'{"k":"alert","n":%d}' % number)
        client.show("numeric.bed1", b'{"k":"numeric","n":%d}' % number)
        for _ in range(10):
            client.wave(bytes(1000))
    assert client.waiting_bytes < MOST_WAVE_BYTES + 100_000
    assert client.dropped["waves"] == 10_000 - MOST_WAVE_BYTES // 1000
    assert not client.overrun
    text, waves = client.take()
    told = json.loads(text)["items"]
    assert [item["n"] for item in told if item["k"] == "alert"] == list(range(1000))
    assert [item["n"] for item in told if item["k"] == "numeric"] == [999]
    assert 0 < len(waves) <= 70_000


def test_beats_give_way_oldest_first() -> None:
    client = Client("x", "viewer")
    for number in range(MOST_BEATS + 5):
        client.beat(b'{"k":"beat","n":%d}' % number)
    assert client.dropped["beats"] == 5
    assert json.loads(client.take()[0])["items"][0]["n"] == 5


def test_messages_are_numbered_without_a_hole_and_nothing_is_sent_where_nothing_waits() -> None:
    client = Client("x", "viewer")
    assert client.take() == (b"", b"")
    for number in (1, 2, 3):
        client.tell(b"{}")
        assert json.loads(client.take()[0])["seq"] == number


def test_too_many_alarms_for_one_browser_close_it_and_lose_none_unseen() -> None:
    client = Client("x", "viewer")
    for _ in range(MOST_TOLD):
        client.tell(b"{}")
    assert not client.overrun
    client.tell(b"{}")
    assert client.overrun
