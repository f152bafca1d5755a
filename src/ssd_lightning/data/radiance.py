"""Radiance images (.hdr): OpenCV reads them, Pillow does not. As a format of Pillow they are read like all others."""

import re

import cv2
import numpy as np
from PIL import Image, ImageFile

# So strict that OpenCV finds the same size, since this one is checked before pixels are allocated.
_HEADER = re.compile(rb"#\?(?:RADIANCE|RGBE)\n(?:[^\n\0]{1,100}\n)*\n-Y (\d{1,5}) \+X (\d{1,5})\n")


class RadianceFile(ImageFile.ImageFile):
    """8 bits of a Radiance image: 1.0 is white, and so is all that is brighter, as in `cv2.imread`."""

    format = "HDR"

    def _open(self) -> None:
        header = _HEADER.match(self.fp.read(4096)) if self.fp else None
        if header is None:
            raise SyntaxError("not a Radiance image")
        height, width = map(int, header.groups())
        self._mode, self._size = "RGB", (width, height)

    def load(self) -> "Image.core.PixelAccess | None":
        """Decode the file on the first call."""
        if self.fp:
            self.fp.seek(0)
            pixels = cv2.imdecode(np.frombuffer(self.fp.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
            if pixels is None:
                raise OSError("the file is truncated or damaged")
            self.fp.close()
            self.fp = None
            self.im = Image.fromarray(pixels).im
        return Image.Image.load(self)
