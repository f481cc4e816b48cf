"""An index that the first version wrote is read by this one, and changed like one of its own.

`first/` holds three views of scikit-image's gravel, 64 pixels wide, scaled and cropped to 32.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from spade_faiss import Spade
from spade_faiss.index import Manifest, damaged_files
from spade_faiss.verdict.threshold import good_threshold


def view(x, y):
    return np.repeat(data.gravel()[y : y + 64, x : x + 64, None], 3, 2)


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(Path(__file__).parent / "first", tmp_path / "first"))


def test_scores_are_those_of_the_program_that_wrote_it_and_thresholds_are_drawn_anew(lite, folder):
    assert not damaged_files(folder, Manifest.read(folder))
    spade = Spade.load(folder, backbone=lite, engine="faiss")
    prediction = spade.predict([view(400, 400)])
    np.testing.assert_allclose(prediction.scores, [44.52758], rtol=1e-4)
    np.testing.assert_allclose(prediction.maps[0].sum(), 166520.22, rtol=1e-4)
    stored = spade.index_.manifest.calibration
    assert stored.pixel_threshold == pytest.approx(56.0463565504881)
    assert spade.image_threshold == good_threshold(stored.peaks, 0.995)


def test_it_can_be_added_to(lite, folder):
    spade = Spade.load(folder, backbone=lite)
    assert spade.add([view(300, 100)]) == 1
    again = Spade.load(folder, backbone=lite)
    assert len(again.index_) == 4 and again.image_threshold == spade.image_threshold
    assert again.predict([view(300, 100)]).scores[0] < 1e-3
