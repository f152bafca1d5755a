from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch

from helpers.choices import without_initialization
from ssd_lightning.errors import WeightsError
from ssd_lightning.models.backbones import TimmBackbone, timm_models


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timm") / "resnet18.pth"
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), path)
    return path


def test_a_file_of_timms_fills_the_backbone(resnet18: Path) -> None:
    given = torch.load(resnet18, weights_only=True)
    ours = TimmBackbone(name="resnet18", weights=str(resnet18)).network.state_dict()
    assert ours
    assert all(torch.equal(tensor, given[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("name", ["resnet34", "mobilenetv2_100"])
def test_a_file_of_another_network_is_refused(name: str, resnet18: Path) -> None:
    """timm itself skips what it does not find."""
    with (
        without_initialization(),
        pytest.raises(WeightsError, match=rf"backbone\.weights=.*resnet18\.pth: not timm's {name}: "),
    ):
        TimmBackbone(name=name, weights=str(resnet18))


def test_weights_that_timm_does_not_have_are_not_asked_for() -> None:
    with (
        torch.device("meta"),
        pytest.raises(WeightsError, match=r"timm has no ImageNet weights of darknet17; .*backbone\.weights=null"),
    ):
        TimmBackbone(name="darknet17", weights="DEFAULT")


def test_without_a_network_one_sentence_says_which_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that does not answer is not waited for: only its cache is asked."""
    made, hub = timm.create_model, huggingface_hub.constants
    asked = []

    def offline(name: str, pretrained: bool, **settings: object) -> torch.nn.Module:
        if pretrained:
            asked.append(hub.HF_HUB_OFFLINE)
            raise OSError("no network\nsecond line")
        return made(name, pretrained=False, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(timm_models, "is_reachable", lambda host: False)
    was_offline = hub.HF_HUB_OFFLINE
    with torch.device("meta"), pytest.raises(WeightsError) as caught:
        TimmBackbone(name="resnet18", weights="DEFAULT")
    assert (asked, hub.HF_HUB_OFFLINE) == ([True], was_offline)
    assert "cannot get timm's ImageNet weights of resnet18 (no network): fetch" in str(caught.value)
    assert "https://huggingface.co/timm/resnet18" in str(caught.value)
    assert "backbone.weights=null" in str(caught.value)
    assert "\n" not in str(caught.value)
