"""The names that the package itself exports."""

import pytest

import ssd_lightning


def test_every_public_name_can_be_imported() -> None:
    for name in ssd_lightning.__all__:
        assert getattr(ssd_lightning, name) is not None
    from ssd_lightning import Detector
    from ssd_lightning.inference.detector import Detector as defined

    assert Detector is defined
    with pytest.raises(AttributeError, match="'ssd_lightning' has no attribute 'SSD300'"):
        ssd_lightning.SSD300  # noqa: B018
