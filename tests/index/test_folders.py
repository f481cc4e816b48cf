from spade_faiss.index.folders import folders_in, holds_index, indices_in
from spade_faiss.index.manifest import ENSEMBLE, MANIFEST


def test_folders_that_hold_an_index_or_an_ensemble_are_named_in_order(tmp_path):
    for name in ("b", "a", "c", ".hidden", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    for name, manifest in (("b", MANIFEST), ("a", ENSEMBLE), (".hidden", MANIFEST)):
        (tmp_path / name / manifest).touch()
    assert folders_in(tmp_path) == ["a", "b", "c", "empty"]
    assert indices_in(tmp_path) == ["a", "b"]
    assert holds_index(tmp_path / "a") and not holds_index(tmp_path)
    assert indices_in(tmp_path / "file") == indices_in(tmp_path / "gone") == []
