import torch

from spade_faiss.features.resnet import RESNETS


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
