import json
import shutil

import cv2
import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, f1_score

from spade_faiss import Ensemble, Spade
from spade_faiss.datasets import load_folders
from spade_faiss.datasets.demo import render
from spade_faiss.evaluation import (
    Confusion,
    Scores,
    evaluate_category,
    evaluate_folder,
    results_of,
    table,
)
from spade_faiss.evaluation.confusion import confusion_at
from tests.command import TINY, done, one_line, run
from tests.evaluation.notes import few

SMALL = ("--resize", "64", "--crop", "64", *TINY)


def paint(path, kind, number, mask=None):
    made = render(0, "gravel", kind, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), made.image[..., ::-1])
    if mask:
        mask.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(mask), 255 * made.mask.astype(np.uint8))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Gravel in a user's own folders: 6 to learn from, 4 good, 3 holes with masks, 2 stains."""
    root = tmp_path_factory.mktemp("data") / "parts"
    for i in range(6):
        paint(root / f"train/{i}.png", "train", i)
    for i in range(4):
        paint(root / f"fine/{i}.png", "good", i)
    for i in range(3):
        paint(root / f"ng/hole/{i}.png", "hole", i, root / f"masks/hole/{i}_mask.png")
    for i in range(2):
        paint(root / f"ng/stain/{i}.png", "stain", i)
    return root


def folders(root):
    return "--train", root / "train", "--good", root / "fine", "--bad", root / "ng"


def loaded(root):
    return load_folders(root / "train", root / "fine", root / "ng")


