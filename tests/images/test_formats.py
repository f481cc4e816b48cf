"""PNG, JPEG, BMP and WebP of every kind; PNG and BMP are written byte by byte."""

import io
import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from spade_faiss.errors import SpadeError
from spade_faiss.images import decode_image, image_size
from tests.images.test_tiff import HEIGHT, PHOTO, WIDTH, close, decoded, noise
from tests.images.tiffs import SHORT, page, tiff

SMOOTH = cv2.resize(PHOTO[10:16, 20:26], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
GREY, COLOUR, INDEXED, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, COLOUR: 3, INDEXED: 1, GREY_ALPHA: 2, COLOUR_ALPHA: 4}
DEPTHS = (
    [(bits, GREY) for bits in (1, 2, 4, 8, 16)]
    + [(bits, INDEXED) for bits in (1, 2, 4, 8)]
    + [(bits, colour) for bits in (8, 16) for colour in (COLOUR, GREY_ALPHA, COLOUR_ALPHA)]
)
PASSES = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
"""Of Adam7: first row and column, steps down and across."""
EXIF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
"""Orientation 6: to be turned by a right angle, clockwise."""


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(samples, bits, colour, interlaced=False, before=(), behind=()):
    rows = b""
    for top, left, down, across in PASSES if interlaced else [(0, 0, 1, 1)]:
        for row in samples[top::down, left::across].astype(np.uint32):
            unpacked = (row.reshape(-1, 1) >> np.arange(bits)[::-1]) & 1
            rows += b"\0" + np.packbits(unpacked.astype(np.uint8)).tobytes()
    header = struct.pack(
        ">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour, 0, 0, interlaced
    )
    data = zlib.compress(rows)
    parts = [
        (b"IHDR", header),
        *before,
        (b"IDAT", data[:50]),
        (b"IDAT", data[50:]),
        *behind,
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits, colour", DEPTHS)
def test_every_kind_of_png(bits, colour, interlaced):
    samples = noise(bits, CHANNELS[colour])
    palette = np.random.default_rng(2).integers(0, 256, (1 << min(bits, 8), 3), dtype=np.uint8)
    table = [(b"PLTE", palette.tobytes())] if colour == INDEXED else []
    if colour == INDEXED:
        right = palette[samples[..., 0]].astype(int)
    else:
        colours = samples[..., : 3 if colour & 2 else 1]
        right = np.broadcast_to(colours * (255 / (2**bits - 1)), (HEIGHT, WIDTH, 3))
    close(decoded(png(samples, bits, colour, interlaced, table)), right)
    if colour in (GREY, COLOUR, INDEXED):  # one sample, or some of the palette, as transparent
        clear = (
            b"\0\1\2"
            if colour == INDEXED and bits > 1
            else struct.pack(f">{samples.shape[2]}H", *samples[3, 3])
            if colour != INDEXED
            else b"\0"
        )
        close(decoded(png(samples, bits, colour, interlaced, [*table, (b"tRNS", clear)])), right)
    turned = png(samples, bits, colour, interlaced, table, [(b"eXIf", EXIF)])
    close(decoded(turned), np.rot90(right, -1))


@pytest.mark.parametrize("colour", [GREY, COLOUR, COLOUR_ALPHA])
def test_png_says_how_many_bits_are_significant(colour):
    samples, said = noise(12, CHANNELS[colour]), bytes([12] * CHANNELS[colour])
    colours = samples[..., : 3 if colour & 2 else 1]
    right = np.broadcast_to(colours * (255 / 4095), (HEIGHT, WIDTH, 3))
    # By the specification they are scaled up to 16 bits, and some programs do not.
    for scale in (1, 16):
        close(
            decoded(png(samples * scale, 16, colour, before=[(b"sBIT", said)])),
            right,
            1.01 if scale == 16 else 0.51,
        )
    # In a dark image, too, they are what they are.
    dark = samples // 32
    close(
        decoded(png(dark * 16, 16, colour, before=[(b"sBIT", said)]), "use 11 bits"),
        right // 32,
        1.01,
    )
    close(
        decoded(png(samples, 16, colour), "use 12 bits"),
        np.broadcast_to(colours * (255 / 65535), right.shape),
    )


def test_a_changed_bit_of_a_png_is_noticed():
    content = png(noise(8, 3), 8, COLOUR)
    for at in range(40, len(content), 97):
        changed = bytearray(content)
        changed[at] ^= 4
        with pytest.raises(SpadeError):
            decode_image(changed)


def saved(image, kind, **options):
    content = io.BytesIO()
    Image.fromarray(image).save(content, kind, **options)
    return content.getvalue()


JPEGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "restarts": {"restart_marker_blocks": 2},
    "RGB": {"keep_rgb": True},
    "turned": {"exif": b"Exif\0\0" + EXIF},
}


