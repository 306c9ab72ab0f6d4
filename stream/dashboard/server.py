"""The dashboard's server: a page, one WebSocket, and what the page asks for by HTTP, in a thread of the gateway.

    GET  /                        the page; /?token=... leaves the token in a cookie
    WS   /ws                      text: JSON of events, numbered; binary: waves (`ward.Ward.block`)
    GET  /api/alerts, /api/alerts.csv, /api/limits/BED, /api/trend/BED, /api/strip/ALERT_ID

What a browser sends is small, checked and not much at once; anything else closes it with the reason. The gateway's loop
neither waits for this thread nor falls with it.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from stream.config import Settings
from stream.dashboard import records
from stream.dashboard.access import COOKIE, Access, Rate, User, token_of
from stream.dashboard.client import Client
from stream.dashboard.feed import Feed
from stream.dashboard.requests import Refused, do
from stream.gateway.journal import JournalError

log = structlog.get_logger()

STATIC = Path(__file__).parent / "static"
MOST_BYTES = 8192  # of a message from a browser
MESSAGES_PER_S, BURST = 20.0, 60
MOST_CLIENTS = 64
SLOW_S = 10.0  # a browser that takes nothing for so long is closed
POLICY, TOO_SLOW, FULL = 1008, 1013, 1013
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src "
    "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types wardbeat",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


class Dashboard:
    """The server of one gateway, started and stopped with it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> bool:
        """Serve from now on; False where the port is taken, which the log says."""
        own = self._settings.dashboard
        try:
            listener = socket.create_server(
                (own.host, own.port), family=socket.AF_INET6 if ":" in own.host else socket.AF_INET
            )
        except OSError as error:
            log.warning(
                "dashboard_off",
                error=f"dashboard.port = {own.port}: {own.host} cannot be bound ({error.strerror})",
                mend="stop what holds it, or set another port",
            )
            return False
        config = uvicorn.Config(
            application(self._settings),
            log_config=None,
            access_log=False,
            ws_max_size=MOST_BYTES,
            ws_ping_interval=5.0,
            ws_ping_timeout=SLOW_S,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=1,
            server_header=False,
            lifespan="on",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="dashboard", daemon=True
        )
        self._thread.start()
        log.info("dashboard", url=own.url)
        return True

    def stop(self) -> None:
        """End it; browsers come back by themselves."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(1.0)


def application(settings: Settings) -> ASGIApp:
    """The whole as an ASGI application."""
    access = Access(settings.dashboard)
    feed = Feed(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(_always(feed))
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def page(request: Request) -> Response:
        token = request.query_params.get("token")
        if token is not None:
            response: Response = RedirectResponse("/", status_code=303)
            response.set_cookie(COOKIE, token[:200], httponly=True, samesite="strict", path="/")
            return response
        return FileResponse(STATIC / "index.html")

    def alerts(request: Request) -> Response:
        limit = _number(request, "limit", 200, 2000)
        return _json({"alerts": records.alerts(settings, _text(request, "bed"), _since_ns(request), limit)})

    def alerts_csv(request: Request) -> Response:
        text = records.exported(settings, _text(request, "bed"), _since_ns(request), _text(request, "priority"))
        return Response(
            text, media_type="text/csv", headers={"content-disposition": 'attachment; filename="alerts.csv"'}
        )

    def limits(request: Request) -> Response:
        return _json({"limits": records.limits(settings, request.path_params["bed"])})

    async def trend(request: Request) -> Response:
        return _json(feed.ward.trend(request.path_params["bed"]))

    def strip(request: Request) -> Response:
        alert_id = request.path_params["alert_id"]
        found = records.strip(settings, alert_id) or feed.strips.get(alert_id)
        return _json(found) if found else PlainTextResponse("No strip of this alert is kept.\n", 404)

    async def live(websocket: WebSocket) -> None:
        host = websocket.headers.get("host", "")
        if not access.same_site(host, websocket.headers.get("origin")):
            log.warning("dashboard_refused", cause="origin", origin=websocket.headers.get("origin", "")[:200])
            await websocket.close(POLICY)  # before it is accepted: the browser sees 403
            return
        user = _user(access, websocket)
        if user is None or len(feed.clients) >= MOST_CLIENTS:
            await websocket.close(POLICY)
            return
        await websocket.accept()
        await _Session(settings, feed, websocket, user).run()

    routes = [
        Route("/", page),
        Route("/api/alerts", alerts),
        Route("/api/alerts.csv", alerts_csv),
        Route("/api/limits/{bed:path}", limits),
        Route("/api/trend/{bed:path}", trend),
        Route("/api/strip/{alert_id}", strip),
        WebSocketRoute("/ws", live),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={JournalError: _no_journal})
    return _Door(app, access)


class _Door:
    """Who may come in, and the headers that go out with everything."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        refusal = None
        if not self._access.is_ours(request.headers.get("host", "")):
            log.warning("dashboard_refused", cause="host", host=request.headers.get("host", "")[:200])
            refusal = PlainTextResponse("This address is not one of this dashboard's.\n", 421)
        elif not _open_to_all(scope["path"], request) and _user(self._access, request) is None:
            refusal = PlainTextResponse("Who are you? Open /?token=... with a token of ward.toml.\n", 401)
        await (refusal or self._app)(scope, receive, with_headers)


