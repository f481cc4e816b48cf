import cv2
import pytest

from spade_faiss import Spade
from tests.conftest import texture, with_hole

SMALL = {"resize": 64, "crop": 64, "quantile": 0.8}


def views(count, seed=5):
    """Return views of gravel, uint8 [64, 64, 3]; every other one has a hole."""
    images = [image[:64, :64] for image in texture("gravel", count, seed=seed)]
    return [with_hole(one, 32, 32, 12) if i % 2 else one for i, one in enumerate(images)]


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture(scope="session")
def line_index(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("line") / "index"
    Spade(tiny, **SMALL).fit([one[:64, :64] for one in texture("gravel", 8)], folder)
    return folder
