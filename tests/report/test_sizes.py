"""Maps that are large, not wanted, or read by others; overlays of any size."""

import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from spade_faiss import Spade, SpadeError
from spade_faiss.images import find_images
from spade_faiss.images.video import VIDEO_SUFFIXES
from spade_faiss.pictures.colours import OUTLINE
from spade_faiss.pictures.drawing import overlaid
from spade_faiss.pictures.encode import as_tiff
from spade_faiss.report import overlay_picture, write_query
from spade_faiss.verdict import judge_result
from tests.command import done, one_line, run
from tests.conftest import texture, with_hole
from tests.images.video.videos import street, walk, write_video


@pytest.fixture(scope="module")
def spade(tiny):
    return Spade(tiny, resize=64, crop=None, quantile=0.9).fit(texture("brick", 4))


@pytest.fixture(scope="module")
def index(spade, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes") / "index"
    spade.save(folder)
    return folder


@pytest.fixture(scope="module")
def large():
    """A picture of over a megapixel."""
    image = with_hole(texture("brick", 1, seed=4)[0])
    return cv2.resize(image, (1400, 1000), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def parts(large, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    cv2.imwrite(str(folder / "large.png"), large[..., ::-1])
    cv2.imwrite(str(folder / "small.png"), texture("brick", 1, seed=5)[0][..., ::-1])
    return folder


WITHOUT_CODECS = """
import sys
sys.modules["imagecodecs"] = None
import numpy, tifffile
for path, same in zip(sys.argv[1::2], sys.argv[2::2]):
    assert numpy.array_equal(tifffile.imread(path), numpy.load(same))
"""


def test_large_maps_are_compressed_and_every_reader_reads_them(spade, parts, tmp_path):
    rows = write_query(spade, find_images([parts], print), tmp_path / "out", on_note=print)
    said = []
    for row, result, compression in zip(
        rows, spade.query([row.path for row in rows]), (8, 1), strict=True
    ):
        with tifffile.TiffFile(row.map) as file:
            (page,) = file.pages
            assert page.compression == compression and page.predictor == 1
            assert page.dtype == np.float32 and page.shape == result.image.shape[:2]
        for values in (
            tifffile.imread(row.map),
            cv2.imread(row.map, cv2.IMREAD_UNCHANGED),
            np.asarray(Image.open(row.map)),
        ):
            np.testing.assert_array_equal(values, result.map)
        np.save(tmp_path / f"{compression}.npy", result.map)
        said += [row.map, str(tmp_path / f"{compression}.npy")]
    # MVTec's own evaluation code asks for tifffile, not for imagecodecs.
    subprocess.run([sys.executable, "-c", WITHOUT_CODECS, *said], check=True)


def test_compression_begins_above_a_megapixel_and_saves_space():
    values = np.zeros((1000, 1000), np.float32)
    assert len(as_tiff(values)) > 4_000_000
    assert len(as_tiff(np.zeros((1000, 1001), np.float32))) < 40_000


def test_no_maps_leaves_out_maps_and_nothing_else(index, parts, tmp_path):
    for name, options in (("with", ()), ("without", ("--no-maps",))):
        done("query", index, parts, "--out", tmp_path / name, "--report", "--explain", *options)
    kept = {
        path.relative_to(tmp_path / "with")
        for path in (tmp_path / "with").rglob("*")
        if path.is_file() and path.suffix != ".tiff"
    }
    assert kept == {
        path.relative_to(tmp_path / "without")
        for path in (tmp_path / "without").rglob("*")
        if path.is_file()
    }
    for name in ("scores.csv", "explain/large.json", "overlays/large.png"):
        files = [(tmp_path / one / name).read_bytes() for one in ("with", "without")]
        assert files[0] == files[1]
    # What an earlier query wrote goes, maps too.
    done("query", index, parts, "--out", tmp_path / "with", "--no-maps")
    assert not list((tmp_path / "with").rglob("*.tiff"))


def test_the_worst_frames_are_named_without_any_files(tiny, tmp_path):
    view = street()
    Spade(tiny, resize=64, crop=64).fit(walk(view, 12)).save(tmp_path / "index")
    write_video(tmp_path / "gate.avi", walk(view, 8, 20))
    bare = ("--no-maps", "--no-overlays", "--worst", 3)
    said = done("query", tmp_path / "index", tmp_path / "gate.avi", "--out", tmp_path / "o", *bare)
    lines = said.stdout.splitlines()
    assert len(lines) == 4 and all("gate.avi#0000" in line for line in lines[:-1])
    rows = write_query(
        Spade.load(tmp_path / "index"),
        find_images([tmp_path / "gate.avi"], print, VIDEO_SUFFIXES),
        tmp_path / "o",
        maps=False,
        worst=2,
    )
    assert len(rows) == 8 and {row.map for row in rows} == {None}
    assert sum(row.overlay is not None for row in rows) == 2


@pytest.mark.parametrize(
    ("size", "side"), [("448", 448), ("100", 100), ("900", 900), ("full", 1400)]
)
def test_overlays_have_the_size_that_is_asked_for(index, parts, tmp_path, size, side):
    done("query", index, parts / "large.png", "--out", tmp_path / "o", "--overlay-size", size)
    picture = np.asarray(Image.open(tmp_path / "o" / "overlays" / "large.png"))
    unit = max(1, side / 1024)
    assert picture.shape[1] == 2 * side + 2 * round(8 * unit) + round(84 * unit)
    assert picture.shape[0] == round(side * 1000 / 1400) + round(44 * unit)


def test_a_full_overlay_shows_the_image_itself(spade, large):
    result = next(spade.query([large]))
    framing = spade.index_.manifest.framing.framing()
    picture = overlay_picture(result, judge_result(spade, result), framing, "part", side=None)
    top = round(44 * 1400 / 1024)
    np.testing.assert_array_equal(picture[top:, :1400], large)
    plain = replace(judge_result(spade, result), pixel_threshold=None)
    assert overlay_picture(result, plain, framing, "part", side=None).shape == picture.shape


@pytest.mark.parametrize("threshold", [1.0, None])
def test_painting_by_parts_leaves_no_seam(threshold):
    values = np.linspace(0, 2, 1500, dtype=np.float32)[:, None] + np.zeros(1600, np.float32)
    whole = overlaid(np.full((1500, 1600, 3), 120, np.uint8), values, threshold)
    steps = np.abs(np.diff(whole[:, 800].astype(int), axis=0)).max(1)
    outlined = (np.abs(np.arange(1499) - 750) < 8) | (np.arange(1499) > 1490)
    assert steps[~outlined].max() <= 3


@pytest.mark.parametrize(("side", "widest"), [(448, 5), (1400, 5), (5472, 8)])
def test_outlines_stay_thin(side, widest):
    values = np.zeros((200, side), np.float32)
    values[:, side // 4 : side // 2] = 0.8
    values[:, side // 4 + 20 : side // 2 - 20] = 1.2
    picture = overlaid(np.full((200, side, 3), 120, np.uint8), values, 1.0)
    row = picture[100].astype(int)
    near = row[side // 4 : side // 4 + 40]
    drawn = (np.abs(near - OUTLINE[0]).max(1) < 90) | (np.abs(near - OUTLINE[1]).max(1) < 90)
    assert 2 <= drawn.sum() <= widest + 2


def test_bad_sizes_are_one_line(index, spade, parts, tmp_path):
    for size, said in (("large", "--overlay-size large: give a number"), ("9", "64 to 16384")):
        one_line(run("query", index, parts, "--out", tmp_path / "o", "--overlay-size", size), said)
        assert not (tmp_path / "o").exists()
    with pytest.raises(SpadeError, match="overlay_size = 20000 must be 64 to 16384 pixels"):
        write_query(spade, find_images([parts], print), tmp_path / "o", overlay_size=20000)
