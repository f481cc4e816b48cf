"""The pages' blocks of shell and Python run, and print what the pages say they print.

A block of `sh` is run, one without a language is only shown: it needs Docker, several GPUs or a
cluster. Guides make their own images. Other pages find some in their folder (`stand_ins`), and an
index of them. What is said of the default network is tried with the tests' own, which needs no
download; see tests.tiny.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from spade_faiss.datasets import make_demo
from tests import command
from tests.images.video.videos import make_stc

from .pages import PAGES, blocks, name_of, without_blocks

RUN = [
    path
    for path in PAGES
    if {block.language for block in blocks(path.read_text())} & {"sh", "python"}
]
GUIDES = {
    f"docs/{name}.md"
    for name in ("inspect", "camera", "line", "python", "backbone", "benchmark", "region")
}
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")
_FOR_A_SHELL = re.compile(r"[|&;<>$`*?\[\]{}~\\]")
_ADDRESS = "http://127.0.0.1:8000"
_OTHER_PROGRAMS = {
    # benchmarks/compare.py, git and others
    *("--before", "--budget", "--bounded", "--draw", "--nodes", "--only", "--quick", "--rehearse"),
    # docker and podman
    *("--user", "--build-arg"),
    # jupyter
    "--inplace",
}
"""Options that pages mention, and that are not of `spade-faiss`."""


def words(text):
    """Return an output without its figures, which may differ from machine to machine."""
    return _NUMBER.sub("N", " ".join(text.split()))


def shell(code, folder, programs):
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        env=command.environment(PATH=f"{programs}:{os.environ['PATH']}"),
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def commands(code, folder, programs):
    """Run a block of commands. A line that needs no shell runs in this process: it has torch."""
    lines = code.splitlines()
    if any(line.startswith("spade-faiss serve ") for line in lines):
        return served(lines, folder, programs)
    if not all(line.startswith("spade-faiss ") for line in lines) or _FOR_A_SHELL.search(code):
        return shell(code, folder, programs)
    ended = [command.done(*with_network(shlex.split(line, comments=True)[1:])) for line in lines]
    return "".join(one.stdout for one in ended)


def with_network(arguments):
    """Return a command with a network that needs no download, if it names none."""
    makes = arguments[0] in ("build", "evaluate")
    return [*arguments, *command.TINY] if makes and "--backbone" not in arguments else arguments


def served(lines, folder, programs):
    """Start a service at a port that is free, and run the other lines against it."""
    first, *rest = lines
    start = [*command.PROGRAM, *shlex.split(first, comments=True)[1:], "--port", "0"]
    with subprocess.Popen(start, cwd=folder, stderr=subprocess.PIPE, text=True) as service:
        try:
            said = []
            for line in service.stderr:
                said.append(line)
                if found := re.search(r"served on (http://\S+?)/", line):
                    break
            else:
                raise AssertionError("".join(said))
            return shell("\n".join(rest).replace(_ADDRESS, found[1]), folder, programs)
        finally:
            service.terminate()
            service.communicate()


def python(code, line, guide, names):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * (line - 1) + code, guide, "exec"), names)
    return printed.getvalue()


def run(page, folder, programs) -> Iterator[tuple[int, str, str]]:
    """Run a page's blocks in turn, in one folder and one Python, and yield what they print."""
    names = {"__name__": "guide"}
    printed = ""
    for language, code, line in blocks(page.read_text()):
        if language == "sh" and "pytest" not in code:
            printed = commands(code, folder, programs)
        elif language == "python":
            printed = python(code, line, str(page), names)
        elif language == "text":
            yield line, code, printed


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """A folder with the programs that a page calls. Nothing is installed, and no browser opens."""
    folder = tmp_path_factory.mktemp("bin")
    for name, code in (
        ("python", f'exec "{sys.executable}" "$@"'),
        ("spade-faiss", f'exec {shlex.join(command.PROGRAM)} "$@"'),
        ("python3", '[ "$*" = "-m venv .venv" ]'),
        ("pip", '[ "$1" = install ]'),
        ("xdg-open", 'test -s "$1"'),
    ):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def stand_ins(demo, tmp_path_factory):
    """The folders that pages speak of: good images, new ones, defects, lines, data sets."""
    folder = tmp_path_factory.mktemp("stand-ins")
    larger = folder / "demo"
    make_demo(larger, n_train=16, n_good=40, n_defects=2)
    test = larger / "gravel" / "test"
    shutil.copytree(larger / "gravel" / "train" / "good", folder / "parts" / "good")
    shutil.copytree(test / "good", folder / "more" / "good")
    (folder / "new").mkdir()
    for source, name in (("good/000", "000"), ("good/001", "001"), ("hole/000", "hole")):
        shutil.copy(test / f"{source}.png", folder / "new" / f"{name}.png")
    for kind in sorted(test.iterdir()):
        if kind.name != "good":
            shutil.copytree(kind, folder / "known" / "bad" / kind.name)
    for line in ("brick", "grass"):
        for at, source in (("good", "train/good"), ("new", "test/hole")):
            (folder / "lines" / at / line).mkdir(parents=True)
            for path in sorted((larger / line / source).iterdir())[:4]:
                shutil.copy(path, folder / "lines" / at / line)
    shutil.copytree(demo, folder / "mvtec_anomaly_detection")
    make_stc(folder / "shanghaitech")
    shutil.rmtree(larger)
    mask = np.full((256, 256), 255, np.uint8)
    mask[:, :40] = 0
    cv2.imwrite(str(folder / "mask.png"), mask)
    index = ("build", folder / "parts" / "good", "--index", folder / "parts.index")
    command.done(*index, *command.TINY)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_a_page_does_what_it_says(page, lite, programs, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    if name_of(page) not in GUIDES:
        shutil.copytree(request.getfixturevalue("stand_ins"), tmp_path, dirs_exist_ok=True)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(programs)
    for line, said, printed in run(page, tmp_path, programs):
        assert words(printed) == words(said), f"{page.name}:{line}"


@pytest.fixture(scope="session")
def options():
    """The options of `spade-faiss` and of each of its commands, by the words of the command."""
    found = {}

    def look(words):
        text = command.done(*words, "--help").stdout
        found[words] = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text))
        for name in re.findall(r"^  (\w+)  ", text.partition("Commands:")[2], re.MULTILINE):
            look((*words, name))

    look(())
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_a_page_shows_have_their_options(page, options):
    for language, code, line in blocks(page.read_text()):
        if language in ("sh", ""):
            for call in re.findall(r"(?:spade-faiss|spade-faiss:\w+) (\w.*)$", code, re.MULTILINE):
                given = shlex.split(call, comments=True)
                known = max((key for key in options if key == tuple(given[: len(key)])), key=len)
                assert known, f"{name_of(page)}:{line}: {call}"
                used = {one.partition("=")[0] for one in given if re.match("--?[a-z]", one)}
                assert used <= options[known], f"{name_of(page)}:{line}: {call}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_that_a_page_names_are_there(page, options):
    named = re.findall(r"`(?:[a-z]+ )*(--[a-z][\w-]*)[^`]*`", without_blocks(page.read_text()))
    assert not set(named) - set().union(*options.values()) - _OTHER_PROGRAMS


def test_guides_are_run():
    assert {name_of(page) for page in RUN} >= GUIDES | {"README.md"}


def test_a_page_that_rots_is_noticed(programs, tmp_path):
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
    guide.write_text("```sh\nspade-faiss info no.index\n```\n")
    with pytest.raises(AssertionError):
        list(run(guide, tmp_path, programs))
    guide.write_text("```python\nassert 1 > 2\n```\n")
    with pytest.raises(AssertionError):
        list(run(guide, tmp_path, programs))
