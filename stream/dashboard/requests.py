"""What a browser may ask over its WebSocket, checked, and done if the one who asks may.

{"t": "view", "beds": ["bed1"], "every": true}                               anybody
{"t": "action", "id": "1", "bed": "bed1", "kind": "acknowledge", ...}        operators; ends in the journal
{"t": "fault", "id": "2", "what": "rhythm", "bed": "bed7", "rhythm": "vf"}   engineers, in simulation only
{"t": "kill", "id": "3", "role": "worker"}                                   engineers, in simulation only
"""

import asyncio
import secrets
import time
from typing import Annotated, Any, Literal

import msgspec
import structlog
import zmq
from msgspec import Meta, Struct

from stream.config import Settings, reached
from stream.dashboard.access import LOCAL, User
from stream.dashboard.client import Client
from stream.dashboard.feed import Feed, simulated
from stream.dashboard.ward import encode
from stream.wire import Action, Name

log = structlog.get_logger()

MOST_BEDS = 256
ANSWER_S = 2.0


class View(Struct, frozen=True, tag_field="t", tag="view", forbid_unknown_fields=True):
    """Show the waves of these beds; with `every`, all leads."""

    beds: Annotated[list[Name], Meta(max_length=MOST_BEDS)]
    every: bool = False


class Act(Struct, frozen=True, tag_field="t", tag="action", forbid_unknown_fields=True):
    """An operator's action, as `wire.Action`. `who`: counts only where nobody is asked who it is."""

    id: Name
    bed: Name
    kind: Literal["acknowledge", "audio_pause", "alarm_pause", "alarms_off", "alarms_on", "limits"]
    alert_id: Annotated[str, Meta(max_length=64)] | None = None
    until_s: float | None = None
    limits: dict[str, Any] = {}
    who: Annotated[str, Meta(max_length=40, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""


class Fault(Struct, frozen=True, tag_field="t", tag="fault", forbid_unknown_fields=True):
    """Something that is to happen; see `simulators/control.py`, which answers."""

    id: Name
    what: Literal["rhythm", "lead_off", "flat", "loss"]
    bed: Annotated[str, Meta(max_length=64)] = ""
    for_s: Annotated[float, Meta(ge=0.5, le=600)] = 20.0
    rhythm: Annotated[str, Meta(max_length=20)] = ""
    lead: Annotated[int, Meta(ge=-1, le=15)] = -1


class Kill(Struct, frozen=True, tag_field="t", tag="kill", forbid_unknown_fields=True):
    """SIGKILL for a role of the ward; the supervisor starts it again."""

    id: Name
    role: Name


class Refused(ValueError):
    """A request that is not done; `id`: its own, where it could be read."""

    def __init__(self, text: str, request_id: str = "") -> None:
        super().__init__(text)
        self.id = request_id


_decoder = msgspec.json.Decoder(View | Act | Fault | Kill)


async def do(text: str, settings: Settings, feed: Feed, client: Client, user: User) -> None:
    """Do what a message asks. Raises Refused."""
    try:
        asked = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise Refused(f"not a request: {error}") from None
    if isinstance(asked, View):
        feed.look(client, asked.beds, asked.every)
    elif isinstance(asked, Act):
        _allow(user, "operator", asked.id)
        who = asked.who.strip() if user.who == LOCAL and asked.who.strip() else user.who
        action = Action(
            id=f"{client.number}.{asked.id}"[:40] + f".{secrets.token_hex(4)}", bed=asked.bed, kind=asked.kind, who=who,
            at_ns=time.time_ns(), alert_id=asked.alert_id, until_s=asked.until_s, limits=asked.limits,
        )  # fmt: skip
        feed.ask(client, action, asked.id)
    else:
        _allow(user, "engineer", asked.id)
        if not simulated(settings):
            raise Refused("this ward has no simulated patients; nothing can be made to happen to it", asked.id)
        if isinstance(asked, Fault):
            question: dict[str, Any] = {"t": "fault", "kind": asked.what, "bed": asked.bed, "for_s": asked.for_s}
            if asked.what == "loss":
                question["share"] = 1.0
            elif asked.what == "rhythm":
                question["rhythm"] = asked.rhythm
            else:
                question["lead"] = asked.lead
            if settings.producer.control is None:
                raise Refused("producer.control: there is none; its port was taken when the ward started", asked.id)
            address = settings.producer.control
        else:
            question = {"t": "command", "id": asked.id, "command": "kill", "role": asked.role}
            address = settings.supervisor.control
        log.warning("made_to_happen", who=user.who, **{k: v for k, v in question.items() if k not in {"t", "id"}})
        answer = await asyncio.to_thread(_ask, reached(address), question)
        client.tell(
            encode({"k": "reply", "id": asked.id, "ok": bool(answer.get("ok")), "text": str(answer.get("text", ""))})
        )


def _allow(user: User, role: str, request_id: str) -> None:
    if not user.may(role):
        raise Refused(f"{user.who} is a {user.role}; this needs the role {role}", request_id)


def _ask(address: str, question: dict[str, Any]) -> dict[str, Any]:
    """One map to a control socket, one back; where none answers, an answer that says so."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    with socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address)
        socket.send(msgspec.msgpack.encode(question))
        if not socket.poll(round(ANSWER_S * 1000)):
            return {"ok": False, "text": f"nobody answers at {address}"}
        answer = msgspec.msgpack.decode(socket.recv())
    return answer if isinstance(answer, dict) else {"ok": False, "text": "an answer that is none"}
