"""`--tile`: every command that takes an index takes one of tiles."""

import csv
import json

import cv2
import numpy as np
import pytest
import tifffile

from spade_faiss import Spade, open_detector
from tests.command import TINY, done, one_line, problems, run
from tests.conftest import with_hole
from tests.detector.test_tiles import pictures

TILES = ("--tile", "96", "--overlap", "32", "--engine", "faiss", *TINY)
HOLE = {"x": 100, "y": 70, "radius": 14}


def write(folder, images):
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i}.png"), image[..., ::-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of good images and of others, 200 x 260 pixels, and an index of tiles of 96."""
    folder = tmp_path_factory.mktemp("tiles")
    write(folder / "good", pictures("brick", 5))
    write(folder / "more", pictures("brick", 3, seed=3))
    write(folder / "hole", [with_hole(one, **HOLE) for one in pictures("brick", 2, seed=4)])
    (folder / "build.json").write_text(
        done("build", folder / "good", "--index", folder / "index", *TILES, "--json").stdout
    )
    return folder


def test_build_says_before_it_starts_what_it_will_make(folder):
    made = json.loads((folder / "build.json").read_text())
    expected = made["estimate"]
    shown = json.loads(done("info", folder / "index", "--json").stdout)
    assert expected["patches"] == shown["patches"] and expected["tiles"] == 5 * 12
    assert (expected["width"], expected["height"], expected["images"]) == (260, 200, 5)
    files = [
        path for path in (folder / "index").rglob("*.*") if path.suffix in (".faiss", ".u8", ".f32")
    ]
    assert expected["bytes"] == sum(path.stat().st_size for path in files)
    (note,) = [note for note in made["notes"] if "tiles" in note]
    words = f"5 images of 260x200 make 60 tiles and {shown['patches']:,} patches, "
    assert note.startswith(words) and "; about " in note


def test_info_says_how_many_tiles_and_patches_there_are(folder):
    lines = done("info", folder / "index").stdout.splitlines()
    where = "any" if Spade.load(folder / "index").index_.manifest.elsewhere else "their own"
    assert f"tiles       of 96 pixels, 12 an image, compared with those of {where} place" in lines
    index = open_detector(folder / "index").index_
    each = sum(layout.patches for layout in index.layouts)
    assert f"patches     {60 * each:,}: {each} of each of 60 tiles" in lines


def test_a_query_finds_the_hole_and_writes_whole_maps(folder, tmp_path):
    call = ("query", folder / "index", folder / "hole", "--out", tmp_path)
    done(*call, "--report", "--engine", "faiss")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == ["NG", "NG"]
    values = tifffile.imread(tmp_path / "maps" / "0.tiff")
    assert values.shape == (200, 260)
    y, x = np.unravel_index(values.argmax(), values.shape)
    assert np.hypot(x - HOLE["x"], y - HOLE["y"]) < 24
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_an_index_grows_shrinks_and_is_calibrated(folder, tmp_path):
    done("build", folder / "good", "--index", tmp_path / "index", *TILES)
    done("add", tmp_path / "index", folder / "more", "--engine", "faiss")
    done("remove", tmp_path / "index", str(folder / "more" / "0.png"), "--engine", "faiss")
    assert len(open_detector(tmp_path / "index").index_) == 7
    write(tmp_path / "new", pictures("brick", 4, seed=8))
    done("calibrate", tmp_path / "index", tmp_path / "new", "--engine", "faiss")
    spade = Spade.load(tmp_path / "index")
    assert len(spade.calibration_set.good.names) == 4


def test_lines_are_each_built_and_each_is_estimated(folder, tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "lines" / name, pictures("brick", 3))
    ended = done("build", tmp_path / "lines", "--each", "--index", tmp_path / "all", *TILES)
    assert not problems(ended)
    for name in ("a", "b"):
        assert f"note: {name}: 3 images of 260x200 make 36 tiles" in ended.stderr
        assert open_detector(tmp_path / "all" / name).index_.parts == 12


