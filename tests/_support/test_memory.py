import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spade_faiss import Spade, SpadeError
from spade_faiss._support.memory import available, human, parse_size
from spade_faiss.index import Index, Manifest
from tests.conftest import texture

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about Linux's limits")


@given(
    value=st.floats(0.001, 1000),
    unit=st.sampled_from("KMGT"),
    form=st.sampled_from(["{}{}", "{} {}iB", "{}{}B", " {}{} "]),
    small=st.booleans(),
)
def test_sizes_are_read(value, unit, form, small):
    text = form.format(f"{value:.6f}", unit.lower() if small else unit)
    power = {"K": 10, "M": 20, "G": 30, "T": 40}[unit]
    assert abs(parse_size(text) - value * 2**power) <= 1e-6 * 2**power + 1


@pytest.mark.parametrize("text", ["", "much", "-1G", "1X", "GiB", "1 2G", "inf"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(SpadeError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["9" * 400, "5" + 18 * "0", "8388608T"])
def test_what_no_machine_has_is_refused(text):
    with pytest.raises(SpadeError, match="no size that a machine has"):
        parse_size(text)


def test_sizes_are_told():
    assert [human(v) for v in (7, 1536, 3 << 20, 5 << 29)] == [
        "7 bytes",
        "1.5 KiB",
        "3.0 MiB",
        "2.5 GiB",
    ]
    assert available() > 0


BOUNDED = """
import json, sys
import numpy as np, torch
from spade_faiss import Spade
from spade_faiss.features import Backbone
from spade_faiss._support.limit import limit_memory
from spade_faiss._support.memory import anonymous

class Wide(torch.nn.Module):
    # Many features for little work: the pixels of 4 x 4 cells, and of 8 x 8.
    def forward(self, x):
        fine = torch.nn.functional.pixel_unshuffle(x, 4)
        coarse = torch.nn.functional.pixel_unshuffle(torch.nn.functional.avg_pool2d(x, 2), 4)
        return x.flatten(2).std(2), [fine, coarse]

folder, n, room = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
network = Backbone("wide", Wide(), (0.5,) * 3, (0.2,) * 3, "0" * 64, torch.device("cpu"))

def images(count, seed):
    for i in range(count):
        yield np.random.default_rng((seed, i)).integers(0, 255, (256, 256, 3), np.uint8)

options = dict(k=5, batch_size=4, calibrated=4)
Spade(network, **options).fit(list(images(8, 1))).predict(list(images(4, 2)))  # all is loaded
before = anonymous()
limit_memory(max(before + room, 256 << 20))  # so much is needed to start
spade = Spade(network, **options).fit(images(n, 3), folder)
found = next(iter(spade.query(list(images(1, 4)))))
print(json.dumps({"neighbours": found.neighbours.tolist(), "match": int(found.matches[0][3, 7]),
                  "distance": float(found.distances[0][3, 7]), "more": anonymous() - before}))
"""


@linux
@pytest.mark.slow
def test_an_index_ten_times_the_memory_is_built_and_answers(tmp_path):
    room, n = 64 << 20, 800
    ended = subprocess.run(
        [sys.executable, "-c", BOUNDED, tmp_path / "index", str(n), str(room)],
        capture_output=True,
        text=True,
        env=ONE_THREAD,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size > 10 * room and found["more"] < room
    index = Index.open(tmp_path / "index")
    assert len(index) == n
    image = np.random.default_rng((4, 0)).integers(0, 255, (256, 256, 3), np.uint8)[16:240, 16:240]
    cell = image[12:16, 28:32].transpose(2, 0, 1).ravel()
    query = (cell.astype(np.float64) / 255 - 0.5) / 0.2
    near = [np.square(index.rows(0, i, i + 1) - query).sum(1) for i in found["neighbours"]]
    best = int(np.argmin([part.min() for part in near]))
    patches = index.layouts[0].patches
    assert found["match"] == found["neighbours"][best] * patches + int(near[best].argmin())
    assert found["distance"] == pytest.approx(near[best].min() ** 0.5, rel=1e-4)


SHORT = """
import os, re, resource, sys
from pathlib import Path
import torch
from spade_faiss._support.faiss import faiss
from spade_faiss._support.limit import limit_memory

def status(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def begin(when):
    if when == "before":
        limit_memory(1 << 30)
    used, limit = ("VmSize", "AS") if when == "all" else ("VmData", "DATA")
    resource.setrlimit(getattr(resource, "RLIMIT_" + limit), (status(used) + (100 << 20),) * 2)
    vectors = torch.zeros(2000, 64).numpy()
    print(faiss().knn(vectors, vectors, 1)[0].sum())

for when in ("before", "after", "all"):
    if not os.fork():  # a process that has imported torch, and in which nothing has run
        begin(when)
        sys.exit()
    print(when, os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@linux
def test_faiss_has_what_it_sets_aside_before_a_limit_or_says_that_it_has_not():
    ended = subprocess.run(
        [sys.executable, "-c", SHORT], capture_output=True, text=True, env=ONE_THREAD
    )
    assert ended.stdout == "0.0\nbefore 0\nafter 1\nall 1\n", ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("MemoryError")]
    assert errors == ["MemoryError: out of memory: FAISS needs 160.0 MiB to start"] * 2


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "spade_faiss", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ONE_THREAD,
    )


@linux
@pytest.mark.slow
def test_too_little_memory_is_one_line_and_the_old_index_stays(lite, gravel_folder, tmp_path):
    index = tmp_path / "index"
    Spade(lite).fit(texture("brick", 3), index)
    before = Manifest.read(index)
    build = ("build", gravel_folder, "--index", index, "--backbone", "efficientnet_lite0")
    little = command(*build, "--max-memory", "300MiB", "--resize", "2400", "--crop", "2400")
    assert little.returncode == 2
    assert little.stderr.count("\n") == 1 and "memory" in little.stderr, little.stderr
    less = command(*build, "--max-memory", "50MiB")
    assert less.returncode == 2 and "is too little: allow" in less.stderr
    assert Index.open(index).manifest == before
    enough = command(*build, "--max-memory", "2GiB", "--json")
    assert enough.returncode == 0 and json.loads(enough.stdout)["images"] == 10


def test_a_gallery_that_would_not_fit_is_refused(lite, monkeypatch):
    from spade_faiss.search.approximate import spec

    monkeypatch.setattr(spec, "available", lambda: 100_000)
    for way in ({"factory": "Flat"}, {"coreset": 0.1}, {"factory": "HNSW8", "coreset": 0.5}):
        with pytest.raises(SpadeError, match=r"the gallery of level 1 takes .* of memory"):
            Spade(lite, **way).fit(texture("gravel", 3))
