import json
import runpy
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from spade_faiss import Spade, SpadeError
from spade_faiss.datasets import load_mvtec, make_demo, published_mvtec, read_mask
from spade_faiss.evaluation import (
    Scores,
    evaluate_category,
    evaluate_mvtec,
    results_of,
    table,
    write_results,
)
from spade_faiss.evaluation.demo import run_demo
from spade_faiss.pictures.colours import SERIES, rgb
from tests.command import TINY, done, one_line, run
from tests.evaluation.notes import few


def test_evaluate_writes_what_the_contract_says(tiny, demo, tmp_path):
    done(
        "evaluate",
        "mvtec",
        demo,
        "--out",
        tmp_path / "out",
        "--category",
        "brick",
        "--category",
        "grass",
        *TINY,
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results) == {"dataset", "config", "categories", "mean", "notes"}
    assert results["notes"] == [few("brick", 4), few("grass", 4)]
    assert results["dataset"] == "mvtec" and list(results["categories"]) == ["brick", "grass"]
    for scores in results["categories"].values():
        assert set(scores) == {
            "image_rocauc",
            "image_rocauc_map_max",
            "image_rocauc_map_mean",
            "image_ap",
            "image_ap_map_max",
            "image_ap_map_mean",
            "image_f1",
            "image_f1_map_max",
            "image_f1_map_mean",
            "pixel_rocauc",
            "pro",
            "aupimo",
            "threshold",
            "confusion",
            "kinds",
            "n_train",
            "n_test",
            "seconds",
            "stages",
        }
        assert set(scores["stages"]) == {
            "features",
            "index",
            "calibration",
            "stage_one",
            "stage_two",
            "maps",
            "metrics",
        }
        # No second counts twice.
        assert min(scores["stages"].values()) >= 0
        assert sum(scores["stages"].values()) < 1.01 * scores["seconds"]
        assert (scores["n_train"], scores["n_test"]) == (4, 8)
        assert all(0 <= scores[name] <= 1 for name in scores if name[0] in "ip")
    assert results["categories"]["brick"]["pixel_rocauc"] > 0.75
    records = [*results["categories"].values()]
    for name, mean in results["mean"].items():
        if name == "confusion":
            assert mean == {
                rate: pytest.approx(np.mean([one[name][rate] for one in records]))
                for rate in ("found_rate", "false_alarm_rate")
            }
        elif name != "seconds":
            assert mean == pytest.approx(np.mean([one[name] for one in records]))
    text = (tmp_path / "out" / "table.md").read_text()
    assert f"| brick | {100 * results['categories']['brick']['pro']:.1f} |" in text