class _Session:
    """One browser's WebSocket: one task reads, one writes."""

    def __init__(self, settings: Settings, feed: Feed, websocket: WebSocket, user: User) -> None:
        self._settings, self._feed, self._websocket, self._user = settings, feed, websocket, user
        self._client = Client(user.who, user.role)
        self._rate = Rate(MESSAGES_PER_S, BURST, time.monotonic)

    async def run(self) -> None:
        """Until it goes, or is closed."""
        client = self._client
        log.info("dashboard_client", number=client.number, who=client.who, role=client.role)
        self._feed.attach(client)
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            code, reason = next(iter(done)).result()
        finally:
            self._feed.detach(client)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        log.info("dashboard_client_gone", number=client.number, reason=reason, **client.dropped)
        if code:
            log.warning("dashboard_closed", number=client.number, who=client.who, code=code, reason=reason)
            with contextlib.suppress(RuntimeError, OSError, TimeoutError):
                await asyncio.wait_for(self._websocket.close(code, reason), 1.0)

    async def _write(self) -> tuple[int, str]:
        client, websocket = self._client, self._websocket
        while True:
            await client.wake.wait()
            client.wake.clear()
            if client.overrun:
                return TOO_SLOW, "too slow: more alarms wait than a browser may have"
            text, waves = client.take()
            try:
                async with asyncio.timeout(SLOW_S):
                    if text:
                        await websocket.send_text(text.decode())
                    if waves:
                        await websocket.send_bytes(waves)
            except TimeoutError:
                return TOO_SLOW, f"too slow: nothing was taken for {SLOW_S:g} s"
            except (RuntimeError, OSError, WebSocketDisconnect):
                return 0, "gone"

    async def _read(self) -> tuple[int, str]:
        while True:
            try:
                text = await self._websocket.receive_text()
            except WebSocketDisconnect as gone:
                return 0, "frame over the limit" if gone.code == 1009 else "gone"
            except (KeyError, RuntimeError):
                return POLICY, "text is wanted, not binary"
            if not self._rate.take():
                return POLICY, f"too many messages: over {MESSAGES_PER_S:g} a second"
            try:
                await do(text, self._settings, self._feed, self._client, self._user)
            except Refused as error:
                log.warning("dashboard_refused", cause="request", who=self._user.who, text=str(error)[:300])
                self._client.tell(msgspec.json.encode({"k": "reply", "id": error.id, "ok": False, "text": str(error)}))


async def _always(feed: Feed) -> None:
    """The feed, begun again where it falls: a fault here must not end the dashboard, and never the gateway."""
    while True:
        try:
            await feed.run()
        except Exception:
            log.exception("dashboard_feed_failed")
            await asyncio.sleep(1.0)


def _user(access: Access, connection: HTTPConnection) -> User | None:
    user = access.user(token_of(connection.headers, connection.cookies))
    if user is None:
        log.warning("dashboard_refused", cause="token", client=connection.client.host if connection.client else "")
    return user


def _open_to_all(path: str, request: HTTPConnection) -> bool:
    """The page that takes a token, which shows nothing of the ward."""
    return path == "/" and "token" in request.query_params


async def _no_journal(request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", 503)


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _text(request: Request, name: str) -> str | None:
    return request.query_params.get(name) or None


def _number(request: Request, name: str, default: int, most: int) -> int:
    value = request.query_params.get(name, "")
    return max(1, min(int(value), most)) if value.isdecimal() and len(value) < 8 else default


def _since_ns(request: Request) -> int | None:
    hours = request.query_params.get("hours", "")
    return time.time_ns() - int(hours) * 3_600_000_000_000 if hours.isdecimal() and len(hours) < 6 else None
