"""A receiver that answers badly: what is documented happens, nothing is stuck, and nothing floods."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream.bridges.hl7 import Hl7Settings
from stream.bridges.mllp import BEGIN, END, acknowledgement, answer_of
from stream.bridges.outbox import Outbox
from tests.stream.bridges.buses import QUICK
from tests.stream.bridges.ward import Writer
from tests.stream.events import alert

Answers = Callable[[str, int], list[bytes]]  # of MSH-10, and how often it came: what is sent back


class Stubborn:
    """A receiver whose answers the test chooses. `came`: MSH-10 of all alerts in order; `times`: of each, how often."""

    def __init__(self, port: int, answers: Answers) -> None:
        self.port, self._answers = port, answers
        self.came: list[str] = []
        self.times: Counter[str] = Counter()
        self.n_connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        try:
            while True:
                frame = (await reader.readuntil(END))[:-2].rpartition(BEGIN)[2]
                control = frame.split(b"|")[9].decode()
                if control.startswith("alive"):
                    writer.write(BEGIN + acknowledgement(frame) + END)
                    continue
                self.came.append(control)
                self.times[control] += 1
                for answer in self._answers(control, self.times[control]):
                    writer.write(answer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()


def framed(code: str, control: str) -> bytes:
    return BEGIN + f"MSH|^~\\&|||||||ACK|x|D|2.6\rMSA|{code}|{control}\r".encode() + END


def played(
    folder: Path, port: int, answers: Answers, seconds: float, **changes: Any
) -> tuple[Stubborn, Writer, dict[str, int]]:
    """Two alerts of two beds against a receiver, for so long at most; the bridge's counts at the end."""
    receiver = Stubborn(port, answers)

    async def play() -> tuple[Writer, dict[str, int]]:
        server = await asyncio.start_server(receiver.serve, "127.0.0.1", port)
        settings = Hl7Settings(
            url=f"mllp://127.0.0.1:{port}", classes=("alerts",), **(QUICK | {"timeout_s": 0.3, "tries": 3} | changes)
        )
        writer = Writer(folder, hl7=settings)
        writer.write(alert("bad"), alert("good", bed="bed-2"))
        writer.write(alert("bad", 1, "latched"))
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(receiver.came) < 200:
            counts = writer.runner.accounts()["hl7"].counts
            if counts.get("waiting") == 0 and counts.get("delivered", 0) + counts.get("dead_letters", 0) == 3:
                break
            await asyncio.sleep(0.05)
        await asyncio.to_thread(writer.close)
        server.close()
        await asyncio.sleep(0.05)
        return writer, writer.runner.accounts()["hl7"].counts

    writer, counts = asyncio.run(play())
    return receiver, writer, counts


def letters(writer: Writer) -> dict[str, tuple[str, int]]:
    outbox = Outbox(writer.path, "hl7")
    found = {one.event.event_id: (one.reason, one.tries) for one in outbox.letters()}
    outbox.close()
    return found


@pytest.mark.parametrize("code", ["AR", "CR"])
def test_what_is_rejected_is_a_dead_letter_at_once_and_the_next_goes_out(
    tmp_path: Path, free_port: Callable[[], int], code: str
) -> None:
    receiver, writer, counts = played(
        tmp_path, free_port(), lambda control, _: [framed(code if control == "bad.0" else "CA", control)], 15
    )
    assert sorted(receiver.came) == ["bad.0", "bad.1", "good.0"]
    assert letters(writer) == {"bad.0": (f"the receiver answered {code}", 1)}
    assert (counts["delivered"], counts["dead_letters"]) == (2, 1)


@pytest.mark.parametrize("code", ["AE", "CE"])
def test_an_error_is_tried_again_with_pauses_and_then_a_dead_letter(
    tmp_path: Path, free_port: Callable[[], int], code: str
) -> None:
    receiver, writer, _counts = played(
        tmp_path, free_port(), lambda control, _: [framed(code if control == "bad.0" else "CA", control)], 15
    )
    assert receiver.times == {"bad.0": 3, "bad.1": 1, "good.0": 1}
    assert receiver.came.index("good.0") < len(receiver.came) - 2  # another bed does not wait for the tries
    assert letters(writer) == {"bad.0": (f"the receiver answered {code} (3 tries)", 3)}


def test_an_error_that_passes_is_no_dead_letter(tmp_path: Path, free_port: Callable[[], int]) -> None:
    receiver, writer, counts = played(
        tmp_path, free_port(), lambda control, n: [framed("AE" if control == "bad.0" and n < 3 else "AA", control)], 15
    )
    assert receiver.times["bad.0"] == 3
    assert counts["delivered"] == 3
    assert not letters(writer)


SILENCES: dict[str, Answers] = {
    "nothing": lambda control, _: [],
    "half an answer": lambda control, _: [framed("CA", control)[:25]],
    "an answer of another message": lambda control, _: [framed("CA", "somebody-else")],
    "noise": lambda control, _: [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
}


@pytest.mark.parametrize("silence", SILENCES.values(), ids=SILENCES)
def test_without_an_answer_the_socket_is_closed_and_the_same_message_comes_again_on_a_new_one(
    tmp_path: Path, free_port: Callable[[], int], silence: Answers
) -> None:
    def answers(control: str, n: int) -> list[bytes]:
        return silence(control, n) if control == "bad.0" and n <= 2 else [framed("CA", control)]

    receiver, writer, counts = played(tmp_path, free_port(), answers, 20)
    assert receiver.times["bad.0"] == 3
    assert receiver.n_connections == 3  # each time-out closed one
    assert counts["delivered"] == 3
    assert not letters(writer)


def test_a_receiver_that_is_silent_for_good_gets_no_flood_and_nothing_is_given_up(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    receiver, _writer, counts = played(tmp_path, free_port(), lambda control, _: [], 3)
    assert 2 <= len(receiver.came) <= 12  # 0.3 s each, and pauses between
    assert counts.get("delivered", 0) == 0


def test_a_message_that_alone_is_never_answered_ends_as_a_dead_letter(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    _receiver, writer, counts = played(
        tmp_path, free_port(), lambda control, _: [] if control == "bad.0" else [framed("CA", control)], 25
    )
    assert letters(writer) == {"bad.0": ("not answered, while others were", 3)}
    assert counts["delivered"] == 2


def test_a_second_answer_is_taken_for_no_other_message(tmp_path: Path, free_port: Callable[[], int]) -> None:
    receiver, writer, counts = played(
        tmp_path,
        free_port(),
        lambda control, _: [framed("CA", control), framed("AR" if control == "bad.0" else "CA", control)],
        15,
    )
    assert receiver.times == {"bad.0": 1, "bad.1": 1, "good.0": 1}
    assert counts["delivered"] == 3
    assert not letters(writer)


def test_an_answer_is_read_whatever_the_separators_and_line_ends() -> None:
    assert answer_of(b"MSH|^~\\&|a\rMSA|CA|x1|fine\r") == ("CA", "x1", "fine")
    assert answer_of(b"MSH#^~\\&#a\nMSA#AE#x2\n") == ("AE", "x2", "")
    assert answer_of(b"MSH|^~\\&|a\r") is None
    assert answer_of(b"\xff\xfe") is None
