import pytest
import torch

from spade_faiss.features.resnet import RESNETS

transformers = pytest.importorskip("transformers", reason="needs transformers")


def mapped(key):
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


def independent(name):
    from transformers import ResNetConfig, ResNetModel

    config = {
        "resnet18": ResNetConfig(
            layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512]
        ),
        "resnet50": ResNetConfig(layer_type="bottleneck", depths=[3, 4, 6, 3]),
        "resnet101": ResNetConfig(layer_type="bottleneck", depths=[3, 4, 23, 3]),
    }[name]
    return ResNetModel(config).eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101"])
def test_forward_pass_equals_an_independent_implementation(name):
    torch.manual_seed(0)
    ours, theirs = RESNETS[name]().eval(), independent(name)
    with torch.no_grad():
        for key, value in ours.state_dict().items():
            if value.ndim and not key.startswith("fc."):
                # Weights near 1 / sqrt(fan-in) and positive variances keep activations alive.
                noise = torch.randn_like(value) * (
                    value[0].numel() ** -0.5 if value.ndim > 1 else 0.1
                )
                value.copy_(
                    noise
                    if value.ndim > 1
                    else noise.abs() + 0.5
                    if "var" in key or "weight" in key
                    else noise
                )
    renamed = {
        mapped(k): v
        for k, v in ours.state_dict().items()
        if not k.startswith("fc.") and "num_batches" not in k
    }
    missing, unexpected = theirs.load_state_dict(renamed, strict=False)
    assert not unexpected and all("num_batches" in key for key in missing)
    images = torch.randn(2, 3, 96, 128)
    with torch.inference_mode():
        descriptors, levels = ours(images)
        expected = theirs(images, output_hidden_states=True)
    for level, stage in zip(levels, expected.hidden_states[1:4], strict=True):
        assert level.std() > 1e-3
        torch.testing.assert_close(level, stage, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(descriptors, expected.pooler_output.flatten(1), rtol=1e-4, atol=1e-4)


def wide_names_and_shapes():
    """Write the parameters of Wide-ResNet-50-2 down from its definition."""

    def norm(name, n):
        return {
            f"{name}.{part}": (n,) for part in ("weight", "bias", "running_mean", "running_var")
        } | {f"{name}.num_batches_tracked": ()}

    found = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
    inputs = 64
    for layer, depth in enumerate((3, 4, 6, 3), 1):
        inner, outer = 128 * 2 ** (layer - 1), 256 * 2 ** (layer - 1)
        for block in range(depth):
            at = f"layer{layer}.{block}"
            found |= {f"{at}.conv1.weight": (inner, inputs, 1, 1)} | norm(f"{at}.bn1", inner)
            found |= {f"{at}.conv2.weight": (inner, inner, 3, 3)} | norm(f"{at}.bn2", inner)
            found |= {f"{at}.conv3.weight": (outer, inner, 1, 1)} | norm(f"{at}.bn3", outer)
            if block == 0:
                found |= {f"{at}.downsample.0.weight": (outer, inputs, 1, 1)}
                found |= norm(f"{at}.downsample.1", outer)
            inputs = outer
    return found | {"fc.weight": (1000, 2048), "fc.bias": (1000,)}


def test_the_wide_network_has_the_published_parameters():
    network = RESNETS["wide_resnet50_2"]()
    assert sum(p.numel() for p in network.parameters()) == 68_883_240
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert shapes == wide_names_and_shapes()


def test_the_wide_network_strides_and_pools_as_the_paper_says():
    network = RESNETS["wide_resnet50_2"]().eval()
    with torch.inference_mode():
        descriptors, levels = network(torch.zeros(1, 3, 224, 224))
    assert descriptors.shape == (1, 2048)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (256, 56, 56),
        (512, 28, 28),
        (1024, 14, 14),
    ]
    # A bottleneck strides in its 3x3 convolution, as the published weights were trained.
    for layer in (network.layer2, network.layer3, network.layer4):
        assert layer[0].conv1.stride == (1, 1) and layer[0].conv2.stride == (2, 2)
