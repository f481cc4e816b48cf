"""Visual anomaly detection by retrieval: SPADE on FAISS.

>>> from spade_faiss import Spade
>>> from spade_faiss.datasets import make_demo
>>> make_demo("demo", n_train=5, n_good=1, n_defects=1)
['brick', 'grass', 'gravel']
>>> spade = Spade("efficientnet_lite0").fit("demo/brick/train/good")
>>> prediction = spade.predict(["demo/brick/test/good/000.png", "demo/brick/test/hole/000.png"])
>>> prediction.scores.shape, prediction.maps[1].shape
((2,), (256, 256))
>>> bool(prediction.scores[0] < prediction.scores[1])
True
"""

from typing import TYPE_CHECKING, Any

from .errors import SpadeError

if TYPE_CHECKING:
    from .detector import Ensemble, Prediction, Result, Spade, open_detector

    __version__: str

__all__ = [
    "Ensemble",
    "Prediction",
    "Result",
    "Spade",
    "SpadeError",
    "__version__",
    "open_detector",
]


def __getattr__(name: str) -> Any:
    # Importing torch takes a second, which --help and mistakes on the command line need not.
    if name == "__version__":
        from importlib.metadata import version

        return version("spade-faiss")
    if name in __all__:
        from . import detector

        return getattr(detector, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
