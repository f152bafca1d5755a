"""Write prior levels as a choice of `priors=`."""

from collections.abc import Sequence

from ssd_lightning.ops.priors import Clip, PriorLevel, as_height_width

HEAD = """\
# Priors fitted to {objects} objects of {data} in an input of {width} x {height} px: {before} of them have a prior of
# IoU >= .5 with the priors before, {after} with these.
# A recipe that sets priors.levels needs model.levels='${{priors.fitted}}' too.
"""


def priors_yaml(
    levels: Sequence[PriorLevel],
    *,
    clip: Clip,
    image_size: tuple[int, int],
    data: str,
    objects: int,
    before: str,
    after: str,
) -> str:
    """Write levels as a file of `conf/priors/`. It includes their grids, so that another network rejects them.

    Args:
        levels: levels with grid sizes.
        clip: as in `make_priors`.
        image_size: size of the network's input, (height, width).
        data: name of the data set.
        objects: number of objects that they were fitted to.
        before: fraction of these that the previous priors reach, as text.
        after: the same for the fitted priors.
    """
    height, width = image_size
    lines = [HEAD.format(objects=objects, data=data, width=width, height=height, before=before, after=after)]
    lines.append("fitted:\n")
    for level in levels:
        assert level.grid_size is not None
        rows, columns = as_height_width(level.grid_size)
        lines.append(
            "  - {_target_: ssd_lightning.ops.priors.PriorLevel, "
            f"grid_size: [{rows}, {columns}], step: {_text(level.step)}, min_size: {_text(level.min_size)}, "
            f"max_size: {_text(level.max_size)}, aspect_ratios: [{', '.join(map(_text, level.aspect_ratios))}]"
            f"{', both_sizes: true' if level.both_sizes else ''}}}\n"
        )
    # Not a plain list: a recipe's `priors: {levels: ...}` would not merge with it, with an obscure YAML error.
    lines.append('levels: {_target_: builtins.tuple, _args_: ["${priors.fitted}"]}\n')
    lines.append(f"clip: {_text(clip)}\n")
    return "".join(lines)


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.10g}" if isinstance(value, float) else str(value)
