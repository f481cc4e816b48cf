import re

import pytest
import torch

from spade_faiss.features import load_backbone, weights
from spade_faiss.features.convnext import CONVNEXTS, ConvNeXt, with_own_names

NUMBERS = {"dwconv": 0, "norm": 2, "pwconv1": 3, "pwconv2": 5}


def as_torchvision_has_it(state):
    """Return a state dict by the names and shapes of torchvision."""
    found = {}
    for key, value in state.items():
        part, *rest = key.split(".")
        if part == "downsample_layers":
            stage, *rest = rest
            key = f"features.{2 * int(stage)}.{'.'.join(rest)}"
        elif part == "stages":
            stage, block, name, *rest = rest
            at = f"features.{2 * int(stage) + 1}.{block}"
            if name == "gamma":
                key, value = f"{at}.layer_scale", value[:, None, None]
            else:
                key = f"{at}.block.{NUMBERS[name]}.{rest[0]}"
        else:
            key = key.replace("norm.", "classifier.0.").replace("head.", "classifier.2.")
        found[key] = value
    return found


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("convnext_tiny", 28_589_128),
        ("convnext_small", 50_223_688),
        ("convnext_base", 88_591_464),
        ("convnext_large", 197_767_336),
    ],
)
def test_the_networks_have_the_published_parameters(name, parameters):
    """As many as torchvision's documentation says."""
    with torch.device("meta"):
        network = CONVNEXTS[name]()
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_published_weights_are_torchvision_s():
    for name in CONVNEXTS:
        assert re.fullmatch(
            rf"https://download\.pytorch\.org/models/{name}-[0-9a-f]{{8}}\.pth",
            weights.PUBLISHED[name],
        )


def test_torchvision_s_names_are_those_of_its_checkpoints():
    torch.manual_seed(0)
    state = ConvNeXt((1, 2, 1, 1), (4, 8, 12, 16)).state_dict()
    renamed = as_torchvision_has_it(state)
    # A sample of its names, as its own source makes them.
    assert {
        "features.0.0.weight": (4, 3, 4, 4),
        "features.0.1.bias": (4,),
        "features.1.0.layer_scale": (4, 1, 1),
        "features.1.0.block.0.weight": (4, 1, 7, 7),
        "features.2.0.weight": (4,),
        "features.2.1.weight": (8, 4, 2, 2),
        "features.3.1.block.2.weight": (8,),
        "features.3.1.block.5.weight": (8, 32),
        "classifier.0.weight": (16,),
        "classifier.2.bias": (1000,),
    }.items() <= {key: tuple(value.shape) for key, value in renamed.items()}.items()
    back = with_own_names(renamed)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    assert with_own_names(state).keys() == state.keys()


def test_checkpoints_of_meta_and_of_torchvision_give_the_same_features(tmp_path):
    torch.manual_seed(0)
    network = CONVNEXTS["convnext_tiny"]()
    state = {key: torch.randn_like(value) * 0.1 for key, value in network.state_dict().items()}
    # Meta's checkpoints for 22 000 classes have another head.
    torch.save({"model": state | {"head.weight": torch.zeros(5, 768)}}, tmp_path / "meta.pth")
    torch.save(as_torchvision_has_it(state), tmp_path / "torchvision.pth")
    images = torch.randint(0, 256, (1, 64, 100, 3), dtype=torch.uint8).numpy()
    one, other = (
        load_backbone("convnext_tiny", tmp_path / f"{name}.pth", "cpu")(images)
        for name in ("meta", "torchvision")
    )
    assert one.descriptors.shape == (1, 768) and one.descriptors.std() > 0.01
    assert torch.equal(one.descriptors, other.descriptors)
    # 100 pixels become 96, which are three cells of 32.
    assert [tuple(level.shape) for level in one.levels] == [
        (1, 16, 24, 96),
        (1, 8, 12, 192),
        (1, 4, 6, 384),
    ]
    for level, there in zip(one.levels, other.levels, strict=True):
        assert level.std() > 0.01 and torch.equal(level, there)
