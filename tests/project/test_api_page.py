"""The page of the Python interface names every public name, as the docstrings describe it."""

import importlib
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = runpy.run_path(str(ROOT / "docs" / "reference.py"))


def test_the_page_is_as_the_docstrings_are():
    assert REFERENCE["PAGE"].read_text() == REFERENCE["page"](), (
        "public names or docstrings have changed: run python docs/reference.py"
    )


def test_every_public_name_is_on_it():
    page = REFERENCE["PAGE"].read_text()
    for name in (
        "spade_faiss",
        "spade_faiss.search",
        "spade_faiss.metrics",
        "spade_faiss.features",
        "spade_faiss.images",
        "spade_faiss.datasets",
        "spade_faiss.verdict",
    ):
        section = page.split(f"## `{name}`\n")[1].split("\n## ")[0]
        for public in importlib.import_module(name).__all__:
            if public == "__version__":
                continue
            assert f"| `{public}` | " in section, f"{name}.{public}"
    assert "| `Spade.calibrate` | " in page
