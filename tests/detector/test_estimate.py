"""What `estimate` says beforehand is what an index then has."""

import numpy as np
import pytest

from spade_faiss import Ensemble, Spade, SpadeError
from tests.detector.test_tiles import SEEN, pictures


@pytest.mark.parametrize(
    "settings",
    [
        {"preset": "paper"},
        {"preset": "best"},
        {"preset": "best", "store": "float16"},
        {"preset": "paper", "tile": None, "overlap": None},
        {"preset": "best", "tile": 128, "resize": 160, "overlap": None},
        {"region": np.arange(200 * 260).reshape(200, 260) < 5000},
    ],
)
def test_counts_and_bytes_are_those_of_the_index(tiny, settings):
    images = pictures("gravel", 3)
    spade = Spade(tiny, **SEEN | settings)
    expected = spade.estimate(images)
    spade.fit(images)
    index, manifest = spade.index_, spade.index_.manifest
    tiles = manifest.framing.tiles
    size = tiles.picture if tiles else (224, 224)
    assert (expected.images, expected.height, expected.width) == (3, *size)
    assert expected.tiles == 3 * index.parts == len(index.descriptors)
    assert expected.patches == sum(map(len, index.levels)) == manifest.patches
    assert expected.bytes == sum(file.bytes for file in manifest.files)
    assert 0 < expected.seconds < 1000
    assert spade.stages.seconds["features"] > 0


def test_more_images_take_more_and_galleries_an_unknown_time(tiny):
    few, many = (Spade(tiny, **SEEN).estimate(pictures("gravel", n)) for n in (2, 20))
    assert many.tiles == 10 * few.tiles and many.seconds > 3 * few.seconds
    assert Spade(tiny, coreset=0.1, **SEEN).estimate(pictures("gravel", 2)).seconds is None


def test_an_ensemble_takes_what_its_members_take(tiny):
    images = pictures("gravel", 2)
    two = Ensemble.of([tiny], ["flip"], **SEEN)
    one, both = Spade(tiny, **SEEN).estimate(images), two.estimate(images)
    assert (both.patches, both.bytes) == (2 * one.patches, 2 * one.bytes)
    assert (both.images, both.tiles) == (one.images, one.tiles) and both.seconds > 0


def test_it_needs_images_that_can_be_used_and_come_again(tiny, tmp_path):
    assert Spade(tiny, **SEEN).estimate(iter(pictures("gravel", 2))) is None
    (tmp_path / "bad.png").write_bytes(b"none")
    with pytest.raises(SpadeError, match="none of the images can be used"):
        Spade(tiny, **SEEN).estimate([tmp_path / "bad.png"])
    # A damaged one is passed over.
    assert Spade(tiny, **SEEN).estimate([tmp_path / "bad.png", *pictures("gravel", 1)]).images == 2
    with pytest.raises(SpadeError, match="`tile=224` is larger than the picture, 260x200"):
        Spade(tiny, tile=224).estimate(pictures("gravel", 2))


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    tiny, tmp_path, monkeypatch, ensemble
):
    images = pictures("gravel", 2)
    spade = Ensemble.of([tiny], ["flip"], **SEEN) if ensemble else Spade(tiny, **SEEN)
    needed = Spade(tiny, **SEEN).estimate(images).bytes

    def with_room(size):
        usage = type("usage", (), {"free": size})
        monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    with_room(needed - 1)
    with pytest.raises(SpadeError, match=r"the index needs .* KiB, and its disk has .* left"):
        spade.fit(images, tmp_path / "index")
    assert not [
        path for path in (tmp_path / "index").rglob("*") if path.is_file() and path.stat().st_size
    ]
    with_room(needed)
    spade.fit(images, tmp_path / "index")
    with_room(needed)
    with pytest.raises(SpadeError, match="its disk has"):  # all is written anew
        spade.add(pictures("gravel", 1, 5))
    assert len(spade.index_) == 2
