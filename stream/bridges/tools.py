"""What the command line does with bridges: try them, listen to a bus, and deal with dead letters."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stream.bridges.bridge import BridgeSettings, BusError, Ward
from stream.bridges.kinds import KINDS, bridge_of
from stream.bridges.outbox import Outbox
from stream.config import Settings, suggest

TRY_S = 15.0


def check(settings: Settings) -> tuple[list[str], list[str]]:
    """Try every bridge against its bus, without sending an alert: what is good, and what is wrong, a line each."""
    if not settings.bridges:
        return [], []
    return asyncio.run(_check(settings.bridges, _ward(settings)))


async def _check(bridges: Mapping[str, BridgeSettings], ward: Ward) -> tuple[list[str], list[str]]:
    good, wrong = [], []
    for name, settings in bridges.items():
        url = getattr(settings, "url", None)
        try:
            async with asyncio.timeout(TRY_S):
                said = await bridge_of(name, settings, ward).check()
            good.append(f"bridges.{name}: {said}")
        except BusError as error:
            wrong.append(f"bridges.{name}.{error}")
        except Exception as error:  # whatever a client library raises where the bus is away
            wrong.append(f'bridges.{name}.url = "{url}": {_reason(error)}')
    await asyncio.sleep(0.05)  # sockets that are being closed are closed by the loop
    return good, wrong


def tail(settings: Settings, kind: str, show: Callable[[str], None], most: int | None = None) -> None:
    """Show what arrives at a consumer of the first bridge of this kind, or of one with defaults, until stopped.

    Raises BusError for a kind that there is not."""
    by_tag = {str(cls.__struct_config__.tag): cls for cls in KINDS}
    if kind not in by_tag:
        raise BusError(f"kind {kind!r}: no such kind; {suggest(kind, by_tag)}")
    given: BridgeSettings | None = next((s for s in settings.bridges.values() if isinstance(s, by_tag[kind])), None)
    if given is None:
        try:
            given = by_tag[kind]()
        except TypeError as error:
            raise BusError(f"kind {kind!r}: needs a bridge in a configuration ({error}); give --config") from None
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_tail(given, _ward(settings), show, most))


async def _tail(settings: BridgeSettings, ward: Ward, show: Callable[[str], None], most: int | None) -> None:
    lines: Any = bridge_of("tail", settings, ward).tail()
    async with contextlib.aclosing(lines):
        n = 0
        async for line in lines:
            show(line)
            n += 1
            if most is not None and n >= most:
                return


def letters(settings: Settings, name: str, *, replay: bool, discard: bool) -> list[str]:
    """Show the dead letters of a bridge, a line each; let the gateway try them again, or delete them.

    Raises BusError for a bridge that there is not, JournalError where the journal cannot be used."""
    if name not in settings.bridges:
        raise BusError(f"bridges.{name}: not in the configuration; {suggest(name, settings.bridges)}")
    outbox = Outbox(Path(settings.gateway.journal), name)
    try:
        lines = [f"{one.event.event_id} {one.event.bed} {one.event.text}: {one.reason}" for one in outbox.letters()]
        if discard:
            lines.append(f"{outbox.discard()} dead letters deleted")
        elif replay:
            lines.append(f"{outbox.replay()} dead letters will be tried again by the gateway")
        else:
            lines.append(f"{len(lines)} dead letters")
        return lines
    finally:
        outbox.close()


def _ward(settings: Settings) -> Ward:
    return Ward(settings.ward.name, settings.ward.unit)


def _reason(error: BaseException) -> str:
    """Why a bus could not be used, and the mend."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    texts: list[str] = []
    at: BaseException | None = error
    while at is not None and len(texts) < 5:
        texts.append(str(at))
        at = at.__cause__ or at.__context__
    whole = " ".join(texts)
    if "certificate verify failed" in whole.lower():
        which = whole.partition("verify failed: ")[2].partition(" (_ssl")[0] or "it is not trusted"
        return f"the certificate does not fit: {which}; use the name that is in it, and set ca"
    if isinstance(error, TimeoutError):
        return "no answer in time; see that the bus runs there"
    return f"cannot be used ({texts[0] or type(error).__name__}); see that the bus runs there"
