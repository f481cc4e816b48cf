"""Figures of maps besides ROCAUC and PRO, and the limit of PRO, from files to table."""

import json

import cv2
import numpy as np
import pytest

from spade_faiss import Spade, SpadeError, evaluation, metrics
from spade_faiss.datasets import load_mvtec
from spade_faiss.evaluation import evaluate_category, evaluate_mvtec, results_of, runs_table
from spade_faiss.evaluation.scores import Scores
from tests.command import TINY, done, one_line, run
from tests.evaluation.notes import few

SMALL = ("--resize", 64, "--crop", 64, *TINY)
CONFIG = [
    {
        "defect_name": "dent",
        "pixel_value": 255,
        "saturation_threshold": 0.4,
        "relative_saturation": True,
    },
    {
        "defect_name": "smear",
        "pixel_value": 254,
        "saturation_threshold": 300,
        "relative_saturation": False,
    },
]


@pytest.fixture(scope="module")
def loco(demo, tmp_path_factory):
    """Gravel as MVTec LOCO AD would have it: each mask by itself, of its kind's value."""
    box = tmp_path_factory.mktemp("loco") / "screw_bag"
    box.mkdir()
    (box / "train").symlink_to(demo / "gravel" / "train")
    (box / "test").mkdir()
    (box / "test" / "good").symlink_to(demo / "gravel" / "test" / "good")
    kinds = {"logical_anomalies": ("hole", "smear"), "structural_anomalies": ("stain", "crack")}
    for kind, sources in kinds.items():
        for number, source in enumerate(sources):
            image = box / "test" / kind / f"{number:03}.png"
            image.parent.mkdir(exist_ok=True)
            image.symlink_to(demo / "gravel" / "test" / source / "000.png")
            mask = cv2.imread(str(demo / "gravel/ground_truth" / source / "000_mask.png"), 0) > 0
            write(box / "ground_truth" / kind / image.stem / "000.png", mask * np.uint8(255))
            if source == "smear":  # a second defect, which overlaps it
                write(
                    box / "ground_truth" / kind / image.stem / "001.png",
                    np.roll(mask, 7, 1) * np.uint8(254),
                )
    (box / "defects_config.json").write_text(json.dumps(CONFIG))
    return box


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), values)


def scored(category, spade, original_size):
    """Return maps, and each image's defects read by other means, framed like them."""
    framing = spade.index_.manifest.framing.framing()
    maps, regions = [], []
    for result in spade.query([test.path for test in category.test]):
        maps.append(result.map if original_size else result.input_map)
        regions.append([])
        for path in category.test[result.position].masks:
            values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            mask, scale = values > 0, 1.0
            area = int(0.4 * mask.sum()) if values.max() == 255 else min(300, mask.sum())
            if not original_size:
                mask, scale = framing.apply_mask(mask), (64 / 256) ** 2
            regions[-1].append((mask, area * scale))
    return maps, regions


@pytest.mark.parametrize("original_size", [True, False])
def test_spro_with_the_areas_of_defects_config(tiny, loco, tmp_path, original_size):
    limit = 0.05 if original_size else 0.2
    options = ("--original-size",) if original_size else ()
    call = ("evaluate", "mvtec", loco, "--out", tmp_path, "--max-fpr", limit, *options, *SMALL)
    ended = done(*call, "--json")
    results = json.loads(ended.stdout)
    figures = results["categories"]["screw_bag"]
    [category] = load_mvtec(loco)
    spade = Spade(tiny, resize=64, crop=64).fit(category.train, calibrate=False)
    maps, regions = scored(category, spade, original_size)
    kinds = np.array(category.kinds)

    def spro(*wanted):
        chosen = np.flatnonzero(np.isin(kinds, wanted))
        return pytest.approx(
            metrics.spro([maps[i] for i in chosen], [regions[i] for i in chosen], limit), abs=1e-9
        )

    logical, structural = ("logical_anomalies", "structural_anomalies")
    assert figures["spro"] == spro("good", logical, structural)
    assert figures[f"spro_{logical}"] == spro("good", logical)
    assert figures[f"spro_{structural}"] == spro("good", structural)
    assert figures["spro_kinds"] == pytest.approx(
        (figures[f"spro_{logical}"] + figures[f"spro_{structural}"]) / 2
    )
    assert figures["spro"] != pytest.approx(figures["pro"], abs=1e-3)
    table = (tmp_path / "table.md").read_text()
    assert table.startswith(
        "| category | PRO | sPRO | sPRO, logical | sPRO, structural | sPRO, mean of both |"
    )
    assert f"PRO and sPRO are integrated to a false-positive rate of {limit}." in table
    advice = "sPRO's authors integrate it to a false-positive rate of 0.05"
    assert (advice in table) == (advice in ended.stderr) == (not original_size)
    if not original_size:  # a file has the library's words, and the command line its own
        assert "as `max_fpr=0.05` with `original_size=True` does" in table
        for text in (ended.stderr, ended.stdout, done(*call).stdout):
            assert "as --max-fpr 0.05 with --original-size does" in text


