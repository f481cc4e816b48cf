import numpy as np
import pytest

from spade_faiss import Spade, SpadeError
from spade_faiss.datasets import load_mvtec
from spade_faiss.evaluation import Sweep, evaluate_category, evaluate_mvtec
from spade_faiss.features import Backbone
from spade_faiss.maps.smoothing import anomaly_map

SMALL = {"resize": 64, "crop": 64}


def silent(*line):
    raise AssertionError(line)


def test_a_grid_equals_runs_of_their_own(tiny, demo, tmp_path, monkeypatch):
    seen = []
    call = Backbone.__call__
    monkeypatch.setattr(
        Backbone, "__call__", lambda self, images: seen.append(len(images)) or call(self, images)
    )
    results = evaluate_mvtec(
        Spade(tiny, 4, **SMALL),
        demo,
        tmp_path,
        names=["brick"],
        sweep=["k=1,3", "kappa=1,2", "sigma=0,4"],
        on_error=silent,
        on_note=print,
    )
    assert sum(seen) == 1 + 4 + 8  # one to count the levels: features are extracted once
    [category] = load_mvtec(demo, ["brick"])
    assert [point["options"] for point in results["sweep"]][:3] == [
        {"k": "1", "kappa": "1", "sigma": "0"},
        {"k": "1", "kappa": "1", "sigma": "4"},
        {"k": "1", "kappa": "2", "sigma": "0"},
    ]
    assert len(results["sweep"]) == 8
    for point in results["sweep"]:
        options = point["options"]
        alone = evaluate_category(
            Spade(
                tiny,
                int(options["k"]),
                int(options["kappa"]),
                sigma=float(options["sigma"]),
                **SMALL,
            ),
            category,
        )
        scores = point["categories"]["brick"]
        for name in ("image_rocauc", "image_rocauc_map_max", "pixel_rocauc", "pro"):
            assert scores[name] == pytest.approx(getattr(alone, name), abs=1e-9)
            assert point["mean"][name] == scores[name]
        assert "seconds" not in scores and "seconds" not in point["mean"]
    base = evaluate_category(Spade(tiny, 4, **SMALL), category)
    assert results["categories"]["brick"]["pro"] == pytest.approx(base.pro, abs=1e-9)
    assert len({point["mean"]["pro"] for point in results["sweep"]}) > 4
    text = (tmp_path / "table.md").read_text()
    assert "| k | kappa | sigma | PRO |" in text and "k = 3, kappa = 2, sigma = 4" in text


def test_levels_and_scores_are_swept(tiny, demo, tmp_path):
    results = evaluate_mvtec(
        Spade(tiny, 3, **SMALL),
        demo,
        tmp_path,
        names=["grass"],
        sweep=["levels=1+2+3,3+2,1", "score=map,descriptor,mean"],
        on_error=silent,
        on_note=print,
    )
    points = {
        (point["options"]["levels"], point["options"]["score"]): point["categories"]["grass"]
        for point in results["sweep"]
    }
    assert len(points) == 9
    base = results["categories"]["grass"]
    every = points["1+2+3", "map"]
    assert every["pro"] == base["pro"]
    assert every["image_rocauc_by_score"] == base["image_rocauc_map_max"]
    assert points["1", "descriptor"]["image_rocauc_by_score"] == base["image_rocauc"]
    assert every["image_rocauc_map_mean"] == base["image_rocauc_map_mean"]
    by_mean = points["1", "mean"]
    assert by_mean["image_rocauc_by_score"] == by_mean["image_rocauc_map_mean"]
    assert points["1", "map"]["pixel_rocauc"] != points["3+2", "map"]["pixel_rocauc"]
    assert "image_rocauc_by_score" not in base


def test_a_remapped_result_is_made_of_its_levels(tiny, demo):
    [category] = load_mvtec(demo, ["gravel"])
    spade = Spade(tiny, 3, **SMALL).fit(category.train, calibrate=False)
    result = next(spade.query([category.test[0].path]))
    assert np.array_equal(spade.recompute_maps(result).map, result.map)
    other = spade.with_options(sigma=1.5).recompute_maps(result, (1, 3))
    expected = anomaly_map([result.distances[0], result.distances[2]], (64, 64), 1.5)
    assert np.array_equal(other.input_map, expected) and other.map.shape == (256, 256)
    assert spade.sigma == 4.0 and other.descriptor_score == result.descriptor_score


@pytest.mark.parametrize(
    "texts, why",
    [
        (["colour=1"], "one of k, kappa, sigma, levels, score"),
        (["k"], "'' is no number of images"),
        (["k=5,x"], "'x' is no number of images"),
        (["k=0"], "'0' is no number of images"),
        (["kappa=1.5"], "no number of patches"),
        (["sigma=-1"], "no number of pixels"),
        (["sigma=nan"], "no number of pixels"),
        (["levels=1+4"], "sum of the network's levels"),
        (["levels=2+2"], "sum of the network's levels"),
        (["score=best"], "map or descriptor or mean"),
        (["k=1", "k=2"], "swept already"),
    ],
)
def test_what_is_no_sweep_is_explained(texts, why):
    with pytest.raises(SpadeError, match=why):
        Sweep.parse(texts, 3)
