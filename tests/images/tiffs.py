"""TIFF files written byte by byte, so that their every pixel is known."""

import struct
import zlib

import numpy as np

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 13: 4, 16: 8}
_LETTERS = {1: "B", 2: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
SHORT, LONG, LONG8, ASCII = 3, 4, 16, 2


def packed(samples, bits, order):
    """Return rows of samples [rows, n] as TIFF packs them, each row from a byte's start on."""
    if bits in (8, 16, 32, 64):
        kind = samples.dtype.kind if samples.dtype.kind in "fi" else "u"
        return samples.astype(f"{order}{kind}{bits // 8}").tobytes()
    unpacked = (samples[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(unpacked.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def segments(samples, tile, rows):
    """Cut [H, W, C] into tiles, padded with noise, or strips."""
    height, width = samples.shape[:2]
    if tile is None:
        return [samples[at : at + rows] for at in range(0, height, rows)]
    down, across = -(-height // tile[0]), -(-width // tile[1])
    grid = (
        np.random.default_rng(9)
        .integers(0, 2, (down * tile[0], across * tile[1], samples.shape[2]))
        .astype(samples.dtype)
    )
    grid[:height, :width] = samples
    return [
        grid[y * tile[0] :, x * tile[1] :][: tile[0], : tile[1]]
        for y in range(down)
        for x in range(across)
    ]


def directory(entries, at, order, big, following):
    """Return a directory that lies at a place in the file, and what its tags point to."""
    number, entry, room = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    word = "Q" if big else "I"
    size = struct.calcsize(order + number) + len(entries) * (4 + 2 * room) + room
    table, behind = struct.pack(order + number, len(entries)), b""
    for tag, (kind, values) in sorted(entries.items()):
        content = struct.pack(f"{order}{len(values)}{_LETTERS[kind]}", *values)
        table += struct.pack(order + entry, tag, kind, len(values))
        if len(content) <= room:
            table += content.ljust(room, b"\0")
        else:
            table += struct.pack(order + word, at + size + len(behind))
            behind += content + b"\0" * (len(content) % 2)
    end = at + size + len(behind)
    return table + struct.pack(order + word, end if following else 0) + behind


def tiff(*pages, order="<", big=False):
    """Return a TIFF file of pages, each what `page` returns."""
    mark = b"II" if order == "<" else b"MM"
    head = mark + (
        struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8)
    )
    data = head
    for number, (entries, parts) in enumerate(pages):
        entries = dict(entries)
        starts, sizes = (324, 325) if 322 in entries else (273, 279)
        word = LONG8 if big else LONG
        entries[sizes] = (word, [len(part) for part in parts])
        entries[starts] = (word, [0] * len(parts))
        size = len(directory(entries, len(data), order, big, True))
        places, place = [], len(data) + size
        # The pixels of a page lie behind its directory, and the next page behind those.
        for part in parts:
            places.append(place)
            place += len(part)
        entries[starts] = (word, places)
        table = bytearray(directory(entries, len(data), order, big, False))
        if number + 1 < len(pages):
            place += place % 2
            count = len(entries)
            at = (8 + count * 20) if big else (2 + count * 12)
            table[at : at + (8 if big else 4)] = struct.pack(order + ("Q" if big else "I"), place)
        data = (data + bytes(table) + b"".join(parts)).ljust(place, b"\0")
    return data


def page(
    samples,
    bits,
    photometric,
    *,
    order="<",
    planar=False,
    tile=None,
    rows=16,
    zipped=False,
    predictor=1,
    reversed_bits=False,
    tags=(),
):
    """Return a page's tags and the bytes of its strips or tiles, for samples [H, W, C]."""
    height, width, channels = samples.shape
    kind = {"f": 3, "i": 2}.get(samples.dtype.kind, 1)
    entries = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [bits] * channels),
        259: (SHORT, [8 if zipped else 1]),
        262: (SHORT, [photometric]),
        277: (SHORT, [channels]),
        284: (SHORT, [2 if planar else 1]),
        339: (SHORT, [kind] * channels),
        317: (SHORT, [predictor]),
        266: (SHORT, [2 if reversed_bits else 1]),
    }
    if tile is None:
        entries[278] = (LONG, [rows])
    else:
        entries |= {322: (LONG, [tile[1]]), 323: (LONG, [tile[0]])}
    colours = {RGB: 3, CMYK: 4}.get(photometric, 1)
    if channels > colours:
        entries[338] = (SHORT, [2] * (channels - colours))
    entries |= dict(tags)
    planes = [samples[..., c : c + 1] for c in range(channels)] if planar else [samples]
    parts = []
    for plane in planes:
        for part in segments(plane, tile, rows):
            if predictor == 2:
                part = np.diff(part, axis=1, prepend=part[:, :1] * 0)
                part = part & ((1 << bits) - 1)
            data = packed(part.reshape(len(part), -1), bits, order)
            if zipped:
                data = zlib.compress(data)
            if reversed_bits:
                flipped = np.unpackbits(np.frombuffer(data, np.uint8).reshape(-1, 1), axis=1)
                data = np.packbits(flipped[:, ::-1], axis=1).tobytes()
            parts.append(data)
    return entries, parts
