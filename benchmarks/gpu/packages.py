"""PatchCore by the packages themselves, where these are installed."""

from __future__ import annotations

import inspect
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .device import faiss_kind, faiss_place
from .entrant import NEIGHBOURS, SHARE, Entrant, Floats
from .patchcore import CHANNELS
from .setting import Pixels, Setting

LAYERS = ["layer2", "layer3"]


class Anomalib(Entrant):
    """anomalib's PatchCore, its model called as its trainer calls it.

    Raises
    ------
    ImportError
        If it is not installed.
    """

    def __init__(self, setting: Setting) -> None:
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        super().__init__(setting)
        self.by = f"anomalib {version('anomalib')}"
        model = PatchcoreModel(
            layers=LAYERS,
            backbone=setting.backbone,
            pre_trained=False,
            num_neighbors=NEIGHBOURS,
        )
        load_into(model.feature_extractor, setting.state())
        self._model: Any = model.to(setting.device)

    @torch.no_grad()
    def learn(self, images: Pixels) -> None:
        """Embed images, and have the model choose its coreset."""
        model = self._model.train()
        model.feature_extractor.eval()
        found = [model(batch) for batch in self.batches(images)]
        first = next(iter(inspect.signature(model.subsample_embedding).parameters))
        if first == "sampling_ratio":
            model.subsample_embedding(SHARE)  # it kept what it was shown
        else:
            model.subsample_embedding(torch.vstack(found), SHARE)
        model.eval()

    @torch.no_grad()
    def judge(self, images: Pixels) -> tuple[Floats, Floats]:
        """Call the model."""
        answers = [self._model(batch) for batch in self.batches(images)]
        scores, maps = (
            torch.cat([_field(one, name).cpu() for one in answers])
            for name in ("pred_score", "anomaly_map")
        )
        return scores.flatten().numpy(), maps.flatten(0, -3).numpy()


class Inspection(Entrant):
    """patchcore-inspection's PatchCore, with the settings of its pages.

    Raises
    ------
    ImportError
        If it, FAISS or torchvision is not installed.
    """

    def __init__(self, setting: Setting) -> None:
        import patchcore.common
        import patchcore.patchcore
        import patchcore.sampler
        import torchvision

        super().__init__(setting)
        try:
            said = f"patchcore-inspection {version('patchcore')}"
        except PackageNotFoundError:
            said = "patchcore-inspection"
        self.by = f"{said}, {faiss_place()}"
        network = getattr(torchvision.models, setting.backbone)(weights=None)
        load_into(network, setting.state())
        network.name, network.seed = setting.backbone, None
        sampler = patchcore.sampler.ApproximateGreedyCoresetSampler(SHARE, setting.device)
        self._model: Any = patchcore.patchcore.PatchCore(setting.device)
        self._model.load(
            backbone=network,
            layers_to_extract_from=LAYERS,
            device=setting.device,
            input_shape=(3, setting.crop, setting.crop),
            pretrain_embed_dimension=CHANNELS,
            target_embed_dimension=CHANNELS,
            patchsize=3,
            anomaly_score_num_nn=1,
            featuresampler=sampler,
            nn_method=patchcore.common.FaissNN(bool(faiss_kind()[1]), os.cpu_count() or 1),
        )

    def learn(self, images: Pixels) -> None:
        """Fill the memory."""
        self._model.fit(list(self.batches(images)))

    def judge(self, images: Pixels) -> tuple[Floats, Floats]:
        """Call the model."""
        answers = [self._model.predict(batch) for batch in self.batches(images)]
        scores = np.concatenate([np.asarray(scores, np.float32) for scores, _ in answers])
        return scores, np.stack([one for _, maps in answers for one in maps])


def load_into(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state into a module, or into the module within it that has these names.

    Raises
    ------
    RuntimeError
        If none has.
    """
    for inner in module.modules():
        names = inner.state_dict().keys()
        if names and names <= state.keys():
            inner.load_state_dict({name: state[name] for name in names})
            return
    raise RuntimeError(f"{type(module).__name__} has no network of the checkpoint's names")


def _field(answer: Any, name: str) -> Tensor:
    """Return a field of a dictionary, or of an object."""
    found: Tensor = answer[name] if isinstance(answer, dict) else getattr(answer, name)
    return found