@pytest.mark.parametrize("name", JPEGS)
def test_every_kind_of_jpeg(name):
    content = saved(SMOOTH, "jpeg", quality=98, **JPEGS[name])
    close(decoded(content), np.rot90(SMOOTH, -1 if name == "turned" else 0).astype(int), 8)
    grey = saved(SMOOTH[..., 0], "jpeg", quality=98, progressive=name == "progressive")
    close(decoded(grey), SMOOTH[..., :1].repeat(3, 2).astype(int), 3)


INKS = np.concatenate([SMOOTH, SMOOTH[::-1, ::-1, :1] // 2], 2)
PRINTED = (255 - INKS[..., :3].astype(float)) * (255 - INKS[..., 3:]) / 255


@pytest.mark.parametrize("stored", ["CMYK", "YCCK"])
def test_inks_of_jpeg_are_as_adobe_writes_them(stored):
    content = imagecodecs.jpeg8_encode(
        255 - INKS, level=98, colorspace="CMYK", outcolorspace=stored
    )
    assert b"Adobe" in content
    close(decoded(content), PRINTED, 14 if stored == "YCCK" else 4)
    of_opencv = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    close(decoded(content), of_opencv.astype(int), 3)


def test_inks_of_jpeg_without_adobes_mark_are_refused():
    content = imagecodecs.jpeg8_encode(
        255 - INKS, level=98, colorspace="CMYK", outcolorspace="CMYK"
    )
    at = content.index(b"Adobe") - 4
    with pytest.raises(SpadeError, match=r"CMYK.*Adobe"):
        decode_image(content[:at] + content[at + 16 :])


@pytest.mark.parametrize("lossless, bits", [(False, 12), (True, 8), (True, 12), (True, 16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpegs_of_more_bits_and_lossless_ones(channels, bits, lossless):
    image = np.squeeze(SMOOTH[..., :channels])
    samples = np.round(image * ((2**bits - 1) / 255)).astype(np.uint8 if bits == 8 else np.uint16)
    content = imagecodecs.jpeg8_encode(
        samples, level=99, bitspersample=bits, lossless=lossless, subsampling="444"
    )
    right = np.broadcast_to(SMOOTH[..., :channels], SMOOTH.shape).astype(int)
    close(decoded(content), right, 0 if lossless else 3)
    turned = content[:2] + b"\xff\xe1" + struct.pack(">H", len(EXIF) + 8) + b"Exif\0\0" + EXIF
    close(decoded(turned + content[2:]), np.rot90(right, -1), 0 if lossless else 3)


def bmp(rows, bits, compression=0, masks=b"", palette=b"", top_down=False, size=(HEIGHT, WIDTH)):
    """Return a BMP file for the bytes of its rows, the lowest first unless it is top-down."""
    head = (
        struct.pack(
            "<IiiHHIIiiII",
            40,
            size[1],
            -size[0] if top_down else size[0],
            1,
            bits,
            compression,
            len(rows),
            0,
            0,
            len(palette) // 4,
            0,
        )
        + masks
        + palette
    )
    return struct.pack("<2sIHHI", b"BM", 14 + len(head) + len(rows), 0, 0, 14 + len(head)) + (
        head + rows
    )


def bmp_rows(samples, bits, top_down):
    if bits < 8:
        unpacked = (samples[..., None] >> np.arange(bits)[::-1]) & 1
        packed = np.packbits(unpacked.reshape(HEIGHT, -1).astype(np.uint8), axis=1)
    else:
        packed = samples.astype(f"<u{bits // 8}").view(np.uint8).reshape(HEIGHT, -1)
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4)))
    return (packed if top_down else packed[::-1]).tobytes()


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bmp_of_a_palette(bits, top_down):
    samples = noise(bits, 1)[..., 0]
    palette = np.random.default_rng(2).integers(0, 256, (1 << bits, 4), dtype=np.uint8)
    content = bmp(
        bmp_rows(samples, bits, top_down), bits, palette=palette.tobytes(), top_down=top_down
    )
    assert np.array_equal(decoded(content), palette[samples][..., 2::-1])


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize(
    "bits, masks",
    [
        (16, ()),
        (16, (0x7C00, 0x3E0, 0x1F)),
        (16, (0xF800, 0x7E0, 0x1F)),
        (24, ()),
        (32, ()),
        (32, (0xFF0000, 0xFF00, 0xFF)),
        (32, (0xFF000000, 0xFF0000, 0xFF00)),
    ],
)
def test_bmp_of_colours(bits, masks, top_down):
    if bits == 24:
        colours = noise(8, 3)
        rows = np.pad(colours[..., ::-1].reshape(HEIGHT, -1).astype(np.uint8), ((0, 0), (0, 2)))
        content = bmp((rows if top_down else rows[::-1]).tobytes(), 24, top_down=top_down)
        assert np.array_equal(decoded(content), colours)
        return
    samples = noise(bits, 1)[..., 0]
    content = bmp(
        bmp_rows(samples, bits, top_down),
        bits,
        3 if masks else 0,
        struct.pack(f"<{len(masks)}I", *masks),
        top_down=top_down,
    )
    shown = masks or ((0x7C00, 0x3E0, 0x1F) if bits == 16 else (0xFF0000, 0xFF00, 0xFF))
    low = [mask & -mask for mask in shown]
    right = np.stack(
        [
            (samples & mask) / one / (mask // one) * 255
            for mask, one in zip(shown, low, strict=True)
        ],
        2,
    )
    close(decoded(content), right, 1)


@pytest.mark.parametrize("bits", [4, 8])
def test_bmp_of_runs(bits):
    samples = np.repeat(noise(bits, 1)[:, :25, 0], 2, 1)
    palette = np.random.default_rng(2).integers(0, 256, (1 << bits, 4), dtype=np.uint8)
    runs = (
        b"".join(
            b"".join(bytes([2, value * 17 if bits == 4 else value]) for value in row[::2]) + b"\0\0"
            for row in samples[::-1]
        )
        + b"\0\1"
    )
    content = bmp(runs, bits, 1 if bits == 8 else 2, palette=palette.tobytes())
    assert np.array_equal(decoded(content), palette[samples][..., 2::-1])


def test_every_kind_of_webp():
    alpha = np.concatenate([SMOOTH, noise(8, 1).astype(np.uint8)], 2)
    assert np.array_equal(decoded(saved(PHOTO, "webp", lossless=True)), PHOTO)
    close(decoded(saved(SMOOTH, "webp", quality=98)), SMOOTH.astype(int), 8)
    assert np.array_equal(decoded(saved(alpha, "webp", lossless=True, exact=True)), SMOOTH)
    turned = saved(PHOTO, "webp", lossless=True, exif=b"Exif\0\0" + EXIF)
    assert np.array_equal(decoded(turned), np.rot90(PHOTO, -1))


@pytest.mark.parametrize("kind", ["webp", "png"])
def test_the_first_of_several_frames_is_read_and_said_to_be(kind):
    frames = [Image.fromarray(PHOTO), Image.fromarray(PHOTO[::-1].copy())]
    content = io.BytesIO()
    frames[0].save(content, kind, save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(decoded(content.getvalue(), "first of several frames"), PHOTO)


WRITTEN = {
    "png": saved(PHOTO, "png"),
    "interlaced": png(noise(8, 3), 8, COLOUR, True),
    "deep": png(noise(16, 3), 16, COLOUR),
    "jpeg": saved(PHOTO, "jpeg"),
    "progressive": saved(PHOTO, "jpeg", progressive=True),
    "12 bits": imagecodecs.jpeg8_encode(noise(12, 1).astype(np.uint16), bitspersample=12),
    "bmp": saved(PHOTO, "bmp"),
    "webp": saved(PHOTO, "webp"),
    "lossless": saved(PHOTO, "webp", lossless=True),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_no_part_of_a_file_passes_for_the_whole(name):
    content = WRITTEN[name]
    decode_image(content)
    for cut in [*np.linspace(0, len(content), 40, endpoint=False).astype(int), len(content) - 1]:
        if name == "bmp" and cut >= len(content) - 2:  # what a last row is filled up with
            continue
        with pytest.raises(SpadeError) as caught:
            decode_image(content[:cut])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["png", "jpeg", "progressive", "12 bits"])
def test_zeros_in_place_of_an_end_are_no_end(name):
    # As after a crash, when a file has its length but not its content.
    content = WRITTEN[name]
    for cut in (len(content) // 2, len(content) - 30):
        with pytest.raises(SpadeError):
            decode_image(content[:cut] + bytes(len(content) - cut))


def test_odd_bmp_is_refused():
    for compression, masks in ((3, (0xFF, 0xFF00, 0xFF0000)), (4, ()), (5, ())):
        content = bmp(
            bmp_rows(noise(32, 1)[..., 0], 32, False),
            32,
            compression,
            struct.pack(f"<{len(masks)}I", *masks),
        )
        with pytest.raises(SpadeError, match=r"rare kind .*Unsupported"):
            decode_image(content)


def test_a_jpeg_that_was_given_an_end_is_noted():
    content = WRITTEN["jpeg"]
    for cut in (len(content) // 2, len(content) * 3 // 4):
        decoded(content[:cut] + b"\xff\xd9", "data broke off")
    taller = content.replace(struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 90, WIDTH), 1)
    decoded(taller, "data broke off")


def test_runs_that_end_early_are_refused():
    runs = b"\x32\1\0\0" * (HEIGHT - 2)
    with pytest.raises(SpadeError):
        decode_image(bmp(runs + b"\0\1", 8, 1, palette=bytes(1024)))


def test_images_up_to_the_limit_are_read_without_a_word():
    side = 9500  # 90 megapixels, more than Pillow reads in silence
    rows = zlib.compress((b"\0" + b"\x55" * (side // 8 + 1)) * side)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)),
        (b"IDAT", rows),
        (b"IEND", b""),
    ]
    image = decoded(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    assert image.shape == (side, side, 3) and image[-1, -1].max() == 255 and not image[-1, -2].any()


def test_images_over_the_limit_are_refused_before_they_are_decoded():
    head = [(b"IHDR", struct.pack(">IIBBBBB", 20000, 10001, 8, 2, 0, 0, 0)), (b"IEND", b"")]
    files = {
        "png": b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in head),
        "bmp": bmp(b"", 24, size=(10001, 20000)),
        "jpeg": WRITTEN["jpeg"].replace(
            struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 10001, 20000), 1
        ),
        "tiff": tiff(page(noise(8, 1), 8, 1, tags={256: (SHORT, [20000]), 257: (SHORT, [10001])})),
    }
    for content in files.values():
        assert image_size(content) == (10001, 20000)
        with pytest.raises(SpadeError, match=r"20000x10001, and at most 200 million"):
            decode_image(content)


def test_sizes_agree():
    for content in WRITTEN.values():
        assert image_size(content) == decode_image(content).shape[:2]
    assert image_size(b"GIF89a") is image_size(b"") is image_size(b"RIFF1234WAVE") is None
