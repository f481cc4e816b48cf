"""Networks of timm and torchvision, of which small likenesses stand in for the libraries."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spade_faiss.errors import SpadeError
from spade_faiss.features import load_backbone
from tests.command import done, run

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def shrunk(inputs, outputs, times):
    return nn.Sequential(nn.Conv2d(inputs, outputs, times, times), nn.ReLU(inplace=True))


class Staged(nn.Module):
    """Four stages, whose maps have sides of 1/4 to 1/32, and one before them."""

    pretrained_cfg = MappingProxyType({"mean": MEAN, "std": STD, "classifier": "head.fc"})
    feature_info = (
        {"num_chs": 4, "reduction": 2, "module": "stem"},
        *(
            {"num_chs": 4 * 2**number, "reduction": 4 * 2**number, "module": f"stages.{number}"}
            for number in range(4)
        ),
    )

    def __init__(self):
        super().__init__()
        self.stem = shrunk(3, 4, 2)
        self.stages = nn.Sequential(*(shrunk(max(4, 2 * n), 4 * n, 2) for n in (1, 2, 4, 8)))
        self.head = nn.ModuleDict({"fc": nn.Linear(32, 10)})

    def maps(self, x):
        found = [self.stem(x)]
        for stage in self.stages:
            found.append(stage(found[-1].clone()))
        return found


class FlatMaps(nn.Module):
    """Timm's maps of a network whose `stages` are flattened: parts of its own, "stages_0"."""

    def __init__(self, network, out_indices):
        super().__init__()
        self.stem = network.stem
        for number, stage in enumerate(network.stages[: max(out_indices)]):
            self.add_module(f"stages_{number}", stage)
        self.out_indices = out_indices

    def forward(self, x):
        found = [self.stem(x)]
        for number in range(max(self.out_indices)):
            found.append(getattr(self, f"stages_{number}")(found[-1].clone()))
        return [found[at] for at in self.out_indices]


class LastChannels(Staged):
    """Its maps have channels last."""


class LastChannelsMaps(FlatMaps):
    output_fmt = "NHWC"

    def forward(self, x):
        return [one.permute(0, 2, 3, 1) for one in super().forward(x)]


class Tokens(nn.Module):
    """A transformer of six blocks, of images of 28 x 28 pixels unless it is told otherwise."""

    pretrained_cfg = MappingProxyType(
        {"mean": MEAN, "std": STD, "classifier": ("head", "head_dist")}
    )
    feature_info = tuple(
        {"num_chs": 8, "reduction": 14, "module": f"blocks.{number}"} for number in range(6)
    )

    def __init__(self, dynamic_img_size=False):
        super().__init__()
        self.dynamic_img_size = dynamic_img_size
        self.embed = nn.Conv2d(3, 8, 14, 14)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(6))
        self.head, self.head_dist = nn.Linear(8, 10), nn.Linear(8, 10)

    def maps(self, x):
        dynamic = getattr(self, "dynamic_img_size", False)
        assert dynamic or x.shape[2:] == (28, 28), "Input size does not match model."
        x, found = self.embed(x), []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return found


class WithinMaps(nn.Module):
    """Timm's maps of a network that is within them, as "model"."""

    def __init__(self, network, out_indices):
        super().__init__()
        self.model = network
        network.head = network.head_dist = nn.Identity()
        self.out_indices = out_indices

    def forward(self, x):
        found = self.model.maps(x)
        return [found[at] for at in self.out_indices]


TIMM = {
    "staged": (Staged, FlatMaps),
    "last_channels": (LastChannels, LastChannelsMaps),
    "tokens": (Tokens, WithinMaps),
}


@pytest.fixture
def timm(monkeypatch):
    """The part of timm that is used here: `create_model`."""
    library: Any = ModuleType("timm")

    def create_model(name, pretrained=False, features_only=False, out_indices=None, **kwargs):
        if name not in TIMM:
            raise RuntimeError(f"Unknown model ({name})")
        make, maps = TIMM[name]
        if pretrained:
            torch.manual_seed(7)
        network = make(**kwargs)
        return maps(network, out_indices) if features_only else network

    library.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", library)
    return library