def test_evaluate_searches_galleries(tiny, demo, tmp_path):
    done(
        "evaluate",
        "mvtec",
        demo,
        "--out",
        tmp_path / "out",
        "--category",
        "brick",
        "--factory",
        "IVF16,Flat",
        "--coreset",
        "0.2",
        *TINY,
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["config"]["factory"] == "IVF16,Flat" and results["config"]["coreset"] == 0.2
    assert results["categories"]["brick"]["pixel_rocauc"] > 0.75


def test_figures_equal_an_independent_computation(tiny, demo):
    category = next(one for one in load_mvtec(demo) if one.name == "gravel")
    spade = Spade(tiny)
    scores = evaluate_category(spade, category)
    framing = spade.index_.manifest.framing.framing()
    results = list(spade.query([test.path for test in category.test]))
    labels = [test.defect != "good" for test in category.test]
    masks = []
    for test, result in zip(category.test, results, strict=True):
        mask = np.zeros(result.map.shape, bool)
        if test.masks:
            mask = cv2.imread(str(test.masks[0]), cv2.IMREAD_GRAYSCALE) > 0
            assert np.array_equal(mask, read_mask(test.masks[0], mask.shape))
        masks.append(framing.apply_mask(mask))
    assert scores.image_rocauc == pytest.approx(
        roc_auc_score(labels, [result.descriptor_score for result in results])
    )
    assert scores.image_rocauc_map_max == pytest.approx(
        roc_auc_score(labels, [result.input_map.max() for result in results])
    )
    powers = [(result.input_map.astype(np.float64) ** 8).mean() for result in results]
    assert scores.image_rocauc_map_mean == pytest.approx(roc_auc_score(labels, powers))
    assert scores.pixel_rocauc == pytest.approx(
        roc_auc_score(
            np.concatenate([mask.ravel() for mask in masks]),
            np.concatenate([result.input_map.ravel() for result in results]),
        ),
        abs=1e-9,
    )


@pytest.mark.slow
def test_hazelnuts_reach_their_figures(lite, hazelnut):
    (category,) = load_mvtec(hazelnut)
    if len(category.train) != 50:
        pytest.skip("the figures are of the part with 50 training images")
    scores = evaluate_category(Spade(lite, k=50), category)
    assert scores.pro >= 0.96 and scores.pixel_rocauc >= 0.99 and scores.image_rocauc == 1.0
    # What a plain prototype gives.
    assert scores.pro == pytest.approx(0.974, abs=0.002)
    assert scores.pixel_rocauc == pytest.approx(0.993, abs=0.001)


def test_maps_are_scored_on_their_own_grids_if_asked(tiny, demo, tmp_path):
    spade = Spade(tiny, 3, resize=64, crop=64)
    results = evaluate_mvtec(
        spade, demo, tmp_path, names=["gravel"], original_size=True, on_error=print, on_note=print
    )
    [category] = load_mvtec(demo, ["gravel"])
    found = list(spade.query([test.path for test in category.test]))
    masks = [test.mask((256, 256)) for test in category.test]
    scores = results["categories"]["gravel"]
    assert results["config"]["ground_truth"] == "original"
    assert scores["pixel_rocauc"] == pytest.approx(
        roc_auc_score(np.stack(masks).ravel(), np.stack([one.map for one in found]).ravel()),
        abs=1e-9,
    )
    assert scores["image_rocauc_map_max"] == evaluate_category(spade, category).image_rocauc_map_max


def a_table(names, dataset="mvtec"):
    scores = Scores(1.0, 0.9, 0.99, 0.974, 391, 110, 1.0)
    return table(results_of(dataset, {}, dict.fromkeys(names, scores)))


def test_the_table_stands_beside_the_paper_s(tmp_path):
    lines = a_table(["hazelnut", "carpet"]).splitlines()
    assert lines[0].endswith("| SPADE, published PRO |")
    assert lines[2].startswith("| hazelnut | 97.4 | 99.0 | 100.0 | 90.0 |")
    assert lines[2].endswith("| 95.4 |") and lines[4].startswith("| mean | 97.4 |")
    assert lines[4].endswith(f"| {(95.4 + 94.7) / 2:.1f} |")
    whole = a_table(published_mvtec().keys() - {"average"})
    # The paper's own mean, and no word of categories that are not there.
    assert "| 91.7 |" in whole and "of its 15" not in whole
    assert "of its 15" in a_table(["hazelnut", "carpet"])
    assert "published" not in a_table(["candle", "pcb1"], "visa")
    results = results_of("mvtec", {}, {"hazelnut": Scores(1, 0.9, 0.99, 0.974, 391, 110, 1.0)})
    write_results(tmp_path, results)
    assert json.loads((tmp_path / "results.json").read_text()) == results


def test_missing_categories_are_noted(tiny, demo, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tile").symlink_to(demo / "brick")
    notes = []
    spade = Spade(tiny, resize=64, crop=64)
    evaluate_mvtec(spade, tmp_path / "data", tmp_path / "out", on_error=print, on_note=notes.append)
    assert "bottle, cable" in notes[0] and "tile" not in notes[0]
    assert notes[1:] == [few("tile", 4)]
    assert notes[0] in (tmp_path / "out" / "table.md").read_text()
    evaluate_mvtec(
        spade,
        tmp_path / "data",
        tmp_path / "out",
        names=["tile"],
        on_error=print,
        on_note=notes.append,
    )
    assert notes[2:] == [few("tile", 4)]  # which were asked for: none is missing


def test_what_is_broken_is_named_and_the_rest_is_scored(tiny, demo, tmp_path):
    data = shutil.copytree(demo, tmp_path / "data")
    mask = data / "brick/ground_truth/hole/000_mask.png"
    cv2.imwrite(str(mask), cv2.imread(str(mask))[:200])
    train = data / "brick/train/good/001.png"
    train.write_bytes(train.read_bytes()[:5000])
    (data / "brick/ground_truth/stain/000_mask.png").rename(
        data / "brick/ground_truth/stain/009_mask.png"
    )
    ended = done(
        "evaluate",
        "mvtec",
        data,
        "--out",
        tmp_path / "out",
        "--category",
        "brick",
        "--category",
        "zipper",
        "--resize",
        "64",
        "--crop",
        "64",
        "--json",
        *TINY,
        status=1,
    )
    lines = [line for line in ended.stderr.splitlines() if ": note: " not in line]
    assert len(lines) == 5
    expected = [
        ("zipper", "brick, grass, gravel"),
        ("009_mask.png", "without an image"),
        ("stain/000.png", "no mask", "image metrics alone"),
        ("001.png", "cut short"),
        ("hole/000.png", "256x200", "image metrics alone"),
    ]
    for line, words in zip(lines, expected, strict=True):
        assert all(word in line for word in words) and line.startswith("spade-faiss: ")
    scores = json.loads(ended.stdout)["categories"]["brick"]
    assert (scores["n_train"], scores["n_test"]) == (3, 8)
    for kind in ("hole", "stain"):
        assert scores["kinds"][kind]["found"] + scores["kinds"][kind]["missed"] == 1
    notes = [line for line in ended.stderr.splitlines() if ": note: " in line]
    assert notes == [
        "spade-faiss: note: brick: 1 of 6 defects have no mask, and pixel metrics leave them out",
        f"spade-faiss: note: {few('brick', 3)}",
        "spade-faiss: note: brick: the masks of 1 of 8 test images cannot be used, and pixel "
        "metrics leave them out",
    ]


def test_tables_of_several_runs_are_drawn(tmp_path, monkeypatch):
    tables = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "tables.py"))

    def draw(*files, out=tmp_path):
        monkeypatch.setattr("sys.argv", ["tables.py", *map(str, files), "--out", str(out)])
        tables["main"]()
        return (out / "table.md").read_text()

    files = []
    for k in (5, 50):
        scores = {
            name: Scores(0.9, 0.8, 0.95, 0.9 + k / 1000, 3, 4, 1.0)
            for name in ("hazelnut", "carpet")
        }
        write_results(
            tmp_path / str(k), results_of("mvtec", {"backbone": "wide_resnet50_2", "k": k}, scores)
        )
        files.append(tmp_path / str(k) / "results.json")
    text = draw(*files, out=tmp_path / "both")
    assert "| hazelnut | 90.5 | 95.0 | 95.4 |" in text and "| wide_resnet50_2, K = 50 |" in text
    picture = cv2.imread(str(tmp_path / "both" / "figure.png"))
    assert picture.shape[1] == 960
    # The published figure's bar is grey; ours are of two colours, as long as the figures say.
    lengths = [
        int((picture[..., ::-1] == rgb(name)).all(2).sum(1).max()) for name in ("grey", *SERIES[:2])
    ]
    assert lengths[2] / lengths[1] == pytest.approx(0.95 / 0.905, rel=0.01)
    assert lengths[0] / lengths[2] == pytest.approx(0.954 / 0.95, rel=0.01)
    assert draw(files[0]) == (tmp_path / "5" / "table.md").read_text()
    scores = {"01": Scores(0.7, 0.6, None, None, 3, 4, 1.0)}
    write_results(tmp_path / "stc", results_of("stc", {"backbone": "x", "k": 1}, scores))
    assert "| ours, mean of 1 scenes | 70.0 |" in draw(tmp_path / "stc" / "results.json")
    with pytest.raises(SystemExit, match="another data set"):
        draw(files[0], tmp_path / "stc" / "results.json")
    with pytest.raises(SystemExit, match="no results"):
        draw(__file__)


