"""What pip is given to install, and what is there when it has."""

import os
import platform
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.utils import parse_wheel_filename

from .test_sanitized import needs_compiler

ROOT = Path(__file__).parents[2]
NATIVE = Path("spade_faiss/search/native")
LIBRARY = NATIVE / "_kernels.so"
TRY_KERNELS = ROOT / "tests" / "project" / "try_kernels.py"
NO_COMPILER = {"CC": "false", "CXX": "false"}


@pytest.fixture
def clone(tmp_path):
    """What the package is built of, where a build may leave its own files."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(
        ROOT / "spade_faiss",
        folder / "spade_faiss",
        ignore=shutil.ignore_patterns("__pycache__", "*.so"),
    )
    return folder


def sources(clone):
    found = {
        path for pattern in ("*.cpp", "*.h") for path in (clone / "spade_faiss").rglob(pattern)
    }
    assert len(found) > 5
    return found


def build(kind, clone, **environment):
    """Build a wheel, an editable one or a source distribution: its path, and what was said."""
    folder = clone.with_name(kind)
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(folder)!r})"
    ended = run([sys.executable, "-c", code], cwd=clone, **environment)
    (path,) = (path for path in folder.iterdir() if path.is_file())
    return path, ended.stdout + ended.stderr


def run(command, cwd=None, **environment):
    ended = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def contents(wheel):
    """Return a wheel's files but for those about it, by name."""
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist() if ".dist-info/" not in name}


def test_an_editable_install_is_a_path_that_type_checkers_follow(clone):
    """They do not run the hook that setuptools makes of other layouts."""
    wheel, _ = build("editable", clone, **NO_COMPILER)
    ((name, data),) = contents(wheel).items()
    assert name.endswith(".pth") and data.decode().split() == [str(clone)]


def test_without_a_compiler_a_wheel_holds_all_else_and_one_line_says_so(clone):
    wheel, said = build("wheel", clone, **NO_COMPILER)
    files = {path for path in (clone / "spade_faiss").rglob("*") if path.is_file()}
    expected = files - sources(clone)
    assert contents(wheel).keys() == {str(path.relative_to(clone)) for path in expected}
    assert said.count("FAISS will search") == 1


def test_a_library_that_cannot_be_compiled_again_does_not_stay(clone):
    """Sources that came since may lay out otherwise what they are given."""
    (clone / LIBRARY).write_bytes(b"of older sources")
    build("editable", clone, **NO_COMPILER)
    assert not (clone / LIBRARY).exists()


def test_a_source_distribution_holds_what_the_kernels_are_compiled_of(clone):
    archive, _ = build("sdist", clone)
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {str(path.relative_to(clone)) for path in sources(clone)} | {"setup.py"} <= names


@pytest.fixture
def environment(tmp_path):
    """A new environment: its Python, which sees the packages of this one but not the project.

    What is run there has no compiler on its path, nor PYTHONPATH.
    """
    folder = tmp_path / "environment"
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    packages = next(folder.glob("lib/python3*/site-packages"))
    # What else a line of this kind names is not looked through for such files itself.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")

    def run_there(*arguments):
        return run(
            [str(folder / "bin" / "python"), *map(str, arguments)],
            cwd=tmp_path,
            PATH=str(folder / "bin"),
            PYTHONPATH="",
        ).stdout

    def install(*arguments, **environment):
        command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
        options = ["install", "-v", "--no-deps", "--no-index"]
        ended = run([*command, *options, *map(str, arguments)], PYTHONPATH="", **environment)
        return ended.stdout + ended.stderr

    return install, run_there


SEARCH = """
import numpy as np, spade_faiss
from spade_faiss.search import nearest
from spade_faiss.search.native.library import kernels
rows = np.random.default_rng(0).standard_normal((500, 24)).astype(np.float32)
distances, ids = nearest(rows[::7], rows, k=2)
assert (ids[:, 0] == np.arange(0, 500, 7)).all() and (distances[:, 0] == 0).all()
print(spade_faiss.__file__, kernels() and kernels().name.decode())
"""


@pytest.mark.slow
def test_an_install_without_a_compiler_searches_by_faiss(clone, environment):
    install, run_there = environment
    said = install("--no-build-isolation", "-e", clone, **NO_COMPILER)
    assert said.count("FAISS will search") == 1
    assert run_there("-c", SEARCH).split() == [f"{clone}/spade_faiss/__init__.py", "None"]


@needs_compiler
@pytest.mark.slow
def test_an_install_compiles_the_kernels(clone, environment):
    install, run_there = environment
    said = install("--no-build-isolation", "-e", clone)
    assert "FAISS will search" not in said and (clone / LIBRARY).exists()
    assert run_there("-c", SEARCH).split()[0] == f"{clone}/spade_faiss/__init__.py"
    assert "plain" in run_there(TRY_KERNELS).split()


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, for auditwheel")
def test_one_wheel_serves_all_pythons_and_needs_no_compiler(environment, tmp_path):
    run([str(ROOT / ".ci" / "wheel"), str(tmp_path / "dist")], PYTHON=sys.executable)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    tags = parse_wheel_filename(wheel.name)[3]
    assert {(tag.interpreter, tag.abi) for tag in tags} == {("py3", "none")}
    assert all(tag.platform.startswith("manylinux") for tag in tags)
    assert all(tag.platform.endswith(platform.machine()) for tag in tags)
    names = contents(wheel).keys()
    assert str(LIBRARY) in names and not [name for name in names if name.endswith((".cpp", ".h"))]

    install, run_there = environment
    for version in ("3.11", "3.14"):
        other = tmp_path / version
        install("--target", other, "--python-version", version, "--only-binary=:all:", wheel)
        assert (other / LIBRARY).exists()
    install(wheel, PATH="")
    place, kernels = run_there("-c", SEARCH).split()
    assert place.startswith(str(tmp_path / "environment")) and kernels != "None"
    assert kernels in run_there(TRY_KERNELS).split()
