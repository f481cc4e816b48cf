"""What no client should send: each gets a 4xx that says why, and costs little."""

import base64
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from spade_faiss.service.routes import query
from tests.conftest import texture
from tests.service.serving import form

PICTURE = texture("gravel", 1, seed=9)[0]


def encoded(kind, image=PICTURE, **options):
    data = io.BytesIO()
    Image.fromarray(image).save(data, kind, **options)
    return data.getvalue()


def chunk(name, data):
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


def png_of(width, height, pixels=b"", depth=8, colour=2):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def tiff(image, **options):
    data = io.BytesIO()
    tifffile.imwrite(data, image, **options)
    return data.getvalue()


WHOLE = {
    "png": encoded("PNG"),
    "jpeg": encoded("JPEG"),
    "bmp": encoded("BMP"),
    "tiff": encoded("TIFF"),
    "lzw": encoded("TIFF", compression="tiff_lzw"),
    "webp": encoded("WEBP"),
    "webp lossless": encoded("WEBP", lossless=True),
    "progressive": encoded("JPEG", progressive=True),
    "rgb16": tiff(PICTURE.astype(np.uint16) * 257),
}


def bombs():
    """Yield files of a few bytes that would be gigabytes of pixels."""
    yield "png of 4 Gpx", png_of(65_500, 65_500, bytes(1000))
    yield "png of 40 Mpx", png_of(8000, 5000, bytes(40_005_000), colour=0)
    yield "png of 1 bit a pixel", png_of(100_000, 100_000, bytes(10_000), 1, 0)
    yield "png 2^31 wide", png_of(2**31 - 1, 1)
    yield "png 2^31 square", png_of(2**31 - 1, 2**31 - 1)
    yield "black jpeg", encoded("JPEG", np.zeros((6000, 6000), np.uint8))
    yield "black webp", encoded("WEBP", np.zeros((6000, 6000, 3), np.uint8), method=0)
    yield "deflated tiff", tiff(np.zeros((7000, 7000), np.uint8), compression="zlib")
    yield (
        "deflated 16-bit tiff",
        tiff(np.zeros((4000, 9000, 3), np.uint16), compression="zlib", photometric="rgb"),
    )
    yield (
        "bmp that says so",
        (
            b"BM"
            + struct.pack("<IHHI", 1 << 20, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
            + bytes(1000)
        ),
    )
    header = bytearray(WHOLE["jpeg"])
    at = header.index(b"\xff\xc0")
    header[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    yield "jpeg that says so", bytes(header)


def wrong():
    """Yield files that are not usable images, by name."""
    for name, data in WHOLE.items():
        for share in (0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.65):
            yield f"{name} cut at {share}", data[: int(share * len(data))]
        yield f"{name} without its start", data[7:]
        yield f"{name}'s first four bytes", data[:4]
        yield f"{name} behind a page", b"<html><script>alert(1)</script>" + data
        yield f"{name} behind a program", b"\x7fELF" + bytes(60) + data
        yield f"{name} behind zeros", bytes(512) + data
        yield f"{name} reversed", data[::-1]
        yield f"{name} in base64", base64.b64encode(data)
        yield f"{name} compressed", zlib.compress(data)
    yield "nothing", b""
    for name, data in {
        "text": b"not an image",
        "zero": bytes(1),
        "zeros": bytes(5000),
        "spaces": b" " * 3000,
        "json": b'{"image": true}',
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "xml": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a/>",
        "pdf": b"%PDF-1.7\n1 0 obj\n",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n",
        "zip": b"PK\x03\x04" + bytes(60),
        "gzip": b"\x1f\x8b\x08" + bytes(60),
        "elf": b"\x7fELF" + bytes(60),
        "mp4": b"\0\0\0\x18ftypmp42" + bytes(60),
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "npy": b"\x93NUMPY\x01\0" + bytes(60),
        "utf-16": "image".encode("utf-16"),
        "path": b"/etc/passwd",
        "url": b"http://localhost/",
        "psd": b"8BPS\0\x01" + bytes(60),
        "ppm": b"P6 64 64 255\n" + bytes(12_288),
        "xbm": b"#define a_width 64\n#define a_height 64\nstatic char a_bits[] = {0x00};",
        "icns": b"icns" + struct.pack(">I", 100) + bytes(92),
        "flac": b"fLaC" + bytes(60),
        "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),
        "exr": b"v/1\x01" + bytes(60),
        "png's first bytes": b"\x89PNG\r\n\x1a\n",
        "jpeg's first bytes": b"\xff\xd8\xff\xe0",
        "tiff without pages": b"II*\0\0\0\0\0",
        "tiff of pages without end": b"II*\0\x08\0\0\0\0\0",
        "bigtiff": b"II+\0\x08\0\0\0" + b"\xff" * 60,
        "riff": b"RIFF\xff\xff\xff\xffWEBP",
        "riff of webp": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(60),
        "gif": encoded("GIF", PICTURE[..., 0]),
        "ico": encoded("ICO"),
        "tga": encoded("TGA"),
        "png of no width": png_of(0, 10),
        "png of no pixels": png_of(64, 64),
        "png of few pixels": png_of(64, 64, bytes(1000)),
        "png of bad depth": png_of(64, 64, b"", 7),
        "png of bad colour": png_of(64, 64, bytes(12_352), 8, 9),
    }.items():
        yield name, data
    broken = bytearray(WHOLE["png"])
    broken[40:60] = bytes(20)
    yield "png of broken pixels", bytes(broken)
    for side in ((1, 1), (15, 300), (300, 15), (1, 5000)):
        yield f"too small: {side}", encoded("PNG", np.zeros((*side, 3), np.uint8))
    for kind in (np.float32, np.float64, np.float16, np.int32, np.uint32, np.complex64):
        values = np.full((64, 64), 3, kind)
        values[9, 9] = np.nan if kind not in (np.int32, np.uint32) else 2**30
        yield f"tiff of {np.dtype(kind)}", tiff(values)
        yield (
            f"tiff of {np.dtype(kind)}, colour",
            tiff(np.stack([values] * 3, -1), photometric="rgb"),
        )
    yield "nan alone", tiff(np.full((64, 64), np.nan, np.float32))
    yield "infinity", tiff(np.full((64, 64), np.inf, np.float32))
    rng = np.random.default_rng(0)
    for size in (1, 10, 100, 1000, 10_000):
        yield f"{size} bytes of noise", rng.bytes(size)
    for kind in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"RIFF"):
        yield f"noise that begins with {kind!r}", kind + rng.bytes(2000)


def test_two_hundred_wrong_files_each_get_an_answer_that_says_why(service):
    sent = 0
    for name, data in wrong():
        answer = service.client.post("/v1/query", files=form(data))
        assert answer.status_code in (413, 415, 422), (name, answer.status_code, answer.text)
        assert answer.json()["detail"].startswith("0.png: "), (name, answer.text)
        sent += 1
    assert sent >= 200, sent
    good = service.client.post("/v1/query", files=form(WHOLE["png"]))
    assert good.status_code == 200


@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_files_are_fine(service, name):
    assert service.client.post("/v1/query", files=form(WHOLE[name])).status_code == 200


def test_bombs_are_refused_by_their_headers(service, monkeypatch):
    def never(data):
        raise AssertionError("a bomb was decoded")

    monkeypatch.setattr(query, "decode_image", never)
    for name, data in bombs():
        assert len(data) < 1 << 20
        answer = service.client.post("/v1/query", files=form(data))
        assert answer.status_code in (413, 415), (name, answer.text)
        if answer.status_code == 415:  # no decoder takes such a header
            assert "2^31" in name
        else:
            assert "pixels" in answer.json()["detail"], name


PART = b'Content-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
END = b"\r\n--b--\r\n"
BODIES = {
    "nothing": b"",
    "no boundary": b"hello",
    "end alone": b"--b--\r\n",
    "another boundary": b"--c\r\n" + PART + WHOLE["png"] + b"\r\n--c--\r\n",
    "no end": b"--b\r\n" + PART + WHOLE["png"],
    "no end of the headers": b"--b\r\nContent-Disposition: form-data",
    "headers without end": b"--b\r\n" + b"A: b\r\n" * 2000,
    "a header without end": b"--b\r\nA: " + b"b" * 100_000,
    "no name": b"--b\r\nContent-Disposition: form-data\r\n\r\n" + WHOLE["png"] + END,
    "no headers": b"--b\r\n\r\n" + WHOLE["png"] + END,
    "another name": b"--b\r\n" + PART.replace(b"images", b"file") + WHOLE["png"] + END,
    "a bad header": b"--b\r\n\0\xff: x\r\n\r\n" + WHOLE["png"] + END,
    "two names": b"--b\r\n"
    + PART
    + WHOLE["png"]
    + b"\r\n--b\r\n"
    + PART.replace(b"images", b"more")
    + END,
    "an empty part": b"--b\r\n" + PART + END,
    "json": b'{"images": []}',
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_no_form(service, name):
    answer = service.client.post(
        "/v1/query",
        content=BODIES[name],
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "application/json",
        "multipart/form-data",
        "multipart/mixed; boundary=b",
        "multipart/form-data; boundary=",
        "application/x-www-form-urlencoded",
        "\xff",
    ],
)
def test_other_kinds_of_body(service, kind):
    headers = {} if kind is None else {"content-type": kind.encode("latin-1")}
    answer = service.client.post(
        "/v1/query", content=b"--b\r\n" + PART + WHOLE["png"] + END, headers=headers
    )
    assert answer.status_code == 415 and "multipart" in answer.json()["detail"]


def test_a_boundary_that_is_too_long(service):
    headers = {"content-type": "multipart/form-data; boundary=" + "b" * 5000}
    answer = service.client.post("/v1/query", content=b"--b", headers=headers)
    assert answer.status_code in (415, 422)


def test_one_bad_image_among_good_ones_is_named(service):
    good = cv2.imencode(".png", PICTURE)[1].tobytes()
    answer = service.client.post("/v1/query", files=form(good, b"bad", good))
    assert answer.status_code == 415 and answer.json()["detail"].startswith("1.png: ")
