"""Detectors on Hugging Face: the calls that reach a server copy files from and to a folder."""

import json
import shutil
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import CommitInfo, HfApi, ModelCard
from huggingface_hub.utils import filter_repo_objects

from helpers.exported_networks import tiny_detector
from helpers.prediction_media import serving
from ssd_lightning.errors import WeightsError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.hub import push_folder, save_folder

NAME, SERVER = "someone/cells", "https://huggingface.co"
COMMIT = f"{SERVER}/{NAME}/commit/c"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands in for the server; the calls have to fit the signatures of huggingface_hub."""
    server = tmp_path / "server"

    def create(api: HfApi, name: str, *, private: bool, exist_ok: bool) -> None:
        assert (api.endpoint, api.token, name, private, exist_ok) == (SERVER, "hf_x", NAME, True, True)
        server.mkdir()

    def upload(api: HfApi, *, repo_id: str, folder_path: Path, allow_patterns: list[str], **_: Any) -> CommitInfo:
        names = [str(path.relative_to(folder_path)) for path in folder_path.rglob("*") if path.is_file()]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            shutil.copy(folder_path / name, server)
        return CommitInfo(COMMIT, "Upload a detector", "", "c")

    def download(name: str, file: str, *, revision: str | None, endpoint: str | None) -> str:
        assert (name, revision, endpoint) == (NAME, "main", SERVER)
        return str(server / file)

    monkeypatch.setattr(HfApi, "create_repo", create_autospec(HfApi.create_repo, side_effect=create))
    monkeypatch.setattr(HfApi, "upload_folder", create_autospec(HfApi.upload_folder, side_effect=upload))
    real = huggingface_hub.hf_hub_download
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", create_autospec(real, side_effect=download))
    return server


def test_what_is_uploaded_detects_the_same_when_it_is_downloaded(repository: Path, tmp_path: Path) -> None:
    detector = tiny_detector(class_names=("WBC", 'a "b"'))
    detector.use_postprocess(score_threshold=0.05)
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    for name in ("secrets.env", "old/model.safetensors"):
        (tmp_path / "cells" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "cells" / name).write_text("mine")
    address = detector.push_to_hub(
        NAME, folder=tmp_path / "cells", private=True, token="hf_x", endpoint=SERVER,
        scores={"map_area": 0.891234}, scored_on="72 images", image=detector(image).draw(),
    )  # fmt: skip
    assert address == COMMIT
    uploaded = {path.name for path in repository.iterdir()}
    assert uploaded == {"model.safetensors", "config.json", "README.md", "detections.jpg"}

    fetched = Detector.from_pretrained(NAME, revision="main", endpoint=SERVER)
    assert json.loads((repository / "config.json").read_text()) == detector.spec() == fetched.spec()
    ours, theirs = detector(image), fetched(image)
    np.testing.assert_array_equal(ours.boxes_xyxy_px, theirs.boxes_xyxy_px)
    np.testing.assert_array_equal(ours.scores, theirs.scores)

    card = ModelCard((repository / "README.md").read_text())
    assert (card.data.license, card.data.library_name) == ("mit", "ssd-lightning")
    for told in ("# cells", "| map_area | 0.8912 |", "72 images", '"WBC"', "detections.jpg"):
        assert told in card.content


def test_a_folder_is_read_without_a_network(tmp_path: Path) -> None:
    save_folder(tiny_detector(), tmp_path / "folder", title="Cells")
    assert "Scores" not in (tmp_path / "folder" / "README.md").read_text()
    assert Detector.from_pretrained(tmp_path / "folder").class_names == tiny_detector().class_names


def test_what_cannot_be_read_or_uploaded_is_named(tmp_path: Path) -> None:
    with serving(BaseHTTPRequestHandler) as url:  # a server that answers nothing but errors
        for name in ("someone/else", "no name/at/all"):
            with pytest.raises(WeightsError, match=f"'{name}'"):
                Detector.from_pretrained(name, endpoint=url)
    with pytest.raises(WeightsError, match=f"cannot upload .* to '{NAME}'"):
        push_folder(tmp_path, NAME, files=["a"], token="hf_x", endpoint="http://127.0.0.1:9")
