"""Prior levels to YAML and back."""

from dataclasses import replace
from functools import partial

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ssd_lightning.analysis.dataset_check.priors import priors_yaml
from ssd_lightning.models.config import to_config
from ssd_lightning.ops.priors import SSD300_VOC, SSDLITE320, Clip, PriorLevel

write_priors = partial(priors_yaml, objects=7, before="1.0%", after="2.0%")


@pytest.mark.parametrize(
    ("levels", "clip"),
    [
        (tuple(replace(level, max_size=None) for level in SSDLITE320), "size"),
        (
            (
                PriorLevel((24, 32), None, 15.67, 34.85, (1.55, 3.0)),
                PriorLevel(5, None, 20.0, 40.0, (2.0,), True),
                PriorLevel((1, 1), 106.67, 134.4, 175.54, ()),
            ),
            False,
        ),
    ],
)
def test_what_is_written_is_read_again(levels: tuple[PriorLevel, ...], clip: Clip) -> None:
    text = write_priors(levels, clip=clip, image_size=(192, 256), data="a: b", iou_threshold=0.4)
    config = OmegaConf.create({"priors": OmegaConf.create(text)})
    read = instantiate(config.priors.levels, _convert_="all")
    assert to_config(read) == to_config(levels)
    assert config.priors.clip == clip
    assert "7 objects of a: b in an input of 256 x 192 px: 1.0% of them" in text
    assert "IoU >= 0.4" in text
    assert max(map(len, text.splitlines()[:3])) <= 120


def test_a_recipe_with_scales_of_its_own_is_an_error_and_no_mixture() -> None:
    text = write_priors(SSD300_VOC, clip=False, image_size=(300, 300), data="d", iou_threshold=0.5)
    merged = OmegaConf.merge({"priors": OmegaConf.create(text)}, {"priors": {"levels": {"scales": [[0.1, 0.2]]}}})
    with pytest.raises(Exception, match="takes no keyword arguments"):
        instantiate(merged.priors.levels, _convert_="all")
    assert len(instantiate(merged.priors.fitted, _convert_="all")) == 6
