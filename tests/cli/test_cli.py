import csv
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from spade_faiss.index import Index
from tests.command import LITE, TINY, done, one_line, problems, run, run_together
from tests.conftest import texture, with_hole
from tests.full_disk import no_file_over


@pytest.fixture(scope="module")
def index(tiny, gravel_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "index"
    # Of views of a texture one has a score unlike the others', which would be noted.
    options = "--quantile", "0.9", "--score", "map"
    done("build", gravel_folder, "--index", folder, *TINY, *options)
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """New images: some good, one with a hole, of several sizes and kinds."""
    folder = tmp_path_factory.mktemp("parts")
    good, bad = texture("gravel", 2, seed=8)
    (folder / "line 1").mkdir()
    cv2.imwrite(str(folder / "line 1" / "good.png"), good)
    cv2.imwrite(str(folder / "line 1" / "hole,1.png"), with_hole(bad, radius=20))
    Image.fromarray(cv2.resize(good, (400, 300))).save(folder / "big.jpg", quality=95)
    Image.fromarray(good[..., 0]).save(folder / "big.bmp")
    return folder


def test_query_writes_what_the_contract_says(index, parts, tmp_path):
    out = tmp_path / "out"
    ended = done("query", index, parts, "--out", out, "--explain", "--json")
    printed = json.loads(ended.stdout)
    assert printed["errors"] == [] and ended.stderr.splitlines() == [
        "spade-faiss: note: files called otherwise than their images, whose names are taken or too "
        f"long: maps/big.jpg.tiff of {parts}/big.jpg"
    ]
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "score", "threshold", "verdict"]
    names = ["big.bmp", "big.jpg", "line 1/good.png", "line 1/hole,1.png"]
    assert [row["path"] for row in rows] == [str(parts / name) for name in names]
    assert [row["verdict"] for row in rows] == ["OK", "OK", "OK", "NG"]
    maps = ["big", "big.jpg", "line 1/good", "line 1/hole,1"]
    for row, name, record in zip(rows, maps, printed["images"], strict=True):
        values = tifffile.imread(out / "maps" / f"{name}.tiff")
        height, width = cv2.imread(row["path"]).shape[:2]
        assert values.dtype == np.float32 and values.shape == (height, width)
        assert float(row["score"]) == pytest.approx(float(values.max()), rel=1e-7)
        assert record["score"] == pytest.approx(float(row["score"]), rel=1e-7)
        assert (row["verdict"] == "NG") == (float(row["score"]) > float(row["threshold"]))
        picture = cv2.imread(str(out / "overlays" / f"{name}.png"))
        assert picture.shape[0] > 300 and picture.std() > 10
    found = json.loads((out / "explain" / "line 1" / "hole,1.json").read_text())
    first = found["regions"][0]
    left, top, right, bottom = first["box"]
    assert left < 120 < right and top < 130 < bottom
    assert first["peak"] == pytest.approx(float(rows[3]["score"]), rel=1e-6)
    values = tifffile.imread(out / "maps" / "line 1" / "hole,1.tiff")
    over = values > found["pixel_threshold"]
    assert sum(region["area"] for region in found["regions"]) == over.sum()
    assert {match["level"] for match in first["matches"]} == {*range(1, 7)}
    paths = {image.path for image in Index.open(index).manifest.images}
    assert all(match["image"] in paths for match in first["matches"])
    assert cv2.imread(str(out / "explain" / "line 1" / "hole,1.png")).shape[1] > 700


