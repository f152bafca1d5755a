"""One file from the web: http and https alone, and no more of it than allowed."""

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
"""For a whole file: a server that sends a byte now and then would hold a batch for ever."""


class _RedirectsWithinTheWeb(HTTPRedirectHandler):
    """Follows http and https; the library's own would go to ftp too."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not newurl.lower().startswith(("http://", "https://")):
            raise DataError(f"{req.full_url}: it leads to {newurl}, which is neither http:// nor https://")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, path: Path, *, most_bytes: int, silence_s: float = 20.0, most_s: float = MOST_S) -> str:
    """Fetch a file.

    Args:
        url: http or https.
        path: where it goes.
        most_bytes: a larger one is refused.
        silence_s: longest silence of the server, in seconds.
        most_s: longest time for the whole file, in seconds.

    Returns:
        The type that the server states, such as `image/jpeg`; empty where it states none.

    Raises:
        DataError: it cannot be had, or not within the limits.
    """
    # No file, ftp or data handler, which `urlopen` has: neither the address nor a redirect can reach them.
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
            raise DataError(f"{url}: this is no http or https address")
        with response, path.open("wb") as file:
            stated = response.headers.get("Content-Length", "")
            length = int(stated) if stated.isascii() and stated.isdigit() else None
            got = 0
            if length is not None and length > most_bytes:
                raise DataError(f"{url}: the file has {length:,} bytes, more than {_limit(most_bytes)}")
            # What has arrived, however little: waiting for a whole chunk would not see the deadline pass.
            while chunk := response.read1(CHUNK_BYTES):
                got += len(chunk)
                if got > most_bytes:
                    raise DataError(f"{url}: the file goes on beyond {_limit(most_bytes)}")
                if time.monotonic() > deadline:
                    raise DataError(f"{url}: after {most_s:.0f} s there were {got:,} bytes, and no end")
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
