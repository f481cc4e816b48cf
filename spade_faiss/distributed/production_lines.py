"""Many production lines, or parts: the same work for each, side by side where there are workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    from .workers import Workers

Done = TypeVar("Done")

logger = logging.getLogger("spade_faiss")


def each_production_line(
    names: Sequence[str],
    work: Callable[[str], Done],
    on_failure: Callable[[str, Exception], object],
    workers: Workers | None = None,
) -> dict[str, Done]:
    """Do the work of each line, and return what came of it, in the lines' order.

    A line that fails is reported and left out; the others go on.

    Parameters
    ----------
    names : sequence of str
    work : callable
        Given a line's name, does its work.
    on_failure : callable
        Given a line's name and what was raised.
    workers : Workers, optional
        Actors that do the work; there are then as many lines under way as keep all of them busy.
    """
    done: dict[str, Done] = {}

    def take(name: str, result: Callable[[], Done]) -> None:
        try:
            done[name] = result()
        except Exception as error:
            logger.debug("line %s failed", name, exc_info=True)
            on_failure(name, error)

    with tqdm(total=len(names), desc="lines", unit="line", disable=None) as bar:
        if workers is None:
            for name in names:
                take(name, partial(work, name))
                bar.update()
        else:
            for name, future in _side_by_side(names, work, workers):
                take(name, future.result)
                bar.update()
    return {name: done[name] for name in names if name in done}


def _side_by_side(
    names: Sequence[str], work: Callable[[str], Done], workers: Workers
) -> Iterable[tuple[str, Future[Done]]]:
    """Yield lines as they end; one more than there are workers is under way."""
    with ThreadPoolExecutor(workers.size + 1) as pool:
        futures = {pool.submit(work, name): name for name in names}
        try:
            for future in as_completed(futures):
                yield futures[future], future
        except BaseException:  # such as Ctrl-C: the threads wait for answers, and would on and on
            pool.shutdown(wait=False, cancel_futures=True)
            workers.dismiss()
            raise
