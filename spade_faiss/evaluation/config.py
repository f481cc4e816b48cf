"""What the scores of an evaluation depend on."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from .._support.versions import installed
from ..detector import Detector
from ..features import Backbone

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


def config_of(spade: Detector, **options: object) -> dict[str, Any]:
    """Return all settings and versions, as JSON values.

    `seed` is None: no step of an evaluation draws random numbers.
    """
    settings, network = spade.settings, spade.network
    members = [
        {
            "backbone": one.network.name,
            "weights_sha256": one.network.weights_sha256,
            "mirror": one.settings.mirror,
            "resize": one.settings.resize,
            "crop": one.settings.crop,
        }
        for one in spade.members
    ]
    return {
        "backbone": network.name,
        "weights_sha256": network.weights_sha256,
        "resize": settings.resize,
        "crop": settings.crop,
        "k": settings.k,
        "kappa": settings.kappa,
        "sigma": settings.sigma,
        "preset": settings.preset,
        "standardise": settings.standardise,
        "contrast": settings.contrast,
        "store": settings.store,
        "engine": settings.engine,
        "factory": settings.factory,
        "coreset": settings.coreset,
        "search_params": settings.search_params,
        "device": str(network.device),
        "batch_size": settings.batch_size,
        **({"members": members} if spade.is_ensemble else {}),
        **options,
        "seed": None,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that scores depend on."""
    return {"python": platform.python_version(), **installed(_PACKAGES)}


def level_count(network: Backbone) -> int:
    """Return how many pyramid levels a network has."""
    return len(network(np.zeros((1, 32, 32, 3), np.uint8)).levels)
