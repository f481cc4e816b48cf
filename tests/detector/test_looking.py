"""Results and predictions can be looked at: verdicts, regions, pictures, tables, notebooks."""

import pickle
import re
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from PIL import Image

from spade_faiss import Prediction, Spade, SpadeError
from spade_faiss.pictures.drawing import overlay_picture
from spade_faiss.verdict import judge_result
from spade_faiss.verdict.notes import training_image_note
from tests.conftest import texture, with_hole

matplotlib.use("agg")
GOOD, BAD = texture("brick", 2, seed=4)
BAD = with_hole(with_hole(BAD), x=200, y=60, radius=12)


@pytest.fixture(scope="module")
def spade(tiny):
    return Spade(tiny, quantile=0.9).fit(texture("brick", 8))


@pytest.fixture(scope="module")
def prediction(spade):
    return spade.predict([GOOD, BAD, GOOD])


def test_a_result_says_what_the_detector_says(spade, prediction):
    for result in prediction:
        finding = judge_result(spade, result)
        assert (result.score(), result.verdict) == (finding.score, finding.verdict)
        assert result.regions == finding.regions and result.finding == finding
    assert prediction.verdicts == ["OK", "NG", "OK"]
    assert len(prediction[1].regions) >= 2 and prediction[0].regions == ()
    with pytest.raises(SpadeError, match="unknown score 'luck': choose one of map"):
        prediction[0].score("luck")


def test_a_result_stays_as_it_was_judged(tiny):
    own = Spade(tiny, quantile=0.9).fit(texture("brick", 4))
    result = next(own.query(BAD))
    assert result.score("mean") == next(own.with_options(score="mean").query(BAD)).score()
    limit, regions = own.image_threshold, result.regions
    own.image_threshold = 1000.0
    assert (result.verdict, result.limits.threshold) == ("NG", limit)
    assert next(own.query(BAD)).verdict == "OK"
    again = own.recompute_maps(result)
    assert again.verdict == "OK" and np.array_equal(again.map, result.map)
    own.image_threshold = None
    own.add([GOOD])
    assert result.regions == regions and result.index is not own.index_


def test_the_overlay_is_that_of_a_query_and_is_saved(spade, prediction, tmp_path):
    result = prediction[1]
    framing = spade.index_.manifest.framing.framing()
    whole = overlay_picture(result, judge_result(spade, result), framing)
    assert np.array_equal(result.overlay(), whole)
    assert result.overlay(100).shape < result.overlay(None).shape < whole.shape
    for name in ("a.png", "a.JPG", "a.webp"):
        result.save(tmp_path / name)
        with Image.open(tmp_path / name) as saved:
            assert np.abs(np.asarray(saved.convert("RGB")).astype(int) - whole).mean() < 3
    with Image.open(tmp_path / "a.png") as saved:
        assert np.array_equal(np.asarray(saved), whole)
    with pytest.raises(SpadeError, match=r"a\.tiff is to be a picture: call it \.png, \.jpg"):
        result.save(tmp_path / "a.tiff")
    with pytest.raises(SpadeError, match="64 to 16384"):
        result.overlay(10)
    with pytest.raises(OSError, match="no"):
        result.save(tmp_path / "no" / "a.png")


def test_a_plot_has_the_image_the_map_and_the_regions(prediction):
    result = prediction[1]
    axes = result.plot()
    photo, heat = (one.get_array() for one in axes.images)
    assert np.array_equal(photo, result.image)
    over = result.map > result.limits.pixel_threshold
    assert (heat[over][:, 3] > 0.6 * 255).all() and not heat[result.map == 0][:, 3].any()
    found = sorted(
        tuple(int(side + 0.5) for side in (*patch.get_xy(), *patch.get_corners()[2]))
        for patch in axes.patches
    )
    assert found == sorted(region.box for region in result.regions)
    assert axes.get_title() == f"image 1: NG, score {result.peak:.4g}, threshold " + (
        f"{result.limits.threshold:.4g}"
    )
    assert prediction[0].plot(axes) is axes
    matplotlib.pyplot.close(axes.figure)


@pytest.mark.parametrize(
    "name, call", [("matplotlib", lambda p: p[0].plot()), ("pandas", lambda p: p.to_dataframe())]
)
def test_what_is_not_installed_is_named(prediction, monkeypatch, name, call):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SpadeError, match=f"needs {name}, which is not installed: install it, or"):
        call(prediction)


