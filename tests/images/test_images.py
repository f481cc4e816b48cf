import io
import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spade_faiss.errors import SpadeError
from spade_faiss.images import (
    Framing,
    find_images,
    load_images,
    read_image,
    sizes_of,
)

PHOTO = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
SMOOTH = cv2.GaussianBlur(PHOTO, (0, 0), 8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "jpg"])
def test_every_format_decodes_to_rgb(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    options = {"webp": {"lossless": True}, "jpg": {"quality": 97, "subsampling": 0}}
    Image.fromarray(SMOOTH).save(path, **options.get(suffix, {}))
    image = read_image(path)
    assert image.dtype == np.uint8 and image.shape == SMOOTH.shape
    assert np.abs(image.astype(int) - SMOOTH).max() <= (6 if suffix == "jpg" else 0)


def test_grey_becomes_three_equal_channels(tmp_path):
    Image.fromarray(PHOTO[..., 0]).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), PHOTO[..., :1].repeat(3, 2))


def test_alpha_is_dropped(tmp_path):
    alpha = np.full((40, 60, 1), 7, np.uint8)
    Image.fromarray(np.concatenate([PHOTO, alpha], 2)).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), PHOTO)


def test_palette_is_resolved(tmp_path):
    image = Image.fromarray(PHOTO).quantize(16)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_is_scaled_by_its_full_range(tmp_path, suffix, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (32, 48, channels), dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), deep[..., ::-1] if channels == 3 else deep[..., 0])
    expected = np.round(deep / 65535 * 255)
    image = read_image(path).astype(float)
    # Pillow keeps the high byte of 16-bit colour; that is within one step of rounding.
    assert np.abs(image - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PHOTO).save(tmp_path / "a.png", exif=exif)
    turned = {
        1: PHOTO,
        2: PHOTO[:, ::-1],
        3: PHOTO[::-1, ::-1],
        4: PHOTO[::-1],
        5: PHOTO.transpose(1, 0, 2),
        6: np.rot90(PHOTO, -1),
        7: PHOTO[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PHOTO),
    }
    assert np.array_equal(read_image(tmp_path / "a.png"), turned[orientation])


def png(image):
    data = io.BytesIO()
    Image.fromarray(image).save(data, "png")
    return data.getvalue()


def bomb():
    data = bytearray(png(PHOTO))
    data[16:24] = struct.pack(">II", 60000, 60000)
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


