"""The command line as a user calls it, and what comes of it."""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from unittest.mock import patch

import pytest

from spade_faiss.cli import app as cli

LITE = ("--backbone", "efficientnet_lite0")
TINY = ("--backbone", "tiny")
PROGRAM = (sys.executable, "-m", "tests")
"""The command line, with the tests' own network; see tests/__main__.py."""
_APART = {"--debug", "--max-memory"}
"""What changes the whole process."""


def run(*arguments, **options):
    """Run a command to its end.

    It has a process of its own if something is asked of that, in `options` or by what it is to do.
    Else it runs in this one, which has imported torch already; there a service that is not refused,
    and would serve for ever, fails the test.
    """
    texts = [*map(str, arguments)]
    if options or _APART & {*texts}:
        return subprocess.run([*PROGRAM, *texts], capture_output=True, text=True, **options)
    with _unserved(), _caught(1) as out, _caught(2) as errors:
        status = cli.run(texts)
    return subprocess.CompletedProcess(texts, status, *out, *errors)


def run_together(*calls, **options):
    """Run commands one after another in a process of their own; return the highest exit status.

    It imports torch once for all of them.
    """
    code = """
import json, sys
from spade_faiss.cli.app import run
from tests.tiny import register
register()
sys.exit(max([run(call) for call in json.loads(sys.argv[1])]))
"""
    texts = json.dumps([[*map(str, call)] for call in calls])
    command = [sys.executable, "-c", code, texts]
    return subprocess.run(command, capture_output=True, text=True, **options)


def _unserved():
    """Return a context in which nothing is served, and whatever would be fails the test."""
    if not find_spec("uvicorn"):
        return nullcontext()
    return patch("uvicorn.Server.run", lambda *_, **__: pytest.fail("this is not refused"))


@contextmanager
def _caught(number):
    """Give a list that will hold what Python and libraries wrote to a file descriptor."""
    redirect = {1: redirect_stdout, 2: redirect_stderr}[number]
    kept, texts = os.dup(number), []
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), number)
        try:
            with open(number, "w", closefd=False) as stream, redirect(stream):
                yield texts
        finally:
            os.dup2(kept, number)
            os.close(kept)
            file.seek(0)
            texts.append(file.read().decode())


def environment(*without, **more):
    """Return this process's environment without some variables, and with others."""
    return {name: value for name, value in os.environ.items() if name not in without} | more


def done(*arguments, status=0, **options):
    ended = run(*arguments, **options)
    assert ended.returncode == status, (ended.stdout, ended.stderr)
    return ended


def problems(ended):
    """Return the lines on standard error that are no notes."""
    return [
        line for line in ended.stderr.splitlines() if not line.startswith("spade-faiss: note: ")
    ]


def one_line(ended, *words):
    """Check that a refused call says why in one line, and return that line."""
    lines = ended.stderr.splitlines()
    assert ended.returncode == 2 and len(lines) == 1, (ended.returncode, ended.stderr)
    assert lines[0].startswith("spade-faiss: ") and not ended.stdout
    for word in words:
        assert word in lines[0]
    return lines[0]


@contextmanager
def unprivileged():
    """Have files' permissions count, though root runs the tests."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
