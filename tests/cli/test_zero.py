"""Numbers that mean nothing are refused in one line, and never read as if nothing were given."""

import json
import math
from typing import get_args, get_type_hints

import cv2
import pytest

from spade_faiss import SpadeError
from spade_faiss.cli.app import COMMANDS, EVALUATIONS
from spade_faiss.cli.command import command_of
from spade_faiss.detector import Settings
from tests.command import TINY, done, one_line, run
from tests.conftest import texture


@pytest.fixture(scope="module")
def place(tiny, tmp_path_factory):
    """A folder of good images, one of bad ones, an index, and an ensemble."""
    root = tmp_path_factory.mktemp("zero")
    for folder, some in (
        ("good", slice(0, 4)),
        ("new", slice(4, 6)),
        ("bad", slice(6, 7)),
        ("lines/a", slice(0, 4)),
    ):
        (root / folder).mkdir(parents=True)
        for i, image in enumerate(texture("gravel", 7)[some]):
            cv2.imwrite(str(root / folder / f"{i}.png"), image[:64, :64])
    small = (*TINY, "--resize", "64", "--crop", "56", "-k", "3", "--engine", "faiss")
    done("build", root / "good", "--index", root / "index", *small)
    done("build", root / "good", "--index", root / "ensemble", *small, "--views", "flip")
    return root


BUILD = "build {good} --index {out} --backbone tiny"
EACH = "build {lines} --each --index {out} --backbone tiny"
QUERY = "query {index} {new} --out {out}"
JOINT = "query {ensemble} {new} --out {out}"
MVTEC = "evaluate mvtec {good} --out {out} --backbone tiny"
FOLDER = "evaluate folder --train {good} --good {new} --bad {bad} --out {out} --backbone tiny"
CALIBRATE = "calibrate {index} {new}"
STC = "evaluate stc {good} --out {out} --backbone tiny"
SERVE = "serve {index} --port 0"
WATCH = "watch {index} {new} --out {out}"
ZEROES = [
    *(
        (call, zero)
        for call in (BUILD, QUERY, MVTEC, FOLDER, STC, SERVE, WATCH)
        for zero in ("-k", "--kappa", "--batch-size")
    ),
    *((call, "--quantile") for call in (BUILD, EACH, QUERY, JOINT, SERVE, WATCH)),
    *((call, "--resize") for call in (BUILD, MVTEC, FOLDER, STC)),
    *((call, "--crop") for call in (BUILD, MVTEC, FOLDER, STC)),
    *((call, "--coreset") for call in (BUILD, MVTEC, FOLDER)),
    *((call, "--fps") for call in (BUILD, EACH, QUERY, STC)),
    *((call, "--ray-workers") for call in (BUILD, QUERY, MVTEC, FOLDER, STC)),
    (BUILD, "--calibrated"),
    (CALIBRATE, "--false-alarms"),
]
CALLS = {
    "build": BUILD,
    "calibrate": CALIBRATE,
    "query": QUERY,
    "serve": SERVE,
    "watch": WATCH,
    "mvtec": MVTEC,
    "folder": FOLDER,
    "stc": STC,
}


def float_options():
    """Yield the call and the name of each option that is a float, as a number or in words."""
    for name, work in (*((one.__name__, one) for one in COMMANDS), *EVALUATIONS.items()):
        for option, hint in get_type_hints(command_of(work)).items():
            if float in (hint, *get_args(hint)):
                yield CALLS[name], f"--{option.replace('_', '-')}"
    yield from ((CALIBRATE, "--threshold"), (CALIBRATE, "--review"))


NO_NUMBERS = [
    (call, option, value) for call, option in float_options() for value in ("nan", "inf", "-inf")
]


def refused(place, out, call, option, value):
    """Check that a call with a value of an option is refused in a line that names the option."""
    places = {path.name: path for path in place.iterdir()} | {"out": out}
    ended = run(*(word.format(**places) for word in call.split()), option, value)
    one_line(ended, option.strip("-").replace("-", "_").rpartition("_")[2])
    assert not out.exists()


@pytest.mark.parametrize("call, option", ZEROES)
def test_zero_is_refused(place, tmp_path, call, option):
    refused(place, tmp_path / "out", call, option, "0")


@pytest.mark.parametrize("call, option, value", NO_NUMBERS)
def test_what_is_no_number_is_refused(place, tmp_path, call, option, value):
    refused(place, tmp_path / "out", call, option, value)


@pytest.mark.parametrize("name", ["k", "kappa", "calibrated", "batch_size", "resize", "crop"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 64.5])
def test_what_is_no_whole_number_is_refused(name, value):
    with pytest.raises(SpadeError, match=f"{name} = {value} must be a whole number"):
        Settings(**{name: value})


def test_zero_is_a_score_like_others(place, tmp_path):
    """A threshold or mark of review of 0 is set, and said to be."""
    said = done("calibrate", place / "index", "--review", "0").stdout
    assert said.startswith(f"{place / 'index'}: set by hand\n") and "review  from 0" in said
    rows = json.loads(
        done("query", place / "index", place / "new", "--out", tmp_path / "o", "--json").stdout
    )["images"]
    assert {row["verdict"] for row in rows} <= {"REVIEW", "NG"}
    done("calibrate", place / "index", "--review", "none")
    ended = done(
        "query", place / "index", place / "new", "--out", tmp_path / "o", "--threshold", "0"
    )
    assert "2 NG, 0 OK" in ended.stdout
