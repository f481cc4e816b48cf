"""How often `query --drift` warns of changed images, and of unchanged ones.

Of each of the demo's textures an index of 16 good images is made; calibrations of 40, and unchanged
batches beside them, are drawn from 200 others, and changed batches from 200 more. Prints a JSON
object for each texture, change and batch size: the share of batches that are warned of.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable

import cv2
import numpy as np
import numpy.typing as npt

from spade_faiss import Spade
from spade_faiss.datasets.demo import render
from spade_faiss.features import load_backbone
from spade_faiss.verdict.drift import detect_drift
from spade_faiss.verdict.threshold import good_threshold

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
TEXTURES = "brick", "grass", "gravel"
CALIBRATED = 40


def times(*factors: float) -> Callable[[Pixels], Pixels]:
    """Return what multiplies an image's channels."""
    return lambda image: np.clip(np.round(image * np.array(factors)), 0, 255).astype(np.uint8)


def as_jpeg(image: Pixels) -> Pixels:
    """Return an image after compression with quality 30."""
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, 1), np.uint8)[..., ::-1])


CHANGES: dict[str, Callable[[Pixels], Pixels] | None] = {
    "none": None,
    "light x 0.7": times(0.7, 0.7, 0.7),
    "light x 1.25": times(1.25, 1.25, 1.25),
    "blur of 1 pixel": lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 1), np.uint8),
    "red x 1.1, blue x 0.9": times(1.1, 1, 0.9),
    "JPEG of quality 30": as_jpeg,
}


def warned(known: Floats, later: Floats, size: int, draws: int) -> float:
    """Return the share of batches, of `later` [n, 2], that are warned of; scores go first."""
    rng = np.random.default_rng(0)
    count = 0
    for _ in range(draws):
        if later is known:  # nothing has changed
            mixed = rng.permutation(known)
            old, new = mixed[:CALIBRATED], mixed[CALIBRATED:][:size]
        else:
            old, new = rng.permutation(known)[:CALIBRATED], rng.permutation(later)[:size]
        limit = good_threshold(old[:, 0])
        assert limit is not None
        count += detect_drift(new[:, 0], old[:, 0], limit, new[:, 1], old[:, 1]).warned
    return count / draws


def main() -> None:
    """Score the images and draw the batches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200, help="of which batches are drawn")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--draws", type=int, default=1000)
    chosen = parser.parse_args()
    network = load_backbone("efficientnet_lite0")
    for name in TEXTURES:
        spade = Spade(network).fit([render(0, name, "train", i).image for i in range(16)])

        def scores(images: Iterable[Pixels], spade: Spade = spade) -> Floats:
            return np.array([(one.peak, one.descriptor_score) for one in spade.query(iter(images))])

        images = [render(0, name, "good", i).image for i in range(2 * chosen.images)]
        known = scores(images[: chosen.images])
        for change, make in CHANGES.items():
            later = known if make is None else scores(map(make, images[chosen.images :]))
            for size in chosen.sizes:
                share = warned(known, later, size, chosen.draws)
                print(
                    json.dumps(
                        {
                            "texture": name,
                            "change": change,
                            "batch": size,
                            "warned": round(share, 4),
                        }
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
