"""What a worker makes of what it is sent; Ray itself is not needed."""

from types import SimpleNamespace

import numpy as np
import pytest

from spade_faiss import Spade
from spade_faiss.detector import neighbours
from spade_faiss.detector.neighbours import copies_in
from spade_faiss.distributed.executor import RayExecutor
from spade_faiss.distributed.worker import Setting, Worker
from tests.conftest import texture


@pytest.mark.parametrize("copied", [(), (0,)])
def test_copies_are_looked_for_once_whether_there_are_any_or_not(tiny, monkeypatch, copied):
    images = texture("gravel", 6)
    spade = Spade(tiny, resize=96, crop=96).fit([*images, *(images[i] for i in copied)])
    index = spade.index_
    index.manifest = index.manifest.model_copy(update={"copies": ()})  # as older versions wrote it
    known = copies_in(index)
    assert sum(map(len, known)) == 2 * len(copied)

    executor = RayExecutor(SimpleNamespace())
    worker = Worker(Setting(".", 1))
    pipeline = worker.open(executor.spec_of(spade.pipeline))
    monkeypatch.setattr(neighbours, "find_copies", lambda *_: pytest.fail("looked for again"))
    found = copies_in(pipeline.index)
    assert all(np.array_equal(*both) for both in zip(found, known, strict=True))