def expected(network, images, levels):
    """Return the descriptors and levels that a network itself has of images."""
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(one)[:, None, None] for one in (MEAN, STD))
    with torch.inference_mode():
        found = network.eval().maps((scaled - mean) / std)
    return found[-1].mean((2, 3)), [found[at].permute(0, 2, 3, 1) for at in levels]


def check(features, network, images, levels):
    descriptors, maps = expected(network, images, levels)
    torch.testing.assert_close(features.descriptors, descriptors, rtol=1e-4, atol=1e-5)
    assert len(features.levels) == len(levels)
    for level, there in zip(features.levels, maps, strict=True):
        assert level.std() > 1e-3
        torch.testing.assert_close(level, there, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["staged", "last_channels"])
def test_timm_s_pretrained_network_has_the_levels_of_1_4_to_1_16(timm, name):
    backbone = load_backbone(f"timm:{name}", device="cpu")
    check(backbone(IMAGES), timm.create_model(name, pretrained=True), IMAGES, (1, 2, 3))
    assert backbone.name == f"timm:{name}"
    again = load_backbone(f"timm:{name}", device="cpu")
    assert again.weights_sha256 == backbone.weights_sha256 and len(backbone.weights_sha256) == 64


def test_timm_s_transformers_give_blocks_evenly_and_take_other_sizes(timm):
    backbone = load_backbone("timm:tokens", device="cpu")
    network = timm.create_model("tokens", pretrained=True, dynamic_img_size=True)
    images = IMAGES[:, :56, :84]
    check(backbone(images), network, images, (1, 3, 5))
    # What is no multiple of a patch's side is scaled.
    assert [level.shape[1:3] for level in backbone(IMAGES).levels] == [(5, 7)] * 3


def test_a_file_is_loaded_whole_into_timm_s_network(timm, tmp_path):
    torch.manual_seed(3)
    network, path = Staged(), tmp_path / "w.pth"
    state = network.state_dict()
    torch.save(state | {"head.fc.weight": torch.zeros(3, 32)}, path)
    backbone = load_backbone("timm:staged", path, "cpu")
    check(backbone(IMAGES), network, IMAGES, (1, 2, 3))
    assert backbone.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for changed, why in (
        ({"stages.4.0.weight": torch.zeros(1)}, "is unknown to this network"),
        ({"stages.3.0.weight": torch.zeros(1)}, "has shape"),
        ({"stages.0.0.weight": None}, "is missing"),
    ):
        wrong = {key: value for key, value in (state | changed).items() if value is not None}
        torch.save(wrong, path)
        with pytest.raises(SpadeError, match=rf"does not fit: {next(iter(changed))} {why}"):
            load_backbone("timm:staged", path)


def test_maps_that_need_more_than_the_network_has_are_refused(timm, monkeypatch):
    class More(FlatMaps):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.further = nn.Linear(2, 2)

    monkeypatch.setitem(TIMM, "staged", (Staged, More))
    with pytest.raises(SpadeError, match=r"timm:staged: .* further\.weight"):
        load_backbone("timm:staged")


def one_line(name, *words, **options):
    with pytest.raises(SpadeError) as caught:
        load_backbone(name, device="cpu", **options)
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_what_timm_cannot_give_is_one_line(timm, monkeypatch, tmp_path):
    torch.save({}, tmp_path / "w.pth")
    one_line("timm:vgg", "timm:vgg", "Unknown model (vgg)", "list_models", "`weights`")
    one_line("timm:vgg", "Unknown model (vgg)", "list_models", weights=tmp_path / "w.pth")
    monkeypatch.setitem(TIMM, "mapless", (without_maps, FlatMaps))
    one_line("timm:mapless", "no feature maps", "another network")

    def offline(name, **_):
        raise OSError(f"cannot reach the hub for {name}\nand more")

    monkeypatch.setattr(timm, "create_model", offline)
    one_line("timm:staged", "cannot reach the hub for staged)", "`weights`")


def without_maps():
    network = nn.Linear(2, 2)
    network.pretrained_cfg = {"mean": MEAN, "std": STD}
    return network


