import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from spade_faiss import SpadeError
from spade_faiss.datasets import load_folders, load_table
from spade_faiss.datasets.category import GOOD

SIZE = (6, 8)


def write(root: Path, *names: str) -> None:
    """Write small images, of which no two are the same."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.frombuffer(os.urandom(SIZE[0] * SIZE[1]), np.uint8).reshape(SIZE)
        assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def parts(tmp_path):
    write(
        tmp_path / "parts",
        "train/0.png",
        "train/monday/1.png",
        "fine/0.png",
        "ng/scratch/0.png",
        "ng/scratch/deep/1.bmp",
        "ng/dent/0.png",
        "ng/2.png",
    )
    return tmp_path / "parts"


def load(root, masks=None, bad="ng", **options):
    problems = []
    many = [root / one for one in ([bad] if isinstance(bad, str) else bad)]
    category = load_folders(
        root / "train",
        root / "fine",
        many,
        masks and root / masks,
        lambda *problem: problems.append(problem),
        **options,
    )
    return category, {name.removeprefix(f"{root}/"): why for name, why in problems}


def refused(*arguments, **options):
    with pytest.raises(SpadeError) as caught:
        load(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def named(category, root):
    return {str(test.path.relative_to(root)): test.defect for test in category.test}


def test_folders_of_defects_are_their_kinds(parts):
    category, problems = load(parts)
    assert not problems and (category.name, category.layout) == ("parts", "folder")
    assert category.train == (parts / "train/0.png", parts / "train/monday/1.png")
    assert named(category, parts) == {
        "fine/0.png": GOOD,
        "ng/scratch/0.png": "scratch",
        "ng/scratch/deep/1.bmp": "scratch",
        "ng/dent/0.png": "dent",
        "ng/2.png": "ng",
    }
    assert not category.masked
    category, _ = load(parts, bad=["ng/dent", "ng/scratch"])
    assert category.kinds == [GOOD, "dent", "scratch", "deep"]


def test_what_may_be_an_image_and_is_not_read_is_noted(parts):
    assert load(parts)[0].notes == ()
    (parts / "ng" / "dent" / "1.heic").touch()
    (parts / "train" / "notes.txt").touch()
    category, problems = load(parts)
    assert not problems and len(category.notes) == 1 and "ng/dent/1.heic;" in category.notes[0]


def test_masks_lie_like_their_images(parts):
    write(
        parts,
        "masks/scratch/0.tiff",
        "masks/scratch/deep/1_mask.png",
        "masks/2.png",
        "masks/dent/7.png",
        "masks/2_mask.png",
    )
    category, problems = load(parts, "masks")
    assert {
        str(test.path.relative_to(parts)): [str(mask.relative_to(parts)) for mask in test.masks]
        for test in category.test
    } == {
        "fine/0.png": [],
        "ng/scratch/0.png": ["masks/scratch/0.tiff"],
        "ng/dent/0.png": [],
        "ng/scratch/deep/1.bmp": ["masks/scratch/deep/1_mask.png"],
        "ng/2.png": ["masks/2_mask.png"],
    }
    assert problems == {
        "masks/2.png": "is a mask without a defect; passed over",
        "masks/dent/7.png": "is a mask without a defect; passed over",
        "ng/dent/0.png": f"has a defect and no mask in {parts}/masks; it counts for image metrics "
        "alone",
    }
    (parts / "masks/scratch/deep").rename(parts / "masks/deep")
    several, _ = load(parts, "masks", bad=["ng/dent", "ng/scratch"])
    assert [len(test.masks) for test in several.test] == [0, 0, 1, 0]


def test_masks_that_are_nobody_s_are_named(parts):
    write(parts, "masks/else/0.png")
    category, problems = load(parts, "masks")
    assert not category.masked and problems == {
        "masks/else/0.png": "is a mask without a defect; passed over",
        "masks": "holds no mask of any defect; there are no pixel metrics",
    }
    write(parts, "masks/scratch/0.png", "masks/scratch/0.bmp", "ng/scratch/0.jpg")
    assert "would be the mask of scratch/0.jpg and of scratch/0.png" in refused(parts, "masks")
    (parts / "ng/scratch/0.jpg").unlink()
    assert "0.png: is a mask beside" in ": ".join(
        next(item for item in load(parts, "masks")[1].items() if "scratch" in item[0])
    )


@pytest.mark.parametrize(
    "change, why",
    [
        (
            lambda root: (root / "ng/good").mkdir() or write(root, "ng/good/0.png"),
            "cannot be called",
        ),
        (lambda root: (root / "fine").rename(root / "train/fine"), "fine: no such folder"),
        (lambda root: (root / "fine/0.png").rename(root / "fine/0.txt"), "holds no images"),
    ],
)
def test_folders_that_cannot_be_told_apart_are_refused(parts, change, why):
    change(parts)
    assert why in refused(parts)


def test_a_folder_in_another_is_refused(parts):
    assert "ng/dent lies in" in refused(parts, bad=["ng", "ng/dent"])
    (parts / "fine/ng").symlink_to(parts / "ng")
    assert "fine lies in" in refused(parts, bad="fine")
    write(parts, "ng/masks/scratch/0.png")
    assert "ng/masks lies in" in refused(parts, "ng/masks")


def test_an_image_is_in_one_place_alone(parts):
    write(parts, "fine/3.png", "train/4.png", "ng/dent/9.png")

    def copy(name, *others):
        for other in others:
            (parts / other).write_bytes((parts / name).read_bytes())

    copy("train/0.png", "fine/1.png", "train/twice.png")
    copy("ng/dent/0.png", "fine/2.png")
    copy("ng/2.png", "train/5.png")
    copy("fine/3.png", "fine/6.png")
    copy("ng/scratch/0.png", "ng/scratch/1.png")
    category, problems = load(parts)
    assert {name: why.replace(f"{parts}/", "") for name, why in problems.items()} == {
        "fine/1.png": "is learnt from as train/0.png, too; left out",
        "fine/2.png": "is given as good and is a defect as ng/dent/0.png; left out",
        "ng/dent/0.png": "is given as a defect and is good as fine/2.png; left out",
        "train/5.png": "is given as good and is a defect as ng/2.png; left out",
        "ng/2.png": "is given as a defect and is good as train/5.png; left out",
        "fine/6.png": "is tested as fine/3.png, too; left out",
        "ng/scratch/1.png": "is tested as ng/scratch/0.png, too; left out",
    }
    assert sorted(path.name for path in category.train) == ["0.png", "1.png", "4.png", "twice.png"]
    assert named(category, parts) == {
        "fine/0.png": GOOD,
        "fine/3.png": GOOD,
        "ng/dent/9.png": "dent",
        "ng/scratch/0.png": "scratch",
        "ng/scratch/deep/1.bmp": "scratch",
    }


def test_a_test_of_what_was_learnt_is_none(parts):
    for path in (parts / "train").rglob("*.png"):
        (parts / "fine" / path.name).write_bytes(path.read_bytes())
    assert f"there are no images in {parts}/fine: no metric is defined" in refused(parts)


def table(root, text, encoding="utf-8"):
    (root / "list.csv").write_bytes(text.encode(encoding))
    problems = []
    return load_table(root / "list.csv", on_error=lambda *problem: problems.append(problem)), [
        f"{name.removeprefix(f'{root}/')}: {why}" for name, why in problems
    ]


ROWS = """path,label,split
train/0.png,good,train
train/monday/1.png,0,train
fine/0.png,OK,test
ng/2.png,Scratch,test
"""


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        ROWS.replace(",", ";"),
        ROWS.replace(",", "\t"),
        ROWS.replace("\n", "\r\n"),
        "\ufeff" + ROWS,
        ROWS.replace(",", " , "),
        ROWS.replace("path,label", "Path,LABEL"),
        ROWS + "\n\n",
    ],
)
def test_a_table_says_what_images_are(parts, text):
    category, problems = table(parts, text)
    assert not problems and category.name == "list" and category.layout == "folder"
    assert [path.name for path in category.train] == ["0.png", "1.png"]
    assert named(category, parts) == {"fine/0.png": GOOD, "ng/2.png": "Scratch"}


def test_rows_that_cannot_be_used_are_named_by_their_lines(parts):
    category, problems = table(
        parts,
        ROWS + '\n"ng/dent/0.png",good\nnowhere.png,good,test\n'
        "ng/scratch/0.png,,test\n,good,test\nng/scratch/0.png,dent,train\n"
        "ng/scratch/0.png,dent,valid\nng,scratch/0.png,dent,test\n",
    )
    assert [problem.replace(str(parts), "") for problem in problems] == [
        "list.csv, line 7: its split is '' and must be train or test; left out",
        "list.csv, line 8: there is no file /nowhere.png; left out",
        "list.csv, line 9: it has no label; left out",
        "list.csv, line 10: it has no path; left out",
        "list.csv, line 11: it is to be learnt from and labelled 'dent', a defect; left out",
        "list.csv, line 12: its split is 'valid' and must be train or test; left out",
        "list.csv, line 13: it has more fields than the first line; quote a path that holds a "
        "comma; left out",
    ]
    assert len(category.test) == 2


def test_a_table_without_a_split_needs_a_folder_to_learn_from(parts):
    (parts / "list.csv").write_text("path,label\nfine/0.png,normal\nng/2.png,scratch\n")
    write(parts, "masks/ng/2.png")
    category = load_table(parts / "list.csv", parts / "train", parts / "masks")
    assert len(category.train) == 2 and category.kinds == [GOOD, "scratch"]
    assert category.test[1].masks == (parts / "masks/ng/2.png",)
    with pytest.raises(SpadeError, match="no column split, but path, label; add it"):
        load_table(parts / "list.csv")


@pytest.mark.parametrize(
    "content, why",
    [
        (b"image,label\n", "no column path, but image, label"),
        (b"", "no column path, but none"),
        (b"\xff\xfe\x00", "cannot be read as a table"),
        (b'path,label,split\n"a', "cannot be read"),
        (b"path,label,split\n", "no good images to learn from"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(parts, content, why):
    (parts / "list.csv").write_bytes(content)
    with pytest.raises(SpadeError, match=why) as caught:
        load_table(parts / "list.csv")
    assert "\n" not in str(caught.value)
    with pytest.raises(SpadeError, match="No such file"):
        load_table(parts / "gone.csv")