@pytest.fixture(scope="module")
def evaluated(parts, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    ended = done(
        "evaluate",
        "folder",
        *folders(parts),
        "--out",
        out,
        "--report",
        "--sweep",
        "k=2,50",
        "--json",
        *SMALL,
    )
    return out, json.loads(ended.stdout), ended.stderr


def test_labels_alone_give_image_figures_and_say_what_is_missing(evaluated):
    out, results, said = evaluated
    assert json.loads((out / "results.json").read_text()) == results
    assert results["dataset"] == "folder" and list(results["categories"]) == ["parts"]
    record = results["categories"]["parts"]
    assert (record["n_train"], record["n_test"]) == (6, 9)
    assert not {"pro", "pixel_rocauc"} & (record.keys() | results["mean"].keys())
    notes = ["there are no masks of parts, so pixel metrics are missing", few("parts", 6)]
    assert said.splitlines() == [f"spade-faiss: note: {note}" for note in notes]
    assert results["notes"] == notes
    table = (out / "table.md").read_text()
    assert (
        all(f"Note: {note}." in table for note in notes)
        and "PRO" not in table
        and "| parts | " in table
    )
    assert record["stages"]["calibration"] > 0
    for point in results["sweep"]:  # thresholds are the index's own, not of every point
        assert not {"threshold", "confusion", "kinds"} & point["categories"]["parts"].keys()
        assert 0 <= point["mean"]["image_ap"] <= 1


def test_figures_equal_an_independent_computation(tiny, parts, evaluated):
    _, results, _ = evaluated
    record = results["categories"]["parts"]
    category = loaded(parts)
    spade = Spade(tiny, resize=64, crop=64).fit(category.train)
    found = list(spade.query([test.path for test in category.test]))
    wrong = np.array([test.path.parent.name != "fine" for test in category.test])
    for name, scores in (
        ("", [one.descriptor_score for one in found]),
        ("_map_max", [one.input_map.max() for one in found]),
        ("_map_mean", [one.mean_score for one in found]),
    ):
        scores = np.array(scores)
        assert record[f"image_ap{name}"] == pytest.approx(average_precision_score(wrong, scores))
        assert record[f"image_f1{name}"] == pytest.approx(
            max(f1_score(wrong, scores >= limit) for limit in scores)
        )
    limit = record["threshold"]
    assert limit == pytest.approx(spade.image_threshold, rel=1e-6)
    over = np.array([one.map.max() > limit for one in found])
    confusion = record["confusion"]
    assert [confusion[name] for name in ("found", "missed", "false_alarms", "passed")] == [
        (over & wrong).sum(),
        (~over & wrong).sum(),
        (over & ~wrong).sum(),
        (~over & ~wrong).sum(),
    ]
    rates = [
        (confusion, "found_rate", "found_interval", over[wrong]),
        (confusion, "false_alarm_rate", "false_alarm_interval", over[~wrong]),
    ]
    for kind in ("hole", "stain"):
        own = np.array([test.path.parent.name == kind for test in category.test])
        rates.append((record["kinds"][kind], "found_rate", "found_interval", over[own]))
    for values, rate, interval, which in rates:
        exact = binomtest(int(which.sum()), len(which)).proportion_ci(0.95, "exact")
        assert values[rate] == pytest.approx(which.mean())
        assert values[interval] == pytest.approx([exact.low, exact.high], abs=1e-9)
    assert results["mean"]["confusion"] == {
        rate: confusion[rate] for rate in ("found_rate", "false_alarm_rate")
    }


def test_a_score_at_the_threshold_is_good_and_ties_are_one():
    kinds = ["rust", "dent", "dent", "good", "good"]
    found = confusion_at(2.0, [2.0, 2.5, 2.5, 2.0, 2.5], kinds)
    record = found.record()
    assert (found.found.count, found.found.n, found.false_alarms.count) == (2, 3, 1)
    assert [(kind, own["found"], own["missed"]) for kind, own in record["kinds"].items()] == [
        ("dent", 2, 0),
        ("rust", 0, 1),
    ]
    assert Confusion.from_record(json.loads(json.dumps(record))) == found
    assert confusion_at(2.0, [1.0, 3.0], ["good", "good"]) is None


def test_the_table_says_rates_as_a_person_does():
    kinds = ["good"] * 4 + ["dent"] * 3 + ["rust"]
    found = confusion_at(2.0, [1, 1, 1, 9, 9, 9, 1, 1], kinds)
    scores = Scores(
        1.0,
        0.9,
        None,
        None,
        6,
        8,
        1.0,
        image_ap=0.8,
        image_ap_map_max=0.7,
        image_f1=0.6,
        image_f1_map_max=0.5,
        confusion=found,
    )
    none = Scores(1.0, 0.9, None, None, 1, 8, 1.0, image_ap=0.6)
    text = table(results_of("folder", {}, {"nut": scores}))
    assert (
        "| nut | 80.0 | 70.0 | 60.0 | 50.0 | 2 | 2 of 4, 50 % (6.76 % to 93.2 %) | "
        "1 of 4, 25 % (0.631 % to 80.6 %) |"
    ) in text
    assert "| nut, dent | 2 of 3, 66.7 % (9.43 % to 99.2 %) |" in text
    assert "The threshold of the map's maximum is what each index draws" in text
    both = table(results_of("folder", {}, {"nut": scores, "bolt": scores}))
    assert "| mean | 80.0 | 70.0 | 60.0 | 50.0 |  | 50 % | 25 % |" in both
    mixed = table(results_of("folder", {}, {"nut": scores, "bolt": none}))
    assert "| bolt | 60.0 |  |  |  | none |  |  |" in mixed
    assert "| mean | 70.0 |  |  |  |  |  |  |" in mixed
    assert "threshold" not in table(results_of("folder", {}, {"bolt": none}))


@pytest.mark.slow
def test_the_report_shows_them(evaluated, opened):
    out, results, _ = evaluated
    record = results["categories"]["parts"]
    page = opened(out / "report.html").page
    confusion = page.locator(".confusion td").all_inner_texts()
    assert confusion == [
        str(record["confusion"][name]) for name in ("found", "missed", "false_alarms", "passed")
    ]
    kinds = page.locator(".judged .bars li").all_inner_texts()
    assert [text.split()[0] for text in kinds] == ["hole", "stain"]
    for text, own in zip(kinds, record["kinds"].values(), strict=True):
        assert f"{own['found']} of {own['found'] + own['missed']}, " in text
    table = page.get_by_role("group", name="Whole images").inner_text()
    assert f"{100 * record['image_ap']:.1f}" in table and f"{record['threshold']:.4g}" in table
    assert page.locator('[data-by="map"] .limit').count() == 1
    assert "There are no masks of parts" in page.inner_text("main, section >> nth=0")
    small = opened(out / "report.html", width=390).page
    assert small.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_threshold_set_by_hand_is_judged_instead(parts, tmp_path, evaluated, opened):
    evidence = json.loads((evaluated[0] / "done" / "parts.json").read_text())["evidence"]
    scores, wrong = np.array(evidence["judged"]["scores"]), np.array(evidence["labels"], bool)
    limit = float(np.sort(scores)[3:5].mean())
    call = "evaluate", "folder", *folders(parts), "--out", tmp_path, "--report", *SMALL
    ended = done(*call, "--threshold", limit, "--json")
    results = json.loads(ended.stdout)
    record = results["categories"]["parts"]
    assert record["threshold"] == results["config"]["threshold"] == limit
    assert record["confusion"]["found"] == (scores[wrong] > limit).sum()
    assert record["confusion"]["false_alarms"] == (scores[~wrong] > limit).sum()
    assert "calibration" not in record["stages"]  # nothing had to be drawn
    assert "was set by hand" in (tmp_path / "table.md").read_text()
    page = opened(tmp_path / "report.html").page
    said = page.locator(".what-if output").first
    tried = page.get_by_label("What if the threshold were").first
    for other in (limit, 0, float(scores.max())):
        tried.fill(str(other))
        found, alarms = (int((some > other).sum()) for some in (scores[wrong], scores[~wrong]))
        page.wait_for_function(
            "words => document.querySelector('.what-if output').textContent.includes(words)",
            arg=f"{found} of 5 defects found",
        )
        assert f"{alarms} of 4 good called wrong" in said.inner_text()
    assert f"are of the threshold {limit:.4g}" in said.inner_text()
    # Another one, or none, is another evaluation.
    assert f"threshold was {limit}" in done(*call).stderr
    one_line(run(*call, "--threshold", "nan"), "finite")


def test_a_layout_without_masks_is_scored_as_folders_are(tiny, parts, tmp_path, evaluated):
    root = tmp_path / "parts"
    shutil.copytree(parts / "train", root / "train/good")
    shutil.copytree(parts / "fine", root / "test/good")
    shutil.copytree(parts / "ng", root / "test", dirs_exist_ok=True)
    ended = done("evaluate", "mvtec", root, "--out", tmp_path / "out", "--json", *SMALL)
    [record] = json.loads(ended.stdout)["categories"].values()
    theirs = evaluated[1]["categories"]["parts"]
    assert ended.stderr == evaluated[2]
    for name in ("confusion", "kinds"):
        assert record[name] == theirs[name]
    for name in ("image_rocauc", "image_rocauc_map_max", "image_ap", "image_f1", "threshold"):
        assert record[name] == pytest.approx(theirs[name])
    # What is learnt from and tested, too, is the data set's own affair, but it is said.
    shutil.copy(root / "train/good/1.png", root / "test/good/9.png")
    ended = done("evaluate", "mvtec", root, "--out", tmp_path / "out", *SMALL)
    assert ended.stdout.count("test/good/9.png is learnt from as") == 1
    assert "parts: 1 of its images should not count and do" in ended.stderr
    assert "evaluated anew: its files have changed" in ended.stderr


def test_masks_of_some_defects_give_pixel_metrics_of_these(tiny, parts, tmp_path):
    call = ("evaluate", "folder", *folders(parts), "--out", tmp_path, "--json", *SMALL)
    ended = done(*call, "--masks", parts / "masks", status=1)
    lines = ended.stderr.splitlines()
    assert lines == [
        f"spade-faiss: {parts}/ng/stain: 2 defects (stain) have no mask in {parts}/masks; they "
        "count for image metrics alone",
        "spade-faiss: note: parts: 2 of 5 defects have no mask, and pixel metrics leave them out",
        f"spade-faiss: note: {few('parts', 6)}",
    ]
    [record] = json.loads(ended.stdout)["categories"].values()
    assert (
        record["n_test"] == 9
        and sum(own["found"] + own["missed"] for own in record["kinds"].values()) == 5
    )
    stained = shutil.copytree(parts, tmp_path / "parts")
    shutil.rmtree(stained / "ng/stain")
    alone = evaluate_category(
        Spade(tiny, resize=64, crop=64),
        load_folders(stained / "train", stained / "fine", stained / "ng", stained / "masks"),
    )
    assert (record["pro"], record["pixel_rocauc"]) == pytest.approx((alone.pro, alone.pixel_rocauc))
    assert f"| {100 * record['pro']:.1f} |" in (tmp_path / "table.md").read_text()


def test_categories_with_and_without_masks_stand_in_one_table(tiny, parts, tmp_path):
    for name in ("hazelnut", "tile"):
        shutil.copytree(parts / "train", tmp_path / "data" / name / "train/good")
        shutil.copytree(parts / "fine", tmp_path / "data" / name / "test/good")
        shutil.copytree(parts / "ng/hole", tmp_path / "data" / name / "test/hole")
    shutil.copytree(parts / "masks", tmp_path / "data/tile/ground_truth")
    done("evaluate", "mvtec", tmp_path / "data", "--out", tmp_path / "out", "--report", *SMALL)
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert "pro" in results["categories"]["tile"] and "pro" not in results["mean"]
    table = (tmp_path / "out/table.md").read_text()
    assert "| hazelnut | no masks | no masks | " in table
    assert "there are no masks of hazelnut, so" in table
    assert "| hazelnut, hole | " in table and "| tile, hole | " in table
    for place in (tmp_path / "out").glob("done/*.json"):
        assert ("pro" in json.loads(place.read_text())["scores"][0]) == (place.stem == "tile")


def test_an_ensemble_is_judged_by_its_own_threshold(tiny, parts, tmp_path):
    ensemble = Ensemble.of([tiny], ["flip"], resize=64, crop=64)
    results = evaluate_folder(ensemble, loaded(parts), tmp_path, on_error=print, on_note=print)
    record = results["categories"]["parts"]
    assert record["threshold"] == ensemble.image_threshold
    over = [
        one.peak > ensemble.image_threshold
        for one in ensemble.query(sorted((parts / "ng").rglob("*.png")))
    ]
    assert record["confusion"]["found"] == sum(over) and record["stages"]["calibration"] > 0


def test_an_index_without_a_threshold_is_not_judged(tiny, parts, tmp_path):
    category = load_folders(parts / "train", parts / "fine", parts / "ng")
    alone = evaluate_category(
        Spade(tiny, resize=64, crop=64),
        type(category)("one", category.train[:1], category.test, "folder"),
    )
    assert alone.confusion is None and not {"threshold", "kinds"} & alone.record().keys()
    assert alone.image_ap > 0.5


def test_a_table_is_evaluated_and_its_labels_are_remembered(parts, tmp_path):
    rows = [
        f"{path},{kind},{split}"
        for folder, kind, split in (
            ("train", "good", "train"),
            ("fine", "ok", "test"),
            ("ng/hole", "hole", "test"),
            ("ng/stain", "a|b", "test"),
        )
        for path in sorted((parts / folder).rglob("*.png"))
    ]
    table = tmp_path / "list.csv"
    call = ("evaluate", "folder", "--csv", table, "--out", tmp_path / "out", "--report", *SMALL)
    table.write_text("\n".join(["path,label,split", *rows, "gone.png,good,test"]))
    ended = done(*call, status=1)
    assert f"{table}, line 17: there is no file {tmp_path}/gone.png; left out" in ended.stderr
    first = json.loads((tmp_path / "out/results.json").read_text())["categories"]["list"]
    assert list(first["kinds"]) == ["a|b", "hole"] and "| list, a&#124;b | " in ended.stdout
    table.write_text("\n".join(["path,label,split", *rows]).replace("a|b", "blot"))
    ended = done(*call)
    assert "list is evaluated anew: the labels of its images have changed" in ended.stderr
    again = json.loads((tmp_path / "out/results.json").read_text())["categories"]["list"]
    assert list(again["kinds"]) == ["blot", "hole"] and again["threshold"] == first["threshold"]
    assert "anew" not in done(*call).stderr


@pytest.mark.parametrize("left_out", [("image_ap", "confusion", "kinds"), ()])
def test_what_an_older_version_left_is_done_anew(parts, tmp_path, left_out):
    call = ("evaluate", "folder", *folders(parts), "--out", tmp_path, *SMALL)
    done(*call)
    path = tmp_path / "done/parts.json"
    record = json.loads(path.read_text())
    whole = record["scores"][0]
    record["scores"] = [
        {
            name: value
            for name, value in whole.items()
            if not name.endswith("map_mean") and name not in left_out
        }
    ]
    path.write_text(json.dumps(record))
    said = done(*call, "--report").stderr
    assert "parts is evaluated anew: an older version left fewer figures of it" in said
    again = json.loads(path.read_text())["scores"][0]
    for name in ("confusion", "kinds", "image_ap", "image_rocauc_map_mean", "image_f1_map_mean"):
        assert again[name] == whole[name]


@pytest.mark.parametrize(
    "options, words",
    [
        ((), ("--train, --good and --bad", "--csv")),
        (("--train", "train", "--good", "fine"), ("--train, --good and --bad",)),
        (("--csv", "x.csv", "--bad", "ng"), ("--csv",)),
        (("--csv", "gone.csv"), ("gone.csv", "No such file")),
        (("--train", "train", "--good", "ng/hole", "--bad", "ng"), ("ng/hole lies in",)),
        (("--train", "train", "--good", "fine", "--bad", "gone"), ("gone: no such folder",)),
    ],
)
def test_a_wrong_call_is_one_line(parts, tmp_path, options, words):
    places = [one if one.startswith("--") else parts / one for one in options]
    one_line(run("evaluate", "folder", *places, "--out", tmp_path, *SMALL), *words)