@pytest.mark.slow
def test_the_demo_runs_whole_and_again(tiny, tmp_path, monkeypatch):
    from spade_faiss.evaluation import demo

    monkeypatch.setattr(
        demo,
        "make_demo",
        lambda root, seed: make_demo(root, seed, n_train=3, n_good=1, n_defects=1),
    )
    monkeypatch.setattr(demo, "load_backbone", lambda name: tiny)
    scores = run_demo(tmp_path / "demo")
    assert set(scores) == {"brick", "grass", "gravel"}
    for name in scores:
        assert len(list((tmp_path / "demo" / name / "overlays").rglob("*.png"))) == 7
        assert (tmp_path / "demo" / name / "index" / "manifest.json").exists()
    again = run_demo(tmp_path / "demo")
    assert {name: (v.pro, v.image_rocauc) for name, v in again.items()} == {
        name: (v.pro, v.image_rocauc) for name, v in scores.items()
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(SpadeError, match="is no demo"):
        run_demo(tmp_path / "mine")


def test_a_broken_data_set_is_one_line(tiny, demo, tmp_path):
    one_line(
        run("evaluate", "mvtec", demo, "--out", tmp_path / "o", "--category", "zipper", *TINY),
        "zipper",
        "brick, grass",
    )
    one_line(run("evaluate", "mvtec", tmp_path / "gone", "--out", tmp_path / "o", *TINY), "gone")
