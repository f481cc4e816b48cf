"""A region of interest: commands look at a part of a still camera's pictures."""

import json
import os
import pty
import subprocess

import cv2
import numpy as np
import pytest

from spade_faiss import Spade
from spade_faiss.images import read_image, read_region
from spade_faiss.images.roi import Roi
from tests.command import PROGRAM, TINY, done, one_line, problems, run
from tests.conftest import texture

SIZE = (96, 128)
PLAIN = ("--resize", "96", "--crop", "none", "--preset", "paper", *TINY)
SMALL = (*PLAIN, "--quantile", "0.8")
PART = np.s_[20:76, 30:98]


def written(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return path


def still(number, *, hole=False, dirt=None):
    """Return a part that varies on a plain ground, perhaps with dirt there."""
    image = np.full((*SIZE, 3), 60, np.uint8)
    if dirt is not None:
        image[:] = np.random.default_rng(dirt).integers(0, 256, image.shape)
    part = texture("gravel", 1, seed=number)[0][: SIZE[0], : SIZE[1]][PART]
    image[PART] = cv2.circle(part.copy(), (30, 28), 9, (10, 10, 10), -1) if hole else part
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Good images, others, masks of the part, and an index that looks at it alone."""
    folder = tmp_path_factory.mktemp("region")
    for i in range(7):
        written(folder / "good" / f"{i}.png", still(i))
    for kind, dirt in (("clean", None), ("dirty", 5)):
        for i in range(2):
            written(folder / kind / f"good{i}.png", still(20 + i, dirt=dirt))
            written(folder / kind / f"hole{i}.png", still(30 + i, hole=True, dirt=dirt))
    mask = np.zeros(SIZE, np.uint8)
    mask[PART] = 255
    written(folder / "mask.png", mask)
    written(folder / "not.png", 255 - mask)
    written(folder / "tall.png", mask.T)
    written(folder / "black.png", 0 * mask)
    (folder / "text.png").write_text("no picture")
    done("build", folder / "good", "--index", folder / "index", *SMALL, *region(folder))
    return folder


def region(folder, name="mask.png"):
    return "--region", folder / name


def test_what_is_outside_changes_no_line_of_a_query(folder, tmp_path):
    tables = []
    for kind in ("clean", "dirty"):
        out = tmp_path / kind
        done("query", folder / "index", folder / kind, "--out", out, "--report")
        tables.append((out / "scores.csv").read_text().replace(str(folder / kind), ""))
        page = (out / "report.html").read_text()
        assert "looks at 31 % of the image" in page
        for card in cards(page):
            assert card["paths"]["unseen"].startswith("M0 0H128V96H0Z")
    assert tables[0] == tables[1]
    rows = [line.split(",") for line in tables[0].splitlines()[1:]]
    assert [row[-1] for row in rows] == ["OK", "OK", "NG", "NG"]


def cards(page):
    marker = '<script type="application/json"'
    blocks = [text.split(">", 1)[1].split("</script>")[0] for text in page.split(marker)[1:]]
    found = [one for block in blocks for one in _with_paths(json.loads(block))]
    assert found
    return found


def _with_paths(value):
    if isinstance(value, dict):
        if "paths" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _with_paths(one)


def test_the_overlay_is_hatched_outside_alone(folder, tmp_path):
    done("query", folder / "index", folder / "clean" / "good0.png", "--out", tmp_path)
    picture = read_image(next((tmp_path / "overlays").rglob("*.*")))
    left = picture[-336:, :448].astype(int)
    plain = cv2.resize(still(20), (448, 336), interpolation=cv2.INTER_LINEAR)
    changed = np.abs(left - plain).max(-1) > 60
    inside = np.zeros((336, 448), bool)
    inside[75:260, 110:338] = True
    assert not changed[inside].any()
    assert changed[:60].mean() > 0.1


def test_ignore_is_the_reverse(folder, tmp_path):
    done("build", folder / "good", "--index", tmp_path, *SMALL, "--ignore", folder / "not.png")
    spade = Spade.load(tmp_path)
    assert spade.settings.region == Roi(read_region(folder / "mask.png"))


def test_info_says_how_much_is_looked_at(folder, tmp_path):
    lines = done("info", folder / "index").stdout.splitlines()
    assert "region      looks at 31 % of the image" in lines
    text = done("info", folder / "index", "--json").stdout
    found = json.loads(text)["framing"]["region"]
    assert found["share"] == pytest.approx(56 * 68 / (96 * 128))
    assert (found["width"], found["height"]) == (128, 96) and len(found["sha256"]) == 64
    assert sorted(found) == ["height", "sha256", "share", "width"]
    call = ("build", folder / "good", "--index", tmp_path / "all", *SMALL)
    done(*call)
    assert json.loads(done("info", tmp_path / "all", "--json").stdout)["framing"]["region"] is None
    done(*call[:3], tmp_path / "both", *SMALL, "--views", "flip", *region(folder))
    lines = done("info", tmp_path / "both").stdout.splitlines()
    assert lines.count("  region      looks at 31 % of the image") == 2
    for one in json.loads(done("info", tmp_path / "both", "--json").stdout)["indices"]:
        assert one["framing"]["region"] == found


def test_an_evaluation_counts_what_is_looked_at(folder, tmp_path):
    for kind in ("clean", "dirty"):
        for name in ("good0", "good1"):
            written(
                tmp_path / kind / "good" / f"{name}.png", read_image(folder / kind / f"{name}.png")
            )
        for i in range(2):
            image = read_image(folder / kind / f"hole{i}.png")
            written(tmp_path / kind / "bad" / f"hole{i}.png", image)
            mask = np.zeros(SIZE, np.uint8)
            cv2.circle(mask, (60, 48), 9, 255, -1)
            mask[:10, :10] = 255  # outside
            written(tmp_path / kind / "masks" / f"hole{i}_mask.png", mask)
    found = []
    for kind, options in (
        ("clean", region(folder)),
        ("dirty", region(folder)),
        ("clean", ()),
        ("clean", (*region(folder), "--original-size")),
    ):
        root = tmp_path / kind
        call = ("evaluate", "folder", "--train", folder / "good", "--good", root / "good")
        more = ("--bad", root / "bad", "--masks", root / "masks", "--out", tmp_path / "out")
        shown = done(*call, *more, *PLAIN, *options, "--report", "--json").stdout
        results = json.loads(shown)
        ((_, scores),) = results["categories"].items()
        found.append(
            {name: value for name, value in scores.items() if name not in ("stages", "seconds")}
        )
        assert ("region" in results["config"]) == bool(options)
        if options:
            assert results["config"]["region"].startswith("31 % of 128x96, ")
            page = (tmp_path / "out" / "report.html").read_text()
            assert all(card["paths"]["unseen"] for card in cards(page))
    assert found[0] == found[1]
    assert found[0]["pixel_rocauc"] > 0.95 > found[2]["pixel_rocauc"]
    assert found[3]["pixel_rocauc"] == pytest.approx(found[0]["pixel_rocauc"], abs=0.01)


def test_a_defect_outside_is_named(folder, tmp_path):
    (tmp_path / "bad").mkdir()
    for i in range(2):
        image = still(40 + i)
        mask = np.zeros(SIZE, np.uint8)
        where = np.s_[2:12, 2:12] if i else np.s_[40:52, 50:62]
        image[where], mask[where] = 0, 255
        written(tmp_path / "bad" / f"{i}.png", image)
        written(tmp_path / "masks" / f"{i}.png", mask)
    call = ("evaluate", "folder", "--train", folder / "good", "--good", folder / "clean")
    more = ("--bad", tmp_path / "bad", "--masks", tmp_path / "masks", "--out", tmp_path / "out")
    ended = done(*call, *more, *PLAIN, *region(folder))
    assert "the defects of 1 of 6 test images lie outside the region" in ended.stderr


# A proposal -----------------------------------------------------------------------------------


def test_a_proposal_is_shown_and_nothing_is_built(folder, tmp_path):
    index = tmp_path / "index"
    call = ("build", folder / "good", "--index", index, *SMALL, "--region", "auto")
    ended = done(*call)
    mask, picture = tmp_path / "index-region.png", tmp_path / "index-region.jpg"
    assert sorted(tmp_path.iterdir()) == [picture, mask] and not index.exists()
    (said,) = ended.stderr.splitlines()
    looked_at = read_region(mask)
    assert looked_at.shape == SIZE and looked_at[PART].all() and looked_at.mean() < 0.6
    share = f"looks at {100 * looked_at.mean():.0f} % of the image, by 7 good images"
    assert share in said and str(mask) in said and str(picture) in said
    assert f"--region {mask}" in ended.stdout and ended.stdout.startswith("nothing is built yet")
    shown = read_image(picture).astype(int)
    assert np.abs(shown - still(0)).max(-1)[~looked_at].max() > 100
    record = json.loads(done(*call, "--json").stdout)
    assert record["index"] is None
    assert record["proposed"] == {
        "share": pytest.approx(looked_at.mean()),
        "images": 7,
        "mask": str(mask),
        "picture": str(picture),
    }
    done("build", folder / "good", "--index", index, *SMALL, "--region", mask)
    assert Spade.load(index).settings.region == Roi(looked_at)


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_person_at_a_terminal_is_asked(folder, tmp_path, answer):
    index = tmp_path / "index"
    call = ("build", folder / "good", "--index", index, *SMALL, "--region", "auto", "--json")
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [*PROGRAM, *map(str, call)],
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    shown = []
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown.append(data.decode(errors="replace"))
    record = json.loads(program.communicate()[0])
    assert program.returncode == 0 and "Build with it?" in "".join(shown)
    assert record["proposed"]["mask"] == str(tmp_path / "index-region.png")
    assert index.exists() == (answer == "y")
    assert record["index"] == (str(index) if answer == "y" else None)


def test_where_nothing_can_be_proposed_it_is_one_line(folder, tmp_path):
    for i, image in enumerate(texture("gravel", 6)):
        written(tmp_path / "whole" / f"{i}.png", image)
        if i < 4:
            written(tmp_path / "few" / f"{i}.png", image)
        written(tmp_path / "sizes" / f"{i}.png", image[: 200 - i])
    for name, why in (
        ("whole", "no plain ground is told from the rest"),
        ("few", "it takes 5 good images to see what varies, and there are 4"),
        ("sizes", "the images are of several sizes, 256x200 and 256x199"),
    ):
        call = ("build", tmp_path / name, "--index", tmp_path / "index", *SMALL)
        line = one_line(run(*call, "--region", "auto"), "no region can be proposed", why)
        assert line.endswith(
            "paint one yourself, white where it is looked at, or leave out --region"
        )
    assert not (tmp_path / "index-region.png").exists()


# Lines ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lines(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("lines")
    for name in ("a", "b"):
        for path in (folder / "good").iterdir():
            image = read_image(path)
            image = image if name == "a" else np.ascontiguousarray(image[:, ::-1])
            written(root / "good" / name / path.name, image)
    return root


def test_each_line_has_the_one_region_or_its_own(folder, lines, tmp_path):
    call = ("build", lines / "good", "--each", *SMALL)
    done(*call, "--index", tmp_path / "one", *region(folder))
    mask = read_region(folder / "mask.png")
    for name in ("a", "b"):
        assert Spade.load(tmp_path / "one" / name).settings.region == Roi(mask)
    own = tmp_path / "own"
    written(own / "a.png", mask.astype(np.uint8) * 255)
    ended = run(*call, "--index", tmp_path / "two", "--region", own)
    one_line(ended, f"{own / 'b.png'}: no such file", "all white looks at everything")
    written(own / "b.png", np.full(SIZE, 255, np.uint8))
    done(*call, "--index", tmp_path / "two", "--region", own)
    assert Spade.load(tmp_path / "two" / "a").settings.region == Roi(mask)
    assert Spade.load(tmp_path / "two" / "b").settings.region is None


def test_each_line_is_proposed_its_own(lines, tmp_path):
    call = ("build", lines / "good", "--each", "--index", tmp_path / "all", *SMALL)
    ended = done(*call, "--region", "auto", "--json")
    record = json.loads(ended.stdout)
    masks = tmp_path / "all-region"
    assert [one["mask"] for one in record["proposed"].values()] == [
        str(masks / "a.png"),
        str(masks / "b.png"),
    ]
    assert [line.split(":")[1].strip() for line in ended.stderr.splitlines()] == ["a", "b"]
    done(*call, "--region", masks)
    for name in ("a", "b"):
        own = Roi(read_region(masks / f"{name}.png"))
        assert Spade.load(tmp_path / "all" / name).settings.region == own


# What is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--region", "tall.png"), ["96x128 pixels and the picture 128x96", "another aspect"]),
        (("--region", "black.png"), ["black.png: the region is empty", "paint white what is to"]),
        (("--ignore", "white.png"), ["white.png: the region is empty", "all of it is white"]),
        (("--region", "none.png"), ["none.png: the region cannot be read: No such file"]),
        (("--region", "text.png"), ["text.png: the region"]),
        (("--region", "good"), ["good: the region"]),
        (("--region", "mask.png", "--ignore", "not.png"), ["--region and --ignore", "one of them"]),
    ],
)
def test_what_is_no_region_is_one_line(folder, tmp_path, options, words):
    written(folder / "white.png", np.full(SIZE, 255, np.uint8))
    paths = [one if one.startswith("--") else folder / one for one in options]
    call = ("build", folder / "good", "--index", tmp_path / "index", *SMALL, *paths)
    one_line(run(*call), *words)
    assert not (tmp_path / "index" / "manifest.json").exists()


def test_an_evaluation_proposes_none(folder, tmp_path):
    call = ("evaluate", "folder", "--train", folder / "good", "--good", folder / "clean")
    options = ("--bad", folder / "dirty", "--out", tmp_path, "--region", "auto")
    one_line(run(*call, *options, *PLAIN), "--region auto is for build")


def test_an_index_that_is_there_takes_no_region(folder, tmp_path):
    call = ("query", folder / "index", folder / "clean", "--out", tmp_path)
    ended = run(*call, "--region", folder / "mask.png")
    assert ended.returncode == 2 and "No such option" in ended.stderr


def test_an_image_of_another_aspect_is_reported(folder, tmp_path):
    written(tmp_path / "new" / "a.png", still(50))
    written(tmp_path / "new" / "b.png", np.ascontiguousarray(still(50).transpose(1, 0, 2)))
    ended = done("query", folder / "index", tmp_path / "new", "--out", tmp_path / "out", status=1)
    (line,) = problems(ended)
    assert f"{tmp_path / 'new' / 'b.png'}: the region is 128x96 pixels" in line
    assert "give a region drawn on such a picture" in line
