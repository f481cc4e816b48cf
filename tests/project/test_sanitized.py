"""The kernels, compiled such that they stop at what C++ does not define."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spade_faiss.search.native import library

NATIVE = Path(library.__file__).parent
TRY_KERNELS = Path(__file__).with_name("try_kernels.py")
TRY_THREADS = Path(__file__).with_name("try_threads.cpp")

COMPILER = shlex.split(os.environ.get("CXX", "g++"))
needs_compiler = pytest.mark.skipif(
    shutil.which(COMPILER[0]) is None, reason="needs a C++ compiler"
)


@needs_compiler
@pytest.mark.slow
def test_kernels_do_nothing_undefined_and_stay_in_their_memory(tmp_path):
    """All of them, that for AMX too: its tiles are emulated where AVX-512 runs."""
    built = tmp_path / "kernels.so"
    flags = "-O2 -g -std=c++17 -fPIC -shared -fvisibility=hidden -DSPADE_EMULATED_TILES"
    checks = "-fsanitize=address,undefined", "-fno-sanitize-recover=all"
    command = [*COMPILER, *flags.split(), *checks, *map(str, sorted(NATIVE.glob("*.cpp")))]
    subprocess.run([*command, "-o", str(built)], check=True)
    # Python itself is not compiled so: what watches memory must be loaded before it.
    runtime = subprocess.run(
        [*COMPILER, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    ).stdout.strip()
    environment = {
        **os.environ,
        library.LIBRARY: str(built),
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",
        "OMP_NUM_THREADS": "1",
    }
    ended = subprocess.run(
        [sys.executable, str(TRY_KERNELS)], capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    names = ended.stdout.split()
    assert "plain" in names and ("amx" in names) == ("avx512" in names)


@needs_compiler
@pytest.mark.slow
def test_threads_race_for_nothing(tmp_path):
    program = tmp_path / "try_threads"
    flags = "-O1 -g -std=c++17 -pthread -fsanitize=thread"
    sources = TRY_THREADS, NATIVE / "threads.cpp"
    subprocess.run([*COMPILER, *flags.split(), *map(str, sources), "-o", str(program)], check=True)
    ended = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "")