def test_bad_images_are_named_and_the_rest_is_done(index, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    good = texture("gravel", 1, seed=8)[0]
    cv2.imwrite(str(folder / "a.png"), good)
    cv2.imwrite(str(folder / "z.png"), good)
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:9000])
    (folder / "text.jpg").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    cv2.imwrite(str(folder / "dot.png"), good[:1, :1])
    (folder / "x.png").mkdir()
    for command in (
        ("query", index, folder, "--out", tmp_path / "out"),
        ("build", folder, "--index", tmp_path / "new", *TINY),
    ):
        ended = done(*command, status=1)
        lines = problems(ended)
        assert len(lines) == 5 and all(line.startswith("spade-faiss: ") for line in lines)
        for name in ("cut.png", "text.jpg", "empty.png", "dot.png", "x.png"):
            assert sum(name in line for line in lines) == 1
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        rows = {row["path"].rsplit("/", 1)[1]: row for row in csv.DictReader(file)}
    assert list(rows) == ["a.png", "cut.png", "dot.png", "empty.png", "text.jpg", "z.png"]
    assert [row["verdict"] for row in rows.values()] == ["OK", *["ERROR"] * 4, "OK"]
    assert rows["cut.png"]["score"] == ""
    assert [image.path for image in Index.open(tmp_path / "new").manifest.images] == [
        str(folder / "a.png"),
        str(folder / "z.png"),
    ]


