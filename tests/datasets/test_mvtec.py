from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spade_faiss.datasets import TestImage, load_mvtec, read_mask
from spade_faiss.errors import SpadeError
from tests.command import unprivileged

SIZE = (6, 8)
MARKED = np.zeros(SIZE, bool)
MARKED[2:4, 3:6] = True


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def make_category(folder: Path) -> Path:
    touch(
        folder,
        "train/good/001.png",
        "train/good/000.png",
        "test/good/000.png",
        "test/hole/001.JPG",
        "test/hole/000.png",
        "test/cut/000.png",
        "ground_truth/hole/000_mask.png",
        "ground_truth/hole/001_mask.png",
        "ground_truth/cut/000.png",
    )
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
        TestImage(test / "cut/000.png", "cut", (truth / "cut/000.png",)),
        TestImage(test / "good/000.png", "good", ()),
        TestImage(test / "hole/000.png", "hole", (truth / "hole/000_mask.png",)),
        TestImage(test / "hole/001.JPG", "hole", (truth / "hole/001_mask.png",)),
    )


def test_several_categories_and_some_by_name(nut):
    make_category(nut.parent / "bolt")
    touch(nut.parent, "license.txt", "results/table.md", ".cache/train/good/000.png")
    assert [one.name for one in load_mvtec(nut.parent)] == ["bolt", "nut"]
    assert [one.name for one in load_mvtec(str(nut.parent), [])] == ["bolt", "nut"]
    assert [one.name for one in load_mvtec(nut.parent, ["nut", "nut"])] == ["nut"]
    assert "no such category; there are: bolt, nut" in refused(nut.parent, ["pill"])
    assert "there are: nut" in refused(nut, ["bolt"])


def test_the_current_folder_has_a_name(nut, monkeypatch):
    monkeypatch.chdir(nut)
    assert load_mvtec(".")[0].name == "nut"


def test_what_is_hidden_or_no_image_is_passed_over(nut):
    whole = load_mvtec(nut)
    touch(
        nut,
        "train/good/.000.png",
        "train/good/notes.txt",
        "test/hole/.DS_Store",
        "test/.trash/000.png",
        "test/readme.md",
        "test/empty/notes.txt",
    )
    assert load_mvtec(nut) == whole


def test_what_may_be_an_image_and_is_not_read_is_noted(nut):
    assert load_mvtec(nut)[0].notes == ()
    touch(
        nut,
        "train/good/README",
        "train/good/notes.txt",
        "train/good/002.heic",
        "test/hole/002",
        "test/hole/below.png/003.png",
        "ground_truth/hole/notes.doc",
    )
    (category,) = load_mvtec(nut)
    assert category.notes == (
        f"passed over 2 files of no kind that is read, by the name: {nut}/train/good/002.heic, "
        f"{nut}/test/hole/002; convert or rename what is an image, if they are to count",
        f"passed over 1 folder in a folder of images: {nut}/test/hole/below.png",
    )
    assert [image.path.name for image in category.test] == [
        "000.png",
        "000.png",
        "000.png",
        "001.JPG",
    ]


def test_a_link_to_nothing_is_left_to_the_decoder_which_names_it(nut):
    (nut / "train/good/002.png").symlink_to(nut / "gone.png")
    assert load_mvtec(nut)[0].train[-1] == nut / "train/good/002.png"


@pytest.mark.parametrize("locked", ["", "train/good", "test", "test/hole", "ground_truth/hole"])
def test_a_category_that_cannot_be_read_is_named_and_the_rest_is_there(open_folder, locked):
    for name in ("bolt", "nut"):
        make_category(open_folder / name)
    for path in open_folder.rglob("*"):
        path.chmod(0o777)
    (open_folder / "bolt" / locked).chmod(0)
    problems = []
    with unprivileged():
        found = load_mvtec(open_folder, on_error=lambda *line: problems.append(line))
    assert [one.name for one in found] == ["nut"]
    ((where, why),) = problems
    assert where.startswith(str(open_folder / "bolt" / locked))
    assert why == "cannot be read (Permission denied); the category is left out"


def test_a_mask_by_its_full_name_comes_first(nut):
    touch(nut, "ground_truth/hole/000.png")
    assert load_mvtec(nut)[0].test[2].masks == (nut / "ground_truth/hole/000_mask.png",)


