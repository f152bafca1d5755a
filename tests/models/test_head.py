import torch

from ssd_lightning.models.head import SSDHead

GRIDS, BOXES, CLASSES = [(3, 4), (2, 2), (1, 1)], [4, 6, 2], 5


def head() -> SSDHead:
    return SSDHead(in_channels=[2, 3, 4], boxes_per_cell=BOXES, num_classes=CLASSES)


def features(batch: int = 1) -> list[torch.Tensor]:
    return [torch.randn(batch, channels, *grid) for channels, grid in zip([2, 3, 4], GRIDS, strict=True)]


def test_channel_is_box_times_width_plus_entry() -> None:
    """Every channel's bias is a number of its own, and says in the output where the channel went."""
    net = head()
    for convolutions, width in ((net.box, 4), (net.cls, CLASSES + 1)):
        for conv, boxes in zip(convolutions, BOXES, strict=True):
            conv.weight.data.zero_()
            conv.bias.data = torch.arange(float(boxes * width))
    offsets, logits = net(features(batch=2))
    start = 0
    for (rows, columns), boxes in zip(GRIDS, BOXES, strict=True):
        cells = slice(start, start + rows * columns * boxes)
        for predicted, width in ((offsets, 4), (logits, CLASSES + 1)):
            per_cell = predicted[:, cells].reshape(2, rows * columns, boxes, width)
            for box in range(boxes):
                for entry in range(width):
                    assert (per_cell[:, :, box, entry] == box * width + entry).all()
        start = cells.stop
    assert offsets.shape == (2, start, 4)
    assert logits.shape == (2, start, CLASSES + 1)


def test_new_convolutions_start_as_caffes() -> None:
    net = head()
    assert all(conv.bias.abs().max() == 0 for conv in [*net.box, *net.cls])
    bound = (6 / (9 * (2 + 16))) ** 0.5  # Xavier of the first box convolution
    assert 0.8 * bound < net.box[0].weight.abs().max() <= bound


def test_an_empty_batch() -> None:
    offsets, logits = head()(features(batch=0))
    assert offsets.shape[0] == logits.shape[0] == 0
    assert offsets.shape[2:] == (4,)
