"""Many lines in one call: each as it would be alone, and none that stops the others."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from spade_faiss import SpadeError
from spade_faiss.cli.app import app
from spade_faiss.cli.each import production_lines_to_learn, production_lines_to_query
from spade_faiss.features import load_backbone
from tests.command import TINY, done, one_line, problems, run

SMALL = (*TINY, "--resize", "96", "--crop", "64", "-k", "4", "--engine", "faiss")


@pytest.fixture(scope="module")
def lines(gravel_folder, tmp_path_factory):
    """Two lines with images, and one that has none."""
    folder = tmp_path_factory.mktemp("lines") / "good"
    for name, some in (("a", slice(0, 6)), ("b", slice(3, 10))):
        (folder / name).mkdir(parents=True)
        for path in sorted(gravel_folder.iterdir())[some]:
            shutil.copy(path, folder / name)
    (folder / "empty").mkdir()
    (folder / ".hidden").mkdir()
    return folder


@pytest.fixture(scope="module")
def built(lines, tmp_path_factory):
    folder = tmp_path_factory.mktemp("indices") / "all"
    ended = run("build", lines, "--each", "--index", folder, *SMALL, "--json")
    return folder, ended


def test_a_line_that_fails_is_named_and_the_others_are_built(lines, built):
    folder, ended = built
    assert ended.returncode == 1
    assert problems(ended) == [
        f"spade-faiss: empty: {lines / 'empty'} holds no images (PNG, JPEG, BMP, "
        "TIFF, WebP) or videos"
    ]
    said = json.loads(ended.stdout)
    assert {name: line["images"] for name, line in said["lines"].items()} == {"a": 6, "b": 7}
    assert [error["path"] for error in said["errors"]] == ["empty"]
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_results_are_those_of_each_line_alone(lines, built, tmp_path):
    folder, _ = built
    for name in ("a", "b"):
        done("build", lines / name, "--index", tmp_path / name, *SMALL)
        done(
            "query",
            tmp_path / name,
            lines / name,
            "--out",
            tmp_path / "alone" / name,
            "--engine",
            "faiss",
        )
    ended = run("query", folder, lines, "--each", "--out", tmp_path / "all", "--engine", "faiss")
    assert ended.returncode == 1
    (line,) = problems(ended)
    assert line.startswith("spade-faiss: empty: there are no images")
    assert not (tmp_path / "all" / "empty").exists()
    for name in ("a", "b"):
        each = sorted((tmp_path / "all" / name).rglob("*.*"))
        alone = sorted((tmp_path / "alone" / name).rglob("*.*"))
        assert [path.read_bytes() for path in each] == [path.read_bytes() for path in alone]
        assert (tmp_path / "all" / name / "scores.csv") in each


def test_lines_of_one_network_load_it_once(lines, built, tmp_path, monkeypatch):
    loaded = []

    def counted(*arguments, **settings):
        loaded.append(arguments)
        return load_backbone(*arguments, **settings)

    monkeypatch.setattr("spade_faiss.detector.pipeline.load_backbone", counted)
    CliRunner().invoke(
        app,
        ["query", str(built[0]), str(lines), "--each", "--out", str(tmp_path), "--engine", "faiss"],
    )
    assert sorted(path.parent.name for path in tmp_path.glob("*/scores.csv")) == ["a", "b"]
    assert len(loaded) == 1


def test_a_folder_of_indices_without_each_is_explained(lines, built, tmp_path):
    folder, _ = built
    one_line(run("query", folder, lines, "--out", tmp_path / "out"), "a, b", "--each")


def test_one_line_where_there_are_no_lines(lines, built, tmp_path):
    folder, _ = built
    with pytest.raises(SpadeError, match="holds no folders"):
        production_lines_to_learn(lines / "a", tmp_path)
    with pytest.raises(SpadeError, match="would be taken for a line"):
        production_lines_to_learn(lines, lines / "indices")
    with pytest.raises(SpadeError, match="holds an index"):
        production_lines_to_learn(lines, folder / "a")
    with pytest.raises(SpadeError, match="one folder of images"):
        production_lines_to_query(folder, [lines, lines])
    with pytest.raises(SpadeError, match="build LINES_DIR --each"):
        production_lines_to_query(lines, [lines])
