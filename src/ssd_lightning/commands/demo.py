"""A local web page and a JSON endpoint for a detector."""

import contextlib
import ipaddress
import logging
import os
import socket
import tempfile
import threading
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from ssd_lightning import __version__
from ssd_lightning.checks import require_number
from ssd_lightning.devices import choose_device
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.examples import find_examples
from ssd_lightning.inference.hub import save_space

log = logging.getLogger(__name__)


def demo(config: DictConfig) -> None:
    """Serve a detector until Ctrl-C, or write a Space."""
    if find_spec("gradio") is None:
        raise ConfigurationError("the demo needs gradio: pip install 'ssd-lightning[demo]'")
    require_number("score_threshold", config.score_threshold, 0, 1)
    require_number("max_upload_mb", config.max_upload_mb, 0, above_low=True)
    # Before the detector is loaded, since this is faster.
    address = find_address(config.host, config.port) if config.space is None else None
    checkpoint = Path(config.checkpoint)
    with tempfile.TemporaryDirectory(prefix="ssd-demo-") as scratch:
        detector = Detector.load(checkpoint, choose_device(config.device if address else "cpu"))
        folder = None if config.examples is None else Path(config.examples).expanduser()
        page: dict[str, Any] = {
            "name": model_name(checkpoint),
            "examples": find_examples(folder, checkpoint, detector.class_names, scratch=Path(scratch)),
            "score_threshold": config.score_threshold,
        }
        if address is None:
            space = Path(config.space)
            save_space(detector, space, **page)
            print(f"{space} is ready: hf upload USER/NAME {space} --repo-type space")
            if ".dev" in __version__:
                requirements = space / "requirements.txt"
                print(f"{requirements} names {__version__}, which is not released; name its wheel instead")
            return
        # Uploads live in a folder that goes with the command. Nothing is asked of other machines, not even by a proxy.
        os.environ.update(GRADIO_TEMP_DIR=scratch, GRADIO_ANALYTICS_ENABLED="False", no_proxy="*")
        serve(config, detector, page, *address)
    print("the demo has ended")


def find_address(host: str, port: int) -> tuple[str, int]:
    """Resolve a host of this machine, and replace port 0 by a free one. Raises `ConfigurationError`."""
    require_number("port", port, 0, 65535, whole=True)
    try:
        family, *_, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigurationError(f"host={host}: this is not an address of this machine ({error.strerror})") from error
    try:
        with socket.create_server(address, family=family) as listener:
            bound = listener.getsockname()
    except OSError as error:
        raise ConfigurationError(
            f"port={port} of host={host} cannot be used ({os.strerror(error.errno or 0)}); port=0 takes a free one"
        ) from error
    return str(bound[0]), int(bound[1])


def serve(config: DictConfig, detector: Detector, page: dict[str, Any], address: str, port: int) -> None:
    """Serve a detector until the process is stopped. `page` has the arguments of `build_page`."""
    # gradio reads its environment when it is imported.
    from ssd_lightning.inference.app import build_page
    from ssd_lightning.inference.app_server import served

    detector(np.zeros((*detector.image_size, 3), np.uint8))  # warm-up: the first image is the slowest
    is_local = ipaddress.ip_address(address).is_loopback
    hosts = ("127.0.0.1", "localhost", "::1", str(config.host).lower()) if is_local else ()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # gradio asks its own server whether it runs
    if not is_local:
        log.warning("host=%s: everybody who can reach this machine can use the demo", config.host)
    max_bytes = round(config.max_upload_mb * 1e6)
    with served(build_page(detector, **page), host=address, port=port, max_bytes=max_bytes, hosts=hosts) as url:
        print(f"{page['name']} at {url} (Ctrl-C ends it)", flush=True)
        if config.open_browser:
            webbrowser.open(url)
        with contextlib.suppress(KeyboardInterrupt):  # the usual end
            threading.Event().wait()


def model_name(checkpoint: Path) -> str:
    """Name a model by its run and file, without the folders around them."""
    inner = [part for part in checkpoint.parts[-3:] if part != "checkpoints" and part != checkpoint.anchor]
    return "/".join(inner[-2:]) if checkpoint.suffix else checkpoint.resolve().name
