import numpy as np
import pytest
import torch

from spade_faiss.errors import SpadeError
from spade_faiss.features import Backbone, load_backbone
from spade_faiss.features.surroundings import without_margin
from spade_faiss.images import Framing
from tests.conftest import texture


def strided(side, strides=(4, 8, 16), down=False):
    """Levels of an input, as a network makes them that rounds counts of patches up or down."""
    shapes = [[n // s if down else -(-n // s) for n in (side, side + 64)] for s in strides]
    return [torch.randn(2, *shape, 5) for shape in shapes]


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("side", [32, 100, 112, 140, 224, 225, 239, 280])
def test_as_many_patches_remain_as_there_are_without_a_margin(side, down):
    wide = strided(side + 32, down=down)
    levels = without_margin(wide, (side, side + 64), 16, averaged=False)
    plain = strided(side, down=down)
    assert [one.shape for one in levels] == [one.shape for one in plain]
    for level, all_of_it, cells in zip(levels, wide, (4, 2, 1), strict=True):
        stop = cells + level.shape[1]
        assert torch.equal(level, all_of_it[:, cells:stop, cells:-cells]) and level.is_contiguous()


@pytest.mark.parametrize("margin", [0, 16])
def test_averages_are_of_all_patches_around(margin):
    wide = strided(64 + 2 * margin)
    levels = without_margin(wide, (64, 128), margin, averaged=True)
    grids = [16, 8, 4, 8, 4, 4]
    assert [one.shape[1] for one in levels] == grids
    assert all(one.is_contiguous() for one in levels)
    for level, mean, cells in zip(wide, levels[3:], (4, 2, 1), strict=True):
        if not margin:  # the border's patches are repeated
            level = np.pad(level, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
            cells = 1
        else:
            level = level.numpy()
        size, step = (3, 1) if mean is levels[-1] else (4, 2)
        for y, x in ((0, 0), (1, 2), (mean.shape[1] - 1, mean.shape[2] - 1)):
            top, left = cells - 1 + step * y, cells - 1 + step * x
            part = level[:, top : top + size, left : left + size]
            np.testing.assert_allclose(mean[:, y, x], part.mean((1, 2)), rtol=1e-4, atol=1e-6)


def test_levels_of_one_size_are_averaged_where_they_are():
    wide = [torch.randn(1, 10, 10, 4) for _ in range(3)]
    levels = without_margin(wide, (112, 112), 14, averaged=True)
    assert [one.shape[1:3] for one in levels] == [(8, 8)] * 6
    expected = wide[1][:, 3:6, 4:7].mean((1, 2))
    torch.testing.assert_close(levels[4][:, 3, 4], expected)


def test_a_network_sees_no_border_within_the_margin(lite):
    """The middle of a picture has the features that it has in the whole of it."""
    photo = np.hstack(texture("brick", 2))[None, :, :416]
    larger = np.pad(photo, ((0, 0), (80, 80), (0, 0), (0, 0)), "wrap")
    whole, middle = lite(larger), larger[0, 80:-80, 80:-80]
    framing = Framing(256, (224, 224), True, 16)
    seen = framing.apply_with_margin(middle)
    assert seen.shape == (256, 256, 3) and np.array_equal(seen, middle)
    cut = without_margin(lite(seen[None]).levels, (224, 224), 16, averaged=False)
    plain = lite(framing.apply(middle)[None]).levels
    for level, with_margin, without in zip(whole.levels, cut, plain, strict=True):
        scale = 416 // level.shape[1]
        start = 96 // scale
        true = level[:, start : start + with_margin.shape[1], start : start + with_margin.shape[2]]
        edge = [(one[:, 0] - true[:, 0]).norm() for one in (with_margin, without)]
        assert edge[0] < 0.8 * edge[1]


def test_networks_tell_how_wide_a_margin_has_to_be(tiny):
    assert tiny.cell == 32 and load_backbone("efficientnet_lite0").cell == 16
    made = Backbone("x", torch.nn.Identity(), (0.5,) * 3, (0.5,) * 3, "0" * 64, torch.device("cpu"))
    assert made.cell == 16


def test_a_margin_that_is_no_whole_number_of_patches_is_refused():
    """A map would be moved by the rest."""
    for count, margin in ((21, 32), (8, 16), (25, 16)):
        wide = [torch.randn(1, count, count, 4)]
        with pytest.raises(SpadeError, match="whole number of them: take the preset 'paper'"):
            without_margin(wide, (224, 224), margin, averaged=False)
