"""Detectors on Hugging Face, against a server on this machine that keeps what is uploaded."""

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from huggingface_hub import ModelCard

from helpers.exported_networks import tiny_detector
from helpers.prediction_media import serving
from ssd_lightning.errors import WeightsError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.hub import push_folder, save_folder

NAME, COMMIT = "someone/cells", "c" * 40


class Hub(BaseHTTPRequestHandler):
    """The few answers of huggingface.co that an upload and a download ask for."""

    files: ClassVar[dict[str, bytes]]
    created: ClassVar[list[dict[str, Any]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        model = f"http://{self.headers['Host']}/{NAME}"
        match self.path.removeprefix("/api/"):
            case "repos/create":
                self.created.append(json.loads(body))
                self.answer({"url": model})
            case "models/someone/cells/preupload/main":
                usual = {"uploadMode": "regular", "shouldIgnore": False}
                self.answer({"files": [{"path": one["path"], **usual} for one in json.loads(body)["files"]]})
            case "models/someone/cells/commit/main":
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                self.answer({"commitUrl": f"{model}/commit/{COMMIT}", "commitOid": COMMIT, "pullRequestUrl": None})
            case "validate-yaml":
                self.answer({"errors": [], "warnings": []})
            case _:
                self.send_error(404)

    def do_GET(self) -> None:
        folder, _, name = self.path.rpartition("/")
        if folder.startswith(f"/{NAME}/resolve") and name in self.files:
            self.send(self.files[name], {"ETag": '"e"', "X-Repo-Commit": COMMIT})
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def answer(self, content: Any) -> None:
        self.send(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Hub, "files", {}, raising=False)
    monkeypatch.setattr(Hub, "created", [], raising=False)
    with serving(Hub) as url:
        yield url


def test_what_is_uploaded_detects_the_same_when_it_is_downloaded(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    detector = tiny_detector(class_names=("WBC", 'a "b"'))
    detector.use_postprocess(score_threshold=0.05)
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    (tmp_path / "cells").mkdir()
    for name in ("secrets.env", "old/model.safetensors"):
        (tmp_path / "cells" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "cells" / name).write_text("mine")
    address = detector.push_to_hub(
        NAME, folder=tmp_path / "cells", token="hf_x", endpoint=endpoint,
        scores={"map_area": 0.891234}, scored_on="72 images", image=detector(image).draw(),
    )  # fmt: skip
    assert address == f"{endpoint}/{NAME}/commit/{COMMIT}"
    assert [one["name"] for one in Hub.created] == ["cells"]
    assert set(Hub.files) - {".gitattributes"} == {"model.safetensors", "config.json", "README.md", "detections.jpg"}

    fetched = Detector.from_pretrained(NAME, endpoint=endpoint)
    assert fetched.class_names == detector.class_names
    assert fetched.postprocess == detector.postprocess
    ours, theirs = detector(image), fetched(image)
    np.testing.assert_array_equal(ours.boxes_xyxy_px, theirs.boxes_xyxy_px)
    np.testing.assert_array_equal(ours.scores, theirs.scores)

    card = ModelCard(Hub.files["README.md"].decode())
    assert (card.data.license, card.data.library_name) == ("mit", "ssd-lightning")
    for told in ("# cells", "| map_area | 0.8912 |", "72 images", '"WBC"', "detections.jpg"):
        assert told in card.content


def test_a_folder_is_read_without_a_network(tmp_path: Path) -> None:
    save_folder(tiny_detector(), tmp_path / "folder", title="Cells")
    assert "Scores" not in (tmp_path / "folder" / "README.md").read_text()
    assert Detector.from_pretrained(tmp_path / "folder").class_names == tiny_detector().class_names


def test_what_cannot_be_read_or_uploaded_is_named(endpoint: str, tmp_path: Path) -> None:
    for name in ("someone/else", "no name/at/all"):
        with pytest.raises(WeightsError, match=f"'{name}'"):
            Detector.from_pretrained(name, endpoint=endpoint)
    with pytest.raises(WeightsError, match=f"cannot upload .* to '{NAME}'"):
        push_folder(tmp_path, NAME, files=["a"], token="hf_x", endpoint="http://127.0.0.1:9")
