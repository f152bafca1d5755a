"""Recipes and ablations compose, build their network and change what they say."""

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from helpers.choices import build_net, meta_net, options
from ssd_lightning.config import compose_config, find_folder
from ssd_lightning.errors import ConfigurationError

RECIPES = {path.stem: path for path in sorted(find_folder("experiments").glob("*.yaml"))}
CELLS_OF_SSD300 = 38**2 + 19**2 + 10**2 + 5**2 + 3**2 + 1


@pytest.mark.parametrize("experiment", RECIPES)
def test_recipes_set_what_exists_and_build_their_network(
    experiment: str, monkeypatch: pytest.MonkeyPatch, compositions: dict[tuple, bytes]
) -> None:
    merge, unknown = DictConfig.merge_with, None

    def merge_and_compare(config: DictConfig, more: DictConfig) -> None:
        """Hydra merges a key that nothing reads silently."""
        nonlocal unknown
        if more.get("name") == experiment:
            unknown = [key for key in leaves(more) if not exists(config, key)]
        merge(config, more)

    monkeypatch.setattr(DictConfig, "merge_with", merge_and_compare)
    for key in [key for key in compositions if experiment in str(key)]:  # what is kept is not merged again
        del compositions[key]
    config = compose_config("train", [f"experiment={experiment}"])
    assert unknown == []
    config.data.root = "nowhere"
    assert config.name == experiment
    published = experiment.endswith(("_voc0712", "_coco", "_nvidia", "_paper", "_amdegroot", "_rfb", "_torchvision"))
    if "min_negatives" in config.loss.class_loss:  # it mines; images without objects teach in all but published recipes
        assert (config.loss.class_loss.min_negatives == 0) == published
    assert len(meta_net(config).priors_cxcywh) > 0
    assert instantiate(config.data.module, _convert_="all").stages.has("train")


def leaves(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in config:
        node = None if OmegaConf.is_interpolation(config, key) else config[key]
        keys += leaves(node, f"{prefix}{key}.") if isinstance(node, DictConfig) else [f"{prefix}{key}"]
    return keys


def exists(config: DictConfig, dotted: str) -> bool:
    *parents, last = dotted.split(".")
    for parent in parents:
        if parent not in config or not isinstance(config._get_node(parent), DictConfig):
            return parent in config  # a null or an interpolation that the recipe fills
        config = config[parent]
    return last in config


@pytest.mark.parametrize("ablation", options("ablation"))
def test_ablations_change_the_papers_recipe_and_still_fit(ablation: str) -> None:
    paper = compose_config("train", ["experiment=ssd300_vgg16_voc0712_paper"])
    less = compose_config("train", ["experiment=ssd300_vgg16_voc0712_paper", f"ablation={ablation}"])
    assert (paper == less) == (ablation == "none")
    expected = {
        "no_ratio_3": 4 * CELLS_OF_SSD300,
        "squares": 2 * CELLS_OF_SSD300,
        "one_level_less": 8728,
        "two_levels_less": 8692,
    }
    assert len(meta_net(less).priors_cxcywh) == expected.get(ablation, 8732)


@pytest.mark.parametrize(
    ("overrides", "ablation"),
    [
        ("model=ssd512", "two_levels_less"),
        ("model=tiny_ssd", "one_level_less"),
        ("model=ssdlite320", "squares"),
    ],
)
def test_ablations_of_the_priors_fit_other_networks(overrides: str, ablation: str) -> None:
    whole = meta_net(compose_config("train", [overrides]))
    less = build_net(compose_config("train", [overrides, f"ablation={ablation}"]))
    assert len(less.priors_cxcywh) <= len(whole.priors_cxcywh)
    assert less.state_dict().keys() <= whole.state_dict().keys()


def test_levels_of_a_pyramid_are_dropped_by_its_own_settings() -> None:
    config = compose_config("train", ["model=fpnlite320"])
    config.neck.extra_levels, config.priors.levels.strides = 1, [8, 16, 32, 64]
    assert len(build_net(config).levels) == 4
    squares = compose_config("train", ["model=fpnlite320", "ablation=squares"])
    assert len(build_net(squares).priors_cxcywh) == 4268
    with pytest.raises(ConfigurationError, match="1 extra levels cannot be dropped; there are 0"):
        build_net(compose_config("train", ["model=fpnlite320", "ablation=one_level_less"]))


def test_every_recipe_has_a_row_in_the_table_of_results_and_is_short() -> None:
    table = (find_folder("experiments") / "README.md").read_text()
    assert [name for name in RECIPES if f"| `{name}` |" not in table] == []
    for path in RECIPES.values():
        lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
        assert len(lines) <= 15, path
