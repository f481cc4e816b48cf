"""Benchmarks that need a GPU can be tried without one; what others assume is so."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spade_faiss import Spade
from spade_faiss.search.native import kernels
from tests.conftest import texture, with_hole

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


def run(*command):
    return subprocess.run(
        [sys.executable, *command], cwd=SCRIPTS.parent, capture_output=True, text=True
    )


def gpu(*options):
    return run("-m", "benchmarks.gpu", *options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so():
    done = gpu("--json")
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and "needs a CUDA device" in done.stderr


@pytest.mark.slow
def test_a_rehearsal_measures_and_checks_a_level():
    pytest.importorskip("triton", reason="needs triton, which comes with torch for CUDA")
    done = gpu("--rehearse", "--json", "--only", "level 3")
    assert done.returncode == 0, done.stderr
    *lines, took = [json.loads(line) for line in done.stdout.splitlines()]
    assert took["process"] == "level 3" and took["process_s"] > 0
    ways = {line["way"]: line for line in lines}
    assert all(line["rehearsal"] and "random" in line["weights"] for line in lines)
    assert {"fused, batch 1", "fused, batch 2", "cdist", "bmm"} <= set(ways)
    assert ways["exactness"]["max_relative_error"] < 1e-5
    assert ways["exactness"]["all_among_their_images"]


@pytest.mark.slow
def test_a_part_that_fails_is_reported_and_the_rest_is_run(tmp_path):
    done = gpu(
        "--rehearse", "--json", "--only", "spade", "device", "--weights", str(tmp_path / "none.pth")
    )
    assert done.returncode == 1
    spade, _, device, _ = map(json.loads, done.stdout.splitlines())
    assert spade["part"] == "spade" and "no such weights file" in spade["error"]
    assert device["part"] == "device" and "float16_tflops" in device


@pytest.mark.slow
def test_a_rehearsal_goes_from_files_to_verdicts_and_beside_others():
    done = gpu("--rehearse", "--only", "files", "others")
    assert done.returncode == 0, done.stderr
    assert "files: written maps, batch 8" in done.stdout
    for other in ("anomalib", "patchcore-inspection"):
        assert f"others: {other}  " in done.stdout
        assert f"others: spade-faiss against {other}\n" in done.stdout


@pytest.mark.slow
def test_all_ways_of_searching_find_the_same_and_another_checkout_does(tmp_path):
    quick = (
        str(SCRIPTS / "search.py"),
        "--quick",
        "--rounds",
        "1",
        "--only",
        "random",
        "--json",
        "--before",
    )
    done = run(*quick, str(SCRIPTS.parent))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ways = {line["way"] for line in lines}
    for own in ("batch", "1 image", "cold", "once"):
        assert {f"auto, {own}", f"auto, {own}, before"} <= ways
    for line in lines:
        multiplies = line["way"].startswith("product")
        assert (line["max_rel_error"] is None) if multiplies else line["max_rel_error"] < 1e-4
        today = line["way"].startswith("auto") and "before" not in line["way"]
        assert (line["kernel"] is not None) == (line["ratio_to_before"] is not None) == today
        assert not today or (line["kernel"] == "faiss") == (kernels() is None)
    done = run(*quick, str(tmp_path))
    assert done.returncode and "pass a checkout" in done.stderr


@pytest.fixture
def thresholds(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("thresholds")


def test_thresholds_of_compared_pairs_are_those_of_an_index(tiny, thresholds):
    grass = texture("grass", 6)
    defects = [with_hole(grass[5], radius=40)]
    shown = thresholds.Shown("grass", [*grass[:4], grass[0]], grass[4:5], defects)
    pairs = thresholds.Pairs(shown, tiny)
    for chosen in np.array([0, 1, 3]), np.arange(5):  # the last image is a copy of the first
        spade = Spade(tiny).fit([shown.learnt[i] for i in chosen])
        copies = pairs.copies(chosen)
        assert [list(one) for one in copies] == (
            [[]] * 3 if len(chosen) < 5 else [[4], [], [], [], [0]]
        )
        left_out = pairs.left_out(chosen, copies)
        assert left_out == pytest.approx(spade.calibration.peaks, rel=1e-5)
        scores = np.array([pairs.peak(i, chosen) for i in (5, 6)])
        assert scores == pytest.approx(spade.predict(shown.tests()).scores, rel=1e-5)
        made = thresholds.outcome(left_out, copies, scores[:1], scores[1:])
        assert made["threshold"] == pytest.approx(spade.image_threshold, rel=1e-5)
        assert made["found"] == 1


def test_shares_are_means_and_ranges_over_categories(thresholds):
    def line(category, **counts):
        return {"category": category, "n": 5, "aimed": 0.05, "good": 10, "defects": 4, **counts}

    records = [
        line("a", found=4, false_alarms=0),
        line("a", found=2, false_alarms=0),
        line("b", found=1, false_alarms=2),
        line("other", found=0, false_alarms=10),
    ]
    (row,) = thresholds.by_count(records, {"a", "b"})
    assert row == {
        "n": 5,
        "categories": 2,
        "sets": 3,
        "aimed": pytest.approx(0.05),
        "found": [0.5, 0.25, 0.75],
        "false_alarms": [0.1, 0, 0.2],
    }


def test_a_rate_is_seen_as_a_multiple_of_that_aimed_at(thresholds):
    lines = list(thresholds.simulation({"real": np.linspace(1, 1.1, 40)}, 8))
    rates = {(line["scores"], line["n"]): line for line in lines if "scores" in line}
    assert ("real", 20) in rates and ("real", 50) not in rates  # half are new ones
    for line in rates.values():
        assert line["seen_over_aimed"] == pytest.approx(line["seen"] / line["aimed"], abs=0.01)
    moved = [line["threshold_times"] for line in lines if "threshold_times" in line]
    assert moved and all(one["0"] <= one["0.5"] <= one["1"] for one in moved)
