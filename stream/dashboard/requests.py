"""What a browser may ask over its WebSocket, checked, and done if the one who asks may.

{"t": "view", "beds": ["bed1"], "every": true}                               anybody
{"t": "action", "id": "1", "bed": "bed1", "kind": "acknowledge", ...}        operators; ends in the journal
{"t": "fault", "id": "2", "what": "rhythm", "bed": "bed7", "rhythm": "vf"}   engineers, for synthetic patients
{"t": "fault", "id": "3", "what": "lead_off", "bed": "bed7", "lead": 0}      engineers, for beds that the ward plays
{"t": "fault", "id": "4", "what": "loss"}                                    engineers, all such beds at once
{"t": "kill", "id": "5", "role": "worker"}                                   engineers, where the ward plays a bed
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
from stream.dashboard.feed import Feed, origin_of
from stream.dashboard.ward import encode
from stream.wire import Action, Name

log = structlog.get_logger()

MOST_BEDS = 256
ANSWER_S = 2.0
LAST_WORD_S = 0.3  # for an answer to leave before the process that gives it is killed
GATEWAY = "gateway"


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
    """Something that is to happen; see `simulators/control.py`, which answers. `loss` is of no bed: the beds of a shard
    share a connection, so all of them are cut off."""

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
        answer = await (
            _fault(asked, settings, user) if isinstance(asked, Fault) else _kill(asked, settings, user, client)
        )
        _reply(client, asked.id, answer)


async def _fault(asked: Fault, settings: Settings, user: User) -> dict[str, Any]:
    """Have the producer make it happen; its answer."""
    _check_fault(asked, settings)
    if settings.producer.control is None:
        raise Refused("producer.control: there is none; its port was taken when the ward started", asked.id)
    question: dict[str, Any] = {"t": "fault", "kind": asked.what, "bed": asked.bed, "for_s": asked.for_s}
    if asked.what == "loss":
        question["share"] = 1.0
    elif asked.what == "rhythm":
        question["rhythm"] = asked.rhythm
    else:
        question["lead"] = asked.lead
    log.warning("made_to_happen", who=user.who, **{name: value for name, value in question.items() if name != "t"})
    return await asyncio.to_thread(_ask, reached(settings.producer.control), question)


def _check_fault(asked: Fault, settings: Settings) -> None:
    """Nothing is made to happen to a bed whose signal comes from elsewhere, and a recording stays what it is."""
    if asked.what == "loss":
        if asked.bed:
            raise Refused(f"bed: {asked.bed!r}: beds share a connection; leave it out to cut off all of them", asked.id)
        if not _plays(settings):
            raise Refused("this ward plays no bed itself; nothing can be made to happen to it", asked.id)
        return
    origin = origin_of(settings, asked.bed)
    if not origin:
        raise Refused(f"bed: {asked.bed!r} is not played by this ward; nothing can be made to happen to it", asked.id)
    if asked.what == "rhythm" and origin != "simulated":
        raise Refused(
            f"bed: {asked.bed!r} is replayed from a recording; choose a synthetic patient for another rhythm", asked.id
        )


async def _kill(asked: Kill, settings: Settings, user: User, client: Client) -> dict[str, Any]:
    """Have the supervisor kill a role; its answer."""
    if not _plays(settings):
        raise Refused("this ward plays no bed itself; nothing can be made to happen to it", asked.id)
    address = reached(settings.supervisor.control)
    question = {"t": "command", "id": asked.id, "command": "kill", "role": asked.role}
    if asked.role == GATEWAY:
        # This thread is of that process: the answer has to be out before.
        answer = await asyncio.to_thread(_ask, address, question | {"command": "status"})
        if not answer.get("ok") or GATEWAY not in answer.get("roles", {}):
            return answer if not answer.get("ok") else {"ok": False, "text": "the supervisor has no gateway"}
        _reply(client, asked.id, {"ok": True, "text": "it goes now"})
        client.wake.set()
        await asyncio.sleep(LAST_WORD_S)
    log.warning("made_to_happen", who=user.who, kill=asked.role)
    return await asyncio.to_thread(_ask, address, question)


def _plays(settings: Settings) -> bool:
    return any(bed.source for bed in settings.beds.values())


def _reply(client: Client, request_id: str, answer: dict[str, Any]) -> None:
    told = {"k": "reply", "id": request_id, "ok": bool(answer.get("ok")), "text": str(answer.get("text", ""))}
    client.tell(encode(told))


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