def test_what_a_person_sees_of_objects_is_short(spade, prediction):
    height, width = BAD.shape[:2]
    said = repr(prediction[1])
    assert said.startswith(f"<Result image 1, {width}x{height}: NG, score ") and len(said) < 100
    assert repr(prediction) == f"<Prediction of {prediction.summary().splitlines()[0]}>"
    assert re.fullmatch(r"<Prediction of 3 images: 1 NG, 2 OK; scores .*>", repr(prediction))
    assert "matches" not in repr(prediction[1].regions[0])
    assert repr(prediction[:0]) == "<Prediction of 0 images>"
    assert repr(spade.index_).startswith("<Index of 8 good images in /")
    assert repr(spade.network) == "<Backbone tiny on cpu>"


def test_a_notebook_shows_the_picture_the_regions_and_the_notes(prediction):
    result = prediction[1]
    shown = replace(result, name="<b>&.png", notes=("a note: of <it>",))._repr_html_()
    assert 'src="data:image/webp;base64,' in shown and shown.count("<tr>") > 2
    assert "&lt;b&gt;&amp;.png: NG, score" in shown and "<li>a note: of &lt;it&gt;</li>" in shown
    assert f"<td>{result.regions[0].matches[0].image}</td>" in shown
    assert "<table>" not in prediction[0]._repr_html_()
    whole = prediction._repr_html_()
    assert whole.count("<tr>") == 4 and "3 images: 1 NG, 2 OK" in whole
    many = Prediction(30 * prediction.results)._repr_html_()
    assert many.count("<tr>") == 21 and "<li>and 70 more</li>" in many


def test_a_prediction_is_a_sequence_of_results(prediction):
    assert len(prediction) == 3 and list(prediction) == list(prediction.results)
    assert prediction[-1] is prediction.results[2] and prediction[1] in prediction
    assert prediction.names == ["image 0", "image 1", "image 2"]
    assert prediction.scores.dtype == np.float32
    assert prediction.scores.tolist() == [np.float32(one.peak) for one in prediction]
    assert all(a is b.map for a, b in zip(prediction.maps, prediction, strict=True))
    over = prediction.scores > prediction[0].limits.threshold
    for part in (prediction[over], prediction[[1]], prediction[1:2], prediction[np.array([1])]):
        assert isinstance(part, Prediction) and part.names == ["image 1"]
        assert part.detector_notes == prediction.detector_notes
    with pytest.raises(IndexError):
        prediction[3]


def test_a_summary_names_the_highest_and_has_all_notes(spade, prediction):
    assert spade.notes  # few images
    noted = replace(prediction[0], notes=(training_image_note("a.png"),))
    lines = Prediction((noted, *prediction.results, *prediction), spade.notes).summary().split("\n")
    assert lines[0].startswith("7 images: 2 NG, 5 OK; scores ")
    assert lines[1] == "the highest:" and len(lines) == 2 + 5 + len(spade.notes) + 1
    assert lines[2] == lines[3] == f"  {prediction[1].peak:.4g} NG image 1"
    assert tuple(lines[7:-1]) == spade.notes and "image 0 (as a.png)" in lines[-1]
    assert prediction.detector_notes == spade.notes
    assert prediction[:0].summary().startswith("0 images")


def test_a_data_frame_has_a_row_an_image(spade, prediction):
    table = prediction.to_dataframe()
    assert list(table) == ["name", "score", "threshold", "verdict", "regions", "notes"]
    assert table.name.tolist() == prediction.names and table.verdict.tolist() == ["OK", "NG", "OK"]
    assert table.score.tolist() == [one.peak for one in prediction]
    assert set(table.threshold) == {spade.image_threshold}
    assert table.regions.tolist() == [0, len(prediction[1].regions), 0]
    assert list(prediction[:0].to_dataframe()) == list(table)


def test_a_result_goes_to_another_process_with_all_that_is_shown(prediction):
    result = prediction[1]
    data = pickle.dumps(result)
    assert len(data) < 1.2 * sum(
        one.nbytes
        for one in (
            *(result.image, result.input, result.map, result.input_map),
            *(result.distances + result.matches),
        )
    )
    copy = pickle.loads(data)
    assert copy.index is None and result.index is not None
    assert copy.regions == result.regions and repr(copy) == repr(result)
    assert copy._repr_html_() == result._repr_html_()


def test_what_no_detector_judged_has_no_verdict(prediction):
    plain = replace(prediction[1], limits=type(prediction[1].limits)(), index=None)
    assert (plain.verdict, plain.regions, plain.score()) == ("", (), plain.peak)
    assert "no threshold" in plain._repr_html_()
    with pytest.raises(SpadeError, match="query the image"):
        plain.overlay()
