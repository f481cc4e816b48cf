import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from spade_faiss import Ensemble, Spade, SpadeError
from spade_faiss.datasets import load_mvtec, make_demo, published_mvtec
from spade_faiss.evaluation import evaluate_mvtec, evaluate_stc
from spade_faiss.evaluation.report import write_report
from spade_faiss.evaluation.store import ResultStore
from tests.command import TINY, done
from tests.evaluation.notes import few
from tests.evaluation.test_resume import counted, evaluate  # noqa: F401
from tests.images.video.videos import make_stc

SMALL = {"resize": 64, "crop": 64}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two categories, one under the name of one of MVTec AD's."""
    root = tmp_path_factory.mktemp("data")
    make_demo(root / "demo", n_train=5, n_good=6, n_defects=2)
    (root / "some").mkdir()
    (root / "some" / "tile").symlink_to(root / "demo" / "brick")
    (root / "some" / "gravel").symlink_to(root / "demo" / "gravel")
    return root / "some"


@pytest.fixture(scope="module")
def reported(tiny, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    spade = Spade(tiny, **SMALL)
    results = evaluate_mvtec(
        spade, data, out, report=True, sweep=["k=1,5"], on_error=print, on_note=print
    )
    return out, results


def kept(out, name):
    return json.loads((out / "done" / f"{name}.json").read_text())["evidence"]


@pytest.mark.slow
def test_a_report_of_an_earlier_evaluation_goes(tiny, data, reported, tmp_path):
    out = shutil.copytree(reported[0], tmp_path / "out")
    assert (out / "report.html").exists()
    call = {"sweep": ["k=1,5"], "on_error": print, "on_note": print}
    evaluate_mvtec(Spade(tiny, **SMALL), data, out, **call)
    assert not (out / "report.html").exists() and (out / "results.json").exists()
    (out / "report.html").write_text("mine")
    evaluate_mvtec(Spade(tiny, **SMALL), data, out, **call)
    assert (out / "report.html").read_text() == "mine"


def test_curves_have_the_areas_of_the_exact_metrics(reported):
    out, results = reported
    for name, scores in results["categories"].items():
        curves = kept(out, name)["curves"]
        for metric in (
            "image_rocauc",
            "image_rocauc_map_max",
            "image_rocauc_map_mean",
            "pixel_rocauc",
        ):
            x, y = curves[metric]
            assert np.trapezoid(y, x) == pytest.approx(scores[metric], abs=1 / 150)
        x, y = curves["pro"]
        assert x[-1] == 0.3 and np.trapezoid(y, x) / 0.3 == pytest.approx(
            scores["pro"], abs=1 / 150
        )


def test_the_worst_misses_are_those(tiny, data, reported):
    out, _ = reported
    [category] = load_mvtec(data, ["gravel"])
    spade = Spade(tiny, **SMALL).fit(category.train, calibrate=False)
    found = list(spade.query([test.path for test in category.test]))
    wrong = np.array([test.wrong for test in category.test])
    scores = {
        "map": np.array([one.input_map.max() for one in found]),
        "descriptor": np.array([one.descriptor_score for one in found]),
        "mean": np.array([one.mean_score for one in found]),
    }
    misses = kept(out, "gravel")["misses"]
    for score, values in scores.items():
        good = np.flatnonzero(~wrong)[np.argsort(-values[~wrong])][:4]
        bad = np.flatnonzero(wrong)[np.argsort(values[wrong])][:4]
        for kind, order in (("good", good), ("defects", bad)):
            cards = misses[score][kind]
            assert [card["name"] for card in cards] == [found[i].name for i in order]
            shown = [card["scores"][score] for card in cards]
            assert shown == pytest.approx(values[order].tolist())
        assert [card["confused"] for card in misses[score]["good"]] == pytest.approx(
            [(values[wrong] <= values[i]).mean() for i in good]
        )
        assert [card["confused"] for card in misses[score]["defects"]] == pytest.approx(
            [(values[~wrong] >= values[i]).mean() for i in bad]
        )
        assert all(card["paths"]["truth"] for card in misses[score]["defects"])
        assert not any(card["paths"]["truth"] for card in misses[score]["good"])


def test_figures_stand_beside_the_paper_s(reported):
    out, results = reported
    text = re.sub(r"\s+", " ", (out / "report.html").read_text())
    tile = results["categories"]["tile"]
    published = published_mvtec()["tile"]["SPADE"]
    for value in (tile["pro"], tile["pixel_rocauc"], results["mean"]["pro"], published):
        assert f"{100 * value:.1f}" in text
    difference = f"{100 * (tile['pro'] - published):+.1f}".replace("-", "−")
    assert f"{difference}</span>" in text
    assert "Of MVTec AD&#39;s 15 categories these are not there: bottle" in text
    assert "Sweep: means over the categories" in text and text.count('<section class="cat') == 2


def test_a_finished_evaluation_is_reported_without_doing_it_again(
    tiny,
    data,
    tmp_path,
    counted,  # noqa: F811
):
    first, _, _ = evaluate(tiny, data, tmp_path)
    assert not (tmp_path / "report.html").exists() and len(counted) == 2
    again, _, notes = evaluate(tiny, data, tmp_path, report=True)
    assert again == first and len(counted) == 2
    assert (tmp_path / "report.html").read_text().count('<section class="cat') == 2
    # What an older version left has nothing for a report.
    path = tmp_path / "done" / "tile.json"
    record = json.loads(path.read_text())
    del record["evidence"]
    path.write_text(json.dumps(record))
    assert evaluate(tiny, data, tmp_path)[2] == notes and len(counted) == 2
    assert evaluate(tiny, data, tmp_path, report=True)[2][-2:] == [
        "tile is evaluated anew: nothing was kept of it for a report",
        few("tile", 5),
    ]
    assert len(counted) == 3 and "evidence" in json.loads(path.read_text())
    path.write_text("{}")
    with pytest.raises(SpadeError, match="evaluate again"):
        write_report(ResultStore(tmp_path), again)


def test_an_ensemble_and_original_sizes_are_reported(tiny, data, tmp_path):
    ensemble = Ensemble.of([tiny], ["flip"], **SMALL)
    evaluate_mvtec(
        ensemble,
        data,
        tmp_path,
        names=["gravel"],
        original_size=True,
        report=True,
        on_error=print,
        on_note=print,
    )
    card = kept(tmp_path, "gravel")["misses"]["map"]["defects"][0]
    assert card["size"] == [256, 256] and card["paths"]["truth"]
    assert "members" in (tmp_path / "report.html").read_text()


@pytest.fixture(scope="module", params=[True, False], ids=["pixel masks", "frame masks"])
def scenes(tiny, request, tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes")
    results = evaluate_stc(
        Spade(tiny, k=2, **SMALL),
        make_stc(out / "stc", request.param),
        out / "out",
        names=["01"],
        fps=2,
        report=True,
        on_error=print,
        on_note=print,
    )
    return out / "out", results, request.param


def test_scenes_are_reported(scenes):
    out, results, pixel_masks = scenes
    text = (out / "report.html").read_text()
    assert f"image ROCAUC {100 * results['mean']['image_rocauc']:.1f} %" in text
    assert "Table 4" in text and "Pixel ROC" in text if pixel_masks else "Pixel ROC" not in text
    assert ("without masks there is no threshold" in text) != pixel_masks


def test_each_clip_has_its_curve_and_one_miss_of_a_kind_at_most(scenes):
    out, _, _ = scenes
    data = kept(out, "01")
    with (out / "frames" / "01.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(dict.fromkeys(row["clip"] for row in rows))
    assert [clip["name"] for clip in data["clips"]] == names and len(names) == 2
    for clip in data["clips"]:
        own = [row for row in rows if row["clip"] == clip["name"]]
        assert clip["numbers"] == [int(Path(row["path"]).stem) for row in own]
        found = [data["scores"]["map"][i] for i in clip["places"]]
        np.testing.assert_allclose(found, [float(row["map_max"]) for row in own], rtol=1e-6)
        assert [data["labels"][i] for i in clip["places"]] == [int(row["label"]) for row in own]
    columns = {"map": "map_max", "mean": "map_mean", "descriptor": "descriptor"}
    for score, by_kind in data["misses"].items():
        for kind, cards in by_kind.items():
            wrong = kind == "defects"
            for name in names:
                [card] = [card for card in cards if card["place"][0] == name]
                own = [
                    (float(row[columns[score]]), row["path"])
                    for row in rows
                    if row["clip"] == name and int(row["label"]) == wrong
                ]
                assert card["name"] == (min(own) if wrong else max(own))[1]


def test_what_an_older_version_kept_less_of_is_done_anew_for_a_report(scenes, tmp_path):
    out, results, _ = scenes
    out = shutil.copytree(out, tmp_path / "out")
    path = out / "done" / "01.json"
    record = json.loads(path.read_text())
    with ResultStore(out) as store:
        assert store.find("01", record["key"], for_report=True)[0] is not None
        write_report(store, results)
        assert 'class="clips"' in (out / "report.html").read_text()
        del record["evidence"]["clips"]
        path.write_text(json.dumps(record))
        assert store.find("01", record["key"])[0] is not None
        found, why = store.find("01", record["key"], for_report=True)
    assert found is None and why == "an older version kept less of it for a report"


@pytest.mark.slow
def test_a_browser_shows_the_curves_of_clips(scenes, opened):
    out, _, _ = scenes
    page = opened(out / "report.html", width=1280, scheme="light").page
    assert page.locator(".clip:visible").count() == 2
    assert page.locator(".clip:visible .plot .labelled").count() == 2
    mark = page.locator('.clips[data-by="descriptor"] .mark').first
    name = mark.get_attribute("data-open")
    mark.click()
    assert name in page.inner_text("#viewer-name")


@pytest.mark.slow
def test_a_browser_shows_the_evaluation(reported, opened):
    out, _ = reported
    for width, scheme in ((1280, "dark"), (390, "light")):
        page = opened(out / "report.html", width=width, scheme=scheme).page
        assert page.locator("header .bars li").count() == 3
        first = page.locator('.misses[data-by="map"] .stage:visible').first
        first.scroll_into_view_if_needed()
        first.locator(".photo").wait_for()
        page.locator(".toolbar label", has_text="Descriptor").click()
        assert page.locator('[data-by="map"] .stage:visible').count() == 0
        stage = page.locator('.misses[data-by="descriptor"] div:nth-child(2) .stage').first
        stage.click()
        assert page.is_visible("#viewer") and "ground truth" in page.inner_text("#viewer-regions")
        page.keyboard.press("Escape")


def test_the_command_reports(data, tmp_path):
    done(
        "evaluate",
        "mvtec",
        data,
        "--out",
        tmp_path,
        "--category",
        "gravel",
        "--report",
        "--resize",
        "64",
        "--crop",
        "64",
        *TINY,
    )
    assert "laid out like MVTec AD" in (tmp_path / "report.html").read_text()
