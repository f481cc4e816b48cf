"""Visual anomaly detection by retrieval: SPADE on FAISS.

>>> from spade_faiss import Spade
>>> spade = Spade("efficientnet_lite0").fit("parts/good")  # doctest: +SKIP
>>> prediction = spade.predict(["new.png"])  # doctest: +SKIP
>>> prediction.scores, prediction.maps  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from .errors import SpadeError

if TYPE_CHECKING:
    from .detector import Prediction, Result, Spade

__all__ = ["Prediction", "Result", "Spade", "SpadeError"]


def __getattr__(name: str) -> Any:
    # Importing torch takes a second, which --help and mistakes on the command line need not.
    if name in __all__:
        from . import detector

        return getattr(detector, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
