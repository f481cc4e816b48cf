"""What rows that are cut leave to be scored is counted, never less than what whole ones leave."""

import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "shortened.py"


@pytest.mark.slow
def test_fewer_coordinates_leave_more_groups_and_all_leave_one():
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'lite'")
    few = "--images", "6", "--queries", "24"
    done = subprocess.run([sys.executable, str(SCRIPT), *few], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    layers = [list(own) for _, own in groupby(map(json.loads, done.stdout.splitlines()), layer_of)]
    assert [own[0]["channels"] for own in layers] == [24, 40, 112, 144, 240, 672, 1152]
    for own in layers:
        pairs = [one["pairs"] for one in own]
        assert own[0]["pairs_whole"] == 1 and sorted(pairs, reverse=True) == pairs
        assert pairs[-1] >= 1 and own[0]["kept"] == own[0]["channels"] // 4


def layer_of(line):
    return line["layer"]
