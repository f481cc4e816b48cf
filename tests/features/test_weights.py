import hashlib
import os
import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spade_faiss.errors import SpadeError
from spade_faiss.features import load_backbone, weights
from spade_faiss.features.resnet import RESNETS
from spade_faiss.features.weights import load_into, read_state_dict


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return RESNETS["resnet18"]().state_dict()


@pytest.fixture
def server(tmp_path, state, monkeypatch):
    """A server of one published checkpoint, and an empty cache; yields (folder, cache, name)."""
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save(state, folder / "new.pth")
    prefix = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    name = f"resnet18-{prefix}.pth"
    (folder / "new.pth").rename(folder / name)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{http.server_port}/{name}"
        monkeypatch.setitem(weights.PUBLISHED, "resnet18", url)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
        yield folder, tmp_path / "cache" / "hub" / "checkpoints", name
        http.shutdown()


def test_published_weights_are_fetched_once_and_verified(server, state):
    folder, cache, name = server
    first = load_backbone("resnet18", device="cpu")
    assert (cache / name).exists()
    assert first.weights_sha256 == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / name).unlink()
    assert load_backbone("resnet18", device="cpu").weights_sha256 == first.weights_sha256


def test_a_wrong_checksum_is_refused_and_nothing_kept(server):
    folder, cache, name = server
    with (folder / name).open("r+b") as file:
        file.seek(5000)
        file.write(b"x")
    with pytest.raises(SpadeError, match="sha256"):
        load_backbone("resnet18")
    assert not list(cache.iterdir())


def test_a_damaged_cached_file_is_named(server):
    _, cache, name = server
    load_backbone("resnet18")
    (cache / name).write_bytes(b"short")
    with pytest.raises(SpadeError, match=r"damaged.*delete it"):
        load_backbone("resnet18")


def test_without_a_network_both_ways_out_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(weights.PUBLISHED, "resnet18", "http://127.0.0.1:9/resnet18-f37072fd.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(SpadeError, match=r"go online once, or .*`weights`") as caught:
        load_backbone("resnet18")
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_named(server):
    _, cache, _ = server
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where a folder should be")
    with pytest.raises(SpadeError, match=r"cannot be kept in .*checkpoints.*TORCH_HOME"):
        load_backbone("resnet18")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s},
        lambda s: {"model": s, "epoch": 3},
        lambda s: {f"module.{key}": value for key, value in s.items()},
    ],
)
def test_checkpoints_as_people_save_them(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "w.pth")
    found = read_state_dict(tmp_path / "w.pth")
    assert found.keys() == state.keys()
    assert torch.equal(found["conv1.weight"], state["conv1.weight"])


def test_safetensors_give_the_same_network(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8).numpy()
    one = load_backbone("resnet18", tmp_path / "w.safetensors", "cpu")(images)
    two = load_backbone("resnet18", tmp_path / "w.pth", "cpu")(images)
    assert torch.equal(one.descriptors, two.descriptors)
    assert [tuple(level.shape) for level in one.levels] == [
        (1, 16, 16, 64),
        (1, 8, 8, 128),
        (1, 4, 4, 256),
    ]


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/spade-faiss-was-executed",)


def test_a_pickle_is_never_executed(tmp_path):
    for name, saved in (("a.pth", pickle.dumps(Evil())), ("b.pth", None)):
        if saved is None:
            torch.save({"conv1.weight": Evil()}, tmp_path / name)
        else:
            (tmp_path / name).write_bytes(saved)
        with pytest.raises(SpadeError):
            read_state_dict(tmp_path / name)
    assert not Path("/tmp/spade-faiss-was-executed").exists()


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04" + bytes(200)])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_unreadable_files_are_named(tmp_path, data, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(data)
    with pytest.raises(SpadeError, match=str(path)) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_named(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SpadeError, match=r"w\.pth"):
        read_state_dict(tmp_path / "w.pth")


def change(state, **changes):
    changed = dict(state)
    for key, value in changes.items():
        key = key.replace("__", ".")
        if value is None:
            del changed[key]
        else:
            changed[key] = value
    return changed


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"layer2__0__conv1__weight": None}, r"layer2\.0\.conv1\.weight is missing"),
        (
            {"layer1__0__conv1__weight": torch.zeros(64, 32, 3, 3)},
            r"layer1\.0\.conv1\.weight has shape \[64, 32, 3, 3\] where \[64, 64, 3, 3\] is needed",
        ),
        ({"layer5__weight": torch.zeros(1)}, r"layer5\.weight is unknown"),
        ({"bn1__weight": torch.full((64,), float("nan"))}, r"bn1\.weight holds NaN"),
    ],
)
def test_the_first_difference_is_named(tmp_path, state, changes, why):
    with pytest.raises(SpadeError, match=why):
        load_into(RESNETS["resnet18"](), change(state, **changes), tmp_path / "w.pth")


def test_the_classifier_does_not_matter(tmp_path, state):
    trimmed = change(state, fc__weight=torch.zeros(7, 512), fc__bias=None)
    network = RESNETS["resnet18"]()
    load_into(network, trimmed, tmp_path / "w.pth")
    assert torch.equal(network.conv1.weight, state["conv1.weight"])


def test_another_network_s_weights_are_refused(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(SpadeError, match="does not fit"):
        load_backbone("resnet50", tmp_path / "w.pth")
    with pytest.raises(SpadeError, match="no such weights file"):
        load_backbone("resnet50", tmp_path / "gone.pth")


def test_unknown_names_are_refused():
    with pytest.raises(SpadeError, match="choose one of wide_resnet50_2"):
        load_backbone("vgg")
    with pytest.raises(SpadeError, match="device"):
        load_backbone("resnet18", device="toaster")
