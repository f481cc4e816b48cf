"""Networks against those of Hugging Face's transformers, with the same random weights."""

import re

import pytest
import torch

from spade_faiss.features.convnext import CONVNEXTS, ConvNeXt
from spade_faiss.features.resnet import RESNETS
from spade_faiss.features.vit import VITS, VisionTransformer, inner_blocks

transformers = pytest.importorskip("transformers", reason="needs transformers")

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def randomise(network):
    """Give a network weights near 1 / sqrt(fan-in) and positive variances: all of it is alive."""
    torch.manual_seed(0)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.ndim > 1:
                value.copy_(torch.randn_like(value) * value[0].numel() ** -0.5)
            elif value.ndim:
                noise = torch.randn_like(value) * 0.1
                scale = key.endswith(("weight", "running_var", "gamma"))
                value.copy_(noise.abs() + 0.5 if scale else noise)
    return network.eval()


def loaded(theirs, state):
    """Return a network of transformers with these weights and no others."""
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and all("num_batches" in key for key in missing)
    return theirs.eval()


def name_in_resnet(key):
    """Return the name in transformers' ResNet of one of torchvision's parameters."""
    part, _, rest = key.partition(".")
    conv_norm = {"conv": "convolution", "bn": "normalization"}
    if part in ("conv1", "bn1"):
        return f"embedder.embedder.{conv_norm[part[:-1]]}.{rest}"
    stage = int(part[-1]) - 1
    block, module, rest = rest.split(".", 2) if "downsample" in key else [*rest.split("."), ""][:3]
    base = f"encoder.stages.{stage}.layers.{block}"
    if module == "downsample":
        number, leaf = rest.split(".")
        return f"{base}.shortcut.{'convolution' if number == '0' else 'normalization'}.{leaf}"
    return f"{base}.layer.{int(module[-1]) - 1}.{conv_norm[module[:-1]]}.{rest}"


RESNET_CONFIGS = {
    "resnet18": {
        "layer_type": "basic",
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [64, 128, 256, 512],
    },
    "resnet50": {"layer_type": "bottleneck", "depths": [3, 4, 6, 3]},
    "resnet101": {"layer_type": "bottleneck", "depths": [3, 4, 23, 3]},
}


@pytest.mark.parametrize("name", RESNET_CONFIGS)
def test_resnet(name):
    ours = randomise(RESNETS[name]())
    state = {
        name_in_resnet(key): value
        for key, value in ours.state_dict().items()
        if not key.startswith("fc.") and "num_batches" not in key
    }
    config = transformers.ResNetConfig(**RESNET_CONFIGS[name])
    theirs = loaded(transformers.ResNetModel(config), state)
    images = torch.randn(2, 3, 96, 128)
    with torch.inference_mode():
        descriptors, levels = ours(images)
        expected = theirs(images, output_hidden_states=True)
    for level, stage in zip(levels, expected.hidden_states[1:4], strict=True):
        assert level.std() > 1e-3
        torch.testing.assert_close(level, stage, **CLOSE)
    torch.testing.assert_close(descriptors, expected.pooler_output.flatten(1), **CLOSE)


IN_CONVNEXT = (
    (r"^downsample_layers\.0\.0\.", "embeddings.patch_embeddings."),
    (r"^downsample_layers\.0\.1\.", "embeddings.layernorm."),
    (r"^downsample_layers\.(\d)\.", r"encoder.stages.\1.downsampling_layer."),
    (r"^stages\.(\d)\.(\d+)\.", r"encoder.stages.\1.layers.\2."),
    (r"\.norm\.", ".layernorm."),
    (r"^norm\.", "layernorm."),
    (r"\.gamma$", ".layer_scale_parameter"),
)
"""Patterns in Meta's names, and what transformers has there."""


def check_convnext(ours, depths, dims, images):
    randomise(ours)
    state = {}
    for key, value in ours.state_dict().items():
        if not key.startswith("head."):
            for pattern, there in IN_CONVNEXT:
                key = re.sub(pattern, there, key)
            state[key] = value
    config = transformers.ConvNextConfig(hidden_sizes=dims, depths=depths, layer_norm_eps=1e-6)
    theirs = loaded(transformers.ConvNextModel(config), state)
    with torch.inference_mode():
        descriptors, levels = ours(images)
        expected = theirs(images, output_hidden_states=True)
    for level, stage in zip(levels, expected.hidden_states[1:4], strict=True):
        assert level.std() > 1e-3
        torch.testing.assert_close(level, stage, **CLOSE)
    torch.testing.assert_close(descriptors, expected.pooler_output, **CLOSE)


def test_convnext():
    depths, dims = [1, 2, 3, 1], [8, 16, 24, 32]
    check_convnext(ConvNeXt(depths, dims), depths, dims, torch.randn(2, 3, 96, 128))


def test_convnext_of_full_size():
    depths, dims = [3, 3, 9, 3], [96, 192, 384, 768]
    check_convnext(CONVNEXTS["convnext_tiny"](), depths, dims, torch.randn(1, 3, 96, 64))


IN_DINOV2 = (
    (r"^(cls_token|mask_token|register_tokens)$", r"embeddings.\1"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.ls(\d)\.gamma$", r".layer_scale\1.lambda1"),
    (r"^norm\.", "layernorm."),
)


def check_dinov2(ours, images):
    randomise(ours)
    dim, depth = ours.pos_embed.shape[2], len(ours.blocks)
    state = {}
    for key, value in ours.state_dict().items():
        for pattern, there in IN_DINOV2:
            key = re.sub(pattern, there, key)
        if ".attn.qkv." in key:
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                state[key.replace("attn.qkv", f"attention.{part}_proj")] = rows
        else:
            state[key] = value
    config = {
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "num_attention_heads": ours.blocks[0].attn.heads,
        "image_size": 14 * round((ours.pos_embed.shape[1] - 1) ** 0.5),
        "patch_size": 14,
    }
    if ours.register_tokens is None:
        theirs = transformers.Dinov2Model(transformers.Dinov2Config(**config))
    else:
        count = ours.register_tokens.shape[1]
        theirs = transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**config, num_register_tokens=count)
        )
    loaded(theirs, state)
    others = 1 if ours.register_tokens is None else 1 + ours.register_tokens.shape[1]
    size = images.shape[2] // 14, images.shape[3] // 14
    with torch.inference_mode():
        descriptors, levels = ours(images)
        expected = theirs(images, output_hidden_states=True)
        blocks = [theirs.layernorm(block) for block in expected.hidden_states[1:-1]]
    # The last of transformers' hidden states may be normalised already; this one surely is.
    blocks.append(expected.last_hidden_state)
    assert len(blocks) == depth
    for level, number in zip(levels, inner_blocks(depth), strict=True):
        assert level.std() > 1e-3
        there = blocks[number][:, others:].transpose(1, 2).unflatten(2, size)
        torch.testing.assert_close(level, there, **CLOSE)
    torch.testing.assert_close(descriptors, expected.pooler_output, **CLOSE)


@pytest.mark.parametrize("size", [(70, 70), (42, 98), (14, 350), (126, 112)])
@pytest.mark.parametrize("registers", [0, 3])
def test_dinov2(registers, size):
    """Also of sizes that its positions are interpolated for, as transformers does: no offset."""
    ours = VisionTransformer(32, 4, 2, registers, side=5, offset=0)
    check_dinov2(ours, torch.randn(2, 3, *size))


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg"])
def test_dinov2_of_full_size(name):
    ours = VITS[name]()
    ours.offset = 0
    check_dinov2(ours, torch.randn(1, 3, 112, 98))