def test_without_the_config_sPRO_is_missing_and_that_is_said(loco, tmp_path):  # noqa: N802
    box = tmp_path / "screw_bag"
    box.mkdir()
    for name in ("train", "test", "ground_truth"):
        (box / name).symlink_to(loco / name)
    ended = done("evaluate", "mvtec", box, "--out", tmp_path / "out", "--json", *SMALL)
    assert "sPRO is missing of screw_bag: there is no defects_config.json" in ended.stderr
    assert not any("spro" in name for name in json.loads(ended.stdout)["categories"]["screw_bag"])


def test_pro_is_integrated_to_the_rate_that_is_asked_for(tiny, demo, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "tile").symlink_to(demo / "brick")  # under the name of one that the paper has
    notes = []
    spade = Spade(tiny, resize=64, crop=64)
    results = {
        limit: evaluate_mvtec(
            spade,
            data,
            tmp_path / str(limit),
            names=["tile"],
            max_fpr=limit,
            report=True,
            on_error=print,
            on_note=notes.append,
        )
        for limit in (0.3, 0.05)
    }
    [category] = load_mvtec(data)
    maps = [result.input_map for result in spade.query([one.path for one in category.test])]
    framing = spade.index_.manifest.framing.framing()
    masks = [framing.apply_mask(category.truth(i, (256, 256))[1]) for i in range(len(maps))]
    for limit, found in results.items():
        assert found["config"]["max_fpr"] == limit
        assert found["categories"]["tile"]["pro"] == pytest.approx(
            metrics.pro(maps, masks, limit), abs=1e-9
        )
        table = (tmp_path / str(limit) / "table.md").read_text()
        assert f"PRO is integrated to a false-positive rate of {limit}." in table
        assert (
            f"PRO is integrated to a false-positive rate of {limit}."
            in (tmp_path / str(limit) / "report.html").read_text()
        )
        warned = f"to a false-positive rate of {limit}, and the published figures to 0.3"
        assert (warned in table) == (limit != 0.3)
        kept = json.loads((tmp_path / str(limit) / "done" / "tile.json").read_text())
        assert kept["evidence"]["curves"]["pro"][0][-1] == limit
    assert [note for note in notes if "published figures" in note] == [
        "PRO is integrated to a false-positive rate of 0.05, and the published figures to 0.3: "
        "they cannot be compared"
    ]
    both = runs_table({str(limit): found for limit, found in results.items()})
    assert "rate of 0.3 (0.3), 0.05 (0.05), and in the paper of 0.3: only figures of" in both


def test_a_limit_that_is_no_rate_is_one_line(demo, tmp_path):
    for limit in (0, 1.5, "nan"):
        ended = run("evaluate", "mvtec", demo, "--out", tmp_path, "--max-fpr", limit, *SMALL)
        one_line(ended, f"--max-fpr {limit}", "more than 0, and 1 at most")


def test_what_the_authors_of_ad_2_do_is_said(tiny, demo, tmp_path):
    can = tmp_path / "can"
    (can / "test_public" / "ground_truth").mkdir(parents=True)
    (can / "train").symlink_to(demo / "grass" / "train")
    (can / "test_public" / "good").symlink_to(demo / "grass" / "test" / "good")
    (can / "test_public" / "bad").symlink_to(demo / "grass" / "test" / "hole")
    (can / "test_public" / "ground_truth" / "bad").symlink_to(demo / "grass/ground_truth/hole")
    for limit, said in ((0.3, True), (0.05, False)):
        notes = []
        results = evaluate_mvtec(
            Spade(tiny, resize=64, crop=64),
            can,
            tmp_path / str(limit),
            max_fpr=limit,
            on_error=print,
            on_note=notes.append,
        )
        assert (
            any(
                "AD 2's authors integrate PRO to a false-positive rate of 0.05, as `max_fpr=0.05`"
                in note
                for note in notes
            )
            == said
        )
        assert results["config"]["max_fpr"] == limit


def test_aupimo_of_images_whose_good_pixels_show_its_rates(tiny, demo, tmp_path):
    notes = []
    spade = Spade(tiny)
    results = evaluate_mvtec(
        spade, demo, tmp_path / "out", names=["grass"], on_error=print, on_note=notes.append
    )
    [category] = load_mvtec(demo, ["grass"])
    maps = [result.input_map for result in spade.query([one.path for one in category.test])]
    framing = spade.index_.manifest.framing.framing()
    masks = [framing.apply_mask(category.truth(i, (256, 256))[1]) for i in range(len(maps))]
    each = metrics.aupimo_per_image(maps, masks)
    kept = json.loads((tmp_path / "out" / "done" / "grass.json").read_text())
    assert [None if np.isnan(one) else pytest.approx(one, abs=1e-9) for one in each] == kept[
        "evidence"
    ]["aupimo"]
    figures = results["categories"]["grass"]
    assert 0 < figures["aupimo"] == pytest.approx(np.nanmean(each), abs=1e-9)
    assert results["mean"]["aupimo"] == figures["aupimo"]
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| AUPIMO |" in text.splitlines()[0] and f"| {100 * figures['aupimo']:.1f} |" in text
    small = evaluate_mvtec(
        Spade(tiny, resize=64, crop=64),
        demo,
        tmp_path / "small",
        names=["grass"],
        on_error=print,
        on_note=notes.append,
    )
    assert "aupimo" not in small["categories"]["grass"]
    assert small["notes"] == [
        few("grass", 4),
        "AUPIMO is missing of grass: its good images do not have 100000 pixels together",
    ]


