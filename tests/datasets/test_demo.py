import numpy as np
import pytest
from scipy import ndimage

from spade_faiss.datasets import demo, load_mvtec, make_demo
from spade_faiss.errors import SpadeError
from spade_faiss.images import read_image

CATEGORIES = ("brick", "grass", "gravel")


def files(root):
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "data"
    assert make_demo(root, 3, n_train=2, n_good=1, n_defects=1) == list(CATEGORIES)
    return root


def test_the_layout_is_mvtecs(small):
    categories = load_mvtec(small)
    assert [one.name for one in categories] == list(CATEGORIES)
    for category in categories:
        assert [path.name for path in category.train] == ["000.png", "001.png"]
        assert [one.defect for one in category.test] == sorted([*demo.DEFECTS, "good"])
        for test in category.test:
            assert read_image(test.path).shape == (256, 256, 3)
            if test.masks:
                assert [mask.name for mask in test.masks] == ["000_mask.png"]
                assert 0.003 < test.mask((256, 256)).mean() < 0.05


def test_the_same_seed_gives_the_same_bytes(small, tmp_path):
    np.random.seed(99)
    make_demo(tmp_path / "again", 3, n_train=2, n_good=1, n_defects=1)
    assert files(tmp_path / "again") == files(small)


def test_no_image_depends_on_how_many_others_there_are(small, tmp_path):
    make_demo(tmp_path / "more", 3, n_train=3, n_good=2, n_defects=2)
    more = files(tmp_path / "more")
    assert len(more) == 3 * (3 + 2 + 2 * 2 * 6)
    assert {name: more[name] for name in files(small)} == files(small)


def test_every_image_is_its_own(small, tmp_path):
    make_demo(tmp_path / "other", 4, n_train=2, n_good=1, n_defects=1)
    images = list(files(small).values()) + list(files(tmp_path / "other").values())
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("kind", demo.DEFECTS)
@pytest.mark.parametrize("category", CATEGORIES)
def test_masks_are_exact_and_defects_visible(category, kind):
    for index in range(8):
        made = demo.render(1, category, kind, index)
        difference = np.abs(made.image.astype(int) - made.clean).max(axis=2)
        assert not difference[~made.mask].any()
        assert (difference[made.mask] > 0).mean() > 0.85
        assert difference[made.mask].mean() > 8
        assert 0.003 < made.mask.mean() < 0.05
        # One defect a picture, in the centre crop of 224 that the paper's protocol looks at.
        assert ndimage.label(made.mask, np.ones((3, 3)))[1] == 1
        assert made.mask[16:240, 16:240].sum() == made.mask.sum()


def test_a_used_place_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(SpadeError, match="not empty") as caught:
            make_demo(place)
        assert "\n" not in str(caught.value)
    assert files(tmp_path) == {"notes.txt": b"mine"}


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "data").mkdir()
    make_demo(tmp_path / "data", n_train=1, n_good=1, n_defects=1)
    assert len(load_mvtec(tmp_path / "data")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_broken_off_demo_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(demo.DEFECTS, "smear", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "data", n_train=1, n_good=1, n_defects=1)
    assert not list(tmp_path.iterdir())


def test_impossible_numbers_are_refused(tmp_path):
    with pytest.raises(SpadeError, match="negative"):
        make_demo(tmp_path / "data", seed=-1)
    with pytest.raises(ValueError, match="1 or more"):
        make_demo(tmp_path / "data", n_good=0)
