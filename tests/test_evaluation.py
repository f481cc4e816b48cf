import json

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from spade_faiss import Spade, SpadeError
from spade_faiss.datasets import load_mvtec, make_demo, read_mask
from spade_faiss.demo import run_demo
from spade_faiss.evaluation import Scores, evaluate_category, table, write_results
from tests.test_cli import LITE, done, one_line, run


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "small"
    make_demo(root, n_train=5, n_good=2, n_defects=1)
    return root


def test_evaluate_writes_what_the_contract_says(lite, small, tmp_path):
    done("evaluate", "mvtec", small, "--out", tmp_path / "out", "--category", "brick",
         "--category", "grass", *LITE)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results) == {"dataset", "config", "categories", "mean"}
    assert results["dataset"] == "mvtec" and list(results["categories"]) == ["brick", "grass"]
    for scores in results["categories"].values():
        assert set(scores) == {"image_rocauc", "image_rocauc_map_max", "pixel_rocauc", "pro",
                               "n_train", "n_test", "seconds"}
        assert (scores["n_train"], scores["n_test"]) == (5, 8)
        assert all(0 <= scores[name] <= 1 for name in scores if name[0] in "ip")
        assert scores["pixel_rocauc"] > 0.85 and scores["pro"] > 0.7
    for name, mean in results["mean"].items():
        if name != "seconds":
            both = [scores[name] for scores in results["categories"].values()]
            assert mean == pytest.approx(np.mean(both))
    text = (tmp_path / "out" / "table.md").read_text()
    assert f"| brick | {100 * results['categories']['brick']['pro']:.1f} |" in text


def test_evaluate_searches_galleries(lite, small, tmp_path):
    done("evaluate", "mvtec", small, "--out", tmp_path / "out", "--category", "brick",
         "--factory", "IVF16,Flat", "--coreset", "0.2", *LITE)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["config"]["factory"] == "IVF16,Flat" and results["config"]["coreset"] == 0.2
    assert results["categories"]["brick"]["pixel_rocauc"] > 0.85


def test_figures_equal_an_independent_computation(lite, small):
    category = next(one for one in load_mvtec(small) if one.name == "gravel")
    spade = Spade(lite)
    scores = evaluate_category(spade, category)
    framing = spade.index_.manifest.framing.framing()
    results = list(spade.query([test.path for test in category.test]))
    labels = [test.defect != "good" for test in category.test]
    masks = []
    for test, result in zip(category.test, results, strict=True):
        mask = np.zeros(result.map.shape, bool)
        if test.mask:
            mask = cv2.imread(str(test.mask), cv2.IMREAD_GRAYSCALE) > 0
            assert np.array_equal(mask, read_mask(test.mask, mask.shape))
        masks.append(framing.apply_mask(mask))
    assert scores.image_rocauc == pytest.approx(
        roc_auc_score(labels, [result.descriptor_score for result in results]))
    assert scores.image_rocauc_map_max == pytest.approx(
        roc_auc_score(labels, [result.input_map.max() for result in results]))
    assert scores.pixel_rocauc == pytest.approx(roc_auc_score(
        np.concatenate([mask.ravel() for mask in masks]),
        np.concatenate([result.input_map.ravel() for result in results])), abs=1e-9)


def test_hazelnuts_reach_their_figures(lite, hazelnut):
    (category,) = load_mvtec(hazelnut)
    if len(category.train) != 50:
        pytest.skip("the figures are of the part with 50 training images")
    scores = evaluate_category(Spade(lite, k=50), category)
    assert scores.pro >= 0.96 and scores.pixel_rocauc >= 0.99 and scores.image_rocauc == 1.0
    # What a plain prototype gives.
    assert scores.pro == pytest.approx(0.974, abs=0.002)
    assert scores.pixel_rocauc == pytest.approx(0.993, abs=0.001)


def test_the_table_stands_beside_the_paper_s(tmp_path):
    scores = Scores(1.0, 0.9, 0.99, 0.974, 391, 110, 1.0)
    lines = table({"hazelnut": scores, "carpet": scores}).splitlines()
    assert lines[0].endswith("| SPADE, published PRO |")
    assert lines[2].startswith("| hazelnut | 97.4 | 99.0 | 100.0 | 90.0 |")
    assert lines[2].endswith("| 95.4 |") and lines[4].startswith("| mean | 97.4 |")
    results = write_results(tmp_path, "mvtec", {}, {"hazelnut": scores})
    assert json.loads((tmp_path / "results.json").read_text()) == results


def test_the_demo_runs_whole_and_again(lite, tmp_path, monkeypatch):
    from spade_faiss import demo

    monkeypatch.setattr(demo, "make_demo", lambda root, seed: make_demo(
        root, seed, n_train=3, n_good=1, n_defects=1))
    scores = run_demo(tmp_path / "demo")
    assert set(scores) == {"brick", "grass", "gravel"}
    for name in scores:
        assert len(list((tmp_path / "demo" / name / "overlays").rglob("*.png"))) == 7
        assert (tmp_path / "demo" / name / "index" / "manifest.json").exists()
    again = run_demo(tmp_path / "demo")
    assert {name: (v.pro, v.image_rocauc) for name, v in again.items()} == {
        name: (v.pro, v.image_rocauc) for name, v in scores.items()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(SpadeError, match="is no demo"):
        run_demo(tmp_path / "mine")


def test_a_broken_data_set_is_one_line(lite, small, tmp_path):
    one_line(run("evaluate", "mvtec", small, "--out", tmp_path / "o", "--category", "zipper",
                 *LITE), "zipper", "brick")
    one_line(run("evaluate", "mvtec", tmp_path / "gone", "--out", tmp_path / "o", *LITE), "gone")


