"""l2-AE: an autoencoder that is trained on, and judged by, squared differences.

Bergmann et al., *Improving unsupervised defect segmentation by applying structural similarity to
autoencoders* (VISAPP 2019); architecture and differences stand in `autoencoder`. A pixel's score
is the squared difference from what is given back, summed over colours. Image score: the map's
maximum, since the paper calls an image wrong for any wrong pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .autoencoder import Autoencoder, decoder, encoder


class L2Autoencoder(Autoencoder):
    """See the module."""

    def make(self) -> nn.Module:
        """Return encoder and decoder."""
        return nn.Sequential(encoder(self.setting, self.setting.code), decoder(self.setting))

    def loss(self, windows: Tensor, noise: torch.Generator) -> Tensor:
        """Return the squared difference, summed over a window: beside a mean, decay would win."""
        return self.errors(windows, noise).sum((1, 2)).mean()

    def errors(self, windows: Tensor, noise: torch.Generator) -> Tensor:
        """Return squared differences, summed over colours."""
        return (self.given_back(windows) - windows).square().sum(1)
