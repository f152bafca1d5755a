"""`python -m ssd_lightning.demo`: a local web page and a JSON endpoint for a detector."""

import ipaddress
import logging
import socket
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_lightning.checks import require_number
from ssd_lightning.config import run_command
from ssd_lightning.errors import ConfigurationError

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

NEEDED = ("starlette", "uvicorn", "python_multipart")
SHUTDOWN_SECONDS = 2
"""Time for open requests when the server stops."""


def main() -> None:
    """Run the command."""
    run_command("demo", demo)


def demo(config: "DictConfig") -> None:
    """Serve a detector until Ctrl-C.

    Args:
        config: the composed `conf/demo.yaml`.

    Raises:
        UserError: a package is missing, a setting or the checkpoint is not usable, or the port is taken.
    """
    check_packages()
    require_number("score_threshold", config.score_threshold, 0, 1)
    require_number("max_upload_mb", config.max_upload_mb, 0, above_low=True)
    # Before the detector is loaded, since the port check is faster.
    with open_socket(config.host, config.port) as listener:
        serve(config, listener)


def check_packages() -> None:
    """Check that the packages of the extra `demo` are installed.

    Raises:
        ConfigurationError: a package is missing.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        raise ConfigurationError(f"the demo needs more packages ({names}): pip install 'ssd-lightning[demo]'")


def open_socket(host: str, port: int) -> socket.socket:
    """Bind an address. Early clients wait until the server is ready.

    Raises:
        ConfigurationError: the port is taken, invalid or not permitted, or the host is not on this machine.
    """
    require_number("port", port, 0, 65535, whole=True)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"host={host}: this is not an address of this machine ({error.strerror})") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # otherwise a port stays blocked for a minute
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"port={port} of host={host} cannot be used ({error.strerror}); port=0 takes a free one"
        ) from error
    return listener


def serve(config: "DictConfig", listener: socket.socket) -> None:
    """Load the detector and serve on a socket until the process is stopped."""
    import numpy as np
    import uvicorn

    from ssd_lightning.devices import choose_device
    from ssd_lightning.inference.app.app import LOOPBACK_NAMES, Application
    from ssd_lightning.inference.app.examples import find_examples
    from ssd_lightning.inference.app.uploads import Limits
    from ssd_lightning.inference.detector import Detector

    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    detector = Detector.load(config.checkpoint, choose_device(config.device))
    detector(np.zeros((*detector.image_size, 3), np.uint8))  # warm-up: the first image is the slowest
    checkpoint = Path(config.checkpoint)
    folder = None if config.examples is None else Path(config.examples).expanduser()
    application = Application(
        detector,
        name=model_name(checkpoint),
        examples=find_examples(folder, checkpoint, detector.class_names),
        score_threshold=config.score_threshold,
        limits=Limits(max_bytes=round(config.max_upload_mb * 1e6)),
        hosts={*LOOPBACK_NAMES, str(config.host).lower()} if address.is_loopback else (),
    )
    if not address.is_loopback:
        log.warning("host=%s: everybody who can reach this machine can use the demo", config.host)
    url = address_in_browser(address, port)
    print(f"{application.name} at {url} (Ctrl-C ends it)", flush=True)
    if config.open_browser:
        webbrowser.open(url)
    settings = uvicorn.Config(
        application.build(),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    try:
        uvicorn.Server(settings).run(sockets=[listener])
    except KeyboardInterrupt:  # the usual end
        print("the demo has ended")


def address_in_browser(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    """Return the URL for a browser on this machine."""
    if address.is_unspecified:  # all addresses of the machine
        return f"http://localhost:{port}"
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"


def model_name(checkpoint: Path) -> str:
    """Name a model by its run and file, without the folders around them."""
    inner = [part for part in checkpoint.parts[-3:] if part != "checkpoints" and part != checkpoint.anchor]
    return "/".join(inner[-2:]) if checkpoint.suffix else checkpoint.resolve().name


if __name__ == "__main__":
    main()
