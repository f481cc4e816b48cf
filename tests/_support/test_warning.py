"""What is noted of images is said once a batch, in every face."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from spade_faiss._support.warning import ImageWarning, notes_to
from spade_faiss.images import Framing, load_images, read_image
from tests.command import LITE, done
from tests.conftest import texture
from tests.images.tiffs import MIN_IS_BLACK, page, tiff
from tests.service.serving import serving

SIX = (*LITE, "--quantile", "0.8")
"""A rate of false alarms that six images show, so that this is no note."""
FRAMING = Framing(64, (64, 64), True)


@pytest.fixture(scope="module")
def shallow(tmp_path_factory):
    """A folder of images of gravel: three of 12 bits in 16, two with pages, one usual."""
    folder = tmp_path_factory.mktemp("shallow")
    for i, image in enumerate(texture("gravel", 6)):
        grey = image[:96, :96, :1].astype(np.uint32)
        if i < 3:
            content = tiff(page(grey * 16 + i, 16, MIN_IS_BLACK))
        else:
            content = tiff(*[page(grey, 8, MIN_IS_BLACK)] * (2 if i < 5 else 1))
        (folder / f"{i}.tiff").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def built(shallow, tmp_path_factory):
    """An index of these, and what was said when it was built."""
    folder = tmp_path_factory.mktemp("built") / "index"
    return folder, done("build", shallow, "--index", folder, *SIX).stderr


def test_an_ensemble_that_reads_images_twice_says_it_once(shallow, tmp_path):
    noted(
        done(
            "build",
            shallow,
            "--index",
            tmp_path / "i",
            *SIX,
            "--views",
            "scale",
            "--resize",
            "64",
            "--crop",
            "none",
        ).stderr,
        shallow,
    )


def noted(errors, folder):
    """Check that there are just the two lines that are due, but for images of the index."""
    lines = [line.partition(" note: ")[2] for line in errors.splitlines()]
    lines = [line for line in lines if not line.startswith("in the index itself: 6 images")]
    assert lines[0].startswith(
        f"{folder / '0.tiff'} and 2 more: 16-bit samples that use 12 bits, "
        "which leaves 16 of 256 levels"
    )
    assert lines[1:] == [
        f"{folder / '3.tiff'} and 1 more: only the first of several pages is looked at"
    ]


def test_the_command_line_and_the_report_say_it_in_a_line_each(shallow, built, tmp_path):
    noted(built[1], shallow)
    ended = done(
        "query", built[0], shallow, "--out", tmp_path / "o", "--report", "--json", "--no-overlays"
    )
    noted(ended.stderr, shallow)
    assert len(json.loads(ended.stdout)["images"]) == 6
    text = (tmp_path / "o" / "report.html").read_text()
    assert "which leaves 16 of 256 levels" in text and "first of several pages" in text


def test_python_warns_once_a_batch(shallow):
    paths = sorted(shallow.iterdir())
    with pytest.warns(ImageWarning) as caught:
        assert len(list(load_images(paths, FRAMING))) == 6
    assert len(caught) == 2 and "0.tiff and 2 more: 16-bit" in str(caught[0].message)
    with pytest.warns(ImageWarning, match=r"1\.tiff: 16-bit samples that use 12 bits"):
        read_image(paths[1])
    with warnings.catch_warnings(action="error"):
        read_image(paths[5])


def test_notes_reach_who_asks_and_others_pass():
    heard, outer = [], []
    with pytest.warns(UserWarning, match="else") as caught, notes_to(outer.append):
        with notes_to(heard.append, pass_on=True):
            warnings.warn("one", ImageWarning, stacklevel=1)
            warnings.warn("else", UserWarning, stacklevel=1)
        warnings.warn("two", ImageWarning, stacklevel=1)
    assert heard == ["one"] and outer == ["one", "two"] and len(caught) == 1


def test_the_service_says_it_of_each_image(shallow, built, lite):
    with serving(built[0], lite) as service:
        files = [("images", (path.name, path.read_bytes())) for path in sorted(shallow.iterdir())]
        answer = service.client.post("/v1/query", files=files)
    notes = [one["notes"] for one in answer.json()["images"]]
    learnt = [[one for one in own if one.startswith("in the index itself")] for own in notes]
    assert [len(own) for own in learnt] == [1] * 6
    other = [[one for one in own if one not in learnt[i]] for i, own in enumerate(notes)]
    assert all("16 of 256 levels" in one for [one] in other[:3])
    assert all("several pages" in one for [one] in other[3:5]) and other[5] == []


def test_few_large_images_wait_at_a_time():
    at_work = []

    def stream():
        for i in range(20):
            at_work.append(i)
            yield np.zeros((60, 50, 3), np.uint8)

    loaded = load_images(stream(), FRAMING, workers=4, pixels_ahead=3 * 60 * 50)
    for number, _ in enumerate(loaded):
        assert len(at_work) <= number + 3
    assert number == 19


def test_odd_metadata_of_images_is_no_line(tmp_path):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0"  # ends amid a tag
    for i, image in enumerate(texture("gravel", 2)):
        Image.fromarray(image[:96, :96]).save(tmp_path / f"{i}.jpg", exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ended = done("build", tmp_path, "--index", tmp_path / "i", *LITE, "--quantile", "0.6")
    assert not caught and not ended.stderr
