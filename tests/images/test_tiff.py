import io
import itertools
import warnings

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data

from spade_faiss.errors import SpadeError
from spade_faiss.images import decode_image, image_size
from tests.images.tiffs import (
    ASCII,
    CMYK,
    MIN_IS_BLACK,
    MIN_IS_WHITE,
    PALETTE,
    RGB,
    SHORT,
    page,
    tiff,
)

HEIGHT, WIDTH = 40, 50
CHANNELS = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3, PALETTE: 1, CMYK: 4}
BITS = (1, 2, 4, 8, 10, 12, 14, 16)
PHOTO = cv2.resize(data.astronaut(), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def noise(bits, channels, seed=0):
    return np.random.default_rng(seed).integers(
        0, 1 << bits, (HEIGHT, WIDTH, channels), dtype=np.uint32
    )


def expected(samples, bits, photometric):
    """Return the RGB that samples mean, worked out in the plainest way."""
    levels = samples / (2**bits - 1) * 255
    if photometric == MIN_IS_WHITE:
        levels = 255 - levels
    if photometric == CMYK:
        ink = np.round(levels[..., :4]) / 255
        return 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    colours = levels[..., : CHANNELS[photometric]]
    return np.broadcast_to(colours, (*samples.shape[:2], 3))


def decoded(content, *notes):
    """Decode a file, and check what is noted, and that nothing else is said."""
    said = []
    with warnings.catch_warnings(action="error"):
        image = decode_image(content, said.append)
        assert sorted(image_size(content)) == sorted(image.shape[:2])
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert len(said) == len(notes)
    assert all(word in line for word, line in zip(notes, said, strict=True))
    return image


def close(image, right, most=0.51):
    assert image.shape == right.shape and np.abs(image - right).max() <= most


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("photometric", [MIN_IS_WHITE, MIN_IS_BLACK, RGB, CMYK])
def test_every_depth_and_layout(photometric, bits, order):
    layouts = itertools.product((False, True), (None, (16, 32)), (False, True), (0, 1))
    for planar, tile, zipped, alpha in layouts:
        samples = noise(bits, CHANNELS[photometric] + alpha)
        big = zipped == planar
        content = tiff(
            page(samples, bits, photometric, order=order, planar=planar, tile=tile, zipped=zipped),
            order=order,
            big=big,
        )
        if bits in (8, 16) and photometric != CMYK:
            samples_of_libtiff = imagecodecs.tiff_decode(content)
            if planar and len(samples_of_libtiff) != HEIGHT:
                samples_of_libtiff = np.moveaxis(samples_of_libtiff, 0, -1)
            assert np.array_equal(np.atleast_3d(samples_of_libtiff), samples)
        # Ink and paper are each rounded to 8 bits.
        close(
            decoded(content),
            expected(samples, bits, photometric),
            1 if photometric == CMYK else 0.51,
        )


@pytest.mark.parametrize("bits", [1, 8, 12, 16])
def test_bits_may_be_reversed_in_bytes(bits):
    samples = noise(bits, 1)
    content = tiff(page(samples, bits, MIN_IS_BLACK, reversed_bits=True))
    close(decoded(content), expected(samples, bits, MIN_IS_BLACK))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", "<>")
def test_samples_may_be_differences(bits, planar, order):
    samples = noise(bits, 3)
    content = tiff(
        page(samples, bits, RGB, order=order, planar=planar, predictor=2, zipped=True), order=order
    )
    close(decoded(content), expected(samples, bits, RGB))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation):
    content = tiff(page(noise(8, 3), 8, RGB, tags={274: (SHORT, [orientation])}))
    # OpenCV turns by the tag, too.
    right = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert right.shape == ((HEIGHT, WIDTH, 3) if orientation < 5 else (WIDTH, HEIGHT, 3))
    close(decoded(content), right.astype(int), 0)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("scale", [256, 257, 1])
def test_palettes_of_16_bits_or_of_8(bits, scale):
    samples = noise(bits, 1)
    colours = np.random.default_rng(1).integers(0, 256, (3, 1 << bits))
    content = tiff(
        page(samples, bits, PALETTE, tags={320: (SHORT, (colours * scale).ravel().tolist())})
    )
    assert np.array_equal(decoded(content), colours.T[samples[..., 0]])


LOSSLESS = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "lzma", "zstd")
MODES = ("1", "L", "LA", "RGB", "RGBA", "CMYK", "P", "I;16")


def saved(image, **options):
    content = io.BytesIO()
    image.save(content, "tiff", **options)
    return content.getvalue()


