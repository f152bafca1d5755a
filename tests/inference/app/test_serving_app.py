import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from ssd_lightning.inference.app.app import MOST_WAITING, Application
from ssd_lightning.inference.app.examples import Example
from ssd_lightning.inference.app.finding import LOWEST_SCORE, find_candidates
from ssd_lightning.inference.detector import Detector
from ssd_lightning.ops.nms import batched_nms


def with_settings(detector: Detector, **settings: object) -> Detector:
    return Detector(
        detector.net,
        class_names=detector.class_names,
        postprocess=replace(detector.postprocess, **settings),
    )


def test_what_is_found_is_what_the_detector_finds(
    client: TestClient, detector: Detector, image: np.ndarray, png: bytes
) -> None:
    wanted = detector(image).select(0.5).as_record()
    assert len(wanted["detections"]) > 3
    raw = client.post("/api/detect?score_threshold=0.5", content=png)
    form = client.post("/api/detect?score_threshold=0.5", files={"file": ("a.png", png, "image/png")})
    for answer in (raw, form):
        assert answer.status_code == 200
        record = answer.json()
        assert record.pop("network_ms") > 0
        assert record == wanted


def test_without_a_threshold_it_is_that_of_the_page(
    client: TestClient, detector: Detector, image: np.ndarray, png: bytes
) -> None:
    found = client.post("/api/detect", content=png).json()["detections"]
    assert len(found) == len(detector(image).select(0.3)) < len(detector(image))


@pytest.mark.parametrize(
    ("query", "classes"),
    [
        ("classes=star", {"star"}),
        ("classes=star,disk", {"star", "disk"}),
        ("classes=star&classes=disk", {"star", "disk"}),
        ("classes=ring,%20large", {"ring, large"}),
        ("classes=ring,%20large&classes=star", {"ring, large", "star"}),
    ],
)
def test_only_some_classes(client: TestClient, png: bytes, query: str, classes: set[str]) -> None:
    found = client.post(f"/api/detect?score_threshold=0&{query}", content=png).json()["detections"]
    assert {detection["class"] for detection in found} == classes


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("score_threshold=much", "score_threshold is 'much'"),
        ("score_threshold=nan", "score_threshold is 'nan'"),
        ("score_threshold=1.5", "from 0 to 1"),
        ("score_threshold=", "score_threshold is ''"),
        ("classes=sta", "the nearest is 'star'"),
        ("classes=", "does not know ''"),
        ("threshold=0.5", "there is no parameter 'threshold'"),
    ],
)
def test_a_parameter_that_cannot_be(client: TestClient, png: bytes, query: str, message: str) -> None:
    answer = client.post(f"/api/detect?{query}", content=png)
    assert answer.status_code == 422
    assert message in answer.json()["error"]


@pytest.mark.parametrize("settings", [{}, {"class_agnostic": True}, {"clip_first": True}, {"score_threshold": 0.2}])
@pytest.mark.parametrize("iou_threshold", [0.1, 0.45, 0.8])
def test_candidates_after_nms_are_the_detections(
    detector: Detector, image: np.ndarray, settings: dict[str, object], iou_threshold: float
) -> None:
    """The slow way that the page goes gives what `postprocess` gives at any setting of the sliders."""
    changed = with_settings(detector, **settings)
    candidates = find_candidates(changed, image)
    lowest_score = max(LOWEST_SCORE, changed.postprocess.score_threshold)
    assert (candidates.scores >= lowest_score).all()
    assert (candidates.scores.diff() <= 0).all()
    group = torch.zeros_like(candidates.labels) if settings.get("class_agnostic") else candidates.labels
    order = group.argsort(stable=True)
    boxes, scores = candidates.boxes_xyxy_px[order], candidates.scores[order]
    kept = order[batched_nms(boxes, scores, group[order], iou_threshold)].sort().values[:150]
    wanted = with_settings(changed, iou_threshold=iou_threshold)(image).select(lowest_score)
    assert 0 < len(wanted) < len(candidates.scores)
    np.testing.assert_array_equal(candidates.labels[kept].numpy(), wanted.labels)
    np.testing.assert_allclose(candidates.scores[kept].numpy(), wanted.scores, atol=1e-6)
    height, width = image.shape[:2]
    clipped = candidates.boxes_xyxy_px[kept].clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    np.testing.assert_allclose(clipped.numpy(), wanted.boxes_xyxy_px, atol=1e-3)


def test_candidates_are_plain_numbers(client: TestClient, detector: Detector, image: np.ndarray, png: bytes) -> None:
    answer = client.post("/api/candidates", content=png).json()
    candidates = find_candidates(detector, image)
    assert (answer["width"], answer["height"]) == (160, 120)
    np.testing.assert_allclose(answer["boxes_xyxy_px"], candidates.boxes_xyxy_px.numpy(), atol=1e-3)
    np.testing.assert_allclose(answer["scores"], candidates.scores.numpy(), rtol=1e-7)
    assert answer["labels"] == candidates.labels.tolist()


