"""What a program needs to know to use an exported file: its input, its colours, its classes."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ssd_lightning.data.resize import Letterbox
from ssd_lightning.errors import one_line
from ssd_lightning.inference.detector import Detector


def print_input(checkpoint: Detector, *, is_prepared: bool) -> None:
    """Describe how to resize images, unless they are stretched, and how to normalise them, unless the file does it."""
    if is_letterboxed := isinstance(checkpoint.resize, Letterbox):
        print(
            "Images are letterboxed, which `predict` and `evaluate` do automatically: scaled to fit, in the top left "
            f"corner, the rest filled with RGB {list(checkpoint.resize.fill)}; boxes are relative to the whole input."
        )
    if is_prepared:
        size = "so prepared" if is_letterboxed else "of any size"
        print(f"It takes uint8 images [B, H, W, 3], RGB, {size}; its metadata explain inputs and outputs.")
        return
    preset = checkpoint.network.normalization
    print(
        f"They want {'BGR' if preset.bgr else 'RGB'} images of 0..255 minus {numbers(preset.mean)} over "
        f"{numbers(preset.std)}, and classes numbered from 1."
    )


def labels_file(output: Path) -> Path:
    """Return the file of class names beside an export for detectNet."""
    return output.with_suffix(".labels.txt")


def print_detectnet(checkpoint: Detector, output: Path) -> None:
    """Write the list of classes that detectNet reads, and print its command."""
    labels = labels_file(output)
    names = ("BACKGROUND", *map(one_line, checkpoint.class_names))  # a line feed would move all later classes
    labels.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    print(
        f"{labels}: its classes. It takes one RGB image of {checkpoint.image_size[1]} x {checkpoint.image_size[0]} px, "
        "colours from -1 to 1, and leaves NMS to the program:\n"
        f"  detectnet --model={output} --labels={labels} --input-blob=input_0 --output-cvg=scores --output-bbox=boxes"
    )


def print_companions(checkpoint: Detector, others: Sequence[Path]) -> None:
    """Print the files that belong to an exported network, the description last, and its input."""
    height, width = checkpoint.image_size
    print(
        f"{', '.join(map(str, others))}: keep them beside it. It takes one RGB image of {width} x {height} px, "
        f"colours from 0 to 255, as {others[-1].name} describes, and leaves NMS to the program."
    )


def numbers(values: Iterable[float]) -> str:
    """Join numbers as text."""
    return ", ".join(f"{value:.6g}" for value in values)
