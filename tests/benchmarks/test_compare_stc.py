"""The comparison on video: measured beside published, and nothing twice."""

import csv
import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn, of the extra 'bench'")

from sklearn.metrics import roc_auc_score

from spade_faiss.evaluation.stc import normalised
from tests.images.video.videos import make_stc

ROOT = Path(__file__).parents[2]
COMMON = "--backbone", "efficientnet_lite0", "--threads", "1"


@pytest.fixture
def compare(monkeypatch, lite):
    """The script, whose AE(2D) is quick."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("compare_stc")
    method = module.VIDEO_METHODS["AE2D"]
    small = method.budgets["small"]
    quick = replace(
        small, schedule=replace(small.schedule, steps=5, batch=2), size=(48, 64), channels=8
    )
    monkeypatch.setattr(method, "budgets", {"small": quick})
    return module.main


@pytest.fixture(scope="module")
def campus(tmp_path_factory):
    return make_stc(tmp_path_factory.mktemp("stc") / "shanghaitech")


@pytest.mark.slow
def test_a_comparison_prints_measured_beside_published(compare, campus, tmp_path, capsys):
    call = str(campus), "--method", "AE2D", "--out", str(tmp_path), *COMMON
    assert compare([*call, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["scene"], one["method"]) for one in lines] == [("01", "AE2D"), ("02", "AE2D")]
    for line in lines:
        assert line["published_shanghaitech"] == 0.609
        assert (line["n_train"], line["n_test"]) == (2 * 48, 16 + 12)
        assert line["fit_seconds"] > 0 and line["frame_seconds"] > 0
        with (tmp_path / "frames" / "AE2D" / f"{line['scene']}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        labels = [int(row["label"]) for row in rows]
        scores = np.array([float(row["score"]) for row in rows])
        within = normalised(scores, [row["clip"] for row in rows])
        for name, values in (("image_rocauc", scores), ("image_rocauc_normalised_clips", within)):
            assert line[name] == pytest.approx(roc_auc_score(labels, values), abs=1e-4)
    # The same call takes up what is there: not even its seconds are measured again.
    assert compare([*call, "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines
    assert compare(call) == 0
    text = capsys.readouterr().out
    assert text == (tmp_path / "table.md").read_text() and "| AE2D |" in text and "| 60.9 |" in text
    results = json.loads((tmp_path / "results.json").read_text())["AE2D"]
    assert results["categories"].keys() == {"01", "02"}
    assert not any("map" in name for name in results["mean"])
    (tmp_path / "frames" / "AE2D" / "01.csv").unlink()
    assert compare([*call, "--scene", "01"]) == 0
    assert "01 is evaluated anew: " in capsys.readouterr().err


def test_a_scene_that_a_method_cannot_judge_is_left_out(compare, campus, tmp_path, capsys):
    call = str(campus), "--scene", "02", "--method", "AE2D", "--out", str(tmp_path), *COMMON
    frames = campus / "testing" / "frames" / "02_0015"
    kept = {path: path.read_bytes() for path in frames.iterdir()}
    broken = next(iter(sorted(kept)))
    broken.write_bytes(kept[broken][:100])
    try:
        assert compare(call) == 2
    finally:
        broken.write_bytes(kept[broken])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "AE2D, scene 02: " in lines[0] and "; left out" in lines[0]
    assert lines[1] == "compare.py: nothing could be evaluated"


@pytest.mark.slow
def test_a_wrong_call_says_so_in_one_line(tmp_path):
    command = [sys.executable, "benchmarks/compare.py", "stc", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "no such folder" in done.stderr