def test_a_network_gone_wrong_has_no_candidates(
    detector: Detector, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON has no NaN."""
    output = detector.net(torch.zeros(1, 3, 48, 64, dtype=torch.uint8))
    broken = output._replace(box_offsets=torch.full_like(output.box_offsets, torch.nan))
    monkeypatch.setattr(detector.net, "forward", lambda images: broken)
    assert find_candidates(detector, image).as_record() == {"boxes_xyxy_px": [], "scores": [], "labels": []}


def test_soft_nms_has_a_fixed_overlap(detector: Detector, image: np.ndarray, png: bytes) -> None:
    soft = with_settings(detector, soft_nms="gaussian")
    with TestClient(Application(soft, name="soft").build(), base_url="http://localhost") as client:
        assert "Soft-NMS" in client.get("/api/model").json()["overlap_note"]
        answer = client.post("/api/candidates", content=png).json()
    wanted = soft(image).select(LOWEST_SCORE)
    assert answer["labels"] == wanted.labels.tolist()
    np.testing.assert_allclose(answer["scores"], wanted.scores, atol=1e-6)


def test_the_model_describes_itself(client: TestClient) -> None:
    model = client.get("/api/model").json()
    assert model["name"] == "a model"
    assert [entry["name"] for entry in model["classes"]] == ["disk", "ring, large", "star"]
    assert len({entry["colour"] for entry in model["classes"]}) == 3
    assert model["image_size"] == {"height": 48, "width": 64}
    assert model["postprocess"]["iou_threshold"] == 0.45  # a default
    assert model["postprocess"]["max_detections"] == 150
    assert model["overlap_note"] is None


def test_examples_come_by_their_number_alone(client: TestClient, examples: list[Example]) -> None:
    assert client.get("/api/model").json()["examples"] == [example.name for example in examples]
    answer = client.get("/examples/1")
    assert answer.content == examples[1].data
    assert answer.headers["content-type"] == "image/png"
    assert client.get("/examples/1/thumbnail").headers["content-type"] == "image/jpeg"
    for path in (
        "/examples/3",
        "/examples/-1",
        "/examples/..%2f..%2fREADME.md",
        "/page/../app.py",
        "/page/%2e%2e/app.py",
    ):
        assert client.get(path).status_code == 404, path


def test_nothing_but_the_page_is_served(client: TestClient) -> None:
    assert "<!doctype html>" in client.get("/").text
    assert client.get("/page/app.js").status_code == 200
    for path in ("/page/", "/page", "/page/none.js", "/docs", "/favicon.ico"):
        answer = client.get(path)
        assert answer.status_code in (404, 307), path
    assert client.get("/nowhere").json() == {"error": "there is nothing at this address"}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/detect"), ("PUT", "/api/detect"), ("POST", "/"), ("DELETE", "/health")]
)
def test_another_method(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert "method" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/api/model", "/nowhere", "/examples/0"])
def test_browsers_get_safe_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8000", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:8000", 421),
        ("evil.example@127.0.0.1", 421),
        ("", 421),
    ],
)
def test_only_names_of_this_machine(client: TestClient, host: str, status: int) -> None:
    """A name of the internet that points to 127.0.0.1 would let its pages read what this server says."""
    answer = client.get("/health", headers={"host": host})
    assert answer.status_code == status
    assert ("error" in answer.json()) == (status == 421)


def test_where_others_are_meant_to_ask_any_name_does(detector: Detector) -> None:
    with TestClient(Application(detector, name="open", hosts=()).build(), base_url="http://box.example") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/health", headers={"origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://127.0.0.1:8000", 200), ("http://evil.example", 403), ("http://127.0.0.1:9000", 403), ("null", 403)],
)
def test_pages_of_other_servers_are_refused(client: TestClient, png: bytes, origin: str, status: int) -> None:
    assert client.post("/api/detect", content=png, headers={"origin": origin}).status_code == status


def test_a_failure_is_reported_without_its_details(
    application: Application, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: torch.Tensor) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(application.detector.net, "forward", fail)
    with TestClient(application.build(), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        answer = client.post("/api/detect", content=png)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert client.get("/health").json() == {"status": "ok", "waiting": 0}


def test_while_the_network_is_busy_others_are_answered(
    application: Application, png: bytes, serve: Callable[[Application], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the queue's length an image is refused; those in it are all answered, one at a time."""
    released, inside, most = threading.Event(), [], []
    forward = application.detector.net.forward

    def slow(images: torch.Tensor) -> object:
        inside.append(1)
        most.append(len(inside))
        assert released.wait(20)
        inside.pop()
        return forward(images)

    monkeypatch.setattr(application.detector.net, "forward", slow)
    url = serve(application)
    with ThreadPoolExecutor(MOST_WAITING) as pool, httpx.Client(base_url=url, timeout=20) as client:
        answers = [pool.submit(httpx.post, f"{url}/api/detect", content=png, timeout=20) for _ in range(MOST_WAITING)]
        while client.get("/health").json()["waiting"] < MOST_WAITING:
            pass
        refused = client.post("/api/detect", content=png)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "try again" in refused.json()["error"]
        released.set()
        assert [answer.result().status_code for answer in answers] == [200] * MOST_WAITING
        assert client.post("/api/detect", content=png).status_code == 200
    assert max(most) == 1