BAD = {
    "truncated": (png(PHOTO)[:-2000], "cut short"),
    "text": (b"hello\n" * 50, "not an image"),
    "empty": (b"", "empty"),
    "tiny": (png(PHOTO[:1, :1]), "1x1"),
    "bomb": (bomb(), "too many pixels"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_explained_in_one_line(tmp_path, kind):
    data, why = BAD[kind]
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(SpadeError, match=why) as caught:
        read_image(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


def test_floating_point_samples_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tiff", np.random.rand(32, 32).astype(np.float32))
    with pytest.raises(SpadeError, match="floating"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("cut", range(0, 4000, 331))
def test_a_jpeg_cut_anywhere_never_passes_for_whole(tmp_path, cut):
    data = io.BytesIO()
    Image.fromarray(cv2.resize(PHOTO, (160, 120))).save(data, "jpeg", quality=80)
    assert len(data.getvalue()) > 4500
    (tmp_path / "a.jpg").write_bytes(data.getvalue()[:cut])
    with pytest.raises(SpadeError):
        read_image(tmp_path / "a.jpg")


def test_images_load_in_order_and_bad_ones_are_reported(tmp_path):
    for i in range(30):
        Image.fromarray(np.full((20, 20, 3), i, np.uint8)).save(tmp_path / f"{i:02}.png")
    (tmp_path / "07.png").write_bytes(b"no")
    problems = []
    found = find_images([tmp_path], lambda *problem: problems.append(problem))
    framing = Framing(32, (32, 32), True)
    loaded = list(
        load_images([one.path for one in found], framing, lambda *problem: problems.append(problem))
    )
    assert [one.position for one in loaded] == [i for i in range(30) if i != 7]
    assert [int(one.image[0, 0, 0]) for one in loaded] == [i for i in range(30) if i != 7]
    assert all(one.wide.shape == (32, 32, 3) for one in loaded)
    assert [name for name, _ in problems] == [str(tmp_path / "07.png")]
    with pytest.raises(SpadeError, match=r"07\.png"):
        list(load_images([one.path for one in found], framing))
    sizes, every = sizes_of(iter([tmp_path / "07.png", tmp_path / "08.png", tmp_path / "09.png"]))
    assert sizes == [(20, 20)] and [path.name for path in every] == ["07.png", "08.png", "09.png"]


@given(st.integers(16, 400), st.integers(16, 400), st.sampled_from([None, 64, 96]))
def test_placing_undoes_framing(height, width, crop):
    framing = Framing.choose(96, crop, (height, width))
    y, x = np.indices((height, width))
    ramp = ((y + 0.5) / height + 2 * (x + 0.5) / width).astype(np.float32)
    x0, y0, x1, y1 = framing.to_original((0, 0, *framing.size[::-1]), (height, width))
    rows, cols = framing.size[0] / (y1 - y0) * height, framing.size[1] / (x1 - x0) * width
    grid_y, grid_x = np.indices(framing.size)
    framed = (y0 / height + (grid_y + 0.5) / rows) + 2 * (x0 / width + (grid_x + 0.5) / cols)
    placed = framing.place(framed.astype(np.float32), (height, width))
    left, top, right, bottom = framing.seen(height, width)
    assert placed.shape == (height, width) and placed.dtype == np.float32
    inside = placed[top:bottom, left:right]
    # A ramp is reproduced but for half an input pixel at the rim, where there is no neighbour.
    assert np.abs(inside - ramp[top:bottom, left:right]).max() < 2 / rows + 4 / cols
    outside = placed.copy()
    outside[top:bottom, left:right] = 0
    assert not outside.any()


@given(st.integers(16, 300), st.integers(16, 300), st.sampled_from([None, 64]), st.data())
def test_points_and_boxes_agree(height, width, crop, data):
    framing = Framing.choose(96, crop, (height, width))
    point = data.draw(
        st.tuples(st.integers(0, framing.size[1] - 1), st.integers(0, framing.size[0] - 1))
    )
    left, top, right, bottom = framing.to_original(
        (*point, point[0] + 1, point[1] + 1), (height, width)
    )
    middle = int((left + right) / 2), int((top + bottom) / 2)
    back = framing.to_input(middle, (height, width))
    # One original pixel covers several input pixels where the image was enlarged.
    reach = max(1, 96 / min(height, width) * 1.2)
    assert abs(back[0] - point[0]) <= reach and abs(back[1] - point[1]) <= reach


def test_the_whole_frame_keeps_the_edge():
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, :6] = 255
    cropped, whole = Framing.choose(96, 64, (100, 300)), Framing.choose(96, None, (100, 300))
    assert whole.size == (96, 288)
    assert whole.apply(image)[:, 0].min() > 200 and cropped.apply(image).max() == 0


def test_masks_are_framed_as_images_are():
    mask = np.zeros((120, 200), bool)
    mask[50:70, 90:130] = True
    framing = Framing.choose(96, 64, (120, 200))
    image = np.repeat(mask[..., None] * np.uint8(255), 3, 2)
    disagree = (framing.apply(image)[..., 0] > 127) != framing.apply_mask(mask)
    assert framing.apply_mask(mask).sum() > 300 and disagree.mean() < 0.01


@pytest.mark.parametrize("resize, crop", [(256, 300), (256, 8), (16, None)])
def test_impossible_framings_are_refused(resize, crop):
    with pytest.raises(SpadeError):
        Framing.choose(resize, crop, (100, 100))


@pytest.mark.parametrize(("size", "crop"), [((100, 300), 64), ((100, 300), None), ((33, 40), 32)])
def test_a_margin_shows_what_the_crop_cut_off_and_then_its_mirror(size, crop):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    resize = 32 if crop == 32 else 96
    plain = Framing.choose(resize, crop, size)
    framing = replace(plain, margin=24)
    wide = framing.apply_with_margin(image)
    h, w = framing.size
    assert wide.shape == (h + 48, w + 48, 3)
    assert np.array_equal(wide[24:-24, 24:-24], plain.apply(image))
    # The whole scaled image, mirrored beyond its border, however far.
    rows, cols = (resize, round(resize * size[1] / size[0])) if crop else framing.size
    small = Framing(resize, (rows, cols), False).apply(image)
    mirrored = np.pad(small, ((99, 99), (99, 99), (0, 0)), "symmetric")
    top, left = 99 + (rows - h) // 2 - 24, 99 + (cols - w) // 2 - 24
    assert np.array_equal(wide, mirrored[top : top + h + 48, left : left + w + 48])
    (loaded,) = load_images([image], framing)
    assert np.array_equal(framing.inner(loaded.wide), plain.apply(image)) and np.array_equal(
        loaded.wide, wide
    )
