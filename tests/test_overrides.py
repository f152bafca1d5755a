"""Wrong words on the command line are answered with the nearest right one."""

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ssd_lightning.command_line import CommandLine
from ssd_lightning.config import check_overrides, compose_config
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.overrides import let_epochs_replace_budget, refuse_sweep


@pytest.mark.parametrize(
    ("command", "override", "answer"),
    [
        ("train", "trainer.max_epoch=3", "did you mean 'trainer.max_epochs'"),
        ("train", "lr=0.1", "did you mean 'optimizer.lr'"),
        ("train", "backbone=vgg61", "did you mean 'vgg16'.*timm, tiny, vgg16, vgg16_bn"),
        ("train", "backbone=größe", "there is no backbone=größe.*vgg16"),
        ("train", "experiment=toy_tinny", "did you mean 'toy_tiny'"),
        ("train", "logger=[csv,wand]", "did you mean 'wandb'"),
        ("train", "logger=null", "there is no logger=null. There is .*csv"),
        ("train", "~loger", "did you mean 'logger'"),
        ("train", "backbone", "'backbone' is not key=value"),
        ("predict", "classes=[a", r"'\[' is not closed"),
        ("predict", "+batch_size=3", "Could not append to config"),
        ("predict", "source=${nothing}", "Interpolation key 'nothing' not found"),
        ("predict", "größe=3", "there is no setting 'größe'"),
    ],
)
def test_wrong_overrides_are_answered_with_the_nearest_right_one(command: str, override: str, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=answer):
        check_overrides(command, [override])


@pytest.mark.parametrize("text", ["größe", "a=b", "it's", "a#b!", "a 'b' \"c\"", "x{1}.jpg", "[x"])
def test_what_needs_quotes_is_answered_with_the_quotes_that_work(text: str) -> None:
    command, key = "predict", "source"
    values: list[tuple[str, object]] = [(text, text)]
    if not set(text) & set("[]{}'\""):
        values.append((f"[a b, {text}, [3, {text}]]", ["a b", text, [3, text]]))
    for written, meant in values:
        with pytest.raises(ConfigurationError, match="needs quotes: ") as refused:
            check_overrides(command, [f"{key}={written}"])
        (word,) = shlex.split(str(refused.value).rpartition("needs quotes: ")[2])
        check_overrides(command, [word])
        assert OmegaConf.select(compose_config(command, [word]), key) == meant


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("data=toy,voc2007", "data=toy,voc2007: a list is 'data=\\[toy,voc2007\\]'.*--multirun"),
        ("data.root=a,b.jpg", "a text with a comma 'data.root=\"a,b.jpg\"'"),
        ("optimizer.lr=range(1,3)", "add --multirun"),
    ],
)
def test_several_values_are_refused_without_multirun(override: str, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=answer):
        refuse_sweep([override])


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("predict --config-dir=OWN max_frame=3", r"did you mean 'max_frames'"),
        ("evaluate --config-dir OWN data=mine data.own_key=4 split=val", None),
        ("evaluate --config-dir OWN data=min", "did you mean 'mine'.*voc0712"),
        ("evaluate --config-dir OWN data=mine data.own_keys=4", r"did you mean 'data\.own_key'"),
        ("predict --config-dir OWN --config-name own own_name=2 max_frames=3", None),
        ("predict --config-dir OWN --config-name own own_nam=2", "did you mean 'own_name'"),
        ("evaluate --config-path OWN/data --config-name mine own_key=2", None),
        ("evaluate --config-path OWN/data --config-name mine own_ky=2", "did you mean 'own_key'"),
    ],
)
def test_the_nearest_is_found_whatever_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, answer: str | None
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("root: x\nown_key: 3\n")
    (tmp_path / "own.yaml").write_text("defaults: [predict, _self_]\nown_name: 1\n")
    monkeypatch.setattr(sys, "argv", line.replace("OWN", str(tmp_path)).split())
    with pytest.raises(ConfigurationError, match=answer) if answer else nullcontext():
        check_overrides(sys.argv[0], CommandLine.current().overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [
            "backbone=tiny", "backbone.channels=[8,16,32]", "data=toy", "data.num_train=5", "hydra.run.dir=somewhere",
            "+trainer.enable_autolog_hparams=false", "logger=[csv,wandb]", "logger.wandb.project=mine",
            "~callbacks.speed",
        ],
        ["optimizer=adamw,sgd", "optimizer.lr=0.1,0.2"],
        ["experiment=toy_tiny", "data.num_train=8"],
    ],
)  # fmt: skip
def test_right_overrides_pass(overrides: list[str]) -> None:
    check_overrides("train", overrides)


def test_epochs_on_the_command_line_replace_the_budget_of_a_recipe() -> None:
    def budget(*overrides: str) -> str | None:
        config = compose_config("train", ["data=toy", *overrides])
        let_epochs_replace_budget(config, overrides)
        return config.budget

    recipe = "experiment=finetune"
    assert {budget(recipe), budget(recipe, "trainer.max_steps=9"), budget(recipe, "trainer.max_epochs=-1")} == {"10min"}
    assert budget(recipe, "trainer.max_epochs=9") is budget(recipe, "trainer.max_epochs=9", "budget=null") is None
    with pytest.raises(ConfigurationError, match=r"trainer\.max_epochs=9 .*budget=1h"):
        budget("budget=1h", "trainer.max_epochs=9")
