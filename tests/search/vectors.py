"""Vectors that a careless search gets wrong."""

import numpy as np


def hard_vectors(kind, rows, channels, rng):
    """Return vectors that a careless search gets wrong."""
    plain = rng.standard_normal((rows, channels))
    match kind:
        case "plain":
            vectors = plain
        case "duplicates":
            vectors = plain[rng.integers(0, max(1, rows // 3), rows)]
        case "near ties":  # closer than bfloat16, and float32's expansion, can tell apart
            vectors = plain[:1] + 1e-4 * plain
        case "zeros":
            vectors = plain * (rng.random((rows, 1)) < 0.5)
        case "large norms":  # around a few far centres: no one centre helps
            vectors = 1e4 * plain[rng.integers(0, min(3, rows), rows)] + 1e-2 * plain
        case "denormals":
            vectors = 1e-40 * plain
        case "mixed scales":
            vectors = plain * 10.0 ** rng.integers(-18, 15, (rows, 1))
        case "huge":
            vectors = 2e17 * plain  # squares still fit in float32, sums of norms do not
        case "beyond float32":  # squares of norms do not fit, and those of distances do
            vectors = 1e20 * plain[:1] + 1e16 * plain
        case "far from zero":
            vectors = 1e4 + 1e-2 * plain
        case "constant":
            vectors = np.full((rows, channels), 3.25)
    return vectors.astype(np.float32)


KINDS = [
    "plain",
    "duplicates",
    "near ties",
    "zeros",
    "large norms",
    "denormals",
    "mixed scales",
    "huge",
    "beyond float32",
    "far from zero",
    "constant",
]
