"""ShanghaiTech Campus's layout, seen in tiles and within a region."""

import json

import cv2
import numpy as np
import pytest

from tests import command
from tests.images.video.videos import make_stc


@pytest.mark.slow
@pytest.mark.parametrize("tiles", [(), ("--tile", "64")])
def test_clips_are_scored_by_tiles_and_within_a_region(tmp_path, tiles):
    make_stc(tmp_path / "stc")
    mask = np.zeros((96, 128), np.uint8)
    mask[10:-10, 10:-10] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    options = ("--region", tmp_path / "mask.png", "--min-area", "20", *tiles, *command.TINY)
    command.done("evaluate", "stc", tmp_path / "stc", "--out", tmp_path / "out", *options)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["config"]["min_area"] == 20 and "region" in found["config"]
    assert found["config"].get("tile") == (64 if tiles else None)
    assert all(0 <= one["image_rocauc_map_max"] <= 1 for one in found["categories"].values())
