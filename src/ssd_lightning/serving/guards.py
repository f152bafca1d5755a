"""Who may ask, and what a browser may do with the answer."""

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
    """Refuses requests that a foreign web page has sent, and adds headers that keep browsers careful.

    A page of the internet can make a browser send requests to this machine. It could read the answers only under a name
    of its own that it lets point here ("DNS rebinding"), which the header Host gives away; and it could put the network
    to work, which Origin gives away.

    Args:
        app: what answers the others.
        hosts: the names that Host may have, without a port; empty allows all, where others are meant to ask.
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
            return JSONResponse({"error": f"this server answers to the name {names} only"}, 421)
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return JSONResponse({"error": "this server answers no pages of other servers"}, 403)
        return None


def _without_port(host: str) -> str:
    """Take the port off `name:port` and `[address]:port`."""
    name, colon, port = host.rpartition(":")
    return (name if colon and (port.isdigit() or not port) else host).lower()