def test_a_size_that_the_network_does_not_take_is_one_line(timm, monkeypatch):
    class Fixed(Tokens):
        def __init__(self):
            super().__init__()
            del self.dynamic_img_size  # it cannot be told otherwise

    monkeypatch.setitem(TIMM, "fixed", (Fixed, WithinMaps))
    backbone = load_backbone("timm:fixed", device="cpu")
    assert len(backbone(IMAGES[:, :28, :28]).levels) == 3
    with pytest.raises(SpadeError, match=r"timm:fixed .* 70 x 98 pixels .*`resize` or `crop`"):
        backbone(IMAGES)


def test_a_shortage_of_memory_is_no_wrong_size(timm, monkeypatch):
    seen = []

    class Short(FlatMaps):
        def forward(self, x):
            seen.append(len(x))
            if len(x) > 1:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
            return super().forward(x)

    monkeypatch.setitem(TIMM, "staged", (Staged, Short))
    assert load_backbone("timm:staged", device="cpu")(IMAGES).descriptors.shape == (2, 32)
    assert seen == [2, 1, 1]


class Features(nn.Module):
    """A network whose stages are within `features`; torchvision has many of this form."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            shrunk(3, 4, 2),
            nn.Sequential(nn.Conv2d(4, 4, 2, 2), nn.BatchNorm2d(4)),
            nn.Conv2d(4, 6, 1),
            shrunk(6, 8, 2),
            shrunk(8, 16, 2),
            shrunk(16, 32, 2),
        )
        self.classifier = nn.Sequential(nn.Conv2d(32, 10, 1))

    def maps(self, x):
        found = []
        for part in self.features:
            x = part(x)
            found.append(x.clone())
        return [*found[2:]]

    def forward(self, x):
        return self.classifier(self.features(x)).mean((2, 3))


class LastFeatures(Features):
    """Its stages have channels last."""

    def forward(self, x):
        return self.run(x)[-1].mean((1, 2))

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*map(LastStage, self.features))

    def run(self, x):
        found = [x.permute(0, 2, 3, 1)]
        for part in self.features:
            found.append(part(found[-1]))
        return found[1:]

    def maps(self, x):
        return [one.permute(0, 3, 1, 2) for one in self.run(x)[2:]]


class LastStage(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return self.part(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Encoder(nn.Module):
    """A transformer: its one map is that of the patches, before any block."""

    def __init__(self):
        super().__init__()
        self.conv_proj = nn.Conv2d(3, 8, 16, 16)
        self.encoder = nn.Linear(8, 8)

    def forward(self, x):
        return self.encoder(self.conv_proj(x).flatten(2).transpose(1, 2))


class Rescaling(Features):
    """As GoogLeNet does, where it is told so, it brings images to its own scale."""

    def __init__(self):
        super().__init__()
        self.transform_input = False

    def maps(self, x):
        return super().maps(x * 2 if self.transform_input else x)

    def forward(self, x):
        return super().forward(x * 2 if self.transform_input else x)


TORCHVISION = {
    "features": Features,
    "last_features": LastFeatures,
    "encoder": Encoder,
    "rescaling": Rescaling,
}


@pytest.fixture
def torchvision(monkeypatch, tmp_path):
    """The part of torchvision that is used here, and its published weights in torch's cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    library: Any = ModuleType("torchvision")
    models: Any = ModuleType("torchvision.models")
    preset = SimpleNamespace(mean=list(MEAN), std=list(STD))
    published, networks = {}, {}
    for number, (name, make) in enumerate(TORCHVISION.items()):
        torch.manual_seed(number)
        networks[name] = make()
        torch.save(networks[name].state_dict(), cache / "new.pth")
        digest = hashlib.sha256((cache / "new.pth").read_bytes()).hexdigest()
        (cache / "new.pth").rename(cache / f"{name}-{digest[:8]}.pth")
        url = f"https://download.invalid/{name}-{digest[:8]}.pth"
        default = SimpleNamespace(url=url, transforms=lambda: preset)
        published[name] = SimpleNamespace(DEFAULT=default)

    def get_model(name, weights):
        assert weights is None, "torchvision would load them as a pickle"
        return TORCHVISION[name]()

    models.get_model = get_model
    models.get_model_weights = published.__getitem__
    models.list_models = lambda module: sorted(TORCHVISION) if module is models else ["raft"]
    library.models = models
    monkeypatch.setitem(sys.modules, "torchvision", library)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return SimpleNamespace(networks=networks, published=published, cache=cache)


