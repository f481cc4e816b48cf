"""The examples in docstrings run, and give what they say."""

import doctest
import importlib
import io
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "spade_faiss"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text())


def module_of(path):
    parts = ("spade_faiss", *path.relative_to(PACKAGE).with_suffix("").parts)
    return importlib.import_module(".".join(parts).removesuffix(".__init__"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_examples_give_what_they_say(path, request, tmp_path, monkeypatch):
    text = path.read_text()
    assert "+SKIP" not in text, "an example that never runs may be wrong"
    if "efficientnet_lite0" in text:
        request.getfixturevalue("lite")  # or skip
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    said = io.StringIO()
    for example in doctest.DocTestFinder().find(module_of(path)):
        runner.run(example, out=said.write)
    assert runner.tries and not runner.failures, said.getvalue()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("spade_faiss", None),
        ("spade_faiss", "Spade"),
        ("spade_faiss.search", "nearest"),
        ("spade_faiss.maps", "anomaly_map"),
        ("spade_faiss.metrics", "pro"),
        ("spade_faiss.metrics", "image_rocauc"),
        ("spade_faiss.verdict", "draw_threshold"),
        ("spade_faiss.verdict", "images_needed"),
        ("spade_faiss.verdict", "detect_drift"),
        ("spade_faiss.datasets", "make_demo"),
    ],
)
def test_the_main_things_have_examples(module, name):
    thing = importlib.import_module(module)
    assert ">>> " in (getattr(thing, name) if name else thing).__doc__
