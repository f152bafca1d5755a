"""Checks of requests, and security headers of responses."""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Guard:
    """Rejects requests from other web pages, and adds security headers to responses.

    A web page can make a browser send requests to this machine. To read the answers, it would need a host name of its
    own that points to this machine ("DNS rebinding"). The header Host reveals this. Without reading the answers, it
    could still make the network work. The header Origin reveals this.

    Args:
        app: application that answers the allowed requests.
        hosts: allowed values of Host, without a port. Empty allows all, for a server that other machines may use.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app = app
        self.hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(Headers(scope=scope))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await (refusal or self.app)(scope, receive, send_guarded)

    def _refusal(self, headers: Headers) -> JSONResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts and _without_port(host) not in self.hosts:
            names = " or ".join(sorted(self.hosts))
            return JSONResponse({"error": f"this server accepts only the host name {names}"}, 421)
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return JSONResponse({"error": "this server does not accept requests from pages of other servers"}, 403)
        return None


def _without_port(host: str) -> str:
    """Remove the port from `name:port` and `[address]:port`."""
    name, colon, port = host.rpartition(":")
    return (name if colon and (port.isdigit() or not port) else host).lower()
