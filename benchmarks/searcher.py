"""The searches of this project, by whichever checkout of it comes first on Python's path.

    python benchmarks/searcher.py FOLDER PER_IMAGE K

`search.py` calls this. Queries and patches are in the folder as `.npy` files. Each line of standard
input names a way to search, and an empty line answers when the first image's distances are in
`found.npy`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import environ, pathsep
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

import spade_faiss
from spade_faiss.search import LevelSearch, nearest

Way = tuple[Callable[[], object], float]
"""A search, which returns the first image's distances, and how many images it does."""


def searches(queries: Tensor, patches: Tensor, per_image: int, k: int) -> dict[str, Way]:
    """Return this project's ways to search queries [B, Q, C] among all patches [rows, C]."""
    one, images = queries[:1], torch.arange(len(patches) // per_image)[None]
    among = images.expand(len(queries), -1)
    kept = LevelSearch(patches, per_image)

    def cold() -> Tensor:
        return LevelSearch(patches, per_image).search(one, images, k)[0][0]

    return {
        "faiss, 1 image": (lambda: kept.search(one, images, k, "faiss")[0][0], 1),
        "faiss, once": (lambda: nearest(one[0], patches, k, "faiss")[0], 1),
        "auto, batch": (lambda: kept.search(queries, among, k)[0][0], len(queries)),
        "auto, 1 image": (lambda: kept.search(one, images, k)[0][0], 1),
        "auto, cold": (cold, 1),
        "auto, once": (lambda: nearest(one[0], patches, k)[0], 1),
    }


@contextmanager
def elsewhere(
    checkout: Path, queries: Tensor, patches: Tensor, per_image: int, k: int
) -> Iterator[Callable[[str], object]]:
    """Yield a function that has a way run in a process of its own, by another checkout."""
    path = pathsep.join(filter(None, [str(checkout), environ.get("PYTHONPATH")]))
    with TemporaryDirectory() as folder:
        np.save(Path(folder, "queries.npy"), queries.numpy())
        np.save(Path(folder, "patches.npy"), patches.numpy())
        shape = (queries.shape[1], k)
        found = np.lib.format.open_memmap(Path(folder, "found.npy"), "w+", np.float32, shape)
        with subprocess.Popen(
            [sys.executable, __file__, folder, str(per_image), str(k)],
            env={**environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin and process.stdout
            asked, answers = process.stdin, process.stdout

            def answer() -> str:
                if not (line := answers.readline()):
                    sys.exit(f"search.py: the search by {checkout} failed")
                return line.strip()

            def search(name: str) -> object:
                print(name, file=asked, flush=True)
                answer()
                return found.copy()

            if Path(answer()) != checkout.resolve():
                sys.exit(f"search.py: {checkout} has no spade_faiss: pass a checkout")
            yield search


def main() -> None:
    """Serve."""
    folder, per_image, k = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    queries, patches = (
        torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("queries", "patches")
    )
    found = np.load(folder / "found.npy", mmap_mode="r+")
    ways = searches(queries, patches, per_image, k)
    print(Path(spade_faiss.__file__).resolve().parents[1], flush=True)
    for name in sys.stdin:
        found[:] = ways[name.strip()][0]()
        print(flush=True)


if __name__ == "__main__":
    main()
