import csv
import json
import re

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from spade_faiss import Spade, SpadeError
from spade_faiss.datasets import load_stc, published_stc
from spade_faiss.evaluation import evaluate_stc
from spade_faiss.evaluation.stc import normalised
from spade_faiss.images import Frame, read_image
from spade_faiss.images.video import read_frames, with_motion
from tests.command import TINY, done
from tests.images.video.videos import make_stc

SMALL = {"resize": 64, "crop": 64}


def silent(*line):
    raise AssertionError(line)


def noted(note):
    """Take no note but that no threshold is judged, and that a scene's frames are alike."""
    assert note.startswith("no threshold is judged: ") or "not compared with each other" in note


@pytest.fixture(scope="module")
def campus(tmp_path_factory):
    return make_stc(tmp_path_factory.mktemp("stc") / "shanghaitech")


@pytest.fixture(scope="module")
def evaluated(tiny, campus, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    results = evaluate_stc(
        Spade(tiny, k=3, **SMALL),
        campus,
        out,
        fps=4,
        normalise_clips=True,
        sweep=["k=1,3"],
        on_error=silent,
        on_note=noted,
    )
    return out, results


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_results_are_as_the_contract_says(evaluated):
    out, results = evaluated
    assert json.loads((out / "results.json").read_text()) == results
    assert results["dataset"] == "stc" and list(results["categories"]) == ["01", "02"]
    assert results["config"]["fps"] == 4 and results["config"]["k"] == 3
    for scores in results["categories"].values():
        # Two videos of two seconds; clips of 16 and 12 frames.
        assert (scores["n_train"], scores["n_test"]) == (2 * 8, 16 + 12)
        assert {"features", "index", "stage_one", "stage_two", "maps", "metrics"} == set(
            scores["stages"]
        )
        assert scores["image_rocauc_map_max"] > 0.9
    for name in ("image_rocauc", "pixel_rocauc", "pro", "image_rocauc_normalised_clips"):
        both = [scores[name] for scores in results["categories"].values()]
        assert results["mean"][name] == pytest.approx(np.mean(both), rel=1e-12)
    text = (out / "table.md").read_text()
    for method, value in published_stc().items():
        assert f"| {method} | {100 * value:.1f} |" in text
    assert f"| ours, mean of 2 scenes | {100 * results['mean']['image_rocauc']:.1f} |" in text
    assert "clips normalised" in text and "| 01 |" in text


def test_rocauc_is_that_of_the_scores_in_the_csv(campus, evaluated):
    out, results = evaluated
    for name, scores in results["categories"].items():
        rows = rows_of(out / "frames" / f"{name}.csv")
        [scene] = load_stc(campus, [name])
        assert [row["path"] for row in rows] == [str(path) for path in scene.frames]
        labels = [int(row["label"]) for row in rows]
        assert labels == [0] * 10 + [1] * 6 + [1] * 5 + [0] * 7
        for key, column in (
            ("image_rocauc", "descriptor"),
            ("image_rocauc_map_max", "map_max"),
            ("image_rocauc_map_mean", "map_mean"),
        ):
            values = np.array([float(row[column]) for row in rows])
            assert scores[key] == pytest.approx(roc_auc_score(labels, values), abs=1e-12)
            within = values.copy()
            for clip in {row["clip"] for row in rows}:
                own = np.array([row["clip"] == clip for row in rows])
                low, high = values[own].min(), values[own].max()
                within[own] = (values[own] - low) / (high - low)
            assert scores[f"{key}_normalised_clips"] == pytest.approx(
                roc_auc_score(labels, within), abs=1e-12
            )


def test_scores_equal_an_independent_run(tiny, campus, evaluated):
    out, results = evaluated
    frames = [
        one.image
        for path in sorted((campus / "training/videos").glob("02_*.avi"))
        for one in read_frames(path)
        if int(one.name[-6:]) % 6 == 0
    ]
    spade = Spade(tiny, k=3, **SMALL).fit(frames, calibrate=False)
    paths = [
        path
        for clip in ("02_0014", "02_0015")
        for path in sorted((campus / "testing/frames" / clip).glob("*.jpg"))
    ]
    found = list(spade.query(paths))
    rows = rows_of(out / "frames" / "02.csv")
    np.testing.assert_allclose(
        [float(row["descriptor"]) for row in rows],
        [one.descriptor_score for one in found],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        [float(row["map_max"]) for row in rows], [one.input_map.max() for one in found], rtol=1e-5
    )
    np.testing.assert_allclose(
        [float(row["map_mean"]) for row in rows], [one.mean_score for one in found], rtol=1e-5
    )
    masks = np.concatenate(
        [
            np.load(campus / "testing/test_pixel_mask" / f"{clip}.npy")
            for clip in ("02_0014", "02_0015")
        ]
    )
    framing = spade.index_.manifest.framing.framing()
    framed = [framing.apply_mask(mask > 0) for mask in masks]
    assert results["categories"]["02"]["pixel_rocauc"] == pytest.approx(
        roc_auc_score(np.stack(framed).ravel(), np.stack([one.input_map for one in found]).ravel()),
        abs=1e-5,
    )


def test_motion_is_seen_within_clips_at_the_videos_rate(tiny, campus, tmp_path):
    small = {"preset": "video", "resize": 64, "crop": None, "k": 3}
    results = evaluate_stc(
        Spade(tiny, **small), campus, tmp_path, names=["02"], fps=4, on_error=silent, on_note=noted
    )
    assert results["config"]["motion"] and results["config"]["preset"] == "video"
    videos = sorted((campus / "training/videos").glob("02_*.avi"))
    spade = Spade(tiny, **small).fit(
        (one for path in videos for one in read_frames(path, 4, motion=True)), calibrate=False
    )
    peaks = []
    for clip in ("02_0014", "02_0015"):
        paths = sorted((campus / "testing/frames" / clip).glob("*.jpg"))
        frames = [Frame(str(path), read_image(path), i / 24) for i, path in enumerate(paths)]
        peaks += [one.input_map.max() for one in spade.query(with_motion(frames))]
    rows = rows_of(tmp_path / "frames" / "02.csv")
    np.testing.assert_allclose([float(row["map_max"]) for row in rows], peaks, rtol=1e-5)


def test_the_whole_frame_is_seen_by_default(campus, tmp_path):
    ended = done(
        *("evaluate", "stc", campus, "--scene", "01", "--out", tmp_path, "--fps", "2"),
        *("--resize", "64", "--json", *TINY),
    )
    assert json.loads(ended.stdout)["config"]["crop"] is None


def test_clips_are_normalised_each_by_itself():
    values = normalised([1, 3, 2, 10, 10], ["a", "a", "a", "b", "b"])
    assert values.tolist() == [0, 1, 0.5, 0, 0]


def test_a_mask_of_another_length_is_named_and_its_scene_refused(tiny, campus, tmp_path):
    root = make_stc(tmp_path / "broken", pixel_masks=False)
    mask = root / "testing/test_frame_mask/01_0015.npy"
    np.save(mask, np.load(mask)[:-2])
    ended = done(
        "evaluate",
        "stc",
        root,
        "--out",
        tmp_path / "out",
        "--fps",
        "2",
        *TINY,
        "--resize",
        "64",
        "--crop",
        "64",
        "--json",
        status=1,
    )
    lines = ended.stderr.splitlines()
    [line] = [line for line in lines if ": note: " not in line]
    assert "no threshold is judged" in lines[1] and "note: scene 02: " in lines[2]
    assert "01_0015.npy: the mask is of 10 frames and the clip has 12; scene 01 is left out" in line
    results = json.loads(ended.stdout)
    assert list(results["categories"]) == ["02"] and results["config"]["k"] == 20
    scores = results["categories"]["02"]
    assert not {"pixel_rocauc", "pro", "threshold", "confusion", "kinds"} & scores.keys()
    assert "pixel ROCAUC" not in (tmp_path / "out" / "table.md").read_text()
    mask = root / "testing/test_frame_mask/02_0014.npy"
    np.save(mask, np.load(mask)[:-2])
    with pytest.raises(SpadeError, match="nothing could be evaluated"):
        evaluate_stc(Spade(tiny, **SMALL), root, tmp_path / "out2", on_error=print, on_note=noted)


def test_masks_of_another_size_and_bad_frames_are_named(tiny, tmp_path):
    root = make_stc(tmp_path / "broken")
    pixels = root / "testing/test_pixel_mask/02_0015.npy"
    np.save(pixels, np.load(pixels)[:, :-1])
    frame = root / "testing/frames/01_0014/003.jpg"
    frame.write_bytes(frame.read_bytes()[:300])
    video = root / "training/videos/01_002.avi"
    video.write_text("no")
    (root / "testing/test_pixel_mask/01_0015.npy").unlink()
    problems, notes = [], []
    results = evaluate_stc(
        Spade(tiny, **SMALL),
        root,
        tmp_path / "out",
        fps=2,
        on_error=lambda *line: problems.append(line),
        on_note=notes.append,
    )
    lines = [": ".join(line) for line in problems]
    assert len(lines) == 3
    assert re.search(r"02_0015.npy: the mask is 128x95 .* 128x96; scene 02 is left out", lines[0])
    assert re.search(r"01_002.avi: cannot be opened", lines[1])
    assert re.search(r"01_0014/003.jpg: .*cut short.*left out", lines[2])
    assert list(results["categories"]) == ["01"]
    assert "pro" not in results["categories"]["01"] and results["notes"] == notes
    assert notes[1] == "scene 01: some clips have no pixel masks, so pixel metrics are missing"
    assert len(notes) == 3
    assert re.match(r"scene 01: \d of the index's 4 images show one part", notes[2])
    assert results["categories"]["01"]["n_test"] == 27
    assert results["categories"]["01"]["n_train"] == 4
    names = [row["path"][-15:] for row in rows_of(tmp_path / "out/frames/01.csv")]
    assert "01_0014/003.jpg" not in names and "01_0015/003.jpg" in names


def test_a_frame_of_another_size_than_its_mask_counts_for_image_metrics(tiny, tmp_path):
    root = make_stc(tmp_path / "stc")
    frame = root / "testing/frames/01_0014/003.jpg"
    cv2.imwrite(str(frame), cv2.imread(str(frame))[:64])
    problems, notes = [], []
    results = evaluate_stc(
        Spade(tiny, **SMALL),
        root,
        tmp_path / "out",
        names=["01"],
        fps=2,
        on_error=lambda *line: problems.append(line),
        on_note=notes.append,
    )
    [(name, why)] = problems
    assert name == str(frame) and "the mask is 128x96 pixels and the frame 128x64" in why
    assert notes[-1] == (
        "scene 01: the masks of 1 of 28 test images cannot be used, and pixel metrics leave them "
        "out"
    )
    assert results["categories"]["01"]["n_test"] == 28 and "pro" in results["categories"]["01"]
    assert str(frame) in [row["path"] for row in rows_of(tmp_path / "out/frames/01.csv")]


def test_frames_are_judged_whatever_the_sampling(tiny, campus, tmp_path):
    with pytest.raises(SpadeError, match="fps"):
        evaluate_stc(Spade(tiny, **SMALL), campus, tmp_path, fps=0, on_error=silent, on_note=noted)
    assert cv2.imread(str(load_stc(campus)[0].frames[0])) is not None
