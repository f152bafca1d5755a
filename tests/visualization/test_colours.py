import itertools

import numpy as np

from ssd_lightning.visualization.colours import class_colour, text_colour


def relative_luminance(colour: tuple[int, int, int]) -> float:
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_are_distinct_and_stable():
    colours = [class_colour(label) for label in range(1, 81)]
    assert len(set(colours)) == 80
    assert colours == [class_colour(label) for label in range(1, 81)]
    first = np.array(colours[:20], dtype=float)
    closest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(first, 2))
    assert closest > 25


def test_text_is_readable_on_every_colour():
    for label in range(1, 81):
        ground, ink = class_colour(label), text_colour(class_colour(label))
        darker, lighter = sorted([relative_luminance(ground), relative_luminance(ink)])
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # level AA
