"""What is looked at of a picture: read from files and arrays, and proposed from good images."""

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from spade_faiss import SpadeError
from spade_faiss.images import find_images, read_image
from spade_faiss.images.region import outlines_of, propose_region, read_region
from spade_faiss.pictures.drawing import hatch

WHITE = np.zeros((40, 60), bool)
WHITE[10:30, 20:50] = True
GREY = WHITE.astype(np.uint8) * 255


def saved(path, form):
    """Write the same region in one of many ways."""
    colour = np.repeat(GREY[..., None], 3, 2)
    pictures = {
        "grey.png": lambda: Image.fromarray(GREY),
        "grey.bmp": lambda: Image.fromarray(GREY),
        "rgb.png": lambda: Image.fromarray(colour),
        "rgb.tiff": lambda: Image.fromarray(colour),
        "1-bit.png": lambda: Image.fromarray(GREY).convert("1"),
        "1-bit.tiff": lambda: Image.fromarray(GREY).convert("1"),
        "palette.png": lambda: Image.fromarray(colour).convert("P"),
        "16-bit.png": lambda: Image.fromarray(GREY.astype(np.uint16) * 257),
        "jpeg.jpg": lambda: Image.fromarray(GREY),
        # White paint on a layer that is white, but transparent, elsewhere.
        "layer.png": lambda: Image.fromarray(np.dstack([np.full_like(colour, 255), GREY])),
        "grey-layer.png": lambda: Image.fromarray(np.dstack([np.full_like(GREY, 255), GREY])),
        "layer.tiff": lambda: Image.fromarray(np.dstack([np.full_like(colour, 255), GREY])),
        "opaque.png": lambda: Image.fromarray(np.dstack([colour, np.full_like(GREY, 255)])),
    }
    if form == "16-bit.tiff":
        tifffile.imwrite(path / form, GREY.astype(np.uint16) * 257)
    else:
        pictures[form]().save(path / form)
    return path / form


FORMS = (
    *("grey.png", "grey.bmp", "rgb.png", "rgb.tiff", "1-bit.png", "1-bit.tiff", "palette.png"),
    *("16-bit.png", "16-bit.tiff", "jpeg.jpg", "layer.png", "grey-layer.png", "layer.tiff"),
    "opaque.png",
)


@pytest.mark.parametrize("form", FORMS)
def test_white_is_looked_at_whatever_the_file(tmp_path, form):
    path = saved(tmp_path, form)
    found = read_region(path)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, WHITE)
    np.testing.assert_array_equal(read_region(str(path), ignore=True), ~WHITE)


def test_an_array_is_taken_as_it_is():
    found = read_region(WHITE)
    np.testing.assert_array_equal(found, WHITE)
    assert found is not WHITE
    np.testing.assert_array_equal(read_region(WHITE, ignore=True), ~WHITE)
    assert read_region(np.ones((20, 30), bool)).all()


def test_greys_over_127_are_white(tmp_path):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None], 20, 0)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    np.testing.assert_array_equal(read_region(tmp_path / "ramp.png"), ramp > 127)


@pytest.mark.parametrize(
    "array", [GREY, np.ones((4, 5, 1), bool), np.ones(7, bool), WHITE.astype(float)]
)
def test_another_array_is_refused(array):
    with pytest.raises(SpadeError, match=r"^the region is an array of .* give bool \[H, W\]"):
        read_region(array)


@pytest.mark.parametrize("ignore", [False, True])
def test_an_empty_region_is_refused(tmp_path, ignore):
    plain = np.full((40, 60), 255 if ignore else 127, np.uint8)
    Image.fromarray(plain).save(tmp_path / "plain.png")
    what = "all of it is white, and so left out" if ignore else "nothing of it is white"
    cure = f"paint white what is to be {'left out' if ignore else 'looked at'}$"
    for region in (tmp_path / "plain.png", plain > 127):
        with pytest.raises(SpadeError, match=f"the region is empty: {what}; {cure}") as error:
            read_region(region, ignore=ignore)
        assert "\n" not in str(error.value)
    assert read_region(tmp_path / "plain.png", ignore=not ignore).all()


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    whole = saved(tmp_path, "rgb.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name, why in (
        ("text.png", "is not an image that can be decoded"),
        ("empty.png", "is empty"),
        ("cut.png", "is cut short"),
        ("gone.png", "cannot be read: No such file"),
        (".", "is no file"),
    ):
        with pytest.raises(SpadeError) as error:
            read_region(tmp_path / name)
        text = str(error.value)
        assert text.startswith(f"{tmp_path / name}: the region {why}") and "\n" not in text


# Proposed ---------------------------------------------------------------------------------------

SIZE = 240, 320