def test_calls_that_are_wrong_exit_2_with_one_line(index, parts, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    one_line(run("build", empty, "--index", tmp_path / "i", *TINY), "holds no images")
    one_line(run("build", tmp_path / "gone", "--index", tmp_path / "i"), "no such folder")
    one_line(run("build", parts, "--index", parts / "big.jpg", *TINY), "is a file")
    one_line(run("build", parts, "--index", parts, *TINY), "other files")
    one_line(run("build", parts, "--index", tmp_path / "i", "--backbone", "vgg"), "vgg")
    here = ("--index", tmp_path / "i", "--device", "gpu")
    one_line(run("build", parts, *here), "--device gpu is none that torch has: give auto, cpu")
    one_line(run("build", parts, "--index", tmp_path / "i", "--crop", "big"), "--crop")
    one_line(run("build", parts, "--index", tmp_path / "i", "--crop", "500"), "crop 500")
    (tmp_path / "file").touch()
    one_line(run("build", parts, "--index", tmp_path / "file" / "i", *TINY), "cannot be written")
    one_line(run("evaluate", "mvtec", tmp_path / "gone", "--out", tmp_path / "o"), "no such folder")
    one_line(run("build", parts), "index")
    one_line(run("build", parts, "--index", tmp_path / "i", "--warp"), "warp")
    one_line(
        run("build", parts, "--index", tmp_path / "i", "--weights", tmp_path / "w.pth"),
        "no such weights file",
    )
    one_line(run("query", empty, parts, "--out", tmp_path / "o"), "holds no index")
    one_line(run("query", index, empty, "--out", tmp_path / "o"), "no images")
    one_line(run("query", index, empty / "a.png", "--out", tmp_path / "o"), "no such file")
    one_line(run("query", index, parts, "--out", parts / "o"), "inside")
    one_line(run("query", index, parts, "--out", index / "o"), "lies in the index")
    one_line(run("query", index, parts, "--out", index), "lies in the index")
    one_line(run("query", index, parts, "--out", tmp_path / "o", "-k", "0"), "-k")
    one_line(run("query", index, parts, "--out", tmp_path / "o", "--engine", "warp"), "warp")
    one_line(run("conjure"), "conjure")
    assert not (tmp_path / "i").exists() and not (tmp_path / "o").exists()


def test_without_a_command_the_help_is_shown_as_it_is():
    for command in ((), ("evaluate",)):
        ended = run(*command)
        assert ended.returncode == 2 and not ended.stdout
        assert ended.stderr == run(*command, "--help").stdout


def test_version():
    assert done("--version").stdout == f"spade-faiss {metadata.version('spade-faiss')}\n"


def test_debug_shows_where_anywhere_on_the_line(tmp_path):
    ended = run_together(("--debug", "info", tmp_path), ("info", tmp_path, "--debug"))
    assert ended.returncode == 2 and ended.stderr.count("Traceback") == 2


def test_info_lists_and_verifies(index, tmp_path):
    text = done("info", index).stdout
    assert "images      10" in text and "28x28x8, 14x14x16, 7x7x64" in text
    record = json.loads(done("info", index, "--json", "--verify").stdout)
    assert record["damaged"] == [] and len(record["images"]) == 10
    copy = shutil.copytree(index, tmp_path / "copy")
    path = copy / record["levels"][2]["file"]["name"]
    data = bytearray(path.read_bytes())
    data[777] ^= 1
    path.write_bytes(data)
    ended = done("info", copy, "--verify", status=2)
    assert "level3.faiss is damaged" in ended.stderr
    assert done("info", copy).returncode == 0
    one_line(run("query", copy, path, "--out", tmp_path / "o"), "level3.faiss is damaged")


def test_add_and_remove(index, parts, tmp_path):
    copy = shutil.copytree(index, tmp_path / "copy")
    image = parts / "line 1" / "good.png"
    assert json.loads(done("add", copy, image, "--json").stdout)["images"] == 11
    assert "already" in done("add", copy, image, status=2).stderr
    assert json.loads(done("remove", copy, "good.png", "--json").stdout)["images"] == 10
    assert "not in the index" in done("remove", copy, "good.png", status=2).stderr


def test_a_full_disk_is_one_line(index, parts, tmp_path):
    out = tmp_path / "out"
    (out / "maps").mkdir(parents=True)
    with no_file_over(64 << 10):
        ended = run("query", index, parts, "--out", out)
    line = one_line(ended, "File too large")
    assert "maps" in line
    assert not [path for path in (out / "maps").rglob("*") if path.is_file()]


def test_a_full_disk_of_the_demo_is_named(tmp_path):
    with no_file_over(8 << 10):
        ended = run("demo", "--out", tmp_path / "demo")
    one_line(ended, ".png: File too large")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_full_disk_leaves_the_old_index_and_nothing_beside_it(index, gravel_folder, tmp_path):
    copy = shutil.copytree(index, tmp_path / "copy")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with no_file_over(1 << 20):
        ended = run("build", gravel_folder, "--index", copy, *TINY)
    one_line(ended, str(copy), "File too large", "what was there before is whole")
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_pipe_is_not_waited_for(index, parts, tmp_path):
    folder = tmp_path / "pipes"
    folder.mkdir()
    shutil.copy(parts / "big.bmp", folder / "z.bmp")
    os.mkfifo(folder / "a.png")
    ended = run_together(
        ("query", index, folder, "--out", tmp_path / "out"),
        ("build", folder, "--index", tmp_path / "new", *TINY),
        timeout=300,
    )
    assert ended.returncode == 1
    for line in problems(ended):
        assert "a.png: is no file" in line
    assert len(problems(ended)) == 2


def test_nonsense_file_names_stay_in_one_line(index, tmp_path):
    folder = tmp_path / "names"
    folder.mkdir()
    (folder / "two\nlines.png").write_text("no")
    ended = done("query", index, folder, "--out", tmp_path / "out", status=2)
    assert len(ended.stderr.splitlines()) == 1 and r"two\nlines.png" in ended.stderr


def test_without_faiss_one_line_says_which_extra(parts, tmp_path):
    code = "import sys; sys.modules['faiss'] = None\nfrom spade_faiss.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "build", str(parts), "--index", str(tmp_path / "i"), *LITE],
        capture_output=True,
        text=True,
    )
    one_line(ended, ".[cpu]", ".[gpu]")


SIGTERM_ONCE_FILES_ARE_MADE = """
import os, signal
from spade_faiss.cli.app import main
from spade_faiss.index import IndexWriter
from tests.tiny import register
register()
make = IndexWriter.__init__
def made(*arguments, **named):
    make(*arguments, **named)
    os.kill(os.getpid(), signal.SIGTERM)
IndexWriter.__init__ = made
main()
"""


