"""Which kernels search, and what is said where that cannot be."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spade_faiss import Spade, SpadeError
from spade_faiss.search import LevelSearch, nearest
from spade_faiss.search.native import runnable
from tests.conftest import texture, with_hole
from tests.search.oracle import assert_exact

SIZES = pytest.mark.parametrize("rows", [30, 3_000])  # few enough to compare all pairs, or not


def drawn(rows):
    rng = np.random.default_rng(0)
    return rng.standard_normal((300, 40), np.float32), rng.standard_normal((rows, 40), np.float32)


def by_level(queries, gallery, engine):
    one = torch.from_numpy(queries)[None]
    return LevelSearch(gallery, len(gallery)).search(one, torch.zeros(1, 1).long(), 1, engine)


def by_nearest(queries, gallery, engine):
    return nearest(queries, gallery, 1, engine)


every_face = pytest.mark.parametrize("face", [by_level, by_nearest])


@SIZES
def test_where_no_kernels_are_wanted_auto_searches_all_the_same(rows, monkeypatch):
    monkeypatch.setenv("SPADE_FAISS_KERNEL", "none")
    queries, gallery = drawn(rows)
    assert_exact(queries, gallery, 3, *nearest(queries, gallery, 3))


@SIZES
@every_face
def test_where_no_kernels_are_wanted_screened_is_refused(rows, face, monkeypatch):
    monkeypatch.setenv("SPADE_FAISS_KERNEL", "none")
    with pytest.raises(ValueError, match=r"'screened'.*choose faiss") as caught:
        face(*drawn(rows), "screened")
    assert "\n" not in str(caught.value)


@SIZES
@every_face
@pytest.mark.parametrize("engine", ["auto", "screened"])
def test_kernels_that_do_not_run_here_are_refused_and_others_named(rows, face, engine, monkeypatch):
    monkeypatch.setenv("SPADE_FAISS_KERNEL", "mmx")
    with pytest.raises(SpadeError, match="SPADE_FAISS_KERNEL=mmx does not run here") as caught:
        face(*drawn(rows), engine)
    said = str(caught.value)
    assert "\n" not in said
    assert said.split("choose one of ")[1].split(", ") == [*runnable(), "none"]


LOGGED = """
import logging, os, sys
import torch
from spade_faiss.search import nearest

logging.basicConfig(format="%(name)s: %(message)s", level=logging.DEBUG, stream=sys.stdout)
for name in sys.argv[1:]:
    os.environ["SPADE_FAISS_KERNEL"] = name
    print("asked for", name, flush=True)
    for rows in (30, 3_000):
        nearest(torch.zeros(300, 40), torch.zeros(rows, 40))
"""


def test_the_log_says_once_what_searches():
    names = [*runnable(), "none"]
    ended = subprocess.run(
        [sys.executable, "-c", LOGGED, *names], capture_output=True, text=True, check=True
    )
    lines = [
        line for line in ended.stdout.splitlines() if line.startswith(("spade_faiss:", "asked"))
    ]
    assert len(lines) == 2 * len(names)
    for name, asked, said in zip(names, lines[::2], lines[1::2], strict=True):
        assert asked == f"asked for {name}"
        assert "search: by " in said
        assert ("FAISS" if name == "none" else f"kernels for {name}") in said


@pytest.fixture(scope="module")
def by_faiss(lite, tmp_path_factory):
    """An index, new images, and what FAISS finds in them."""
    index = tmp_path_factory.mktemp("index") / "index"
    Spade(lite, k=3).fit(texture("gravel", 5), index)
    new = [with_hole(texture("gravel", 1, 5)[0]), texture("brick", 1)[0]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPADE_FAISS_KERNEL", "none")
        return index, new, Spade.load(index, backbone=lite).predict(new)


def test_an_index_gives_the_maps_that_faiss_gives(kernel, lite, by_faiss):
    index, new, expected = by_faiss
    found = Spade.load(index, backbone=lite).predict(new)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    for left, right in zip(found.maps, expected.maps, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5)


KEPT = """
import numpy as np
import torch
from spade_faiss.search import LevelSearch

def used():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))

torch.manual_seed(0)
queries = torch.randn(1, 30, 1024)
rows = np.tile(np.random.default_rng(0).random((5_000, 1024), np.float32), (40, 1))
level = LevelSearch(rows.astype(np.float16), 5_000)
del rows
level.search(queries, torch.tensor([[0]]), 1, "screened")
before = used()
for image in range(40):
    level.search(queries, torch.tensor([[image]]), 1, "screened")
print((used() - before) >> 20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_what_is_kept_of_many_images_is_bounded(fastest):
    """All of them, a byte a value, would be 200 MiB. A few are kept."""
    ended = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert 10 < int(ended.stdout) < 150
