"""Which of a backbone's feature maps are wanted, by their strides."""

from collections.abc import Sequence

from ssd_lightning.errors import ConfigurationError


def check_strides(
    strides: Sequence[int], *, possible: Sequence[int], network: str, to_the_end: bool = True
) -> tuple[int, ...]:
    """Check the strides that a user asks for.

    Args:
        strides: of the wanted maps, the finest first.
        possible: those of the network, the finest first.
        network: its name, for the message.
        to_the_end: the last map has to be among them. Layers that nothing reads would get no gradients, and
            training on several devices refuses these.

    Raises:
        ConfigurationError: the network has no such maps, or they are in another order; the message lists them.
    """
    wanted = tuple(strides) if isinstance(strides, Sequence) else ()
    in_order = tuple(stride for stride in possible if stride in wanted)
    if not wanted or wanted != in_order or (to_the_end and wanted[-1] != possible[-1]):
        *others, last = possible
        listed = f"{', '.join(map(str, others))} and {last}" if others else str(last)
        rule = f"the finest first, {last} at the end" if to_the_end else "the finest first"
        raise ConfigurationError(
            f"backbone.strides is {strides}; {network} has maps of stride {listed}: list those you want, {rule}"
        )
    return in_order
