import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from spade_faiss import Spade, SpadeError
from spade_faiss.evaluation import evaluate_mvtec, loop
from spade_faiss.evaluation import run as evaluation_run
from tests.command import TINY, done, one_line, run
from tests.evaluation.notes import few

SMALL = {"resize": 64, "crop": 64}


@pytest.fixture
def data(demo, tmp_path):
    return shutil.copytree(demo, tmp_path / "data")


def without_seconds(results):
    """Return results but for what a clock says."""
    if isinstance(results, dict):
        return {
            name: without_seconds(value)
            for name, value in results.items()
            if name not in ("seconds", "stages")
        }
    return results


def evaluate(tiny, data, out, names=None, **options):
    problems, notes = [], []
    settings = {name: options.pop(name) for name in ("k", "batch_size") if name in options}
    results = evaluate_mvtec(
        Spade(tiny, **SMALL, **settings),
        data,
        out,
        names=names,
        **options,
        on_error=lambda *line: problems.append(line),
        on_note=notes.append,
    )
    return results, problems, notes


@pytest.fixture
def counted(monkeypatch):
    """The names of the categories that are evaluated and not taken from `done`."""
    names = []
    original = loop.evaluate_split

    def evaluate_split(detector, split, *arguments):
        names.append(split.name)
        return original(detector, split, *arguments)

    monkeypatch.setattr(evaluation_run, "evaluate_split", evaluate_split)
    return names


def test_what_is_finished_is_not_done_again(tiny, data, tmp_path, counted):
    first, _, _ = evaluate(tiny, data, tmp_path / "out", ["brick", "grass"], sweep=["k=1,2"])
    assert counted == ["brick", "grass"]
    again, problems, notes = evaluate(tiny, data, tmp_path / "out", sweep=["k=1,2"])
    assert counted == ["brick", "grass", "gravel"] and not problems
    assert notes == [few(name, 4) for name in counted]
    for name in ("brick", "grass"):  # seconds too: nothing was measured anew
        assert again["categories"][name] == first["categories"][name]
    assert [point["categories"]["brick"] for point in again["sweep"]] == [
        point["categories"]["brick"] for point in first["sweep"]
    ]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == again


def test_a_changed_option_starts_anew_and_says_why(tiny, data, tmp_path, counted):
    out = tmp_path / "out"
    evaluate(tiny, data, out, ["brick"])
    changes = [
        ({"k": 2}, "k was 50 and is now 2"),
        ({"k": 2, "batch_size": 3}, "batch_size was 8 and is now 3"),
        (
            {"k": 2, "batch_size": 3, "original_size": True},
            "ground_truth was framed and is now original",
        ),
        ({"k": 2, "batch_size": 3}, "ground_truth was original and is now framed"),
        (
            {"k": 2, "batch_size": 3, "sweep": ["sigma=0"]},
            "sweep sigma was not set and is now ['0']",
        ),
    ]
    for number, (options, why) in enumerate(changes, 2):
        _, problems, notes = evaluate(tiny, data, out, ["brick"], **options)
        assert notes == [f"brick is evaluated anew: {why}", few("brick", 4)] and not problems
        assert len(counted) == number


def test_changed_files_versions_and_damage_start_anew(tiny, data, tmp_path, counted):
    out = tmp_path / "out"
    evaluate(tiny, data, out, ["brick"])
    path = out / "done" / "brick.json"
    os.utime(data / "brick/test/good/000.png", ns=(1, 1))
    assert evaluate(tiny, data, out, ["brick"])[2] == [
        "brick is evaluated anew: its files have changed",
        few("brick", 4),
    ]
    record = json.loads(path.read_text())
    record["key"]["config"]["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(record))
    assert "versions torch was 1.0 and is now" in evaluate(tiny, data, out, ["brick"])[2][0]
    for damaged in ("", "[]", '{"key": 1}', path.read_text()[:200]):
        path.write_text(damaged)
        assert "cannot be read" in evaluate(tiny, data, out, ["brick"])[2][0]
    assert len(counted) == 7
    assert evaluate(tiny, data, out, ["brick"])[2] == [few("brick", 4)] and len(counted) == 7


def test_problems_of_a_finished_category_are_named_again(tiny, data, tmp_path, counted):
    image = data / "brick/test/hole/000.png"
    image.write_bytes(image.read_bytes()[:3000])
    first, problems, _ = evaluate(tiny, data, tmp_path / "out", ["brick"])
    assert len(problems) == 1 and "cut short" in problems[0][1] and "left out" in problems[0][1]
    assert first["categories"]["brick"]["n_test"] == 7
    again = evaluate(tiny, data, tmp_path / "out", ["brick"])
    assert again[:2] == (first, problems) and counted == ["brick"]


def test_a_category_that_fails_is_left_out_and_tried_again(tiny, data, tmp_path, counted):
    for path in (data / "grass/test/good").iterdir():
        path.write_text("no")
    results, problems, _ = evaluate(tiny, data, tmp_path / "out")
    assert list(results["categories"]) == ["brick", "gravel"]
    assert problems[-1][0] == "grass" and problems[-1][1].endswith("left out")
    evaluate(tiny, data, tmp_path / "out")
    assert counted == ["brick", "grass", "gravel", "grass"]
    with pytest.raises(SpadeError, match="nothing could be evaluated"):
        evaluate(tiny, data, tmp_path / "out", ["grass"])


KILLED_AFTER_ONE = """
import os, signal
from spade_faiss.cli import main
from spade_faiss.evaluation import run
from tests.tiny import register

register()
whole, begun = run.evaluate_split, []
def evaluate_split(*arguments):
    if begun:
        os.kill(os.getpid(), signal.SIGKILL)
    begun.append(None)
    return whole(*arguments)
run.evaluate_split = evaluate_split
main()
"""


def test_a_killed_run_is_taken_up_with_an_equal_result(tiny, data, tmp_path):
    call = (
        "evaluate",
        "mvtec",
        data,
        "--resize",
        "64",
        "--crop",
        "64",
        "--sweep",
        "kappa=1,2",
        *TINY,
    )
    done(*call, "--out", tmp_path / "whole")
    out = tmp_path / "killed"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_ONE, *map(str, call), "--out", str(out)]
    )
    assert killed.returncode == -signal.SIGKILL
    finished = {path.name: path.read_bytes() for path in (out / "done").glob("[a-z]*.json")}
    assert list(finished) == ["brick.json"]
    done(*call, "--out", out)
    for name, data in finished.items():  # these were not made again
        assert (out / "done" / name).read_bytes() == data
    whole, resumed = (
        json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "whole", out)
    )
    assert len(resumed["categories"]) == 3
    assert without_seconds(resumed) == without_seconds(whole)
    assert (out / "table.md").read_text() == (tmp_path / "whole" / "table.md").read_text()


def test_a_second_evaluation_of_one_folder_is_refused_and_the_first_goes_on(
    tiny, data, tmp_path, monkeypatch
):
    original = loop.evaluate_split

    def meanwhile(*arguments, **options):
        ended = run(
            "evaluate",
            "mvtec",
            data,
            "--out",
            tmp_path / "out",
            "--resize",
            "64",
            "--crop",
            "64",
            *TINY,
        )
        one_line(ended, "another evaluation", "--out")
        return original(*arguments, **options)

    monkeypatch.setattr(evaluation_run, "evaluate_split", meanwhile)
    results, problems, _ = evaluate(tiny, data, tmp_path / "out", ["brick"])
    assert list(results["categories"]) == ["brick"] and not problems
