"""Write prior levels as a choice of `priors=`."""

from collections.abc import Sequence
from dataclasses import asdict

import yaml

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

    `before` and `after` are the fractions, as text, of the objects that the previous and the fitted priors reach.
    """
    height, width = image_size
    fitted = [
        {
            "_target_": "ssd_lightning.ops.priors.PriorLevel",
            **asdict(level),
            "grid_size": list(as_height_width(level.grid_size or 0)),
            "aspect_ratios": list(level.aspect_ratios),
        }
        for level in levels
    ]
    # Not a plain list: a recipe's `priors: {levels: ...}` would not merge with it, with an obscure YAML error.
    choice = {"_target_": "builtins.tuple", "_args_": ["${priors.fitted}"]}
    body = yaml.safe_dump({"fitted": fitted, "levels": choice, "clip": clip}, sort_keys=False, default_flow_style=None)
    head = HEAD.format(objects=objects, data=data, width=width, height=height, before=before, after=after)
    return f"{head}{body}"
