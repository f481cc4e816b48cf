"""The notebook runs, and prints what it holds."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from .pages import ROOT
from .test_guides import words

NOTEBOOK = ROOT / "docs" / "first.ipynb"
MOST = 200_000
"""Bytes that a notebook may have, with what it shows."""


def shown(path):
    """Return what each cell of code printed and gave, as text, and the kinds of its pictures."""
    found = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            outputs = cell["outputs"]
            kinds = {kind for one in outputs for kind in one.get("data", ()) if "image/" in kind}
            texts = (
                one.get("text") or one.get("data", {}).get("text/plain", "") for one in outputs
            )
            text = "".join("".join(one) for one in texts)
            found.append((kinds, "" if kinds else words(text)))
    return found


@pytest.mark.slow
def test_the_notebook_prints_what_it_holds(lite, tmp_path):
    pytest.importorskip("nbclient", reason="needs the extra 'docs'")
    copy = shutil.copy(NOTEBOOK, tmp_path / "first.ipynb")
    ended = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", str(copy)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "IPYTHONDIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path)},
    )
    assert ended.returncode == 0, ended.stderr
    assert shown(copy) == shown(NOTEBOOK)


def test_the_notebook_is_small_and_was_run():
    assert NOTEBOOK.stat().st_size < MOST
    assert all(kinds or text for kinds, text in shown(NOTEBOOK))
