"""Who may look and who may act, and what is refused at the door.

Without users, whoever reaches this machine's own address is an engineer by the name that the page gives; with users, a
token tells who it is. A page of another site never gets in: the host that was asked for must be one of ours, and the
origin of a WebSocket that host.
"""

import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from stream.config import DashboardSettings

ROLES = ("viewer", "operator", "engineer")
COOKIE = "wardbeat_token"
LOCAL = "station"  # who acts where nobody is asked who it is


class User(Struct, frozen=True):
    """Who it is, as the journal names it, and what for."""

    who: str
    role: str

    def may(self, role: str) -> bool:
        """Whether what needs `role` is allowed."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Access:
    """The rules of one dashboard."""

    def __init__(self, settings: DashboardSettings) -> None:
        self._settings = settings

    def user(self, token: str) -> User | None:
        """Who has this token; None for nobody who may look."""
        if not self._settings.users:
            return User(LOCAL, "engineer") if self._settings.is_local else None
        found = None
        for name, user in self._settings.users.items():  # all are compared, so that the time taken tells nothing
            if hmac.compare_digest(user.token.encode(), token.encode()):
                found = User(name, user.role)
        return found

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names us. On this machine's own address it must be a name of this machine: another
        site's name that was made to point here (DNS rebinding) is not let in."""
        name = urlsplit(f"//{host}").hostname or ""
        if not self._settings.is_local:
            return bool(name)
        return name == "localhost" or _is_loopback(name)

    def same_site(self, host: str, origin: str | None) -> bool:
        """Whether a WebSocket was opened by our own page, or by a program, which says no origin."""
        return self.is_ours(host) and (origin is None or urlsplit(origin).netloc == host)


def token_of(headers: Mapping[str, str], cookies: Mapping[str, str]) -> str:
    """The token that a request brings: in the cookie that our page has, or as a bearer's."""
    bearer = re.fullmatch(r"Bearer ([\x21-\x7e]{1,200})", headers.get("authorization", ""))
    return bearer[1] if bearer else cookies.get(COOKIE, "")[:200]


class Rate:
    """At most `burst` at once and `per_s` for ever: a bucket of tokens. `clock`: monotonic, in s."""

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._left, self._at = float(burst), clock()

    def take(self) -> bool:
        """Whether one more is within the rate."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
