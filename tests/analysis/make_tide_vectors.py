"""Writes `tide_vectors.json` from tidecv 1.0.1 (MIT), which is no dependency and wants an environment of its own.

Step 1, here:                 PYTHONPATH=tests python tests/analysis/make_tide_vectors.py records FOLDER
Step 2, where tidecv is:      python tests/analysis/make_tide_vectors.py vectors FOLDER tests/analysis/tide_vectors.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

CASES: list[dict[str, int]] = [
    {
        "seed": seed,
        "num_images": 25,
        "num_classes": 1 if seed == 0 else 2 + seed % 3,
        "detections_an_image": [4, 12, 40][seed % 3],
        "objects_an_image": [2, 4, 8][seed // 3 % 3],
    }
    for seed in (0, 2, 4, 6, 8)
]
NAMES = {
    "ClassError": "class", "BoxError": "localisation", "OtherError": "both", "DuplicateError": "duplicate",
    "BackgroundError": "background", "MissedError": "missed",
}  # fmt: skip


def write_records(folder: Path) -> None:
    from helpers.evaluation_records import random_record

    for case in CASES:
        random_record(**case).save(folder / f"{case['seed']}.npz")


def tide(arrays: Any) -> dict[str, Any]:
    """Run tidecv on what `EvaluationRecord.save` wrote; all on the scale of 0 to 1."""
    from tidecv import TIDE, Data

    truth, found = Data("truth", max_dets=10_000), Data("found", max_dets=10_000)
    images = range(len(arrays["sizes_px"]))
    for image in images:
        truth.add_image(image, str(image))
    for kind, data in (("objects", truth), ("detections", found)):
        columns = [np.repeat(images, arrays[f"{kind}_counts"]), arrays[f"{kind}_labels"], arrays[f"{kind}_boxes"]]
        columns += [arrays["detections_scores"]] if data is found else []
        for image, label, box, *score in zip(*columns, strict=True):
            box = box.astype(np.float64)
            row = (int(image), int(label), *map(float, score), [*box[:2], *(box[2:] - box[:2])])
            (data.add_detection if data is found else data.add_ground_truth)(*row)
    run = TIDE().evaluate(truth, found, mode=TIDE.BOX)
    return {
        "map": run.ap / 100,
        "gains": {NAMES[kind.__name__]: gain / 100 for kind, gain in run.fix_main_errors().items()},
        "counts": {NAMES[kind.__name__]: count for kind, count in run.count_errors().items()},
    }


def write_vectors(folder: Path, path: Path) -> None:
    vectors = []
    for case in CASES:
        arrays = np.load(folder / f"{case['seed']}.npz")
        drawn = {"sum_of_boxes": float(arrays["detections_boxes"].astype(np.float64).sum())}
        vectors.append({"case": case, **drawn, **tide(arrays)})
    path.write_text(json.dumps({"made by": "tidecv 1.0.1, see make_tide_vectors.py", "vectors": vectors}, indent=1))


if __name__ == "__main__":
    if sys.argv[1] == "records":
        write_records(Path(sys.argv[2]))
    else:
        write_vectors(Path(sys.argv[2]), Path(sys.argv[3]))
