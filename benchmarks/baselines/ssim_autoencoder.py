"""SSIM-AE: an autoencoder that is trained on, and judged by, structural similarity.

Bergmann et al., *Improving unsupervised defect segmentation by applying structural similarity to
autoencoders* (VISAPP 2019); architecture and differences stand in `autoencoder`. Structural
similarity (Wang et al., *Image quality assessment*, 2004) compares means, variances and the
covariance of 11 x 11 pixels around each pixel, in the image and in what is given back; loss and
score are 1 less that, averaged over colours.

Difference: the 11 x 11 pixels weigh alike, and those at a window's edge are mirrored. Image score:
the map's maximum, since the paper calls an image wrong for any wrong pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .l2_autoencoder import L2Autoencoder

_SIDE = 11
_C1, _C2 = 0.01**2, 0.03**2  # for values between 0 and 1


def dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 less the structural similarity of images [B, C, h, w], of their shape."""
    down, right = (_averaging(length, a.device) for length in a.shape[2:])

    def mean(values: Tensor) -> Tensor:
        return down.T @ values.contiguous() @ right

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    return 1 - ((2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)) / (
        (mean_a**2 + mean_b**2 + _C1) * (variances + _C2)
    )


def _averaging(length: int, device: torch.device) -> Tensor:
    """Return what a row is multiplied by to be averaged over 11 pixels around each of its own.

    So written, since pooling takes 13 times as long here, its gradient included.
    """
    each = pad(torch.eye(length, device=device)[None], (_SIDE // 2, _SIDE // 2), "reflect")[0]
    return each.unfold(1, _SIDE, 1).mean(2)


class SsimAutoencoder(L2Autoencoder):
    """See the module."""

    def loss(self, windows: Tensor, noise: torch.Generator) -> Tensor:
        """Return the mean dissimilarity."""
        return dissimilarity(self.given_back(windows), windows).mean()

    def errors(self, windows: Tensor, noise: torch.Generator) -> Tensor:
        """Return the dissimilarity around each pixel, averaged over colours."""
        return dissimilarity(self.given_back(windows), windows).mean(1)