@pytest.mark.parametrize("name", ["features", "last_features"])
def test_torchvision_s_stages_are_levels(torchvision, name):
    backbone = load_backbone(f"torchvision:{name}", device="cpu")
    check(backbone(IMAGES), torchvision.networks[name], IMAGES, (0, 1, 2))
    (path,) = torchvision.cache.glob(f"{name}-*.pth")
    assert backbone.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    # Another size, and one that is no multiple of 32.
    assert [level.shape[1:3] for level in backbone(IMAGES[:, :30, :50]).levels] == [
        (8, 16),
        (4, 8),
        (2, 4),
    ]


def test_a_network_that_scales_its_input_is_told_to(torchvision):
    network = torchvision.networks["rescaling"]
    network.transform_input = True
    check(load_backbone("torchvision:rescaling", device="cpu")(IMAGES), network, IMAGES, (0, 1, 2))


def test_a_file_is_loaded_into_torchvision_s_network(torchvision, tmp_path):
    torch.manual_seed(9)
    network, path = Features(), tmp_path / "w.pth"
    state = {key: value for key, value in network.state_dict().items() if "classifier" not in key}
    torch.save({"model": state}, path)
    check(load_backbone("torchvision:features", path, "cpu")(IMAGES), network, IMAGES, (0, 1, 2))
    del state["features.5.0.bias"]
    torch.save(state, path)
    one_line("torchvision:features", "features.5.0.bias is missing", weights=path)


def test_what_torchvision_cannot_give_is_one_line(torchvision):
    one_line("torchvision:raft", "torchvision:raft", "list_models")
    one_line("torchvision:encoder", "torchvision:encoder has no stages", "another network")
    (path,) = torchvision.cache.glob("features-*.pth")
    path.write_bytes(b"short")
    one_line("torchvision:features", "damaged", "delete it")
    path.unlink()
    one_line("torchvision:features", "the weights of torchvision:features are not in", "`weights`")
    torchvision.published["features"].DEFAULT.url = "https://download.invalid/features.pth"
    one_line("torchvision:features", "no checksum in its name", "`weights`")


def test_a_library_that_is_not_there_is_one_line(monkeypatch, tmp_path):
    for name in ("timm", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)
        one_line(f"{name}:resnet18", f"{name} is not installed: pip install {name}")
        monkeypatch.delitem(sys.modules, name)
    one_line("timm:", "unknown backbone", "timm:NAME or torchvision:NAME")
    # As torchvision for another torch does it, and timm without torchvision.
    for name, line in (
        ("torchvision", "raise RuntimeError('operator torchvision::nms does not exist')"),
        ("timm", "import torchvision_of_timm"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    one_line("torchvision:resnet18", "operator torchvision::nms", f"fits torch {torch.__version__}")
    one_line("timm:resnet18", "torchvision_of_timm is not installed: pip install torchvision_of")


def test_the_command_line_takes_them(timm, gravel_folder, tmp_path, monkeypatch):
    framed = ("--resize", "64", "--crop", "64")
    done("build", gravel_folder, "--index", tmp_path / "i", "--backbone", "timm:staged", *framed)
    said = json.loads(done("info", tmp_path / "i", "--json").stdout)
    assert said["backbone"]["name"] == "timm:staged" and len(said["levels"]) == 6
    done("query", tmp_path / "i", gravel_folder / "000.png", "--out", tmp_path / "out")
    monkeypatch.setitem(sys.modules, "timm", None)
    ended = run("query", tmp_path / "i", gravel_folder / "000.png", "--out", tmp_path / "out")
    assert ended.returncode == 2
    assert ended.stderr == "spade-faiss: timm is not installed: pip install timm\n"


def test_nothing_imports_the_libraries_unasked():
    code = (
        "import sys, spade_faiss.cli.app, spade_faiss.detector.spade\n"
        "print(sorted({'timm', 'torchvision', 'transformers'} & sys.modules.keys()))"
    )
    folder = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert ended.stdout.strip() == "[]", ended.stderr
