"""What pip is given to install."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What the package is built of, where a build may leave its own files."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(
        ROOT / "spade_faiss", folder / "spade_faiss", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder


def built(kind, clone, folder):
    """Build a wheel or an editable wheel, and return its files but for those about it, by name."""
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=clone, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist() if ".dist-info/" not in name}


def test_an_editable_install_is_a_path_that_type_checkers_follow(clone, tmp_path):
    """They do not run the hook that setuptools makes of other layouts."""
    ((name, data),) = built("editable", clone, tmp_path).items()
    assert name.endswith(".pth") and data.decode().split() == [str(clone)]


def test_a_wheel_holds_the_package_whole_and_nothing_else(clone, tmp_path):
    files = {path for path in (clone / "spade_faiss").rglob("*") if path.is_file()}
    assert built("wheel", clone, tmp_path).keys() == {
        str(path.relative_to(clone)) for path in files
    }
