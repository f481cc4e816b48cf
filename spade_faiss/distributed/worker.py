"""What runs in an actor: a few images in, their features or results out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import SpadeError

# What imports torch is imported by `prepare`, once the number of threads is set.
if TYPE_CHECKING:
    from ..detector import Batch, Result, Spade
    from ..images import Framing, Source


@dataclass(frozen=True)
class Recipe:
    """What a worker needs to know before the first image.

    Attributes
    ----------
    index : str or None
        The index to query; None where features alone are wanted.
    generation : str
        Which state of it.
    options : dict
        Of `Spade.load`, or of `Spade` where there is no index.
    sigma : float
    weights_sha256 : str
        Of the network that features must come from.
    folder : str
        What relative paths start from.
    threads : int
        The results' last bits depend on it.
    """

    index: str | None
    generation: str
    options: dict[str, Any]
    sigma: float
    weights_sha256: str
    folder: str
    threads: int


@dataclass(frozen=True)
class Answer:
    """What became of a batch.

    Attributes
    ----------
    problems : list of (name, why)
        Images that could not be used.
    made : Batch, list of Result, or None
        None where no image could be used, or the batch was not filled.
    filled : bool
        Whether there were as many images as a batch takes, or no more to come.
    """

    problems: list[tuple[str, str]]
    made: Batch | list[Result] | None
    filled: bool


class Worker:
    """Holds a network and an index, and answers for one batch after another.

    The same batch always has the same answer, so it can be asked for again.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._spade: Spade | None = None

    def prepare(self) -> str | None:
        """Load what is needed; return what is wrong, if anything is."""
        recipe = self._recipe
        os.environ["OMP_NUM_THREADS"] = str(recipe.threads)
        try:
            os.chdir(recipe.folder)
            import torch

            from ..detector import Spade

            torch.set_num_threads(recipe.threads)
            if recipe.index is None:
                self._spade = Spade(**recipe.options)
            else:
                self._spade = Spade.load(recipe.index, **recipe.options).with_options(
                    sigma=recipe.sigma)
                if self._spade.index_.manifest.generation != recipe.generation:
                    return f"{recipe.index} was changed while it was queried; query it again"
            if self._spade.network.weights_sha256 != recipe.weights_sha256:
                return "a Ray worker has other weights; give the same file on every node"
        except SpadeError as error:
            return str(error)
        except OSError as error:
            return f"{error.filename}: {error.strerror} on a Ray worker's node"
        return None

    def answer(
        self, sources: Sequence[Source], start: int, framing: Framing, last: bool
    ) -> Answer:
        """Decode images from place `start` on, and answer for those that can be used.

        Unless they fill a batch, or are the `last`, nothing is made of them.
        """
        from ..images import load_images

        assert self._spade is not None
        problems: list[tuple[str, str]] = []
        loaded = [
            replace(one, position=start + one.position)
            for one in load_images(sources, framing, lambda *which: problems.append(which))
        ]
        filled = last or len(loaded) == self._spade.batch_size
        if not loaded or not filled:
            return Answer(problems, None, filled)
        batch = self._spade.features_of(loaded, framing)
        if self._recipe.index is not None:
            return Answer(problems, list(self._spade.compare(batch)), filled)
        return Answer(problems, batch, filled)
