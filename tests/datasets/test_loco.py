import json

import numpy as np
import pytest
from PIL import Image

from spade_faiss.datasets import DefectsConfig, Saturation, load_mvtec
from spade_faiss.errors import SpadeError

SIZE = (6, 8)
WHOLE = {
    "defect_name": "dent",
    "pixel_value": 255,
    "saturation_threshold": 1.0,
    "relative_saturation": True,
}
FEW = {
    "defect_name": "missing_nut",
    "pixel_value": 254,
    "saturation_threshold": 5,
    "relative_saturation": False,
}


def make(root, config):
    """Make a category of two images with defects, one of them of two."""
    for name in (
        "train/good/000",
        "test/good/000",
        "test/logical_anomalies/000",
        "test/structural_anomalies/000",
    ):
        write(root / f"{name}.png", np.zeros(SIZE, np.uint8))
    write(root / "ground_truth/logical_anomalies/000/000.png", painted({(0, 0): 255, (0, 1): 255}))
    write(
        root / "ground_truth/logical_anomalies/000/001.png",
        painted({(y, x): 254 for y in range(3) for x in range(4)}),
    )
    write(root / "ground_truth/structural_anomalies/000/000.png", painted({(5, 5): 254}))
    (root / "defects_config.json").write_text(config)
    return root


def painted(values):
    mask = np.zeros(SIZE, np.uint8)
    for at, value in values.items():
        mask[at] = value
    return mask


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def test_defects_come_one_by_one_with_the_areas_at_which_they_saturate(tmp_path):
    [category] = load_mvtec(make(tmp_path / "box", json.dumps([WHOLE, FEW])))
    assert category.config.kinds == (
        Saturation("dent", 255, 1.0, True),
        Saturation("missing_nut", 254, 5.0, False),
    )
    assert category.kinds == ["good", "logical_anomalies", "structural_anomalies"]
    assert category.regions(0, SIZE) == []
    (dent, whole), (nut, few) = category.regions(1, SIZE)  # they overlap
    assert (dent.sum(), whole, nut.sum(), few) == (2, 2, 12, 5)
    wrong, mask = category.truth(1, SIZE)
    assert wrong and mask.sum() == 12 and dent[0, :2].all() and nut[:3, :4].all()
    [(spot, area)] = category.regions(2, SIZE)
    assert (spot.sum(), area) == (1, 1)  # no area is larger than its defect
    assert tmp_path / "box" / "defects_config.json" in category.files


@pytest.mark.parametrize(
    ("threshold", "relative", "pixels", "area"),
    [
        (0.5, True, 9, 4),
        (0.1, True, 3, 1),
        (1.0, True, 7, 7),
        (10, False, 9, 9),
        (10, False, 90, 10),
    ],
)
def test_areas_are_those_of_the_data_set_s_own_code(threshold, relative, pixels, area):
    assert Saturation("x", 255, threshold, relative).area(pixels) == area


def test_a_file_of_several_values_holds_several_defects(tmp_path):
    write(tmp_path / "m.png", painted({(0, 0): 255, (3, 3): 254, (3, 4): 254}))
    config = DefectsConfig(
        tmp_path / "c.json", (Saturation("a", 254, 1, False), Saturation("b", 255, 1.0, True))
    )
    (first, _), (second, _) = config.regions([tmp_path / "m.png"], SIZE)
    assert np.argwhere(first).tolist() == [[3, 3], [3, 4]]
    assert np.argwhere(second).tolist() == [[0, 0]]


def test_masks_that_do_not_fit_are_named(tmp_path):
    [category] = load_mvtec(make(tmp_path / "box", json.dumps([FEW])))
    with pytest.raises(SpadeError, match=r"000\.png: .*value 255.*not in defects_config\.json"):
        category.truth(1, SIZE)
    empty = tmp_path / "box/ground_truth/structural_anomalies/000/000.png"
    write(empty, painted({}))
    for ask in (category.truth, category.regions):
        with pytest.raises(SpadeError, match=r"000\.png: .*no pixel"):
            ask(2, SIZE)
    with pytest.raises(SpadeError, match="8x6 pixels and its image 9x9"):
        category.regions(2, (9, 9))


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "{}",
        "3",
        json.dumps([{**WHOLE, "relative_saturation": 1}]),
        json.dumps([{}]),
        json.dumps([{**WHOLE, "saturation_threshold": 1.5}]),
        json.dumps([WHOLE, WHOLE]),
        json.dumps([{**FEW, "saturation_threshold": 0}]),
        json.dumps([{**FEW, "pixel_value": 0}]),
        json.dumps(["dent"]),
        json.dumps([{**FEW, "saturation_threshold": "5"}]),
    ],
)
def test_a_config_that_cannot_be_understood_is_named(tmp_path, config):
    problems = []
    folder = make(tmp_path / "box", config)
    [category] = load_mvtec(folder, on_error=lambda *line: problems.append(line))
    [(name, why)] = problems
    assert name == str(folder / "defects_config.json") and why.endswith("sPRO is not given")
    assert category.config is None and category.truth(1, SIZE)[1].sum() == 12
