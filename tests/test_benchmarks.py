"""The benchmarks that need a GPU can be tried without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def run(*options):
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, cwd=SCRIPT.parents[1], capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so():
    done = run("--json")
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and "needs a CUDA device" in done.stderr


def test_a_rehearsal_measures_and_checks_a_level():
    pytest.importorskip("triton", reason="needs triton, which comes with torch for CUDA")
    done = run("--rehearse", "--json", "--only", "level 3")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ways = {line["way"]: line for line in lines}
    assert all(line["rehearsal"] and "random" in line["weights"] for line in lines)
    assert {"fused, batch 1", "fused, batch 2", "cdist", "bmm"} <= set(ways)
    assert ways["exactness"]["max_relative_error"] < 1e-5
    assert ways["exactness"]["all_among_their_images"]


def test_a_part_that_fails_is_reported_and_the_rest_is_run(tmp_path):
    done = run("--rehearse", "--json", "--only", "spade", "device", "--weights",
               str(tmp_path / "none.pth"))
    assert done.returncode == 1
    spade, device = map(json.loads, done.stdout.splitlines())
    assert spade["part"] == "spade" and "no such weights file" in spade["error"]
    assert device["part"] == "device" and "float16_tflops" in device