@pytest.mark.slow
def test_sigterm_ends_it_and_its_temporary_files(gravel_folder, tmp_path):
    folder = tmp_path / "indices" / "i"
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            SIGTERM_ONCE_FILES_ARE_MADE,
            "build",
            str(gravel_folder),
            "--index",
            str(folder),
            *TINY,
            "--batch-size",
            "1",
        ],
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (143, "spade-faiss: terminated\n")
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_help_answers_without_torch_and_numpy():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "sys.argv = ['spade-faiss', 'query', '-h']\n"
        "from spade_faiss.cli import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0 and "--explain" in ended.stdout, ended.stderr


@pytest.mark.slow
def test_galleries_by_name(gravel_folder, parts, tmp_path):
    folder, image = tmp_path / "index", parts / "line 1" / "hole,1.png"
    done(
        "build",
        gravel_folder,
        "--index",
        folder,
        *TINY,
        "--quantile",
        "0.9",
        "--factory",
        "IVF32,Flat",
        "--coreset",
        "0.1",
        "--search-params",
        "nprobe=4",
    )
    text = done("info", folder, "--recall", "--verify").stdout
    assert "gallery     IVF32,Flat (nprobe=4) over a coreset of 0.1" in text
    assert text.count("(1000 queries)") == 2 and "(490 queries)" in text and "all whole" in text
    record = json.loads(
        done("info", folder, "--recall", "--json", "--search-params", "nprobe=32").stdout
    )
    assert record["gallery"]["coreset"] == 0.1 and record["gallery"]["search_params"] == "nprobe=4"
    for one, patches in zip(record["recall"], (784, 196, 49), strict=True):
        assert (one["queries"], one["patches"]) == (min(1000, 10 * patches), patches)
        assert 0 < one["recall_at_1"] < 1 < one["mean_distance_ratio"] < 3 and one["bytes"] > 0
    scores = {}
    for options in ((), ("--exact",), ("--search-params", "nprobe=32")):
        out = tmp_path / f"out{len(options)}"
        rows = json.loads(
            done("query", folder, image, "--out", out, "--json", "--explain", *options).stdout
        )["images"]
        assert rows[0]["verdict"] == "NG"
        scores[options] = rows[0]["score"], rows[0]["threshold"]
        found = json.loads((out / "explain" / "hole,1.json").read_text())
        assert found["regions"][0]["matches"]
    options = "--quantile", "0.9", "--preset", "paper"
    done("build", gravel_folder, "--index", tmp_path / "whole", *TINY, *options)
    plain = json.loads(
        done("query", tmp_path / "whole", image, "--out", tmp_path / "p", "--json").stdout
    )
    row = plain["images"][0]
    assert scores["--exact",] == pytest.approx((row["score"], row["threshold"]), rel=1e-5)
    assert scores[()][0] > row["score"]  # no patch of a few is nearer than the nearest of all
    assert json.loads(done("remove", folder, "000.png", "--json").stdout)["images"] == 9
    assert "IVF32,Flat (nprobe=4) over a coreset of 0.1" in done("info", folder).stdout


def test_galleries_that_cannot_be_are_one_line(index, gravel_folder, tmp_path):
    def build(*options):
        return run("build", gravel_folder, "--index", tmp_path / "i", *TINY, *options)

    one_line(build("--factory", "PQ7"), "PQ7", "8 channels")
    one_line(build("--factory", "IVF4000,Flat"), "level 2", "4000", "1960")
    one_line(build("--coreset", "1.5"), "coreset = 1.5")
    one_line(build("--search-params", "nprobe=4"), "--factory")
    one_line(run("info", index, "--recall"), "--factory or --coreset")
    one_line(
        run("query", index, gravel_folder, "--out", tmp_path / "o", "--search-params", "nprobe=4"),
        "--factory",
    )
    assert not list(tmp_path.glob("i/*/*"))
