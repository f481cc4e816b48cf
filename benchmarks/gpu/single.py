"""One image alone: from a decoded array to its map and its verdict, and through the service."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .running import guarded
from .setting import Pixels, Result, Setting
from .timing import milliseconds

WARM = 20
IMAGES = 200
COMPARED = 4
BATCHES = (1, 8)
"""Of the service, which waits a moment for others where it may take more than one at once."""


def single_part(setting: Setting) -> Iterator[Result]:
    """Time one image after another."""
    warm, count = setting.sized(WARM, 1), setting.sized(IMAGES, 2)
    views = list(setting.views(warm + count, 2))
    shape = {"part": "single"} | setting.shape
    with setting.fitted(1) as (spade, _, folder):
        ways: dict[str, Callable[[Pixels], Any]] = {
            "array to map": partial(to_map, spade),
            "array to verdict": partial(to_verdict, spade),
            "array to verdict, predict": partial(to_prediction, spade),
        }
        for name, way in ways.items():
            setting.clock.each_seconds(way, views[:warm])
            times = setting.clock.each_seconds(way, views[warm:])
            yield shape | {"way": name} | milliseconds(times)
        once = partial(to_map, spade, views[0])
        kernels = guarded(lambda: setting.clock.kernels(once))
        yield shape | {"way": "array to map, on the GPU"} | kernels
        yield shape | {"way": "memory", "peak_gib": setting.clock.peak_gib()}
        some = views[: setting.sized(COMPARED, 2)]
        yield shape | {"way": "agreement"} | guarded(partial(agreement, spade, some))
        for batch in BATCHES[: setting.sized(len(BATCHES), 1)]:
            found = guarded(partial(by_service, setting, folder, warm, count, batch))
            yield shape | {"way": f"file to the service's answer, --batch-size {batch}"} | found


def to_map(spade: Any, image: Pixels) -> np.ndarray:
    """Return the map of an array, which the host can read."""
    return np.asarray(next(spade.query([image])).map)


def to_verdict(spade: Any, image: Pixels) -> tuple[str, Any]:
    """Return the verdict on an array, and the places that are wrong."""
    result = next(spade.query([image]))
    return result.verdict, result.regions


def to_prediction(spade: Any, image: Pixels) -> str:
    """Return the verdict on an array by `predict`."""
    verdict: str = spade.predict([image]).verdicts[0]
    return verdict


def agreement(spade: Any, images: list[Pixels]) -> Result:
    """Return how far results alone, in a batch and on the CPU are from each other.

    Of scores and of all pixels of the maps, as shares of the score.
    """
    alone = [next(spade.query([image])) for image in images]
    found: Result = {"compared": len(images)}
    others = {
        "a_batch": spade.with_options(batch_size=len(images)),
        "the_cpu": spade.with_options(device="cpu"),
    }
    for name, other in others.items():
        pairs = list(zip(alone, other.query(images), strict=True))
        found |= {
            f"score_from_{name}": max(abs(a.score() / b.score() - 1) for a, b in pairs),
            f"map_from_{name}": max(
                float(np.abs(a.map - b.map).max()) / b.score() for a, b in pairs
            ),
            f"verdicts_as_by_{name}": all(a.verdict == b.verdict for a, b in pairs),
        }
    return found


def by_service(setting: Setting, folder: Path, warm: int, count: int, batch: int) -> Result:
    """Time the service's answers to files, sent one after another."""
    from spade_faiss.client import Client

    paths = setting.write_views(folder / "sent", warm + count, 2)
    files = [Path(path).read_bytes() for path in paths]
    with served(setting, folder / "index", batch) as url, Client(url) as client:

        def ask(file: bytes) -> None:
            assert client.query(file).images[0].verdict

        setting.clock.each_seconds(ask, files[:warm])
        return dict(milliseconds(setting.clock.each_seconds(ask, files[warm:])))


@contextmanager
def served(setting: Setting, index: Path, batch: int) -> Iterator[str]:
    """Serve an index in a process of its own; yield its address."""
    command = [sys.executable, "-m", "spade_faiss", "serve", str(index), "--port", "0"]
    command += ["--batch-size", str(batch), "--device", str(setting.device)]
    command += ["--weights", str(setting.weights())]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line.strip())
            if found := re.search(r"(http://\S+:\d+)/", line):
                break
        else:
            raise RuntimeError(f"the service did not start: {said[-1] if said else 'no word'}")
        try:
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)
