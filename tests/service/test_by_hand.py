"""Thresholds set by hand, marks of review, and notes, as the service shows them."""

import json
import shutil
import signal
import subprocess
import urllib.request

import cv2
import pytest

from spade_faiss import Spade
from spade_faiss.cli.console import in_flags
from tests.command import PROGRAM, one_line, run
from tests.service.serving import form, greeting, png, serving


@pytest.fixture(scope="module")
def kept(index, tiny, tmp_path_factory):
    """An index with a threshold kept before an image was removed; and two values for it."""
    folder = shutil.copytree(index, tmp_path_factory.mktemp("kept") / "index")
    spade = Spade.load(folder, backbone=tiny)
    spade.image_threshold, spade.review = 200.0, 50.0
    spade.keep_threshold()
    spade.remove([spade.index_.manifest.images[0].path])
    return folder


def test_answers_tell_of_review_and_of_notes(kept, tiny, parts):
    scores = [one.peak for one in Spade.load(kept, backbone=tiny).query(parts)]
    with serving(kept, tiny) as service:
        about = service.client.get("/v1/index").json()
        assert (about["threshold"], about["review"], about["by_hand"]) == (200, 50, True)
        (note,) = about["notes"]
        assert "was set by hand before images were added or removed" in note
        images = service.client.post("/v1/query", files=form(*map(png, parts))).json()["images"]
        counted = service.client.get("/metrics").text
    expected = ["NG" if score > 200 else "REVIEW" if score >= 50 else "OK" for score in scores]
    assert [one["verdict"] for one in images] == expected and "REVIEW" in expected
    for one in images:
        assert (one["threshold"], one["review"]) == (200, 50)
        assert bool(one["regions"]) == (one["verdict"] != "OK")
        assert all(
            region["peak"] > (200 if one["verdict"] == "NG" else 49.99) for region in one["regions"]
        )
    count = f'spade_faiss_verdicts_total{{verdict="REVIEW"}} {expected.count("REVIEW")}.0'
    assert count in counted


def test_the_calibration_of_other_settings_is_told(index, tiny, parts, tmp_path):
    folder = shutil.copytree(index, tmp_path / "index")
    Spade.load(folder, backbone=tiny).calibrate(parts)
    for k, noted in ((None, False), (2, True)):
        with serving(folder, tiny, detector={"k": k}) as service:
            notes = service.client.get("/v1/index").json()["notes"]
        assert any("the calibration is of other settings" in note for note in notes) == noted


@pytest.mark.slow
def test_serve_takes_them_and_logs_the_notes(kept):
    with subprocess.Popen(
        [*PROGRAM, "serve", str(kept), "--port", "0", "--review", "30"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said, address = greeting(process)
            with urllib.request.urlopen(f"{address}/v1/index", timeout=60) as answer:
                about = json.load(answer)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    assert about["review"] == 30 and about["threshold"] == 200
    assert said == [f"spade-faiss: note: {in_flags(note)}\n" for note in about["notes"]]
    assert "calibrate --threshold auto" in said[0]
    one_line(run("serve", kept, "--port", "0", "--review", "201"), "below the threshold, 200")


@pytest.mark.slow
def test_the_page_shows_them(kept, tiny, parts, tmp_path):
    from tests.service.test_page import drop, opened, sync_api

    cv2.imwrite(str(tmp_path / "part.png"), parts[0][..., ::-1])
    score = next(Spade.load(kept, backbone=tiny).query([parts[0]])).peak
    with serving(kept, tiny, detector={"review": score - 1}) as service, opened(service) as page:
        sync_api.expect(page.locator("#index")).to_contain_text(
            f"200 (set by hand), review from {score - 1:.3g}"
        )
        sync_api.expect(page.locator("#notes li")).to_have_count(1)
        sync_api.expect(page.locator("#notes")).to_contain_text("was set by hand before images")
        drop(page, tmp_path / "part.png")
        card = page.locator(".result").first
        sync_api.expect(card.locator(".verdict")).to_have_text("REVIEW")
        sync_api.expect(card.locator("h3")).to_contain_text("over the mark of review")
        assert card.locator(".where").count() >= 1
