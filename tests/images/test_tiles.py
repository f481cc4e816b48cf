"""Tiles and their framing: what is cut, from where, and where a map of it goes."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spade_faiss import SpadeError
from spade_faiss.images import Framing
from spade_faiss.images.choose import tiled_framing
from spade_faiss.images.coverage import looked_at_on, looked_at_share
from spade_faiss.images.tiles import Tiles
from tests.conftest import examples


@st.composite
def chosen(draw):
    """Tiles of some picture, and what they were asked for: (tiles, overlap or None)."""
    unit = draw(st.sampled_from([8, 14, 32]))
    side = unit * draw(st.integers(2, 6))
    overlap = draw(st.none() | st.integers(0, side - unit))
    picture = draw(st.tuples(st.integers(side, 900), st.integers(side, 900)))
    return Tiles.choose(side, overlap, unit, picture), overlap


@given(chosen())
@examples(200)
def test_tiles_cover_all_and_overlap_as_asked_and_no_fewer_would(given):
    tiles, asked = given
    units = max(1, round(tiles.side / 8 / tiles.unit))
    overlap = units * tiles.unit if asked is None else asked
    assert tiles.overlap == overlap
    canvas, corners = tiles.canvas, tiles.corners()
    for whole, side in zip(canvas, tiles.picture, strict=True):
        assert whole % tiles.unit == 0 and 0 <= whole - side < tiles.unit
    rows, columns = (sorted({corner[axis] for corner in corners}) for axis in (0, 1))
    assert corners == tuple((top, left) for top in rows for left in columns)
    for starts, length in ((rows, canvas[0]), (columns, canvas[1])):
        assert starts[0] == 0 and starts[-1] + tiles.side == length
        assert all(start % tiles.unit == 0 for start in starts)
        steps = np.diff(starts)
        assert all(tiles.side - steps >= overlap) and all(steps > 0)
        assert len(steps) == 0 or steps.max() - steps.min() <= tiles.unit  # evenly spread
        # One tile fewer, each as far on as may be, would not reach the end.
        step = (tiles.side - overlap) // tiles.unit * tiles.unit
        assert len(steps) == 0 or (len(steps) - 1) * step + tiles.side < length


@pytest.mark.parametrize(
    "asked, why",
    [
        ((64, None, 32, (63, 300)), "`tile=64` is larger than the picture, 300x63 pixels"),
        ((80, None, 32, (300, 300)), "patches of 32 pixels: take 64, or 96$"),
        ((32, None, 32, (300, 300)), "take 64$"),
        ((0, None, 32, (300, 300)), "take 64$"),
        ((64, 33, 32, (300, 300)), "`overlap=33` must lie between 0 and 32 pixels for tiles of 64"),
        ((64, -1, 32, (300, 300)), "`overlap=-1`"),
    ],
)
def test_tiles_that_cannot_be_are_explained(asked, why):
    with pytest.raises(SpadeError, match=why):
        Tiles.choose(*asked)


@st.composite
def framed(draw):
    """A framing by tiles, and the height and width of an image that it is for."""
    tiles, _ = draw(chosen())
    sizes = [tiles.picture]
    framing = tiled_framing(tiles.side, tiles.overlap, tiles.unit, None, sizes)
    margin = draw(st.sampled_from([0, tiles.unit]))
    framing = Framing(
        framing.resize, framing.size, framing.crop, margin=margin, tiles=framing.tiles
    )
    more = draw(st.tuples(st.integers(0, 60), st.integers(0, 60)))
    return framing, (tiles.picture[0] + more[0], tiles.picture[1] + more[1])


@given(framed(), st.integers(0, 2**31))
@examples(40)
def test_parts_are_equal_pieces_of_the_input_that_join_to_it(made, seed):
    framing, size = made
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    wide, m = framing.apply_with_margin(image), framing.margin
    height, width = framing.size
    assert wide.shape == (height + 2 * m, width + 2 * m, 3)
    assert np.array_equal(wide[m : m + height, m : m + width], framing.apply(image))
    seen = np.zeros((height, width), bool)
    side = framing.tiles.side
    for part, (top, left) in enumerate(framing.corners):
        cut = framing.cut(wide, part, size)
        assert cut.shape == (side + 2 * m, side + 2 * m, 3)
        assert np.array_equal(cut, wide[top : top + side + 2 * m, left : left + side + 2 * m])
        seen[top : top + side, left : left + side] = True
    assert seen.all()


@given(framed(), st.integers(0, 2**31))
@examples(40)
def test_a_picture_of_the_size_learnt_lies_in_the_middle_pixel_for_pixel(made, seed):
    framing, _ = made
    height, width = framing.tiles.picture
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    top = (framing.size[0] - height) // 2 + (framing.size[0] - height) % 2
    left = (framing.size[1] - width) // 2 + (framing.size[1] - width) % 2
    framed = framing.apply(image)
    assert np.array_equal(framed[top : top + height, left : left + width], image)
    # What is beyond is the image's mirror image.
    if top:
        assert np.array_equal(framed[top - 1, left : left + width], image[0])
    values = np.random.default_rng(seed).random(framing.size, dtype=np.float32)
    placed = framing.place(values, (height, width))
    assert np.array_equal(placed, values[top : top + height, left : left + width])
    assert framing.seen(height, width) == (0, 0, width, height)
    assert (
        looked_at_share(framing, (height, width)) == 1
        and looked_at_on(framing, (height, width)).all()
    )
    for x, y in ((0, 0), (width - 1, height - 1), (width // 2, height // 3)):
        assert framing.to_input((x, y), (height, width)) == (x + left, y + top)


@given(framed(), st.data())
@examples(40)
def test_places_go_to_the_input_and_back(made, data):
    framing, size = made
    x, y = (data.draw(st.integers(0, side - 1)) for side in (size[1], size[0]))
    column, row = framing.to_input((x, y), size)
    left, top, right, bottom = framing.to_original((column, row, column + 1, row + 1), size)
    assert left - 1e-6 <= x + 0.5 <= right + 1e-6 and top - 1e-6 <= y + 0.5 <= bottom + 1e-6


def test_resized_pictures_are_cut_as_they_become():
    framing = tiled_framing(64, None, 32, 100, [(200, 260), (200, 260), (300, 300)])
    assert framing.tiles.picture == (100, 130) and framing.size == (128, 160)
    assert not framing.crop and framing.resize == 100
    assert framing.apply(np.zeros((400, 520, 3), np.uint8)).shape == (128, 160, 3)


@pytest.mark.parametrize("size", [(199, 260), (200, 259), (100, 130), (400, 200)])
def test_a_picture_with_less_than_what_was_learnt_is_refused(size):
    framing = tiled_framing(64, None, 32, None, [(200, 260)])
    with pytest.raises(SpadeError, match=f"is {size[1]}x{size[0]} pixels, .* 260x200"):
        framing.apply(np.zeros((*size, 3), np.uint8))


@given(st.integers(100, 400), st.integers(100, 400), st.integers(32, 600))
@examples(60)
def test_no_picture_is_enlarged(height, width, resize):
    shorter = min(height, width)
    if resize <= shorter:
        assume(resize >= 64)
        framing = tiled_framing(64, None, 32, resize, [(height, width)])
        assert min(framing.tiles.picture) == resize
    else:
        with pytest.raises(SpadeError, match=f"`resize={resize}` would enlarge .* take {shorter}"):
            tiled_framing(64, None, 32, resize, [(height, width)])
