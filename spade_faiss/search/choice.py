"""Which engine is the fastest here: measured once for each kind of search."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from math import log2

import torch

from .integers import bounds_type, largest, product_of
from .timing import least_seconds

logger = logging.getLogger("spade_faiss")

Kind = tuple[object, ...]

_ROUNDS, _ENOUGH = 2, 0.05
"""Rounds and seconds that engines are measured for, at the least."""
_FAR = 1.7
_FIRST, _LATER = 0.3, 0.003
"""Seconds that a run may take longer by chance: the first, for code that is compiled in it, and
those after, for threads that found no CPU at once."""
_SIZES = (256, 256, 256), (512, 800, 256)
"""Of products that are measured: a small one finds out those that are emulated."""
_SLOW = 2
"""Times as long that a small product may take as in float32."""
_EXACT = 32, 256, 512
"""Rows of products that show how such are computed: small ones may be computed differently."""
_chosen: dict[Kind, str] = {}


@cache
def has_fast_products(dtype: torch.dtype) -> bool:
    """Say whether this CPU multiplies matrices of a low precision itself, by a measurement."""
    if dtype == torch.int8 and not largest():
        return False
    for size in _SIZES:
        low, full = _seconds_of_products((dtype, torch.float32), *size)
        logger.debug(
            "search: a product takes %.3g ms in %s, %.3g in float32", 1e3 * low, dtype, 1e3 * full
        )
        if low > _SLOW * full:
            return False
    return low < full


def _seconds_of_products(dtypes: Sequence[torch.dtype], n: int, m: int, c: int) -> list[float]:
    products = []
    for dtype in dtypes:
        a, b = (torch.ones(rows, c, dtype=dtype) for rows in (n, m))
        products.append(
            product_of(a, b, bounds_type()) if dtype == torch.int8 else partial(torch.mm, a, b.T)
        )
    return least_seconds(products)


def kind(queries: int, gallery: int, channels: int, k: int, *more: object) -> Kind:
    """Return what searches have in common that the same engine serves best."""
    return (round(log2(queries)), round(log2(gallery)), channels, k, *more)


def known(of: Kind) -> str | None:
    """Return what was found to be the fastest for a kind of search, if it was measured."""
    return _chosen.get(of)


def fastest(of: Kind, names: Sequence[str], costs: Sequence[Callable[[str], float]]) -> str:
    """Measure the seconds that engines cost, remember the fastest for a kind of search, return it.

    The next of the costs, of more work, is asked of those that the one before leaves close.
    """
    racing = list(names)
    for cost in costs:
        seconds, racing = _race(racing, cost)
        if len(racing) == 1:
            break
    best = min(racing, key=seconds.__getitem__)
    _chosen[of] = best
    logger.debug(
        "search: %s for 2^%s queries, 2^%s gallery rows, %s channels, k = %s; measured in ms: %s",
        best,
        *of[:4],
        ", ".join(f"{name} {1e3 * value:.2f}" for name, value in seconds.items()),
    )
    return best


def _race(names: Sequence[str], cost: Callable[[str], float]) -> tuple[dict[str, float], list[str]]:
    """Return what each costs at the least, and who is not far behind.

    They run in turn, for a run may be slow by chance or cold; who is far behind is dropped.
    """
    seconds = dict.fromkeys(names, float("inf"))
    racing = list(names)
    rounds, spent = 0, 0.0
    while len(racing) > 1 and (rounds < _ROUNDS or spent < _ENOUGH):
        for name in racing:
            took = cost(name)
            spent += took
            seconds[name] = min(seconds[name], took)
        best = min(seconds.values())
        chance = _LATER if rounds else _FIRST
        racing = [name for name in seconds if seconds[name] < _FAR * best + chance]
        rounds += 1
    return seconds, racing


def keeps_float32() -> bool:
    """Say whether products of float32 are computed in float32, as screens assume.

    Asked for less (`torch.set_float32_matmul_precision("medium")`), processors with AMX round to
    bfloat16 first.
    """
    backends = torch.backends
    try:
        asked = torch.get_float32_matmul_precision()
    except RuntimeError:  # what was asked for is not the same everywhere
        asked = ""
    return _keeps_float32(
        asked,
        *(
            getattr(one, "fp32_precision", "")
            for one in (backends, backends.mkldnn, getattr(backends.mkldnn, "matmul", None))
        ),
    )


@cache
def _keeps_float32(*asked: str) -> bool:
    for size in _EXACT:
        rows = torch.rand(size, size, generator=torch.Generator().manual_seed(0))
        if not torch.equal(torch.mm(rows, torch.eye(size)), rows):
            return False
    return True
