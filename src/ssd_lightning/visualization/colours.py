"""Colours of classes, and of the text on them."""

import colorsys

import numpy as np

Colour = tuple[int, int, int]

# Okabe and Ito, "Color universal design" (2008), without black: distinguishable with all common colour blindness.
_PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
_GOLDEN_RATIO = 0.618034


def class_colour(label: int) -> Colour:
    """Return the colour of a class 1..C: the same in every image, distinct for any number of classes."""
    if label <= len(_PALETTE):
        return _PALETTE[label - 1]
    # Steps of the golden ratio never repeat a hue; the lightness helps to separate close hues.
    step = label - len(_PALETTE)
    red, green, blue = colorsys.hls_to_rgb(step * _GOLDEN_RATIO % 1, (0.72, 0.45, 0.6)[step % 3], 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def text_colour(ground: Colour) -> Colour:
    """Choose black or white, whichever has more contrast with the background (contrast ratio of WCAG 2)."""
    channels = np.array(ground) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return BLACK if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else WHITE
