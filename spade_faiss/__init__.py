"""Visual anomaly detection by retrieval: SPADE on FAISS.

>>> from spade_faiss import Spade
>>> spade = Spade("efficientnet_lite0").fit("parts/good")  # doctest: +SKIP
>>> prediction = spade.predict(["new.png"])  # doctest: +SKIP
>>> prediction.scores, prediction.maps  # doctest: +SKIP
"""

from .detector import Prediction, Result, Spade
from .errors import SpadeError

__all__ = ["Prediction", "Result", "Spade", "SpadeError"]