@pytest.mark.slow
@pytest.mark.parametrize(
    "views",
    [
        ("--views", "flip"),
        ("--store", "float16"),
        ("--preset", "paper", "--coreset", "0.2"),
        ("--preset", "paper", "--factory", "IVF16,Flat"),
    ],
)
def test_other_kinds_of_index_are_of_tiles_too(folder, tmp_path, views):
    done("build", folder / "good", "--index", tmp_path / "index", *TILES, *views)
    lines = done("info", tmp_path / "index").stdout.splitlines()
    assert [line for line in lines if line.strip().startswith("tiles  ")]
    ended = done("query", tmp_path / "index", folder / "hole", "--out", tmp_path / "out", "--json")
    assert [row["verdict"] for row in json.loads(ended.stdout)["images"]] == ["NG", "NG"]
    if "--coreset" in views or "--factory" in views:
        said = done("info", tmp_path / "index", "--recall").stdout
        assert said.count("recall@1") == 3


@pytest.mark.parametrize("min_area", [(), ("--min-area", "200")])
def test_an_evaluation_of_folders(folder, tmp_path, min_area):
    call = ("evaluate", "folder", "--train", folder / "good", "--good", folder / "more")
    call = (*call, "--bad", folder / "hole", "--out", tmp_path, "--report", "--json")
    results = json.loads(done(*call, *TILES, *min_area).stdout)
    assert (results["config"]["tile"], results["config"]["overlap"]) == (96, 32)
    (scores,) = results["categories"].values()
    assert scores["image_rocauc"] == 1
    assert "tile" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "options, words",
    [
        (("--tile", "224"), ["--tile 224 is larger than the picture, 260x200 pixels"]),
        (("--tile", "80"), ["--tile 80", "patches of 32 pixels: take 64, or 96"]),
        (("--tile", "0"), ["--tile 0"]),
        (("--tile", "-64"), ["--tile -64"]),
        (("--tile", "96", "--overlap", "96"), ["--overlap 96", "between 0 and"]),
        (("--tile", "96", "--overlap", "-1"), ["--overlap -1", "between 0 and"]),
        (("--overlap", "32"), ["--overlap is of tiles: give --tile, too, or leave it out"]),
        (("--tile", "96", "--crop", "100"), ["leave out --crop 100, or --tile"]),
        (("--tile", "96", "--crop", "224"), ["leave out --crop 224, or --tile"]),
        (("--tile", "96", "--resize", "64"), ["--tile 96 is larger", "--resize 64"]),
        (("--tile", "96", "--resize", "400"), ["--resize 400 would enlarge", "take 200 or less"]),
        (("--tile", "96", "--views", "scale"), ["leave out --tile, or take the view 'flip'"]),
    ],
)
def test_tiles_that_cannot_be_are_one_line(folder, tmp_path, options, words):
    line = one_line(
        run("build", folder / "good", "--index", tmp_path / "i", *options, *TINY), *words
    )
    assert "`" not in line
    assert not (tmp_path / "i" / "manifest.json").exists()


def test_a_picture_smaller_than_those_learnt_is_named_and_the_rest_is_done(folder, tmp_path):
    good = pictures("brick", 1, seed=6)[0]
    write(tmp_path / "new", [good, good[:190], cv2.resize(good, (130, 100)), good])
    call = (
        "query",
        folder / "index",
        tmp_path / "new",
        "--out",
        tmp_path / "out",
        "--engine",
        "faiss",
    )
    ended = done(*call, status=1)
    assert len(problems(ended)) == 2
    assert "1.png: is 260x190 pixels, and the index looks at 260x200, in tiles" in ended.stderr
    assert "2.png: is 130x100 pixels" in ended.stderr
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        assert [row["verdict"] == "ERROR" for row in csv.DictReader(file)] == [
            False,
            True,
            True,
            False,
        ]
    ended = done("add", folder / "index", tmp_path / "new" / "1.png", status=2)
    assert "1.png: is 260x190 pixels" in ended.stderr


def test_a_picture_of_another_aspect_is_noted(folder, tmp_path):
    write(tmp_path / "new", [cv2.resize(pictures("brick", 1, seed=6)[0], (400, 210))])
    call = (
        "query",
        folder / "index",
        tmp_path / "new",
        "--out",
        tmp_path / "out",
        "--engine",
        "faiss",
    )
    assert "stretched" in done(*call).stderr


def test_too_small_a_disk_is_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 1 << 20}))
    ended = run("build", folder / "good", "--index", tmp_path / "index", *TILES)
    assert ended.returncode == 2
    (line,) = problems(ended)
    assert "the index needs" in line and "its disk has 1.0 MiB left" in line
