"""0 done; 1 some inputs failed and the rest was done; 2 the call is wrong or nothing could be."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest

from tests.command import TINY, done, one_line, problems, run, unprivileged
from tests.conftest import texture
from tests.tiny import WEIGHTS

SMALL = (
    *TINY,
    "--resize",
    "64",
    "--crop",
    "56",
    "-k",
    "3",
    "--engine",
    "faiss",
    "--quantile",
    "0.7",
)


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """Folders with good images, with one good and one bad, and with bad ones alone; an index."""
    root = tmp_path_factory.mktemp("exits")
    views = [image[:64, :64] for image in texture("gravel", 6)]
    for folder, some in (("good", views[:3]), ("mixed", views[3:4]), ("new", views[4:])):
        (root / folder).mkdir()
        for i, image in enumerate(some):
            cv2.imwrite(str(root / folder / f"{folder}{i}.png"), image)
    for folder in ("mixed", "bad"):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / "bad.png").write_bytes(b"no image")
    for name, folders in (("lines", ("good", "bad")), ("bad_lines", ("bad",))):
        for folder in folders:
            shutil.copytree(root / folder, root / name / folder)
    done("build", root / "good", "--index", root / "index", *SMALL)
    shutil.copytree(root / "index", root / "indices" / "good")
    shutil.copytree(root / "index", root / "indices" / "bad")
    done("build", root / "good", "--index", root / "ensemble", *SMALL, "--views", "flip")
    return root


COMMANDS = [
    (0, "build {good} --index {out} SMALL"),
    (1, "build {mixed} --index {out} SMALL"),
    (2, "build {bad} --index {out} SMALL"),
    (1, "build {lines} --each --index {out} SMALL"),
    (2, "build {bad_lines} --each --index {out} SMALL"),
    (0, "add {copy} {new}"),
    (1, "add {copy} {mixed}"),
    (2, "add {copy} {bad}"),
    (2, "add {copy} {good}"),
    (2, "add {ensemble} {good}"),
    (0, "remove {copy} good0.png"),
    (1, "remove {copy} good0.png gone.png"),
    (2, "remove {copy} gone.png"),
    (2, "remove {ensemble} gone.png"),
    (0, "calibrate {copy} {new}"),
    (1, "calibrate {copy} {new} {bad}"),
    (2, "calibrate {copy} {bad}"),
    (2, "calibrate {copy} {good}"),
    (0, "query {index} {good} --out {out}"),
    (1, "query {index} {mixed} --out {out}"),
    (2, "query {index} {bad} --out {out}"),
    (2, "query {ensemble} {bad} --out {out}"),
    (1, "query {indices} {lines} --each --out {out}"),
    (2, "query {indices} {bad_lines} --each --out {out}"),
    (2, "evaluate mvtec {broken} --out {out}"),
    (2, "evaluate folder --train {good} --good {new} --bad {bad} --out {out} SMALL"),
    (2, "evaluate folder --train {bad} --good {new} --bad {mixed} --out {out} SMALL"),
    (0, "info {index} --verify"),
    (2, "info {damaged} --verify"),
]


@pytest.mark.parametrize("status, command", COMMANDS)
def test_the_exit_status_says_what_was_done(made, tmp_path, status, command):
    places = {path.name: path for path in made.iterdir()} | {"out": tmp_path / "out"}
    for copy, of in (("copy", "index"), ("ensemble", "ensemble"), ("damaged", "index")):
        if f"{{{copy}}}" in command:
            places[copy] = shutil.copytree(made / of, tmp_path / copy)
    if "{damaged}" in command:
        next(places["damaged"].glob("*/level1.faiss")).write_bytes(b"")
    if "{broken}" in command:
        places["broken"] = tmp_path / "broken"
        shutil.copytree(made / "bad", places["broken"] / "part" / "train" / "good")
        shutil.copytree(made / "bad", places["broken"] / "part" / "test" / "good")
    arguments = [
        text.format(**places)
        for word in command.split()
        for text in (SMALL if word == "SMALL" else [word])
    ]
    ended = run(*arguments)
    assert ended.returncode == status, (ended.stdout, ended.stderr)
    assert bool(problems(ended)) == bool(status)
    assert all(line.startswith("spade-faiss: ") for line in ended.stderr.splitlines())


def test_a_folder_that_cannot_be_read_is_named_by_every_command(made, open_folder):
    for folder in ("index", "new", "good"):
        shutil.copytree(made / folder, open_folder / folder)
    weights = shutil.copy(WEIGHTS, open_folder)  # the tests may lie where not all may read
    (open_folder / "new" / "locked").mkdir()
    for path in (open_folder, *open_folder.rglob("*")):
        path.chmod(0o777)
    # What is imported late may lie where not all may read, as well.
    done("query", open_folder / "index", open_folder / "good", "--out", open_folder / "first")
    (open_folder / "new" / "locked").chmod(0)
    with unprivileged():
        for command in (
            ("query", open_folder / "index", open_folder / "new", "--out", open_folder / "out"),
            ("add", open_folder / "index", open_folder / "new"),
            ("calibrate", open_folder / "index", open_folder / "good", open_folder / "new"),
        ):
            status = 2 if command[0] == "calibrate" else 1
            lines = done(*command, "--weights", weights, status=status).stderr.splitlines()
            assert lines[0] == (
                f"spade-faiss: {open_folder}/new/locked: cannot be searched for "
                "images: Permission denied"
            )
    with (open_folder / "out" / "scores.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2


def test_what_is_passed_over_and_hardly_seen_is_noted(made, tmp_path):
    shutil.copytree(made / "new", tmp_path / "new")
    (tmp_path / "new" / "phone.heic").touch()
    strip = cv2.imencode(".jpg", np.zeros((32, 900, 3), np.uint8))[1]
    (tmp_path / "new" / "strip.jpe").write_bytes(strip.tobytes())
    ended = done("query", made / "index", tmp_path / "new", "--out", tmp_path / "out")
    passed, seen = ended.stderr.splitlines()
    assert passed.startswith(
        "spade-faiss: note: passed over 1 file of no kind that is read, by "
        f"the name: {tmp_path}/new/phone.heic"
    )
    assert seen.startswith(
        "spade-faiss: note: seen only in part: 1 image, "
        f"{tmp_path}/new/strip.jpe (2.7 % of 900x32 pixels)"
    )
    assert len(ended.stdout.splitlines()) == 4


def test_results_of_a_line_that_fails_go_where_others_are_done(made, tmp_path):
    lines, out = tmp_path / "lines", tmp_path / "out"
    for name in ("good", "bad"):
        shutil.copytree(made / "good", lines / name)
    done("query", made / "indices", lines, "--each", "--out", out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {path.parent.name for path in before if path.name == "scores.csv"} == {"good", "bad"}
    done("query", made / "indices", made / "new", "--each", "--out", out, status=2)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    shutil.rmtree(lines / "bad")
    ended = done("query", made / "indices", lines, "--each", "--out", out, "--json", status=1)
    assert list(json.loads(ended.stdout)["lines"]) == ["good"]
    assert not list((out / "bad").rglob("*.*")) and (out / "good" / "scores.csv").exists()


def test_paths_need_not_be_unicode(made, tmp_path):
    """One such name used to end a build when all its work was done."""
    folder, copy = tmp_path / "latin\udce9", tmp_path / "index"
    shutil.copytree(made / "good", folder)
    for views in ((), ("--views", "flip")):
        refused = run("build", folder, "--index", folder / "index", *SMALL, *views)
        one_line(
            refused, r"latin\udce9/index", "FAISS opens no path that is not UTF-8: name another"
        )
        assert not (folder / "index").exists()
    done("build", folder, "--index", copy, *SMALL, "--views", "flip")
    shutil.rmtree(copy)
    done("build", folder, "--index", copy, *SMALL)
    ended = done("query", copy, folder, "--out", tmp_path / "out\udce9", "--explain", "--report")
    assert r"latin\udce9/good0.png" in ended.stdout and r"out\udce9" in ended.stdout
    scores = (tmp_path / "out\udce9" / "scores.csv").read_bytes()
    assert b"latin\xe9/good0.png" in scores
    assert "already" in done("add", copy, folder, status=2).stderr
    assert "is in the index" in done("calibrate", copy, folder, status=2).stderr
    name = json.loads(done("info", copy, "--json").stdout)["images"][0]["path"]
    assert name == str(tmp_path) + r"/latin\udce9/good0.png"  # as strict parsers take it
    done("remove", copy, name)
    done("remove", copy, folder / "good1.png")