@pytest.mark.parametrize("compression", [*LOSSLESS, "tiff_ccitt", "group3", "group4"])
def test_what_libtiff_compresses(compression):
    for mode in MODES if compression in LOSSLESS else ("1",):
        if mode == "I;16":
            image = Image.fromarray(noise(16, 1)[..., 0].astype(np.uint16))
            right = expected(np.asarray(image)[..., None], 16, MIN_IS_BLACK)
        else:
            image = Image.fromarray(PHOTO).convert(mode)
            right = np.asarray(image.convert("RGB")).astype(float)
        close(decoded(saved(image, compression=compression)), right)


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
def test_jpeg_within_tiff(mode):
    # Pillow writes the samples as they are, without subsampling; a smooth image survives that.
    smooth = cv2.resize(PHOTO[:5, :5], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    image = Image.fromarray(smooth).convert(mode)
    content = saved(image, compression="jpeg", quality=98)
    close(decoded(content), np.asarray(image.convert("RGB")).astype(int), 8)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_subsampled_jpeg_within_tiff(subsampling):
    content = io.BytesIO()
    tifffile.imwrite(
        content,
        PHOTO,
        photometric="ycbcr",
        compression="jpeg",
        rowsperstrip=48,
        subsampling=subsampling,
        compressionargs={"level": 90},
    )
    right = imagecodecs.tiff_decode(content.getvalue(), asrgb=True)[..., :3]  # libtiff
    close(decoded(content.getvalue()), right.astype(int), 2)


def test_jpeg_of_12_bits_within_tiff():
    content = io.BytesIO()
    smooth = cv2.GaussianBlur(noise(12, 1)[..., 0].astype(np.float32), (0, 0), 4)
    samples = cv2.normalize(smooth, None, 0, 4095, cv2.NORM_MINMAX).astype(np.uint16)
    tifffile.imwrite(
        content, samples, compression="jpeg", compressionargs={"level": 98, "bitspersample": 12}
    )
    close(decoded(content.getvalue()), expected(samples[..., None], 12, MIN_IS_BLACK), 2)


def test_inks_may_be_paper():
    samples = noise(8, 4)
    content = tiff(page(samples, 8, CMYK, tags={336: (SHORT, [255, 0])}))
    close(decoded(content), expected(255 - samples, 8, CMYK), 1)


OME = (
    b'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels '
    b'Type="uint16" SignificantBits="12"/></Image></OME>\0'
)


@pytest.mark.parametrize(
    "tags",
    [
        {281: (SHORT, [4095])},
        {341: (SHORT, [4095])},
        {281: (SHORT, [3000]), 341: (SHORT, [4095])},
        {270: (ASCII, OME)},
    ],
)
def test_a_range_that_the_file_states_is_used(tags):
    samples = noise(12, 1)
    content = tiff(page(samples, 16, MIN_IS_BLACK, tags=tags))
    close(decoded(content), expected(samples, 12, MIN_IS_BLACK))
    inverse = tiff(page(samples, 16, MIN_IS_WHITE, tags=tags))
    close(decoded(inverse), expected(samples, 12, MIN_IS_WHITE))


def test_a_range_beyond_the_samples_own_is_none():
    samples = noise(12, 1)
    content = tiff(page(samples, 12, MIN_IS_BLACK, tags={281: (SHORT, [65535])}))
    close(decoded(content), expected(samples, 12, MIN_IS_BLACK))


@pytest.mark.parametrize(
    "most, tags, words",
    [
        (4095, {}, ("use 12 bits", "16 of 256 levels", "SMaxSampleValue 4095")),
        (3000, {281: (SHORT, [3000])}, ("use 12 bits",)),  # what there is, and no range
        (200, {}, ("use 8 bits",)),
        (16000, {}, ("use 14 bits", "64 of 256")),
        (5000, {281: (SHORT, [4095])}, ("use 13 bits",)),  # a range that is not held
        (20000, {}, ()),
        (65535, {281: (SHORT, [65535])}, ()),
        (0, {}, ()),
    ],
)
def test_unused_range_is_noted_and_never_stretched(most, tags, words):
    samples = noise(16, 3) % (most + 1)
    samples[0, 0] = most
    said = []
    image = decode_image(tiff(page(samples, 16, RGB, tags=tags)), said.append)
    close(image, expected(samples, 16, RGB))
    assert len(said) == bool(words) and all(word in said[0] for word in words)


def test_the_first_page_is_read_and_said_to_be():
    first, second = (page(noise(8, 1, seed), 8, MIN_IS_BLACK) for seed in (0, 1))
    right = expected(noise(8, 1, 0), 8, MIN_IS_BLACK)
    for big in (False, True):
        close(decoded(tiff(first, second, big=big), "first of several pages"), right)
    stack = io.BytesIO()
    tifffile.imwrite(
        stack, np.stack([noise(8, 1, i)[..., 0] for i in range(3)]).astype(np.uint8), imagej=True
    )
    close(decoded(stack.getvalue(), "first of several pages"), right)


def test_thumbnails_and_masks_are_passed_over():
    thumbnail = page(noise(8, 1, 3)[:20, :20], 8, MIN_IS_BLACK, tags={254: (SHORT, [1])})
    mask = page(noise(1, 1, 3), 1, MIN_IS_BLACK, tags={254: (SHORT, [4])})
    main = page(noise(8, 3), 8, RGB)
    for pages in ((thumbnail, main), (main, thumbnail, mask)):
        close(decoded(tiff(*pages)), expected(noise(8, 3), 8, RGB))
    with pytest.raises(SpadeError, match="only a reduced copy"):
        decode_image(tiff(thumbnail))


def tagged(**changes):
    """Return a file whose tags, called by number as in _258, say something else."""
    return tiff(
        page(
            noise(8, 3),
            8,
            RGB,
            tags={int(name[1:]): (SHORT, values) for name, values in changes.items()},
        )
    )


REFUSED = {
    "floating-point": tiff(page(noise(8, 1).astype(np.float32), 32, MIN_IS_BLACK)),
    "signed": tiff(page(noise(8, 1).astype(np.int16), 16, MIN_IS_BLACK)),
    "32-bit": tiff(page(noise(8, 1), 32, MIN_IS_BLACK)),
    "several depths": tagged(_258=[5, 6, 5]),
    "CIELAB": tagged(_262=[8]),
    "YCbCr": tagged(_262=[6]),
    "CFA": tagged(_262=[32803]),
    "inks": tiff(page(noise(8, 4), 8, CMYK, tags={332: (SHORT, [2])})),
    "9 samples": tiff(page(noise(8, 9), 8, RGB)),
    "3 samples": tiff(page(noise(8, 3), 8, MIN_IS_BLACK, tags={338: (SHORT, [])})),
    "2 samples": tiff(page(noise(8, 2), 8, RGB)),
    "JPEG2000": tagged(_259=[34712]),
    "predictor 2 with 12-bit": tiff(page(noise(12, 1), 12, MIN_IS_BLACK, predictor=2)),
    "predictor 3": tagged(_317=[3]),
    "palette": tiff(page(noise(8, 1), 8, PALETTE, tags={320: (SHORT, [0] * 9)})),
    "no PhotometricInterpretation": tagged().replace(b"\x06\x01\x03\0", b"\x07\x01\x03\0"),
    "missing": tagged(_278=[8]),
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_cannot_be_read_for_certain_is_refused_by_name(word):
    with pytest.raises(SpadeError, match=word) as caught:
        decode_image(REFUSED[word])
    assert "\n" not in str(caught.value)


WRITTEN = {
    "plain": saved(Image.fromarray(PHOTO)),
    "planar": tiff(page(noise(16, 3), 16, RGB, planar=True)),
    "12 bits": tiff(page(noise(12, 1), 12, MIN_IS_BLACK)),
    "tiles": tiff(page(noise(8, 3), 8, RGB, tile=(16, 16))),
    "fax": saved(Image.fromarray(PHOTO).convert("1"), compression="group4"),
    **{
        name: saved(Image.fromarray(PHOTO), compression=name)
        for name in ("tiff_lzw", "packbits", "tiff_deflate", "jpeg", "zstd", "lzma")
    },
}


@pytest.mark.parametrize("name", WRITTEN)
def test_no_part_of_a_file_passes_for_the_whole(name):
    content = WRITTEN[name]
    whole = decode_image(content)
    for cut in np.linspace(0, len(content) - 1, 40).astype(int):
        # Behind the pixels there may be tags that are not needed.
        try:
            image = decode_image(content[:cut] or b"")
        except SpadeError as error:
            assert "\n" not in str(error)
        else:
            assert np.array_equal(image, whole) and cut > len(content) * 0.9


@pytest.mark.parametrize("name", sorted(set(WRITTEN) - {"fax"}))  # where rows may end early
def test_a_strip_that_is_too_short_is_no_strip(name):
    content = bytearray(WRITTEN[name])
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tag = file.pages.first.tags.get(279) or file.pages.first.tags[325]
        sizes = np.atleast_1d(tag.value).astype(file.byteorder + {3: "H", 4: "I"}[int(tag.dtype)])
        at = tag.valueoffset
    sizes[-1] //= 3
    content[at : at + sizes.nbytes] = sizes.tobytes()
    with pytest.raises(SpadeError, match=r"damaged|cut short"):
        decode_image(content)


def test_no_small_file_takes_much_memory():
    huge = {256: (SHORT, [60000]), 257: (SHORT, [60000])}
    with pytest.raises(SpadeError, match="60000x60000"):
        decode_image(tiff(page(noise(8, 1), 8, MIN_IS_BLACK, tags=huge)))
    with pytest.raises(SpadeError, match="too small or too large"):
        decode_image(
            tiff(
                page(
                    noise(8, 1),
                    8,
                    MIN_IS_BLACK,
                    tile=(16, 16),
                    tags={322: (SHORT, [60000]), 323: (SHORT, [60000])},
                )
            )
        )
    jpeg = bytearray(saved(Image.fromarray(PHOTO), compression="jpeg"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\0\xff\0"  # 65280x65280 within 40x50
    with pytest.raises(SpadeError, match="JPEG"):
        decode_image(bytes(jpeg))
