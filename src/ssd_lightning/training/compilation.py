"""`compile=MODE`: compiles the network with `torch.compile`."""

import logging
import os
import shutil

import torch

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models.ssd import SSD

log = logging.getLogger(__name__)

MODES = ("default", "reduce-overhead", "max-autotune")


def check_compile(mode: str | None, device: torch.device, *, many_sizes: bool = False) -> None:
    """Check that `compile_network` will work, before anything is loaded. `many_sizes`: training images differ in size.

    Raises:
        ConfigurationError: the mode is unknown, this machine has no compiler, or there are many sizes.
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
        # triton compiles its kernel launchers with a C compiler.
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
    """Compile extractor and head in place, at their first call. The names of the weights do not change.

    The loss is not compiled: the number of objects varies, and padding it per batch would recompile for many batches.
    The modes are those of `torch.compile`: `default`; `reduce-overhead`, which replays CUDA graphs; `max-autotune`,
    which also tries many kernels at the first step. None does not compile.
    """
    if mode is None:
        return
    log.info("compile=%s: the first step compiles the network, which takes a minute or more", mode)
    for part in (net.extractor, net.head):
        part.compile(mode=mode)
    if mode != "default":
        # CUDA graphs overwrite the outputs of the last step. They need to know when a new step begins.
        net.register_forward_pre_hook(lambda *_: torch.compiler.cudagraph_mark_step_begin())
