"""YOLO11n by ultralytics' documented Python API; run by `real_sets.py` with another environment's Python.

Nothing of this project is imported here, and nothing here is imported by it: ultralytics is under AGPL.
"""

import json
import os
import sys
import time
from pathlib import Path

settings = json.loads(sys.argv[1])
os.environ["YOLO_OFFLINE"] = "true"

import torch
import ultralytics

torch.set_num_threads(settings["threads"])
seen = {"batches": 0}


def count(trainer: object) -> None:
    """Count a batch."""
    seen["batches"] += 1


started = time.time()
model = ultralytics.YOLO("yolo11n.yaml")
model.add_callback("on_train_batch_end", count)
model.train(
    data=settings["data"],
    time=settings["hours"],
    imgsz=320,
    batch=settings["batch"],
    seed=settings["seed"],
    device=0 if torch.cuda.is_available() else "cpu",
    workers=settings["threads"],
    pretrained=False,
    cache="ram",
    val=False,
    plots=False,
    project=settings["project"],
    name="train",
    exist_ok=True,
)
seconds = time.time() - started
trained = ultralytics.YOLO(Path(settings["project"]) / "train" / "weights" / "last.pt")
for stage, images in settings["images"].items():
    found = {}
    for image_id, path in images.items():
        result = trained.predict(
            path,
            imgsz=320,
            conf=settings["score_threshold"],
            max_det=settings["max_detections"],
            verbose=False,
        )[0]
        found[image_id] = {
            "boxes": result.boxes.xyxyn.tolist(),
            "scores": result.boxes.conf.tolist(),
            "labels": [int(number) + 1 for number in result.boxes.cls.tolist()],
        }
    Path(settings["found"][stage]).write_text(json.dumps(found))
facts = {
    "seconds_train": seconds,
    "images_seen": seen["batches"] * settings["batch"],
    "ultralytics": ultralytics.__version__,
}
Path(settings["facts"]).write_text(json.dumps(facts))
