"""VAE: a variational autoencoder; a pixel's score is how improbable it is under its samples.

An & Cho, *Variational autoencoder based anomaly detection using reconstruction probability*
(2015), a baseline in Bergmann et al., *Uninformed Students* (CVPR 2020). The encoder gives means
and variances of the code (Kingma & Welling, 2014), the loss is the negative evidence lower bound,
and several codes are drawn to judge an image. Architecture and differences from Bergmann et al.
stand in `autoencoder`.

Difference: the decoder gives means alone, around which pixels are normal with a deviation of 0.1
of the range of values. The reconstruction probability's negative logarithm is then, but for
constants, the squared difference averaged over the codes drawn (6 here), which is the score.
Image score: the map's maximum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .autoencoder import Autoencoder, Setting, decoder, encoder

_DEVIATION = 0.1
_DRAWS = 6


class _Network(nn.Module):
    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.encoder = encoder(setting, 2 * setting.code)
        self.decoder = decoder(setting)


class Vae(Autoencoder):
    """See the module."""

    def make(self) -> nn.Module:
        """Return encoder, of means and log variances, and decoder."""
        return _Network(self.setting)

    def loss(self, windows: Tensor, noise: torch.Generator) -> Tensor:
        """Return the negative evidence lower bound of a window, constants left out."""
        means, logs = self._code(windows)
        made = self._autoencoder.decoder(self._draw(means, logs, noise))
        apart = (made - windows).square().sum() / (2 * _DEVIATION**2)
        divergence = (means.square() + logs.exp() - 1 - logs).sum() / 2
        loss: Tensor = (apart + divergence) / len(windows)
        return loss

    def errors(self, windows: Tensor, noise: torch.Generator) -> Tensor:
        """Return squared differences, summed over colours, averaged over draws."""
        means, logs = self._code(windows)
        draws = [
            (self._autoencoder.decoder(self._draw(means, logs, noise)) - windows).square().sum(1)
            for _ in range(_DRAWS)
        ]
        return torch.stack(draws).mean(0)

    def _code(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        means, logs = self._autoencoder.encoder(windows).chunk(2, 1)
        return means, logs

    @staticmethod
    def _draw(means: Tensor, logs: Tensor, noise: torch.Generator) -> Tensor:
        normal = torch.randn(means.shape, generator=noise, device=means.device)
        return means + normal * (logs / 2).exp()
