"""What the scores of an evaluation depend on."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from .._support.versions import installed
from ..detector.ensemble import Ensemble
from ..detector.spade import Spade
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


def config_of(spade: Spade | Ensemble, **options: object) -> dict[str, Any]:
    """Return all settings and versions, as JSON values.

    `seed` is None: no step of an evaluation draws random numbers.
    """
    if isinstance(spade, Ensemble):
        members = [
            {
                "backbone": one.network.name,
                "weights_sha256": one.network.weights_sha256,
                "mirror": one.mirror,
                "resize": one.resize,
                "crop": one.crop,
            }
            for one in spade.members
        ]
        return config_of(spade.members[0], members=members, **options)
    network = spade.network
    return {
        "backbone": network.name,
        "weights_sha256": network.weights_sha256,
        "resize": spade.resize,
        "crop": spade.crop,
        "k": spade.k,
        "kappa": spade.kappa,
        "sigma": spade.sigma,
        "preset": spade.preset,
        "standardise": spade.standardise,
        "contrast": spade.contrast,
        "store": spade.store,
        "engine": spade.engine,
        "factory": spade.factory,
        "coreset": spade.coreset,
        "search_params": spade.search_params,
        "device": str(network.device),
        "batch_size": spade.batch_size,
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
