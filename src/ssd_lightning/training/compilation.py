"""`compile=WORD`: the network's layers as compiled code."""

import logging
import os
import shutil

import torch

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models.ssd import SSD

log = logging.getLogger(__name__)

MODES = ("default", "reduce-overhead", "max-autotune")


def check_compile(mode: str | None, device: torch.device, *, many_sizes: bool = False) -> None:
    """Make sure that `compile_network` will work, before anything is loaded.

    Args:
        mode: see `compile_network`.
        device: that the network is trained on.
        many_sizes: whether images of different sizes are trained on.

    Raises:
        ConfigurationError: there is no such mode or no compiler on this machine, or there are many sizes.
    """
    if mode is None:
        return
    if mode not in MODES:
        raise ConfigurationError(f"compile is '{mode}'; it can be null, {', '.join(MODES)}")
    if many_sizes:
        raise ConfigurationError(
            f"compile={mode} compiles for images of one size, and data.multiscale draws many; set compile=null or "
            "data.multiscale=null"
        )
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise ConfigurationError(f"compile={mode} needs triton, which is not installed for this GPU; compile=null")
        # triton compiles the launchers of its kernels with a C compiler.
        if not any(map(shutil.which, filter(None, (os.environ.get("CC"), "gcc", "clang")))):
            raise ConfigurationError(f"compile={mode} needs a C compiler, and there is no gcc or clang; compile=null")
        return
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except (exc.InvalidCxxCompiler, RuntimeError) as error:
        raise ConfigurationError(
            f"compile={mode} needs a C++ compiler, and there is no {os.environ.get('CXX', 'g++')}; compile=null"
        ) from error


def compile_network(net: SSD, mode: str | None) -> None:
    """Compile extractor and head in place, at their first call; names of weights stay as they are.

    The loss stays out: ground truth is ragged, and padding it to the longest of a batch would compile again for many
    batches.

    Args:
        net: the network.
        mode: of `torch.compile`: `default`; `reduce-overhead`, which replays CUDA graphs; `max-autotune`, which also
            tries many kernels at the first step; None leaves the network as it is.
    """
    if mode is None:
        return
    log.info("compile=%s: the first step compiles the network, which takes a minute or more", mode)
    for part in (net.extractor, net.head):
        part.compile(mode=mode)
    if mode != "default":
        # Graphs write their outputs over those of the last step, which they have to be told is over.
        net.register_forward_pre_hook(_begin_step)


def _begin_step(net: torch.nn.Module, arguments: tuple) -> None:
    torch.compiler.cudagraph_mark_step_begin()
