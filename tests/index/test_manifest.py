import json
from pathlib import Path

from spade_faiss.index import Manifest
from spade_faiss.index.manifest import DataFile

FIRST = Path(__file__).parent / "first"


def test_keys_in_files_stay_where_names_have_changed(tmp_path):
    file = DataFile(name="0123abcd/usual.f32", bytes=12, sha256="0" * 64)
    manifest = Manifest.read(FIRST).extended(normal_distances=file)
    manifest.write(tmp_path)
    record = json.loads((tmp_path / "manifest.json").read_text())
    assert record["usual"] == file.model_dump() == manifest.model_dump()["usual"]
    assert "normal_distances" not in record
    assert Manifest.read(tmp_path) == manifest
