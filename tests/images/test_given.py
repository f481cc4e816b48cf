"""Images as Python programs hold them are what the same files are."""

import io
import pickle
import warnings

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from spade_faiss.errors import SpadeError
from spade_faiss.images import Frame, as_image, name_of, read_image, sizes_of
from spade_faiss.images.given import listed

RNG = np.random.default_rng(1)
PHOTO = cv2.GaussianBlur(RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8), (0, 0), 2)
DEEP = RNG.integers(0, 65536, (40, 60), dtype=np.uint16)
ALPHA = np.full((40, 60, 1), 7, np.uint8)
TURNED = Image.Exif()
TURNED[0x0112] = 6


def no_note(text):
    raise AssertionError(text)


def saved(image, suffix, **options):
    data = io.BytesIO()
    image.save(data, suffix, **options)
    return data.getvalue()


def deep_colour():
    return cv2.imencode(".png", np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1]]))[1].tobytes()


def twelve_bits():
    data = io.BytesIO()
    tifffile.imwrite(data, DEEP >> 4, extratags=[(341, 3, 1, 4095, True)])
    return data.getvalue()


FILES = {
    "rgb.png": saved(Image.fromarray(PHOTO), "png"),
    "rgba.png": saved(Image.fromarray(np.dstack([PHOTO, ALPHA])), "png"),
    "grey.png": saved(Image.fromarray(PHOTO[..., 0]), "png"),
    "grey and alpha.png": saved(Image.fromarray(np.dstack([PHOTO[..., :1], ALPHA])), "png"),
    "palette.png": saved(Image.fromarray(PHOTO).quantize(16), "png", transparency=b"\0\1\2"),
    "bits.png": saved(Image.fromarray(PHOTO[..., 0] > 127), "png"),
    "deep grey.png": saved(Image.fromarray(DEEP), "png"),
    "deep colour.png": deep_colour(),
    "12 bits.tiff": twelve_bits(),
    "turned.png": saved(Image.fromarray(PHOTO), "png", exif=TURNED),
    "turned.jpg": saved(Image.fromarray(PHOTO), "jpeg", exif=TURNED),
    "cmyk.jpg": saved(Image.fromarray(PHOTO).convert("CMYK"), "jpeg"),
    "ycbcr.tiff": saved(Image.fromarray(PHOTO), "tiff", compression="jpeg"),
    "photo.webp": saved(Image.fromarray(PHOTO), "webp", lossless=True),
    "photo.bmp": saved(Image.fromarray(PHOTO), "bmp"),
}


