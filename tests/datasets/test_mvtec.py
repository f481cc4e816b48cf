from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spade_faiss.datasets import TestImage, load_mvtec, read_mask
from spade_faiss.errors import SpadeError

SIZE = (6, 8)
MARKED = np.zeros(SIZE, bool)
MARKED[2:4, 3:6] = True


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def make_category(folder: Path) -> Path:
    touch(folder, "train/good/001.png", "train/good/000.png", "test/good/000.png",
          "test/hole/001.JPG", "test/hole/000.png", "test/cut/000.png",
          "ground_truth/hole/000_mask.png", "ground_truth/hole/001_mask.png",
          "ground_truth/cut/000.png")
    return folder


@pytest.fixture
def nut(tmp_path):
    return make_category(tmp_path / "data" / "nut")


def refused(root, names=None):
    with pytest.raises(SpadeError) as caught:
        load_mvtec(root, names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_category_in_sorted_order(nut):
    [category] = load_mvtec(nut)
    test, truth = nut / "test", nut / "ground_truth"
    assert category.name == "nut"
    assert category.train == (nut / "train/good/000.png", nut / "train/good/001.png")
    assert category.test == (
        TestImage(test / "cut/000.png", "cut", truth / "cut/000.png"),
        TestImage(test / "good/000.png", "good", None),
        TestImage(test / "hole/000.png", "hole", truth / "hole/000_mask.png"),
        TestImage(test / "hole/001.JPG", "hole", truth / "hole/001_mask.png"),
    )


def test_several_categories_and_some_by_name(nut):
    make_category(nut.parent / "bolt")
    touch(nut.parent, "license.txt", "results/table.md", ".cache/train/good/000.png")
    assert [one.name for one in load_mvtec(nut.parent)] == ["bolt", "nut"]
    assert [one.name for one in load_mvtec(str(nut.parent), [])] == ["bolt", "nut"]
    assert [one.name for one in load_mvtec(nut.parent, ["nut", "nut"])] == ["nut"]
    assert "no category pill; there are: bolt, nut" in refused(nut.parent, ["nut", "pill"])
    assert "there are: nut" in refused(nut, ["bolt"])


def test_the_current_folder_has_a_name(nut, monkeypatch):
    monkeypatch.chdir(nut)
    assert load_mvtec(".")[0].name == "nut"


def test_what_is_hidden_or_no_image_is_passed_over(nut):
    whole = load_mvtec(nut)
    touch(nut, "train/good/.000.png", "train/good/notes.txt", "test/hole/.DS_Store",
          "test/.trash/000.png", "test/readme.md", "test/empty/notes.txt")
    (nut / "train/good/folder.png").mkdir()
    assert load_mvtec(nut) == whole


def test_a_mask_by_its_full_name_comes_first(nut):
    touch(nut, "ground_truth/hole/000.png")
    assert load_mvtec(nut)[0].test[2].mask == nut / "ground_truth/hole/000_mask.png"


BROKEN = {
    "train/good": "no good images to learn from in train/good",
    "train": "no good images to learn from in train/good",
    "test": "no folder named test",
    "test/good": "no images in test/good",
    "ground_truth": "cut/000.png has a defect and no mask",
    "ground_truth/hole/001_mask.png": "hole/001.JPG has a defect and no mask",
}


@pytest.mark.parametrize("missing", BROKEN)
def test_what_is_missing_is_named(nut, missing):
    make_category(nut.parent / "bolt")
    (nut / missing).rename(nut.parent.parent / "elsewhere")
    message = refused(nut.parent)
    assert BROKEN[missing] in message and str(nut) in message
    assert [one.name for one in load_mvtec(nut.parent, ["bolt"])] == ["bolt"]


def test_a_category_without_defects_is_refused(nut):
    for name in ("hole", "cut"):
        (nut / "test" / name).rename(nut / name)
    assert "no defects in test" in refused(nut)


def test_a_root_without_categories_is_refused(tmp_path):
    assert "holds no category" in refused(tmp_path)
    assert "no such folder" in refused(tmp_path / "gone")


def encodings():
    grey = MARKED * np.uint8(255)
    palette = Image.fromarray(MARKED.astype(np.uint8) ^ 1, "P")
    palette.putpalette([200, 0, 0, 0, 0, 0])  # colour 0 is the marked one
    alpha = np.full(SIZE, 255, np.uint8)
    yield "grey", Image.fromarray(grey)
    yield "faint", Image.fromarray(MARKED.astype(np.uint8))
    yield "1-bit", Image.fromarray(MARKED)
    yield "16-bit", Image.fromarray(MARKED.astype(np.uint16) * 200)
    yield "rgb", Image.fromarray(np.stack([grey * 0, grey, grey * 0], axis=2))
    yield "grey and alpha", Image.merge("LA", [Image.fromarray(band) for band in (grey, alpha)])
    yield "palette", palette


@pytest.mark.parametrize("image", [pytest.param(image, id=name) for name, image in encodings()])
def test_masks_of_every_mode_mark_what_is_not_zero(tmp_path, image):
    image.save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", SIZE)
    assert mask.dtype == bool and np.array_equal(mask, MARKED)


def test_bad_masks_are_explained_in_one_line(tmp_path):
    path = tmp_path / "m.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)

    def explained(why, size=(64, 64)):
        with pytest.raises(SpadeError, match=why) as caught:
            read_mask(path, size)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    explained("No such file")
    Image.fromarray(noise).save(path)
    explained("64x64 pixels and its image 80x64", (64, 80))
    path.write_bytes(path.read_bytes()[:2000])
    explained("cut short")
    path.write_text("hello")
    explained("not an image")
