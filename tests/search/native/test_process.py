"""What a search by the compiled kernels means for the process and the threads around it."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from spade_faiss.search import LevelSearch, nearest
from tests.search.oracle import assert_exact


@pytest.fixture
def use():
    """A function that sets how many threads torch has, for the length of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def normal(rows, channels, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, channels), "f4"))


INTERRUPTED = """
import torch
from spade_faiss.search import nearest

torch.manual_seed(0)
queries, gallery = torch.randn(500_000, 64), torch.randn(60_000, 64)

def search():
    print("searching", flush=True)
    nearest(queries, gallery, 1, "screened")
    print("found", flush=True)

for threads in (1, 2):
    torch.set_num_threads(threads)
    try:
        search()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    order = torch.randperm(9_000)
    distances, ids = nearest(gallery[order], gallery, 1, "screened")
    print(bool((distances == 0).all() and (ids[:, 0] == order).all()), flush=True)
search()
"""


@pytest.mark.slow
def test_a_search_that_is_interrupted_ends_and_another_one_begins(fastest):
    """It would take half a minute on the fastest processor."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with process:
        try:
            for _ in range(2):
                assert process.stdout.readline() == "searching\n"
                assert interrupted(process, process.stdout.readline) == "interrupted\n"
                assert process.stdout.readline() == "True\n"
            assert process.stdout.readline() == "searching\n"
            output, errors = interrupted(process, process.communicate)
        finally:
            process.kill()
    assert output == ""
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert process.returncode == -signal.SIGINT


def interrupted(process, wait):
    """Interrupt a process that searches, and return what `wait` then returns, long before it ends.

    It takes some milliseconds on an idle machine, and an exit a second more.
    """
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    said = wait()
    assert time.monotonic() - start < 12
    return said


FORKED = """
import os, sys, torch
from spade_faiss.search import LevelSearch

torch.manual_seed(0)
torch.set_num_threads(2)
rows = torch.randn(40_000, 48)
level = LevelSearch(rows, 10_000)
order = torch.randperm(3_000)
queries, images = rows[order][None], torch.arange(4)[None]

def right():
    distances, ids = level.search(queries, images, 1, "screened")
    return bool((distances == 0).all() and (ids[0, :, 0] == order).all())

assert right()  # by threads that a child does not have
child = os.fork()
if not child:
    os._exit(0 if right() else 1)
assert right()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_a_child_of_a_process_that_has_searched_searches(fastest):
    ended = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("count", "rows"), [(15, 60_001), (28, 30_000), (300, 5_000), (700, 20_000)]
)
def test_more_threads_find_the_same_to_the_bit(kernel, use, count, rows):
    """Rows are compared, multiplied, or packed; some of them are each thread's, or some queries."""
    queries, gallery = normal(count, 40), normal(rows, 40, 1)
    level = torch.arange(rows // 2_000)[None]
    found = []
    for threads in (1, 2, 3):
        use(threads)
        parts = nearest(queries, gallery, 3, "screened")
        near, ids = LevelSearch(gallery, 2_000).search(queries[None], level, 3, "screened")
        found.append((*parts, near, ids))
    assert_exact(queries.numpy(), gallery.numpy(), 3, *(part.numpy() for part in found[0][:2]))
    for others in found[1:]:
        assert all(map(torch.equal, found[0], others))


@pytest.mark.parametrize("k", [1, 4])
def test_threads_tell_distances_apart_that_float32_does_not_hold(kernel, use, k):
    queries, gallery = 1e30 * normal(5, 64), 1e30 * normal(20_000, 64, 1)
    expected = torch.cdist(queries.double(), gallery.double()).topk(k, largest=False).indices
    for threads in 1, 2, 3:
        use(threads)
        distances, ids = nearest(queries, gallery, k, "screened")
        assert torch.equal(ids, expected)
        assert distances.isinf().all()


def test_searches_of_one_level_side_by_side_are_right(fastest, use):
    use(2)
    rows = normal(12 * 1_000, 40)
    level = LevelSearch(rows, 1_000)
    rng = np.random.default_rng(0)
    work = [
        (normal(70, 40, seed), np.sort(rng.permutation(12)[:5]), 1 + seed % 3) for seed in range(24)
    ]

    def search(queries, images, k):
        return level.search(queries[None], torch.from_numpy(images)[None], k, "screened")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(search, *zip(*work, strict=True)))
    for (queries, images, k), (distances, ids) in zip(work, found, strict=True):
        places = (images[:, None] * 1_000 + np.arange(1_000)).ravel()
        at = np.searchsorted(places, ids[0].numpy())
        assert_exact(queries.numpy(), rows[places].numpy(), k, distances[0].numpy(), at)