BROKEN = {
    "train/good": "no good images to learn from in train/good",
    "train": "no good images to learn from in train/good",
    "test": "no folder named test",
    "test/good": "no images in test/good",
    "ground_truth/hole/001_mask.png": "hole/001.JPG: has a defect and no mask",
}


@pytest.mark.parametrize("missing", BROKEN)
def test_what_is_missing_is_named(nut, missing):
    make_category(nut.parent / "bolt")
    (nut / missing).rename(nut.parent.parent / "elsewhere")
    message = refused(nut.parent)
    assert BROKEN[missing] in message and str(nut) in message
    assert [one.name for one in load_mvtec(nut.parent, ["bolt"])] == ["bolt"]


def test_without_masks_there_are_labels(nut):
    (nut / "ground_truth").rename(nut / "elsewhere")
    [category] = load_mvtec(nut)
    assert category.kinds == ["cut", "good", "hole", "hole"] and not category.masked
    assert [category.truth(at, SIZE) for at in range(4)] == [
        (True, None),
        (False, None),
        (True, None),
        (True, None),
    ]


def test_where_a_defect_without_a_mask_is_wrong_is_not_known(nut):
    (nut / "ground_truth/hole").rename(nut / "elsewhere")
    write_mask(nut / "ground_truth/cut/000.png", (1, 1))
    [category], problems = reported(nut)
    assert [name.removeprefix(str(nut)) for name, _ in problems] == ["/test/hole"]
    assert "2 defects (hole) have no mask" in problems[0][1]
    assert problems[0][1].endswith("they count for image metrics alone")
    (cut, where), (good, nowhere), *holes = (category.truth(at, SIZE) for at in range(4))
    assert cut and np.argwhere(where).tolist() == [[1, 1]]
    assert not good and nowhere.shape == SIZE and not nowhere.any()
    assert holes == [(True, None)] * 2


def test_a_category_without_defects_is_refused(nut):
    for name in ("hole", "cut"):
        (nut / "test" / name).rename(nut / name)
    assert "no folder test/cut" in refused(nut)
    (nut / "ground_truth").rename(nut / "elsewhere")
    assert "no defects in test" in refused(nut)


def reported(root, names=None):
    problems = []
    categories = load_mvtec(root, names, lambda *problem: problems.append(problem))
    return categories, problems


def test_what_is_broken_is_named_and_the_rest_is_there(nut):
    make_category(nut.parent / "bolt")
    (nut.parent / "bolt/train").rename(nut.parent / "elsewhere")
    touch(
        nut,
        "test/dent/000.png",
        "test/dent/001.png",
        "test/hole/002.png",
        "ground_truth/hole/009_mask.png",
        "ground_truth/rust/000_mask.png",
    )
    categories, problems = reported(nut.parent, ["nut", "bolt", "pill"])
    [category] = categories
    assert category.name == "nut" and len(category.test) == 7
    lines = {name.removeprefix(str(nut.parent)): why for name, why in problems}
    assert len(lines) == len(problems) == 6
    assert "no such category" in lines["pill"] and "passed over" in lines["pill"]
    assert "no good images" in lines["/bolt"] and "category is left out" in lines["/bolt"]
    assert "2 defects (dent) have no mask" in lines["/nut/test/dent"]
    assert lines["/nut/test/dent"].endswith("they count for image metrics alone")
    assert lines["/nut/test/hole/002.png"].endswith("it counts for image metrics alone")
    assert "mask without an image" in lines["/nut/ground_truth/hole/009_mask.png"]
    assert "no folder test/rust" in lines["/nut/ground_truth/rust"]