@pytest.fixture
def repainted(demo, tmp_path):
    """A function that copies a category, its masks painted anew or left out by a function."""

    def copy(name, paint):
        nut = tmp_path / name / "nut"
        nut.mkdir(parents=True)
        for part in ("train", "test"):
            (nut / part).symlink_to(demo / "gravel" / part)
        for source in (demo / "gravel" / "ground_truth").rglob("*.png"):
            mask = paint(source.parent.name, cv2.imread(str(source), 0))
            if mask is not None:
                write(nut / "ground_truth" / source.parent.name / source.name, mask)
        return nut

    return copy


def unusable(kind, mask):
    return {"hole": 255 - mask, "stain": mask * 0, "crack": mask | 255}.get(kind, mask)


def test_images_of_masks_that_cannot_be_used_count_for_image_metrics_alone(repainted, tmp_path):
    nut = repainted("wrong", unusable)
    ended = done("evaluate", "mvtec", nut, "--out", tmp_path / "out", "--json", *SMALL, status=1)
    results = json.loads(ended.stdout)
    lines = [line for line in ended.stderr.splitlines() if ": note: " not in line]
    for kind, why in (("hole", "looks inverted"), ("stain", "no pixel"), ("crack", "every pixel")):
        [line] = [line for line in lines if f"{kind}/000_mask.png" in line]
        assert why in line and line.endswith("; it counts for image metrics alone")
    note = "nut: the masks of 3 of 8 test images cannot be used, and pixel metrics leave them out"
    assert len(lines) == 3 and results["notes"][1] == note and f"note: {note}\n" in ended.stderr
    # As if there were none of these masks.
    bare = repainted(
        "none", lambda kind, mask: None if kind in ("hole", "stain", "crack") else mask
    )
    ended = done("evaluate", "mvtec", bare, "--out", tmp_path / "bare", "--json", *SMALL, status=1)
    expected, found = (one["categories"]["nut"] for one in (json.loads(ended.stdout), results))
    assert found["n_test"] == 8 and len(found["kinds"]) == 6
    for name in expected.keys() - {"seconds", "stages"}:
        assert found[name] == expected[name]


def test_without_a_mask_that_can_be_used_there_are_image_metrics(repainted, tiny, tmp_path):
    nut = repainted("wrong", lambda kind, mask: 255 - mask)
    problems, notes = [], []
    results = evaluate_mvtec(
        Spade(tiny, resize=64, crop=64),
        nut,
        tmp_path / "out",
        report=True,
        on_error=lambda *line: problems.append(line),
        on_note=notes.append,
    )
    figures = results["categories"]["nut"]
    assert len(problems) == 6 and figures["n_test"] == 8 and figures["image_rocauc"] > 0.5
    assert not {"pro", "pixel_rocauc", "aupimo"} & figures.keys()
    assert notes[-1] == (
        "nut: the masks of 6 of 8 test images cannot be used, so pixel metrics are missing"
    )
    assert "Pixel ROC" not in (tmp_path / "out/report.html").read_text()
    with pytest.raises(SpadeError, match=r"looks inverted"):
        evaluate_category(Spade(tiny, resize=64, crop=64), load_mvtec(nut)[0])


def test_a_mean_is_of_what_every_category_has():
    some = Scores(0.9, 0.8, 0.95, 0.9, 3, 4, 1.0, extra={"aupimo": 0.5, "spro": 0.25})
    other = Scores(0.9, 0.8, 0.95, 0.9, 3, 4, 1.0, extra={"aupimo": 0.7})
    results = results_of("mvtec", {}, {"a": other, "b": some})
    assert results["mean"]["aupimo"] == pytest.approx(0.6) and "spro" not in results["mean"]


def test_only_figures_of_masks_that_are_not_there_are_said_to_lack_them():
    some = Scores(0.9, 0.8, 0.95, 0.9, 3, 4, 1.0, extra={"aupimo": 0.5})
    small = Scores(0.9, 0.8, 0.95, 0.9, 3, 4, 1.0)
    bare = Scores(0.9, 0.8, None, None, 3, 4, 1.0)
    text = evaluation.table(results_of("mvtec", {}, {"a": some, "b": small, "c": bare}))
    assert "| a | 90.0 | 50.0 | 95.0 |" in text
    assert "| b | 90.0 |  | 95.0 |" in text
    assert "| c | no masks | no masks | no masks |" in text