def pictures(count, seed=0, *, ground=60, radius=60, moves=6, noise=3.0):
    """Return images of a speckled disc about the middle of plain ground."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        image = np.full((*SIZE, 3), ground, np.float32)
        disc = np.zeros(SIZE, np.uint8)
        y, x = rng.integers(-moves, moves + 1, 2).tolist()
        cv2.circle(disc, (160 + x, 120 + y), radius, 1, -1)
        speckle = cv2.resize(rng.normal(170, 40, (30, 40, 3)).astype(np.float32), SIZE[::-1])
        image = np.where(disc[..., None] > 0, speckle, image)
        made.append(np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8))
    return made


def discs(radius):
    """Return the places no farther than a radius from the middle."""
    y, x = np.ogrid[: SIZE[0], : SIZE[1]]
    return (y - 120) ** 2 + (x - 160) ** 2 <= radius**2


@pytest.mark.parametrize("scale", [1, 4])
def test_plain_ground_is_left_out_but_for_a_margin(scale):
    images = pictures(10)
    if scale > 1:  # which are shrunk before they are compared
        images = [cv2.resize(one, None, fx=scale, fy=scale) for one in images]
    found = propose_region(iter(images))
    assert found.shape == images[0].shape[:2] and found.dtype == bool
    small = found[::scale, ::scale]
    assert small[discs(66 + 5)].all()  # wherever the disc may lie, and a margin
    assert not small[~discs(66 + 30)].any()


def test_a_plain_part_within_what_varies_is_looked_at():
    images = pictures(10)
    for image in images:
        image[100:140, 140:180] = 200
    assert propose_region(images)[discs(66)].all()


def test_a_part_at_the_border_is_looked_at():
    images = [np.roll(one, 130, 1) for one in pictures(10)]
    found = propose_region(images)
    assert found[:, 290:][np.roll(discs(60), 130, 1)[:, 290:]].all()
    assert not found.all() and not found[:40, 100:180].any()


def test_one_odd_image_hides_no_place_that_varies():
    images = pictures(12)
    images[3] = np.random.default_rng(0).integers(0, 256, images[3].shape, np.uint8)
    assert propose_region(images)[discs(66)].all()


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(pictures(4), id="too few"),
        pytest.param([*pictures(9), np.zeros((*SIZE[::-1], 3), np.uint8)], id="several sizes"),
        pytest.param(pictures(10, radius=400), id="all varies"),
        pytest.param(pictures(10, radius=2, moves=0), id="hardly anything varies"),
        pytest.param(pictures(10, radius=180, moves=0), id="hardly any ground"),
        pytest.param([np.full((*SIZE, 3), 90, np.uint8)] * 8, id="all alike"),
        pytest.param(pictures(10, noise=40.0), id="as noisy as the part"),
    ],
)
def test_where_there_is_nothing_to_propose_all_is_looked_at(images):
    found = propose_region(images)
    assert found.shape == images[0].shape[:2] and found.all()


def test_without_an_image_there_is_no_region():
    with pytest.raises(SpadeError, match=r"^there are no images to propose a region by$"):
        propose_region([])


def test_images_are_gone_through_once_and_none_is_kept():
    alive = []

    class Watched(np.ndarray):
        number: int

        def __del__(self):
            alive.remove(self.number)

    def stream():
        for number, image in enumerate(pictures(8)):
            watched = image.view(Watched)
            watched.number = number
            alive.append(number)
            assert len(alive) <= 2
            yield watched
            del watched

    assert not propose_region(stream()).all()


def test_the_ground_of_hazelnuts_is_left_out_and_no_defect(hazelnut):
    good = [read_image(found.path) for found in find_images([hazelnut / "train" / "good"], None)]
    found = propose_region(good)
    assert 0.35 < (~found).mean() < 0.6
    masks = sorted((hazelnut / "ground_truth").rglob("*.png"))
    assert masks
    for path in masks:
        defect = read_region(path)
        there = cv2.resize(found.view(np.uint8), defect.shape[::-1]) > 0
        assert there[defect].all(), path


# Shown ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grey", [0, 60, 128, 200, 255])
def test_what_is_not_looked_at_is_hatched_on_any_ground(grey):
    image = np.full((40, 60, 3), grey, np.uint8)
    before = image.copy()
    hatched = hatch(image, WHITE)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(hatched[WHITE], image[WHITE])
    changed = (hatched != image).any(-1)[~WHITE]
    assert 0.1 < changed.mean() < 0.3  # thin: what is under the lines is still to be seen
    contrast = np.abs(hatched.astype(int) - grey).max(-1)
    assert contrast[~WHITE].max() >= 100
    for side in (contrast[:10], contrast[:, :20]):  # everywhere, not in one place alone
        assert (side.reshape(-1, 10, side.shape[1]).max((1, 2)) >= 100).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_is_painted_anew_with_its_outlines(seed):
    rng = np.random.default_rng(seed)
    coarse = rng.random((7, 9)) > (0.1, 0.3, 0.5, 0.7, 0.9)[seed]
    mask = np.kron(coarse, np.ones((30, 30), bool))
    painted = np.zeros(mask.shape, np.uint8)
    for corners, looked_at in outlines_of(mask):
        inner = np.array(corners)
        assert inner.min() >= 0 and (inner.max(0) <= mask.shape[::-1]).all()
        # A pixel is painted whose middle lies within.
        doubled = np.zeros((2 * mask.shape[0] + 1, 2 * mask.shape[1] + 1), np.uint8)
        cv2.fillPoly(doubled, [2 * inner], 1)
        painted[doubled[1::2, 1::2] > 0] = looked_at
    assert np.array_equal(painted > 0, mask)
    assert outlines_of(np.ones((3, 5), bool)) == [([(0, 0), (5, 0), (5, 3), (0, 3)], True)]


def test_a_file_in_memory_is_read_as_one_on_disk(tmp_path):
    grey = np.tile(np.arange(256, dtype=np.uint8), (20, 1))
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    data = (tmp_path / "a.png").read_bytes()
    assert np.array_equal(read_region(data), read_region(tmp_path / "a.png"))
    with pytest.raises(SpadeError, match=r"^the picture: the region is not an image"):
        read_region(b"nothing")


def test_outlines_keep_what_is_thin():
    mask = np.zeros((1500, 2000), bool)
    mask[100:700, 100:900] = True
    mask[1200:1204, 100:1900] = True
    painted = np.zeros(mask.shape, np.uint8)
    for corners, white in outlines_of(mask):
        cv2.fillPoly(painted, [np.array(corners) - [0, 0]], int(white))
    assert painted[1201:1203, 110:1890].all() and painted[110:690, 110:890].all()
    assert len(outlines_of(mask)) == 2
