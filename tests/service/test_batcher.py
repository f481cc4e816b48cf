import threading
from concurrent.futures import wait

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spade_faiss.service.batcher import Batcher
from tests.conftest import examples


@examples(30)
@given(st.lists(st.integers(), max_size=40), st.integers(1, 9), st.sampled_from([0.0, 0.002]))
def test_each_item_gets_its_own_answer_and_no_batch_is_too_large(items, size, pause):
    seen = []

    def process(batch):
        seen.append(len(batch))
        return [2 * item for item in batch]

    batcher = Batcher(process, size, pause)
    futures = [batcher.submit(item) for item in items]
    batcher.close()
    assert [future.result(0) for future in futures] == [2 * item for item in items]
    assert sum(seen) == len(items) and all(1 <= n <= size for n in seen)
    assert not batcher.alive


def test_what_comes_during_a_batch_is_done_together():
    started, go_on, sizes = threading.Event(), threading.Event(), []

    def process(batch):
        sizes.append(len(batch))
        started.set()
        go_on.wait(60)
        return batch

    batcher = Batcher(process, 4, 0.0)
    first = batcher.submit(0)
    assert started.wait(60)
    rest = [batcher.submit(i) for i in range(1, 7)]
    assert batcher.waiting == 6
    go_on.set()
    wait([first, *rest], 60)
    batcher.close()
    assert sizes == [1, 4, 2]


def test_one_bad_item_fails_alone():
    def process(batch):
        if 3 in batch:
            raise ValueError("three")
        return batch

    batcher = Batcher(process, 8, 0.2)
    futures = [batcher.submit(i) for i in range(6)]
    batcher.close()
    for i, future in enumerate(futures):
        if i == 3:
            with pytest.raises(ValueError, match="three"):
                future.result(0)
        else:
            assert future.result(0) == i


def test_a_cancelled_item_is_left_out():
    go_on, done = threading.Event(), []

    def process(batch):
        go_on.wait(60)
        done.extend(batch)
        return batch

    batcher = Batcher(process, 1, 0.0)
    futures = [batcher.submit(i) for i in range(3)]
    assert futures[2].cancel()
    go_on.set()
    batcher.close()
    assert done == [0, 1]
