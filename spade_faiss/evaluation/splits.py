"""What is evaluated by itself: good images to learn from, and test images with their truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..datasets import Category
from ..images import Framing, OnError, Source
from .scorer import Scorer
from .truth import CategoryTruth, Truth


class Split(ABC):
    """The training and test images of one category or scene.

    Attributes
    ----------
    name : str
        What `results.json` calls it.
    title : str
        What a person is told that it is.
    test : sequence of Path
        The test images.
    files : sequence of Path
        All files that its scores depend on.
    labels : sequence of str
        What the test images are, where the files' places do not say.
    outputs : sequence of Path
        The files that `save` writes.
    judged : bool
        Whether a threshold is drawn from the training images, and tried on the test images.
    """

    name: str
    title: str
    test: Sequence[Path]
    files: Sequence[Path]
    labels: Sequence[str] = ()
    outputs: Sequence[Path] = ()
    judged: bool = True

    @abstractmethod
    def train(self, on_error: OnError | None) -> Iterable[Source]:
        """Return the good images to learn from; what cannot be opened is reported."""

    def queries(self, on_error: OnError | None) -> Iterable[Source]:
        """Return the test images as a detector is to see them; see `results_at`."""
        return self.test

    @abstractmethod
    def truth(self, framing: Framing) -> Truth:
        """Return the ground truth of the test images; the network sees them by a framing."""

    def extra_metrics(self, scorer: Scorer) -> dict[str, float]:
        """Return metrics that only such a split has, by name."""
        return {}

    def save(self, scorer: Scorer) -> None:  # noqa: B027
        """Write what is kept of the test images besides the metrics."""


class CategorySplit(Split):
    """A category of MVTec AD, of a data set laid out like it, or of a user's folders.

    Parameters
    ----------
    category : Category
    original_size : bool
        Whether masks are on the images' own grids, instead of framed like the images.
    """

    def __init__(self, category: Category, *, original_size: bool = False) -> None:
        self._category = category
        self._original_size = original_size
        self.name = self.title = category.name
        self.test = [test.path for test in category.test]
        self.files = category.files
        self.labels = category.kinds

    def train(self, on_error: OnError | None) -> Sequence[Path]:
        """Return the paths of the good images."""
        return self._category.train

    def truth(self, framing: Framing) -> CategoryTruth:
        """Return the ground truth of the test images; see `Split`."""
        own = None if self._original_size else framing
        return CategoryTruth(self._category, own, framing.roi)
