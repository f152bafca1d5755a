"""Downloads a file over http or https, with limits on size and time."""

import time
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from ssd_lightning.errors import DataError

CHUNK_BYTES = 1 << 16
MOST_S = 600.0
"""Time limit for a whole file: a server that sends a byte now and then would block a batch forever."""


class _RedirectsWithinTheWeb(HTTPRedirectHandler):
    """Follows redirects only to http and https. The base class also allows ftp."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not newurl.lower().startswith(("http://", "https://")):
            raise DataError(f"{req.full_url}: it redirects to {newurl}, which is neither http:// nor https://")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, path: Path, *, most_bytes: int, silence_s: float = 20.0, most_s: float = MOST_S) -> str:
    """Fetch a file.

    Args:
        url: http or https address.
        path: where the file is saved.
        most_bytes: size limit in bytes.
        silence_s: longest time without data from the server, in seconds.
        most_s: time limit for the whole file, in seconds.

    Returns:
        The content type from the server, such as `image/jpeg`. Empty if there is none.

    Raises:
        DataError: the file cannot be fetched, or exceeds a limit.
    """
    # Unlike `urlopen`, no file, ftp or data handler: neither the address nor a redirect can use them.
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
        _RedirectsWithinTheWeb(),
    ):
        opener.add_handler(handler)
    deadline = time.monotonic() + most_s
    try:
        response = opener.open(Request(url, headers={"User-Agent": "ssd_lightning"}), timeout=silence_s)  # noqa: S310
        if response is None:
            raise DataError(f"{url}: this is not an http or https address")
        with response, path.open("wb") as file:
            stated = response.headers.get("Content-Length", "")
            length = int(stated) if stated.isascii() and stated.isdigit() else None
            got = 0
            if length is not None and length > most_bytes:
                raise DataError(f"{url}: the file has {length:,} bytes, more than {_limit(most_bytes)}")
            # `read1` returns as soon as data arrives. Waiting for a whole chunk could miss the deadline.
            while chunk := response.read1(CHUNK_BYTES):
                got += len(chunk)
                if got > most_bytes:
                    raise DataError(f"{url}: the file is larger than {_limit(most_bytes)}")
                if time.monotonic() > deadline:
                    raise DataError(f"{url}: incomplete after {most_s:.0f} s, with {got:,} bytes received")
                file.write(chunk)
            if length is not None and got < length:
                raise DataError(f"{url}: the connection was closed after {got:,} of {length:,} bytes")
            return response.headers.get_content_type() if "Content-Type" in response.headers else ""
    except DataError:
        raise
    except HTTPError as error:
        raise DataError(f"{url}: the server answers {error.code} {error.reason}") from error
    except URLError as error:
        raise DataError(f"{url}: cannot be fetched: {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise DataError(f"{url}: cannot be fetched: {error or type(error).__name__}") from error


def _limit(most_bytes: int) -> str:
    return f"the {most_bytes / 1e6:g} MB that are allowed (max_download_mb)"
