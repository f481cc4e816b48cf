"""The guides' blocks of shell and Python run, and print what the guides say they print."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = [
    ROOT / "docs" / f"{name}.md"
    for name in ("inspect", "threshold", "camera", "benchmark", "backbone")
]
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")


def blocks(text):
    """Return (language, code, first line's number) of each fenced block."""
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        found.append((match[1], match[2], text[: match.start()].count("\n") + 2))
    return found


def words(text):
    """Return an output without its figures, which may differ from machine to machine."""
    return _NUMBER.sub("N", " ".join(text.split()))


def shell(code, folder, programs):
    places = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": places},
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def python(code, line, guide, names):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * (line - 1) + code, guide, "exec"), names)
    return printed.getvalue()


def run(guide, folder, programs):
    """Run a guide's blocks in turn, in one folder and one Python, and yield what they print."""
    names = {"__name__": "guide"}
    printed = ""
    for language, code, line in blocks(guide.read_text()):
        if language == "sh":
            printed = shell(code, folder, programs)
        elif language == "python":
            printed = python(code, line, str(guide), names)
        elif language == "text":
            yield line, code, printed


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """A folder with the programs that a guide calls."""
    folder = tmp_path_factory.mktemp("bin")
    for name, arguments in (("python", ""), ("spade-faiss", "-m spade_faiss ")):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        path.chmod(0o755)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_a_guide_does_what_it_says(guide, lite, programs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line, said, printed in run(guide, tmp_path, programs):
        assert words(printed) == words(said), f"{guide.name}:{line}"


def test_the_readme_leads_to_the_guides():
    readme = (ROOT / "README.md").read_text()
    assert "docs/api.md" in readme
    for path in GUIDES:
        assert f"docs/{path.name}" in readme
        languages = {language for language, _, _ in blocks(path.read_text())}
        assert languages <= {"sh", "python", "text"}, path.name


def test_a_guide_that_rots_is_noticed(programs, tmp_path):
    guide = tmp_path / "guide.md"
    guide.write_text(
        "```python\nprint('peak', 3.5)\n```\n\n```text\npeak 4.25\n```\n"
        "```sh\necho wrong\n```\n```text\nright\n```\n"
    )
    ran = list(run(guide, tmp_path, programs))
    assert [words(said) == words(printed) for _, said, printed in ran] == [True, False]
    guide.write_text("```sh\nfalse\ntrue\n```\n")
    with pytest.raises(AssertionError):
        list(run(guide, tmp_path, programs))
    guide.write_text("```python\nassert 1 > 2\n```\n")
    with pytest.raises(AssertionError):
        list(run(guide, tmp_path, programs))
