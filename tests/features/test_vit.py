import re
from math import floor

import numpy as np
import pytest
import torch

from spade_faiss.errors import SpadeError
from spade_faiss.features import load_backbone
from spade_faiss.features.vit import VIT_CHECKPOINTS, VITS, VisionTransformer, inner_blocks


@pytest.fixture
def small():
    torch.manual_seed(0)
    network = VisionTransformer(32, 6, 2, side=5).eval().requires_grad_(False)
    for value in network.parameters():
        value.copy_(torch.randn_like(value) * 0.2)
    return network


def weights_of(scale, length, side):
    """Return what each of `length` new places takes of `side` old ones: bicubic, a = -0.75."""
    a = -0.75
    rows = np.zeros((length, side))
    for new in range(length):
        at = (new + 0.5) / scale - 0.5
        for old in range(floor(at) - 1, floor(at) + 3):
            x = abs(at - old)
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            rows[new, min(max(old, 0), side - 1)] += (
                near if x <= 1 else a * (x**3 - 5 * x**2 + 8 * x - 4)
            )
    return rows


@pytest.mark.parametrize("size", [(3, 7), (5, 6), (9, 2)])
def test_positions_are_interpolated_with_meta_s_offset(small, size):
    """The scale is (squares + 0.1) / (squares learnt for), as in facebookresearch/dinov2."""
    grid = small.pos_embed[0, 1:].double().numpy().reshape(5, 5, 32)
    down, along = (weights_of((length + 0.1) / 5, length, 5) for length in size)
    expected = np.einsum("yi,xj,ijc->yxc", down, along, grid).reshape(-1, 32)
    positions = small.positions(*size)[0]
    np.testing.assert_allclose(positions[1:].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(positions[0], small.pos_embed[0, 0])
    assert small.positions(5, 5) is small.pos_embed


def test_the_offset_and_the_filter_are_those_of_each_kind():
    plain, with_registers = VITS["dinov2_vits14"](), VITS["dinov2_vits14_reg"]()
    assert (plain.offset, plain.antialias) == (0.1, False)
    assert (with_registers.offset, with_registers.antialias) == (0, True)


def test_levels_are_three_normalised_blocks_of_one_size(small):
    images = torch.rand(2, 3, 42, 98)
    seen = []
    for block in small.blocks:
        block.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.inference_mode():
        descriptors, levels = small(images)
        expected = [small.norm(seen[number]) for number in (1, 3, 5)]
    for level, tokens in zip(levels, expected, strict=True):
        assert level.shape == (2, 32, 3, 7)
        for y, x in [(0, 0), (1, 4), (2, 6)]:
            torch.testing.assert_close(level[:, :, y, x], tokens[:, 1 + 7 * y + x])
    torch.testing.assert_close(descriptors, expected[-1][:, 0])
    assert inner_blocks(12) == (3, 7, 11) and inner_blocks(24) == (7, 15, 23)


def test_an_input_that_is_no_multiple_of_14_is_scaled(small):
    images = torch.rand(1, 3, 60, 100)
    with torch.inference_mode():
        levels = small(images)[1]
    assert [level.shape for level in levels] == [(1, 32, 4, 7)] * 3


def names_and_shapes(dim, depth, registers):
    """Write the parameters of Meta's checkpoints down from the definition."""
    found = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 1 + 37 * 37, dim),
        "mask_token": (1, dim),
        "patch_embed.proj.weight": (dim, 3, 14, 14),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
    }
    if registers:
        found["register_tokens"] = (1, registers, dim)
    for number in range(depth):
        at = f"blocks.{number}"
        linear = (("attn.qkv", 3 * dim, dim), ("attn.proj", dim, dim))
        linear += (("mlp.fc1", 4 * dim, dim), ("mlp.fc2", dim, 4 * dim))
        for name, outputs, inputs in linear:
            found |= {f"{at}.{name}.weight": (outputs, inputs), f"{at}.{name}.bias": (outputs,)}
        for name in ("norm1", "norm2"):
            found |= {f"{at}.{name}.weight": (dim,), f"{at}.{name}.bias": (dim,)}
        found |= {f"{at}.{name}.gamma": (dim,) for name in ("ls1", "ls2")}
    return found


@pytest.mark.parametrize(
    ("name", "dim", "depth", "heads"),
    [("vits14", 384, 12, 6), ("vitb14", 768, 12, 12), ("vitl14", 1024, 24, 16)],
)
def test_the_networks_have_the_published_parameters(name, dim, depth, heads):
    for suffix, registers in (("", 0), ("_reg", 4)):
        with torch.device("meta"):
            network = VITS[f"dinov2_{name}{suffix}"]()
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        assert shapes == names_and_shapes(dim, depth, registers)
        assert {block.attn.heads for block in network.blocks} == {heads}
    with torch.device("meta"):
        assert sum(p.numel() for p in VITS["dinov2_vits14"]().parameters()) == 22_056_576


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights as Meta saves them."""
    torch.manual_seed(0)
    state = {
        key: torch.randn_like(value) * 0.05
        for key, value in VITS["dinov2_vits14"]().state_dict().items()
    }
    path = tmp_path_factory.mktemp("dinov2") / "weights.pth"
    torch.save(state, path)
    return path


def test_a_checkpoint_of_a_user_is_loaded(checkpoint):
    backbone = load_backbone("dinov2_vits14", checkpoint, "cpu")
    images = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    features = backbone(images)
    assert features.descriptors.shape == (1, 384)
    assert [level.shape for level in features.levels] == [(1, 16, 16, 384)] * 3
    for level in features.levels:
        assert level.is_contiguous() and level.std() > 0.01
    with pytest.raises(SpadeError, match=r"does not fit: register_tokens is missing"):
        load_backbone("dinov2_vits14_reg", checkpoint)
    with pytest.raises(SpadeError, match=r"does not fit: .* has shape"):
        load_backbone("dinov2_vitb14", checkpoint)


def test_without_a_file_a_line_says_where_it_is_to_be_had(tmp_path, monkeypatch, checkpoint):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name, url in VIT_CHECKPOINTS.items():
        with pytest.raises(SpadeError, match=re.escape(url)) as caught:
            load_backbone(name, device="cpu")
        assert "`weights`" in str(caught.value) and "\n" not in str(caught.value)
    assert VIT_CHECKPOINTS["dinov2_vits14"].endswith("/dinov2_vits14/dinov2_vits14_pretrain.pth")
    assert VIT_CHECKPOINTS["dinov2_vitl14_reg"].endswith(
        "/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth"
    )
    # torch's hub keeps it there for those who have used it.
    kept = tmp_path / "hub" / "checkpoints" / "dinov2_vits14_pretrain.pth"
    kept.parent.mkdir(parents=True)
    kept.symlink_to(checkpoint)
    there = load_backbone("dinov2_vits14", device="cpu")
    assert there.weights_sha256 == load_backbone("dinov2_vits14", checkpoint, "cpu").weights_sha256
