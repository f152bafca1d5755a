"""Downloads a file over http or https, with limits on size and time."""

import time
from pathlib import Path

from ssd_lightning.errors import DataError

CHUNK_BYTES = 1 << 16
MOST_S = 600.0
"""Time limit for a whole file: a server that sends a byte now and then would block a batch forever."""


def fetch(url: str, path: Path, *, most_bytes: int, silence_s: float = 20.0, most_s: float = MOST_S) -> str:
    """Fetch a file. An address or a redirect that is neither http nor https is an error.

    Neither the file may exceed `most_bytes`, nor the silence of the server `silence_s`, nor the whole `most_s`.

    Returns:
        The content type from the server, such as `image/jpeg`. Empty if there is none.

    Raises:
        DataError: the file cannot be fetched, or exceeds a limit.
    """
    import requests  # half a second, which local files need not wait for
    import urllib3

    deadline, got = time.monotonic() + most_s, 0
    headers = {"User-Agent": "ssd_lightning", "Accept-Encoding": "identity"}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=silence_s) as response, path.open("wb") as file:
            response.raise_for_status()
            stated = int(response.headers.get("Content-Length", 0))
            # `read1` returns as soon as data arrives; pooch waits for whole chunks and could miss the deadline.
            while got <= most_bytes >= stated and (chunk := response.raw.read1(CHUNK_BYTES)):
                got += len(chunk)
                file.write(chunk)
                if time.monotonic() > deadline:
                    raise DataError(f"{url}: incomplete after {most_s:.0f} s, with {got:,} bytes received")
            if max(got, stated) > most_bytes:
                limit = f"the {most_bytes / 1e6:g} MB that are allowed (max_download_mb)"
                raise DataError(f"{url}: the file has {max(got, stated):,} bytes or more, and exceeds {limit}")
            return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    except DataError:
        raise
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        raise DataError(f"{url}: cannot be fetched: {error}") from error
