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


def test_what_is_judged_by_power_means_is_written_for_programs_that_know_them(tmp_path):
    old = Manifest.read(FIRST)
    old.write(tmp_path)
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert written == json.loads((FIRST / "manifest.json").read_text())  # which knew of none
    assert old.calibration.lacks("mean") and not old.calibration.lacks("descriptor")
    means = tuple(0.5 * peak for peak in old.calibration.peaks)
    made = old.calibration.model_copy(update={"means": means, "mean_threshold": 2.5})
    assert made.scores("mean") == means and not made.lacks("mean")
    new = old.extended(calibration=made, score="mean")
    new.write(tmp_path)
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert (written["version"], written["score"]) == (2, "mean")
    assert written["calibration"]["means"] == list(means) and "sample" not in written["calibration"]
    assert Manifest.read(tmp_path) == new
    assert made.without_means() == old.calibration
