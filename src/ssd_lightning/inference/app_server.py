"""The server of the demo page, with limits on what is sent to it and on who may send it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import gradio as gr
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

ENVELOPE_BYTES = 16 * 1024
"""What a form or JSON may add to its image."""


async def refuse_address(url: str, cache_dir: str) -> str:
    """Stand in for gradio's function that fetches an address which a visitor names."""
    raise gr.Error("send the image itself: this server fetches no addresses", print_exception=False)


@dataclass(frozen=True)
class Guard:
    """Rejects requests that are too large or come from other web pages.

    A web page can make a browser send requests to this machine. To read the answers, it would need a host name of its
    own that points to this machine ("DNS rebinding"). The header Host reveals this. Without reading the answers, it
    could still make the network work. The header Origin reveals this.
    """

    app: ASGIApp
    """Application that answers the allowed requests."""
    hosts: Sequence[str]
    """Allowed values of Host, without a port. Empty allows all, for a server that other machines may use."""
    max_bytes: int
    """Limit of an image."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        refusal = self._refusal(Headers(scope=scope), scope["method"]) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, headers: Headers, method: str) -> JSONResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts and urlsplit(f"//{host}").hostname not in self.hosts:
            return _refused(421, f"this server accepts only the host name {' or '.join(self.hosts)}")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return _refused(403, "this server does not accept requests from pages of other servers")
        if method == "POST" and "content-length" not in headers:
            return _refused(411, "the request needs a Content-Length")
        if int(headers.get("content-length", 0)) > self.max_bytes + ENVELOPE_BYTES:
            return _refused(413, f"the upload is larger than {self.max_bytes / 1e6:g} MB")
        return None


def _refused(status: int, message: str) -> JSONResponse:
    # The rest of the request is not read, so the connection cannot be reused.
    return JSONResponse({"error": message}, status, {"Connection": "close"})


@contextmanager
def served(page: gr.Blocks, *, host: str, port: int, max_bytes: int, hosts: Sequence[str] = ()) -> Iterator[str]:
    """Serve a page of `build_page` in a thread at a free port, and yield its address.

    `max_bytes` limits an upload; for `hosts` see `Guard`.
    """
    gr.processing_utils.async_ssrf_protected_download = refuse_address
    guard = Middleware(Guard, hosts=hosts, max_bytes=max_bytes)
    _, url, _ = page.launch(
        server_name=f"[{host}]" if ":" in host else host,
        server_port=port,
        max_file_size=max_bytes,
        app_kwargs={"middleware": [guard]},
        footer_links=["api"],
        share=False,
        ssr_mode=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    try:
        yield url
    finally:
        page.close(verbose=False)
