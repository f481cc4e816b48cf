"""An index kept beside itself, and put in another's place."""

import hashlib
import os
from pathlib import Path

import pytest

from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from spade_faiss.index import clone_index, index_lock, manifest_path, put_in_place
from tests.conftest import texture

GOOD = texture("gravel", 4)
SMALL = {"resize": 96, "crop": 96}


def digest(folder):
    return hashlib.sha256(manifest_path(folder).read_bytes()).hexdigest()


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "verified.json")
    }


@pytest.fixture(params=["index", "ensemble"])
def two(request, tiny, tmp_path):
    """Two indices of one kind, of three and of four images."""

    def make():
        single = request.param == "index"
        return Spade(tiny, **SMALL) if single else Ensemble.of([tiny], ["flip"], **SMALL)

    for name, count in (("a", 3), ("b", 4)):
        make().fit(GOOD[:count], tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.parametrize("linked", [True, False])
def test_an_index_is_kept_and_put_back(tiny, two, tmp_path, monkeypatch, linked):
    if not linked:  # as where the folders lie on different disks

        def refused(*_):
            raise OSError("another device")

        monkeypatch.setattr(os, "link", refused)
    first, other = two
    was = files(first)
    assert clone_index(first, tmp_path / "kept") == digest(first) == digest(tmp_path / "kept")
    same = [path.stat().st_nlink for path in (tmp_path / "kept").rglob("*.faiss")]
    assert all((count > 1) == linked for count in same)
    put_in_place(other, first, digest(first))
    assert files(first) == files(other) and len(open_detector(first).index_) == 4
    assert files(tmp_path / "kept") == was
    put_in_place(tmp_path / "kept", first, digest(first))
    assert files(first) == was
    clone_index(other, tmp_path / "kept")  # in the place of what was there
    assert files(tmp_path / "kept") == files(other)


def test_what_is_not_put_in_place_leaves_all_as_it_was(tiny, two, tmp_path, monkeypatch):
    first, other = two
    was = files(first)
    with pytest.raises(SpadeError, match="was changed meanwhile; begin again"):
        put_in_place(other, first, digest(other))
    with index_lock(first, manifest_path(first).name):
        for act in (
            lambda: put_in_place(other, first, digest(first)),
            lambda: clone_index(first, tmp_path / "kept"),
        ):
            with pytest.raises(SpadeError, match="is being written by another process"):
                act()
    replace = Path.replace

    def full(path, target):
        if Path(target) == manifest_path(first):
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SpadeError, match="No space left on device; what was there before is whole"):
        put_in_place(other, first, digest(first))
    assert files(first) == was
