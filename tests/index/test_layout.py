"""Layouts: which patches are stored, and where they go, against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spade_faiss.images import Framing
from spade_faiss.images.choose import tiled_framing
from spade_faiss.images.roi import Roi
from spade_faiss.index.layout import Layout, layout_of
from tests.conftest import examples


@st.composite
def layouts(draw):
    """A layout of tiles that cover a grid, all or some of which is looked at."""
    part = draw(st.tuples(st.integers(2, 5), st.integers(2, 5)))
    starts = []
    for side in part:
        at, end = [0], draw(st.integers(0, 9))
        while at[-1] < end:
            at.append(at[-1] + draw(st.integers(1, side)))
        starts.append(at)
    grid = starts[0][-1] + part[0], starts[1][-1] + part[1]
    corners = tuple((y, x) for y in starts[0] for x in starts[1])
    looked = None
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 2**31)))
        looked = rng.random(grid) < draw(st.sampled_from([0.02, 0.3, 0.9]))
        looked[draw(st.integers(0, grid[0] - 1)), draw(st.integers(0, grid[1] - 1))] = True
        corners = tuple(
            (y, x) for y, x in corners if looked[y : y + part[0], x : x + part[1]].any()
        )
    return Layout(part, grid, corners, looked)


def stored_places(layout):
    """Return the grid's (line, column) of each stored patch of each part, by a plain loop."""
    height, width = layout.part
    parts = []
    for y, x in layout.corners:
        places = [(y + i, x + j) for i in range(height) for j in range(width)]
        if layout.looked_at is not None:
            own = [place for place in places if layout.looked_at[place]]
            away = [min(np.hypot(a - i, b - j) for i, j in own) for a, b in places]
            order = sorted(range(len(places)), key=lambda at: (round(away[at], 4), at))
            places = [places[at] for at in sorted(order[: layout.patches])]
        parts.append(places)
    return parts


@given(layouts())
@examples(150)
def test_so_many_patches_are_stored_as_are_looked_at_in_the_fullest_part(layout):
    height, width = layout.part
    if layout.looked_at is None:
        assert layout.patches == height * width
    else:
        own = [layout.looked_at[y : y + height, x : x + width].sum() for y, x in layout.corners]
        assert layout.patches == max(own)
    places = stored_places(layout)
    values = torch.arange(layout.parts * height * width * 3.0).reshape(-1, height, width, 3)
    stored = layout.stored(values, range(layout.parts))
    assert stored.shape == (layout.parts, layout.patches, 3)
    for part, (y, x) in enumerate(layout.corners):
        expected = [values[part, a - y, b - x].tolist() for a, b in places[part]]
        assert stored[part].tolist() == expected
    few = [layout.parts - 1, 0]
    assert torch.equal(layout.stored(values[few], few), stored[few])


@given(layouts())
@examples(150)
def test_a_row_of_a_level_has_its_place_and_its_neighbours(layout):
    places = stored_places(layout)
    rows = np.arange(2 * layout.parts * layout.patches)
    at_place = {}
    for row in rows.tolist():
        image, rest = divmod(row, layout.parts * layout.patches)
        part, at = divmod(rest, layout.patches)
        assert layout.place(row) == (image, *places[part][at])
        at_place[image, part, places[part][at]] = row
    height, width = layout.part
    for down, right in ((0, 0), (1, 0), (-1, 2), (0, -9), (9, 9)):
        for row, found in zip(
            rows.tolist(), layout.beside(rows, down, right).tolist(), strict=True
        ):
            image, part = (
                row // (layout.parts * layout.patches),
                row // layout.patches % layout.parts,
            )
            _, line, column = layout.place(row)
            y, x = layout.corners[part]
            there = (
                y + min(max(line - y + down, 0), height - 1),
                x + min(max(column - x + right, 0), width - 1),
            )
            assert found == at_place.get((image, part, there), row)


