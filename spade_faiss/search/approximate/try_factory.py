"""Try a FAISS factory string on a few random vectors, in a process of its own.

`GallerySpec.tried` runs this file as a program before it spends long on features: some
strings end the process that uses them (HNSW1), some are refused only when vectors are added or
searched (IDMap,Flat), and FAISS warns on standard error of so few vectors.

Arguments: the factory string, search parameters (may be empty), and for each level its channels
and how many vectors there will be, as 24:156800. Prints one JSON object: either the search
parameters to use and each level's bytes a vector, or which level (from 1) failed and why.
"""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np


def set_params(index: faiss.Index, params: str) -> None:
    """Set search parameters as "nprobe=16,efSearch=64" says."""
    space: Any = faiss.ParameterSpace()
    space.set_index_parameters(index, params)


def default_search_params(index: faiss.Index) -> str:
    """Return 1/16 of the lists, but at least 16, for IVF, and 64 candidates for HNSW."""
    params = []
    lists = faiss.try_extract_index_ivf(index)
    if lists is not None:
        params.append(f"nprobe={min(lists.nlist, max(16, lists.nlist // 16))}")
    try:
        set_params(index, "efSearch=64")
        params.append("efSearch=64")
    except RuntimeError:
        pass
    return ",".join(params)


def parts(index: faiss.Index) -> Iterator[Any]:
    """Yield an index and those that it wraps."""
    index = faiss.downcast_index(index)
    yield index
    for name in ("index", "base_index", "storage"):
        if getattr(index, name, None) is not None:
            yield from parts(getattr(index, name))


def skip_polysemous(index: faiss.Index, params: str) -> None:
    """Leave out PQ's longest training, of a filter that is off unless `ht` is given."""
    for part in parts(index):
        if hasattr(part, "do_polysemous_training"):
            part.do_polysemous_training = "ht=" in params


def attempt(factory: str, params: str, channels: int, count: int) -> tuple[str, float]:
    """Train, fill, search and copy an index; return search parameters, and bytes a vector."""
    index = faiss.index_factory(channels, factory)
    vectors = np.random.default_rng(0).standard_normal((count, channels), np.float32)
    skip_polysemous(index, params)
    for part in parts(index):
        if isinstance(part, faiss.IndexPreTransform):
            chain: Any = part.chain
            for i in range(chain.size()):
                transform = faiss.downcast_VectorTransform(chain.at(i))
                if isinstance(transform, faiss.OPQMatrix):
                    transform.niter = 1  # it need not be a good rotation
    index.train(vectors)
    empty = faiss.serialize_index(index).nbytes
    index.add(vectors[:256])
    params = params or default_search_params(index)
    set_params(index, params)
    index.search(vectors[:4], 2)
    copied = faiss.serialize_index(index)
    faiss.deserialize_index(copied)
    return params, (copied.nbytes - empty) / 256


def try_level(factory: str, params: str, channels: int, rows: int) -> tuple[str, float]:
    """Try with as few vectors as it can be trained on."""
    count = min(rows, 256)
    while True:
        try:
            return attempt(factory, params, channels, count)
        except RuntimeError as error:
            needed = re.search(r"number of clusters \((\d+)\)", str(error))
            if not needed or int(needed[1]) <= count:
                raise
            count = int(needed[1])
            if count > rows:
                raise RuntimeError(
                    f"it is trained on {count} patches or more and there are {rows}"
                ) from None


def main() -> None:
    """Try each level and print the outcome."""
    factory, params, *levels = sys.argv[1:]
    sizes = []
    for number, level in enumerate(levels, 1):
        channels, rows = map(int, level.split(":"))
        try:
            params, size = try_level(factory, params, channels, rows)
        except Exception as error:
            print(json.dumps({"level": number, "why": str(error) or type(error).__name__}))
            return
        sizes.append(size)
    print(json.dumps({"search_params": params, "vector_bytes": sizes}))


if __name__ == "__main__":
    main()
