"""A transformer, whose levels all have one size, on the whole way from images to answers."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import tifffile
import torch

from spade_faiss import Spade, SpadeError
from spade_faiss.evaluation.sweep import Sweep
from spade_faiss.features import load_backbone
from spade_faiss.features.backbone import ARCHITECTURES, Architecture
from spade_faiss.features.vit import VisionTransformer
from spade_faiss.features.weights import from_cache
from spade_faiss.index import Index
from tests.command import done, one_line
from tests.conftest import texture, with_hole
from tests.service.serving import form, serving

URL = "https://download.invalid/small_pretrain.pth"
NETWORK = ("--backbone", "small")
INPUT = ("--resize", "128", "--crop", "112")


def small():
    return VisionTransformer(48, 6, 3, registers=2, side=8)


@pytest.fixture(scope="module", autouse=True)
def known():
    """A small transformer that the command line knows as it knows Meta's."""
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    with pytest.MonkeyPatch.context() as patch:
        made = Architecture(small, lambda: from_cache(URL, "small"), *imagenet, cell=14)
        patch.setitem(ARCHITECTURES, "small", made)
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    state = {key: torch.randn_like(value) * 0.1 for key, value in small().state_dict().items()}
    # It sees how bright quarters of a square are: a hole is darker than any good part.
    quarters = torch.randn(48, 3, 2, 2) / 7**2
    state["patch_embed.proj.weight"] = quarters.repeat_interleave(7, 2).repeat_interleave(7, 3)
    state["patch_embed.proj.bias"] = torch.randn(48)
    path = tmp_path_factory.mktemp("small") / "weights.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def index(known, weights, gravel_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("equal") / "index"
    options = (*NETWORK, "--weights", weights, *INPUT, "--quantile", "0.8")
    done("build", gravel_folder, "--index", folder, "--preset", "best", *options)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    good = texture("gravel", 1, seed=8)[0]
    cv2.imwrite(str(folder / "good.png"), good)
    cv2.imwrite(str(folder / "hole.png"), with_hole(good, radius=40))
    return folder


def test_the_index_tells_what_made_it(index, weights):
    known = json.loads(done("info", index, "--json").stdout)
    assert known["backbone"]["name"] == "small"
    manifest = Index.open(index).manifest
    assert [(v.height, v.width, v.channels) for v in manifest.levels] == [(8, 8, 48)] * 6
    assert manifest.backbone.weights_sha256 == load_backbone("small", weights).weights_sha256
    done("info", index, "--verify")


def test_a_query_finds_the_hole_and_explains_it(index, weights, images, tmp_path):
    out = tmp_path / "out"
    options = ("--weights", weights, "--explain", "--report")
    done("query", index, images / "good.png", images / "hole.png", "--out", out, *options)
    with (out / "scores.csv").open(newline="") as file:
        good, hole = (float(row["score"]) for row in csv.DictReader(file))
    assert hole > 1.2 * good
    values = tifffile.imread(out / "maps" / "hole.tiff")
    y, x = np.unravel_index(values.argmax(), values.shape)
    assert values.shape == (256, 256) and np.hypot(y - 130, x - 120) < 24
    found = json.loads((out / "explain" / "hole.json").read_text())
    matches = found["regions"][0]["matches"]
    assert sorted(match["level"] for match in matches) == [1, 2, 3, 4, 5, 6]
    assert cv2.imread(str(out / "explain" / "hole.png")).shape[1] > 700
    assert (out / "report.html").exists()


def test_distances_are_those_to_the_nearest_patch_of_each_level(weights, gravel_folder, images):
    network = load_backbone("small", weights, "cpu")
    spade = Spade(network, k=100, resize=128, crop=112).fit(gravel_folder, calibrate=False)
    result = next(spade.query(images / "hole.png"))
    framing = spade.index_.manifest.framing.framing()
    paths = [*sorted(gravel_folder.iterdir()), images / "hole.png"]
    pixels = [framing.apply(cv2.imread(str(path))[..., ::-1]) for path in paths]
    levels = network(np.stack(pixels)).levels
    assert len(result.distances) == 3
    for level, distances in zip(levels, result.distances, strict=True):
        rows = level.flatten(1, 2).double()
        nearest = torch.cdist(rows[-1], rows[:-1].flatten(0, 1)).amin(1)
        assert nearest.max() > 0.1
        np.testing.assert_allclose(distances.ravel(), nearest.numpy(), rtol=1e-3, atol=1e-4)


def test_the_service_answers_as_a_query_does(index, weights, images):
    network = load_backbone("small", weights, "cpu")
    spade = Spade.load(index, backbone=network)
    score = spade.score_of(next(spade.query(images / "hole.png")))
    with serving(index, network) as service:
        files = form(*((images / f"{name}.png").read_bytes() for name in ("hole", "good")))
        answer = service.client.post("/v1/query?maps=tiff", files=files)
        assert answer.status_code == 200, answer.text
        hole, good = answer.json()["images"]
        told = service.client.get("/v1/index").json()
    assert hole["score"] == pytest.approx(score, rel=1e-5) and hole["score"] > good["score"]
    assert {match["level"] for match in hole["regions"][0]["matches"]} == {1, 2, 3, 4, 5, 6}
    assert told["backbone"] == "small" and len(told["levels"]) == 6


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        (("--coreset", "0.3"), [(8, 8)]),
        (("--store", "float16"), [(8, 8)]),
        (("--views", "flip,scale"), [(8, 8), (8, 8), (10, 10)]),
        (("--resize", "100", "--crop", "none"), [(7, 7)]),
    ],
)
def test_other_indices_and_sizes_go_the_same_way(
    options, sizes, weights, gravel_folder, images, tmp_path
):
    """Sides of 100 pixels are no multiple of 14."""
    folder, out = tmp_path / "index", tmp_path / "out"
    network = (*NETWORK, "--weights", weights)
    framed = options if "--resize" in options else (*INPUT, *options)
    done("build", gravel_folder, "--index", folder, *network, *framed)
    printed = json.loads(
        done("query", folder, images, "--out", out, "--weights", weights, "--json").stdout
    )
    good, hole = (one["score"] for one in printed["images"])
    assert hole > good
    manifests = sorted(folder.rglob("manifest.json"))
    grids = [
        {(v.height, v.width) for v in Index.open(path.parent).manifest.levels} for path in manifests
    ]
    assert sorted(map(sorted, grids)) == [[size] for size in sizes]


def test_images_are_added_and_removed(index, weights, images, tmp_path):
    folder = tmp_path / "index"
    shutil.copytree(index, folder)
    done("add", folder, images / "good.png", "--weights", weights)
    assert len(Index.open(folder)) == 11
    done("remove", folder, images / "good.png")
    assert len(Index.open(folder)) == 10


def test_levels_can_be_swept(weights):
    network = load_backbone("small", weights, "cpu")
    assert Sweep.of(Spade(network), ["levels=1+3,2"]).n_levels == 3
    with pytest.raises(SpadeError, match="'4' is no sum of the network's levels"):
        Sweep.of(Spade(network), ["levels=4"])


def test_a_command_without_the_weights_says_where_they_are(
    index, images, tmp_path, monkeypatch, gravel_folder
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for command in (
        ("build", gravel_folder, "--index", tmp_path / "new", *NETWORK),
        ("query", index, images, "--out", tmp_path / "out"),
    ):
        line = one_line(done(*command, status=2), "the weights of small", URL, "--weights")
        assert str(tmp_path / "hub" / "checkpoints") in line
