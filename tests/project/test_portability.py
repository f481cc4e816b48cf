"""What other systems than Linux lack is not needed: the main path runs with it hidden."""

import subprocess
import sys

import pytest

from spade_faiss._support import files, limit, memory
from spade_faiss.errors import SpadeError
from tests import command

# What others import of it, they have before it is hidden.
HIDDEN = """
import asyncio, importlib, json, mmap, multiprocessing, os, pkgutil, signal, sys, warnings
from pathlib import Path

for name in ("av", "cv2", "faiss", "fastapi", "filelock", "httpx", "imagecodecs", "jinja2", "PIL",
             "prometheus_client", "pydantic", "safetensors.torch", "scipy.ndimage", "scipy.stats",
             "skimage.data", "skimage.measure", "tifffile", "torch", "tqdm", "typer", "uvicorn"):
    importlib.import_module(name)
for name in ("fcntl", "grp", "posix", "pwd", "resource", "syslog", "termios"):
    sys.modules[name] = None
for owner, names in (
    (os, "O_DIRECTORY fork geteuid getuid getpgid killpg mkfifo pathconf "
         "posix_fadvise pread pwrite register_at_fork sched_getaffinity sched_setaffinity "
         "setsid sysconf uname"),
    (signal, "SIGALRM SIGHUP SIGKILL SIGPIPE SIGUSR1 SIGUSR2 alarm pthread_sigmask setitimer"),
    (mmap, "MADV_WILLNEED PROT_READ MAP_SHARED"),
):
    for name in names.split():
        delattr(owner, name)
warnings.filterwarnings("error", category=EncodingWarning, module="spade_faiss")

import spade_faiss
from spade_faiss._support import memory

memory._STATUS = Path("none")
"""

MAIN_PATH = (
    HIDDEN
    + """
for found in pkgutil.walk_packages(spade_faiss.__path__, "spade_faiss."):
    if not found.name.endswith(("._kernels", ".__main__")) and ".cuda." not in found.name:
        importlib.import_module(found.name)

from spade_faiss.cli.app import run
from spade_faiss.datasets import make_demo
from tests.tiny import register

register()
make_demo("demo", n_train=3, n_good=2, n_defects=1)
for call in (
    "build demo/gravel/train/good --index 検査.index --backbone tiny",
    "query 検査.index demo/gravel/test --out results --report --explain",
    "query 検査.index demo/gravel/test --out results --no-maps",
    "calibrate 検査.index demo/gravel/test/good --defects demo/gravel/test/hole",
    "add 検査.index demo/gravel/test/good",
    "remove 検査.index train/good/000.png",
    "info 検査.index --verify",
    "evaluate mvtec demo --category brick --out scores --backbone tiny",
):
    assert run(call.split()) == 0, call
assert run("info 検査.index --max-memory 2GiB".split()) == 2
assert run("query 検査.index demo/gravel/test --out results --max-memory 2GiB".split()) == 2
"""
)


@pytest.mark.slow
def test_all_modules_import_and_the_main_path_runs_without_what_is_posix_alone(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", MAIN_PATH],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "--max-memory is kept by Linux" in ended.stderr
    rows = (tmp_path / "results" / "scores.csv").read_text("utf-8").splitlines()
    assert len(rows) == 1 + len(list((tmp_path / "demo/gravel/test").rglob("*.png")))
    assert not list((tmp_path / "results").rglob("*.tiff"))  # the second query knew the first's
    shown = command.done(
        *("calibrate", "検査.index", "--threshold", "5"),
        cwd=tmp_path,
        encoding="cp1252",
        env=command.environment(PYTHONIOENCODING="cp1252", PYTHONUTF8="0"),
    )
    assert "\\u691c\\u67fb.index: " in shown.stdout


def test_a_limit_that_the_system_does_not_keep_is_refused(monkeypatch):
    for module in (limit, memory):
        monkeypatch.setattr(module, "resource", None)
    assert memory.may_be_set_aside() == 1 << 62 and memory.available() > 0
    with pytest.raises(SpadeError, match="`max_memory` is kept by Linux"):
        limit.limit_memory(2 << 30)


@pytest.mark.parametrize("busy", [2, 3])
def test_a_file_that_is_open_for_a_moment_is_replaced(monkeypatch, tmp_path, busy):
    calls, replace = [], type(tmp_path).replace

    def open_elsewhere(self, target):
        calls.append(self)
        if len(calls) <= busy:
            raise PermissionError(13, "in use", str(target))
        return replace(self, target)

    monkeypatch.setattr(files, "_ATTEMPTS", 3)
    monkeypatch.setattr(files, "_PAUSE", 0)
    monkeypatch.setattr(type(tmp_path), "replace", open_elsewhere)
    path = tmp_path / "manifest.json"
    path.write_bytes(b"old")
    if busy < 3:
        files.replace_file(path, b"new")
    else:
        with pytest.raises(PermissionError, match="in use"):
            files.replace_file(path, b"new")
    assert path.read_bytes() == (b"new" if busy < 3 else b"old")
    assert [found.name for found in tmp_path.iterdir()] == ["manifest.json"]
