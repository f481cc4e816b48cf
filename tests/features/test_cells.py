import pytest
import torch

from spade_faiss.features.cells import whole_cells


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((224, 224), (224, 224)),
        ((250, 330), (252, 336)),
        ((32, 256), (28, 252)),
        ((6, 14), (14, 14)),
    ],
)
def test_sides_become_the_nearest_multiples(size, expected):
    images = torch.rand(2, 3, *size)
    scaled = whole_cells(images, 14)
    assert scaled.shape == (2, 3, *expected)
    assert (scaled is images) == (size == expected)


@pytest.mark.parametrize("size", [(50, 330), (240, 325)])
def test_what_is_seen_stays_where_it_is(size):
    """A ramp from edge to edge stays a ramp: nothing is cut off or moved."""
    y, x = (((torch.arange(side) + 0.5) / side) for side in size)
    ramps = torch.stack([y[:, None].expand(size), x.expand(size)])[None]
    scaled = whole_cells(ramps, 14)
    h, w = scaled.shape[2:]
    expected = ((torch.arange(h) + 0.5) / h)[:, None], (torch.arange(w) + 0.5) / w
    for one, ramp in zip(scaled[0], expected, strict=True):
        difference = (one - ramp).abs()[2:-2, 2:-2]  # at the very edge the ramp has no further side
        assert difference.max() < 1e-4