def write_mask(path, at):
    mask = np.zeros(SIZE, np.uint8)
    mask[at] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def test_loco_has_several_masks_an_image(tmp_path):
    box = tmp_path / "breakfast_box"
    touch(
        box,
        "train/good/000.png",
        "validation/good/000.png",
        "test/good/000.png",
        "test/logical_anomalies/000.png",
        "test/structural_anomalies/000.png",
        "test/structural_anomalies/001.png",
    )
    truth = box / "ground_truth"
    write_mask(truth / "logical_anomalies/000/000.png", (1, 1))
    write_mask(truth / "logical_anomalies/000/001.png", (2, 3))
    write_mask(truth / "structural_anomalies/000/000.png", (4, 4))
    write_mask(truth / "structural_anomalies/007/000.png", (4, 4))
    [category], problems = reported(tmp_path)
    assert category.layout == "mvtec-loco" and len(category.train) == 1
    assert [(one.defect, len(one.masks)) for one in category.test] == [
        ("good", 0),
        ("logical_anomalies", 2),
        ("structural_anomalies", 1),
        ("structural_anomalies", 0),
    ]
    assert np.argwhere(category.test[1].mask(SIZE)).tolist() == [[1, 1], [2, 3]]
    assert not category.test[0].mask(SIZE).any()
    assert category.config is None and category.regions(1, SIZE) == []
    assert any("validation/good is not used" in note for note in category.notes)
    assert [name.removeprefix(str(box)) for name, _ in problems] == [
        "/ground_truth/structural_anomalies/007/000.png",
        "/test/structural_anomalies/001.png",
    ]


def test_ad_2_is_scored_on_its_public_part(tmp_path):
    can = tmp_path / "can"
    touch(
        can,
        "train/good/000_regular.png",
        "validation/good/000_regular.png",
        "test_public/good/000_regular.png",
        "test_public/bad/000_overexposed.png",
        "test_public/ground_truth/bad/000_overexposed_mask.png",
        "test_private/000_regular.png",
        "test_private_mixed/000_mixed.png",
    )
    [category] = load_mvtec(tmp_path)
    public = can / "test_public"
    assert category.layout == "mvtec-ad-2"
    assert category.train == (can / "train/good/000_regular.png",)
    assert category.test == (
        TestImage(
            public / "bad/000_overexposed.png",
            "bad",
            (public / "ground_truth/bad/000_overexposed_mask.png",),
        ),
        TestImage(public / "good/000_regular.png", "good", ()),
    )
    for part in ("test_private ", "test_private_mixed ", "validation/good "):
        assert any(note.startswith(part) for note in category.notes)


def test_visa_as_its_own_script_arranges_it(tmp_path):
    touch(
        tmp_path / "1cls" / "candle",
        "train/good/0000.JPG",
        "test/good/0001.JPG",
        "test/bad/000.JPG",
        "ground_truth/bad/000.png",
    )
    [category] = load_mvtec(tmp_path)
    assert category.layout == "visa" and len(category.test) == 2
    assert [mask.name for mask in category.test[0].masks] == ["000.png"]
    assert load_mvtec(tmp_path / "1cls") == [category]


VISA = """object,split,label,image,mask
pcb1,train,normal,pcb1/Data/Images/Normal/0003.JPG,
pcb1,train,normal,pcb1/Data/Images/Normal/0001.JPG,
pcb1,test,anomaly,pcb1/Data/Images/Anomaly/000.JPG,pcb1/Data/Masks/Anomaly/000.png
candle,train,normal,candle/Data/Images/Normal/0001.JPG,
candle,test,normal,candle/Data/Images/Normal/0002.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG,candle/Data/Masks/Anomaly/001.png
pcb1,test,normal,pcb1/Data/Images/Normal/0002.JPG,
"""


def test_visa_as_downloaded(tmp_path):
    touch(
        tmp_path,
        *(word for line in VISA.splitlines()[1:] for word in line.split(",")[3:] if word),
        "split_csv/1cls.csv",
    )
    (tmp_path / "split_csv/1cls.csv").write_text(VISA)
    candle, pcb = load_mvtec(tmp_path)
    assert (candle.name, candle.layout, pcb.name) == ("candle", "visa", "pcb1")
    assert [path.name for path in pcb.train] == ["0001.JPG", "0003.JPG"]
    assert [(one.path.name, one.defect) for one in candle.test] == [
        ("000.JPG", "bad"),
        ("001.JPG", "bad"),
        ("0002.JPG", "good"),
    ]
    assert candle.test[1].masks == (tmp_path / "candle/Data/Masks/Anomaly/001.png",)
    (tmp_path / "candle/Data/Masks/Anomaly/001.png").unlink()
    [candle], problems = reported(tmp_path, ["candle"])
    assert len(candle.test) == 2 and "named in split_csv/1cls.csv" in problems[0][1]
    for bad in ("object,split\n1,2\n", VISA.replace("candle,train", "../x,train")):
        (tmp_path / "split_csv/1cls.csv").write_text(bad)
        assert "row 2" in refused(tmp_path) or "row 5" in refused(tmp_path)


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
