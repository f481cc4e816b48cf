"""What the scores of an evaluation depend on."""

from __future__ import annotations

import platform
from typing import Any

from .._support.versions import installed
from ..detector import Detector
from ..detector.settings import Settings

_PACKAGES = (
    "spade-faiss",
    "torch",
    "numpy",
    "scipy",
    "faiss-cpu",
    "faiss-gpu",
    "pillow",
    "opencv-python-headless",
)


def config_of(detector: Detector, **options: object) -> dict[str, Any]:
    """Return all settings and versions, as JSON values.

    An ensemble's settings are its first member's, beside what tells the members apart. `seed` is
    None: no step of an evaluation draws random numbers.
    """
    settings, network = detector.settings, detector.network
    members = [
        {
            "backbone": one.network.name,
            "weights_sha256": one.network.weights_sha256,
            "mirror": one.settings.mirror,
            **_framing_of(one.settings),
        }
        for one in detector.members
    ]
    return {
        "backbone": network.name,
        "weights_sha256": network.weights_sha256,
        **_framing_of(settings),
        "k": settings.k,
        "kappa": settings.kappa,
        "sigma": settings.sigma,
        "preset": settings.preset,
        "standardise": settings.standardise,
        "contrast": settings.contrast,
        "motion": settings.motion,
        "margin": settings.margin,
        "averaged": settings.averaged,
        "score": settings.score,
        **({"min_area": settings.min_area} if settings.least_area else {}),
        "store": settings.store,
        "engine": settings.engine,
        "factory": settings.factory,
        "coreset": settings.coreset,
        "search_params": settings.search_params,
        "device": str(network.device),
        "batch_size": settings.batch_size,
        **({"members": members} if detector.is_ensemble else {}),
        **options,
        "seed": None,
        "versions": versions(),
    }


def _framing_of(settings: Settings) -> dict[str, Any]:
    """Return what is seen of an image."""
    if settings.tile is None:
        framing: dict[str, Any] = {"resize": settings.shorter_side, "crop": settings.crop}
    else:
        framing = {
            "resize": settings.resize,
            "crop": None,
            "tile": settings.tile,
            "overlap": settings.overlap,
        }
    return framing | ({"region": settings.region.named} if settings.region else {})


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that scores depend on."""
    return {"python": platform.python_version(), **installed(_PACKAGES)}