@pytest.mark.parametrize("name", FILES)
def test_bytes_open_files_and_pil_images_are_what_the_file_is(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    notes = []
    wanted = read_image(path, notes.append)
    with path.open("rb") as file, Image.open(path) as opened:
        file.seek(3)
        for source in (path, FILES[name], memoryview(FILES[name]), file, opened):
            said = []
            assert sizes_of([source])[0] == [wanted.shape[:2]]
            for _ in range(2):  # what was read once can be read again
                assert np.array_equal(as_image(source, said.append), wanted)
            assert said == 2 * notes
        decoded = pickle.loads(pickle.dumps(opened))  # without its file
        if name not in ("deep colour.png", "12 bits.tiff"):  # PIL keeps their high bytes, or as is
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = as_image(decoded, notes.append)
            assert np.array_equal(found, wanted), decoded.mode


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_arrays_and_tensors_of_every_layout_and_type(kind):
    grey = np.repeat(PHOTO[..., :1], 3, 2)
    for wanted, given in (
        (PHOTO, PHOTO),
        (PHOTO, PHOTO.transpose(2, 0, 1)),
        (PHOTO, np.dstack([PHOTO, ALPHA])),
        (PHOTO, np.dstack([PHOTO, ALPHA]).transpose(2, 0, 1)),
        (grey, PHOTO[..., 0].copy()),
        (grey, PHOTO[..., :1].copy()),
        (grey, PHOTO[None, ..., 0].copy()),
    ):
        for values in (
            given,
            given.astype(np.uint16) * 257,
            *((given / 255).astype(kind) for kind in (np.float16, np.float32, np.float64)),
        ):
            found = as_image(kind(values), no_note)
            assert np.array_equal(found, wanted), (given.shape, values.dtype)
            assert found.dtype == np.uint8 and found.flags.c_contiguous
            assert sizes_of([kind(values)])[0] == [(40, 60)]
    assert set(np.unique(as_image(kind(PHOTO[..., 0] > 127), no_note))) == {0, 255}


def test_other_kinds_of_tensors():
    tensor = torch.from_numpy(PHOTO).permute(2, 0, 1) / 255
    assert np.array_equal(as_image(tensor.requires_grad_(), no_note), PHOTO)
    near = as_image(tensor.to(torch.bfloat16), no_note).astype(int)
    assert np.abs(near - PHOTO).max() <= 1
    assert np.array_equal(as_image(DEEP.astype(">u2"), no_note), as_image(DEEP, no_note))


def test_few_levels_of_16_bits_are_noted_as_of_a_file():
    notes = []
    as_image(DEEP >> 4, notes.append)
    as_image(Image.fromarray(DEEP >> 4), notes.append)
    assert len(notes) == 2 and all("use 12 bits" in note for note in notes)


@pytest.mark.parametrize(
    "source, why",
    [
        (PHOTO.astype(np.int64), "type int64; give them as uint8, as uint16, or as floats"),
        (PHOTO.astype(np.float32), "floats from 0 to 1.*divide them by 255"),
        ((PHOTO / 255 - 0.5) / 0.25, "floats from -.*before it was normalised"),
        (np.full((40, 60), np.nan), "no finite numbers"),
        (PHOTO[..., :2], r"shape \(40, 60, 2\); give RGB as \[H, W, 3\]"),
        (PHOTO[:4, :, 0], "60x4 pixels"),
        (PHOTO[:3, :, :3], "60x3 pixels"),
        (np.zeros((2, 40, 60, 3), np.uint8), "has shape"),
        (np.zeros(60, np.uint8), "has shape"),
        ((PHOTO, 1), "tuple, which is no image: leave out what is beside"),
        (None, "NoneType, which is no image; give a path"),
        (b"", "is empty"),
        (b"parts/000.png", "is not an image that can be decoded"),
        (io.StringIO("text"), "open it with the mode 'rb'"),
        (Image.fromarray(DEEP.astype(np.int32)), "mode I, which does not say what is white"),
        (Image.fromarray(PHOTO[..., 0] / np.float32(255)), "mode F"),
        (Image.fromarray(PHOTO).resize((9, 9)), "9x9 pixels"),
        (Image.open(io.BytesIO(FILES["rgb.png"][:-2000])), "cut short"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_image_or_not_for_certain_is_refused(source, why):
    with pytest.raises(SpadeError, match=why) as caught:
        as_image(source, no_note)
    assert "\n" not in str(caught.value)


def test_a_closed_file_and_a_pipe_are_refused():
    file = io.BytesIO(FILES["rgb.png"])
    file.close()
    with pytest.raises(SpadeError, match=r"closed file.*give the bytes"):
        as_image(file, no_note)
    pipe = io.BytesIO(FILES["rgb.png"])
    pipe.seek = lambda *_: (_ for _ in ()).throw(io.UnsupportedOperation("underlying"))
    with pytest.raises(SpadeError, match=r"underlying.*give the bytes"):
        as_image(pipe, no_note)
    assert sizes_of([file, pipe])[0] == []


def test_an_image_that_was_changed_is_read_as_it_is_now():
    opened = Image.open(io.BytesIO(FILES["rgb.png"]))
    opened.paste((9, 8, 7), (0, 0, 60, 40))
    assert (as_image(opened, no_note) == (9, 8, 7)).all()
    pages = saved(
        Image.fromarray(PHOTO), "tiff", save_all=True, append_images=[Image.fromarray(255 - PHOTO)]
    )
    second = Image.open(io.BytesIO(pages))
    second.seek(1)
    assert np.array_equal(as_image(second, no_note), 255 - PHOTO)


def test_one_image_alone_is_a_list_of_it(tmp_path):
    opened = Image.open(io.BytesIO(FILES["rgb.png"]))
    tensor = torch.from_numpy(PHOTO).permute(2, 0, 1)
    alone = (PHOTO, PHOTO[..., 0], tensor, opened, FILES["rgb.png"], Frame("a", PHOTO), tmp_path)
    for image in (*alone, io.BytesIO(FILES["rgb.png"])):
        (found,) = listed(image)
        assert found is image
    many = np.stack([PHOTO, 255 - PHOTO])
    for batch in (many, torch.from_numpy(many.transpose(0, 3, 1, 2).copy())):
        images = [as_image(one, no_note) for one in listed(batch)]
        assert np.array_equal(images, many)
    assert list(listed(np.array(["a.png", "b.png"]))) == ["a.png", "b.png"]
    stream = iter([PHOTO])
    assert listed(stream) is stream


@pytest.mark.parametrize(
    "images, why",
    [
        (PHOTO.transpose(2, 0, 1), "may be one image or 3 grey ones"),
        (np.zeros((10, 40, 60), np.uint8), r"grey ones as \[N, H, W, 1\]"),
        (torch.zeros(2, 2, 3, 40, 60), "have shape"),
        (7, "int is neither an image nor a list"),
    ],
)
def test_how_many_images_an_array_holds_is_not_guessed(images, why):
    with pytest.raises(SpadeError, match=why):
        listed(images)


def test_images_are_called_by_their_files(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(FILES["rgb.png"])
    with Image.open(path) as opened, path.open("rb") as file:
        for source in (path, str(path), opened, file):
            assert name_of(source, 3) == str(path)
        for source in (opened.convert("L"), io.BytesIO(FILES["rgb.png"]), FILES["rgb.png"], PHOTO):
            assert name_of(source, 3) == "image 3"