def plainly_joined(layout, values, missing):
    """Join by loops over patches: the mean by how far inside they lie; of ids, the innermost's."""
    height, width = layout.part
    joined = np.full(layout.grid, missing, np.float64)
    places = stored_places(layout)
    fades = np.issubdtype(values.dtype, np.floating)
    for line in range(layout.grid[0]):
        for column in range(layout.grid[1]):
            if layout.looked_at is not None and not layout.looked_at[line, column]:
                continue
            there = []
            for part, (y, x) in enumerate(layout.corners):
                if (line, column) in places[part]:
                    i, j = line - y, column - x
                    inner = min(i, j, height - 1 - i, width - 1 - j) + 0.5
                    there.append((inner, -part, values[part, places[part].index((line, column))]))
            if fades:
                total = sum(inner for inner, _, _ in there)
                joined[line, column] = sum(inner * value for inner, _, value in there) / total
            else:
                joined[line, column] = max(there)[2]
    return joined


@given(layouts(), st.integers(0, 2**31))
@examples(150)
def test_what_parts_have_is_joined_as_loops_would(layout, seed):
    rng = np.random.default_rng(seed)
    shape = layout.parts, layout.patches
    floats = rng.random(shape, np.float32)
    joined = layout.join(floats, 0)
    assert joined.dtype == np.float32 and joined.shape == layout.grid
    np.testing.assert_allclose(joined, plainly_joined(layout, floats, 0), rtol=1e-5)
    ids = rng.permutation(floats.size).reshape(shape)
    assert np.array_equal(layout.join(ids, -1), plainly_joined(layout, ids, -1))


@given(layouts())
@examples(100)
def test_equal_parts_join_without_a_trace(layout):
    """Where all parts say the same of a patch, it is what they say."""
    own = np.random.default_rng(0).random(layout.grid, np.float32)
    values = np.array([[own[place] for place in part] for part in stored_places(layout)])
    expected = own if layout.looked_at is None else np.where(layout.looked_at, own, 0)
    np.testing.assert_allclose(layout.join(values.astype(np.float32), 0), expected, rtol=1e-5)


@given(layouts(), st.data())
@examples(60)
def test_the_next_patch_that_is_looked_at_is_the_nearest(layout, data):
    line, column = (data.draw(st.integers(0, side - 1)) for side in layout.grid)
    found = layout.nearest_looked_at(line, column)
    if layout.looked_at is None:
        assert found == (line, column)
        return
    assert layout.looked_at[found]
    nearest = min(
        (line - y) ** 2 + (column - x) ** 2 for y, x in np.argwhere(layout.looked_at).tolist()
    )
    assert (found[0] - line) ** 2 + (found[1] - column) ** 2 == nearest


@pytest.mark.parametrize("patches", [(8, 8), (4, 4), (2, 2)])
def test_a_framing_has_a_layout_at_each_level(patches):
    framing = tiled_framing(64, 32, 32, None, [(100, 170)])
    layout = layout_of(framing, patches)
    cell = 64 // patches[0]
    assert layout.part == patches and layout.grid == (128 // cell, 192 // cell)
    assert layout.corners == tuple((y // cell, x // cell) for y, x in framing.corners)
    assert layout.parts == 3 * 5 and layout.looked_at is None
    whole = layout_of(Framing.choose(256, 224, (1, 1)), patches)
    assert (whole.grid, whole.corners, whole.patches) == (patches, ((0, 0),), patches[0] ** 2)


def test_tiles_of_which_nothing_is_looked_at_are_left_out():
    mask = np.zeros((128, 192), bool)
    mask[:30, :30] = True
    framing = tiled_framing(64, 0, 32, None, [mask.shape])
    framing = Framing(framing.resize, framing.size, False, tiles=framing.tiles, roi=Roi(mask))
    layout = layout_of(framing, (8, 8))
    assert framing.corners == layout.corners == ((0, 0),)
    assert layout.patches == 16 and layout.looked_at.sum() == 16
