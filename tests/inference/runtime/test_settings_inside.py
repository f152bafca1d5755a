from pathlib import Path

import pytest

from helpers.exported_networks import exported, tiny_detector
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.detector import Detector


def test_settings_of_nms_that_is_inside_are_refused(tmp_path: Path) -> None:
    inside = Detector.load(exported(tiny_detector(), tmp_path, ".torchscript"))
    with pytest.raises(ConfigurationError, match=r"iou_threshold cannot be .*\.torchscript has its NMS"):
        inside.use_postprocess(iou_threshold=0.3)
    inside.use_postprocess()


def test_those_of_one_that_is_outside_are_taken(tmp_path: Path) -> None:
    outside = Detector.load(exported(tiny_detector(), tmp_path, ".torchscript", nms=False))
    outside.use_postprocess(iou_threshold=0.3)
    assert outside.postprocess.iou_threshold == 0.3
