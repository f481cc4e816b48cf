"""What is done on a GPU, beside what is done on the CPU."""

import csv
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from spade_faiss import Spade
from spade_faiss.detector.gpu import GpuPass
from spade_faiss.features import load_backbone
from spade_faiss.search import LevelSearch, ShardedLevel, nearest
from tests.command import LITE, done, environment
from tests.conftest import hazelnut_levels, texture, with_hole

SEES_GPU = "SPADE_FAISS_TEST_CUDA"
NEED_ONE = (
    "tests/detector/test_cuda.py",
    "tests/search/cuda/test_fused.py",
    "tests/metrics/test_pixel.py",
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_all_that_needs_a_gpu():
    if os.environ.get(SEES_GPU) == "1":
        pytest.skip("is what starts this run")
    seeing = environment("CUDA_VISIBLE_DEVICES", "TRITON_INTERPRET", **{SEES_GPU: "1"})
    look = [sys.executable, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]
    if subprocess.run(look, env=seeing).returncode:
        pytest.skip("needs a CUDA GPU")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *NEED_ONE],
        env=seeing,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-5000:]


@needs_gpu
def test_features_are_the_cpu_s(lite):
    images = np.stack(texture("gravel", 3))
    there, here = load_backbone("efficientnet_lite0", device="cuda")(images), lite(images)
    for found, expected in zip(
        (there.descriptors, *there.levels), (here.descriptors, *here.levels), strict=True
    ):
        # Convolutions there take TF32, whose numbers have 11 bits.
        apart, scale = (found.cpu() - expected).abs(), expected.abs().mean()
        assert apart.mean() < 0.02 * scale and apart.max() < 0.2 * scale


@needs_gpu
@pytest.mark.parametrize("engine", ["auto", "triton", "faiss"])
@pytest.mark.parametrize("k", [1, 4])
def test_engines_find_what_float64_finds(engine, k):
    generator = torch.Generator().manual_seed(0)
    gallery = torch.randn(3000, 112, generator=generator)
    queries = torch.randn(500, 112, generator=generator)
    distances, ids = nearest(queries.cuda(), gallery.cuda(), k, engine)
    expected = torch.cdist(queries.double(), gallery.double()).square().topk(k, 1, largest=False)
    torch.testing.assert_close(distances.cpu().double(), expected.values, rtol=1e-5, atol=0)
    assert torch.equal(ids.cpu(), expected.indices)


@needs_gpu
def test_queries_at_once_for_one_nearest_row_agree():
    """Thousands of programs lower the same few distances at the same time."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(40, 784, 64, generator=generator)
    queries = images[:8] + 0.3 * torch.randn(8, 784, 64, generator=generator)
    among = torch.arange(40).expand(8, -1)
    level = LevelSearch(images.view(-1, 64).cuda(), 784)
    expected = torch.cdist(queries.double(), images.view(1, -1, 64).double()).amin(2)
    for _ in range(5):
        distances, ids = level.search(queries.cuda(), among, 1, "triton")
        rows = images.view(-1, 64)[ids[..., 0].cpu()]
        torch.testing.assert_close(
            distances[..., 0].cpu().double().sqrt(), expected, rtol=1e-5, atol=0
        )
        torch.testing.assert_close(
            (queries - rows).double().norm(dim=2), expected, rtol=1e-5, atol=0
        )


@needs_gpu
@pytest.mark.parametrize("engine", ["triton", "faiss"])
@pytest.mark.parametrize("k", [1, 3])
def test_all_real_features_of_hazelnuts(hazelnut, engine, k):
    network = load_backbone("efficientnet_lite0", device="cuda")
    train, test = (
        hazelnut_levels(network, hazelnut, pattern)
        for pattern in ("train/good/*.png", "test/*/*.png")
    )
    among = torch.arange(len(train[0]))[None]
    for good, new in zip(train, test, strict=True):
        patches = good.flatten(0, 1)
        level = LevelSearch(patches, good.shape[1])
        for queries in new:
            distances, ids = level.search(queries[None], among, k, engine)
            found = (queries[:, None] - patches[ids[0]]).double().square().sum(2)
            for some in torch.arange(len(queries)).split(256):
                rows = queries[some].double()
                apart = torch.cat(
                    [
                        torch.cdist(
                            rows,
                            part.double(),
                            compute_mode="donot_use_mm_for_euclid_dist",
                        )
                        for part in patches.split(1 << 15)
                    ],
                    1,
                )
                true = apart.square().topk(k, 1, largest=False).values
                torch.testing.assert_close(distances[0, some].double(), true, rtol=1e-5, atol=1e-9)
                torch.testing.assert_close(found[some], true, rtol=1e-5, atol=1e-9)


@needs_gpu
@pytest.mark.parametrize(
    "devices",
    [
        ("cuda:0", "cuda:0"),
        ("cuda:0", "cpu", "cuda:0"),
        ("cuda:0", "cuda:1"),
    ],
)
def test_shards_find_what_one_device_finds(devices):
    if "cuda:1" in devices and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(10 * 200, 32, generator=generator)
    queries = torch.randn(3, 500, 32, generator=generator)
    among = torch.stack([torch.randperm(10, generator=generator)[:6] for _ in range(3)])
    distances, ids = LevelSearch(patches, 200).search(queries, among, 2, "faiss")
    found = ShardedLevel(patches, 200, devices).search(queries.cuda(), among, 2)
    torch.testing.assert_close(found[0].cpu(), distances, rtol=1e-5, atol=0)
    assert torch.equal(found[1].cpu(), ids)


@needs_gpu
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"engine": "faiss"},
        {"preset": "best"},
        {"coreset": 0.1},
        {"factory": "IVF8,Flat"},
        {"store": "float16"},
        {"device": "cuda:0,cuda:0"},
        {"device": "all"},
    ],
)
def test_a_detector_finds_what_it_finds_on_the_cpu(lite, tmp_path, settings):
    good = texture("gravel", 7)
    new = [with_hole(texture("gravel", 1, 5)[0]), *texture("brick", 2), good[0]]
    more = {"device": "cuda"} | settings
    here = {name: value for name, value in settings.items() if name not in ("device", "engine")}
    expected = Spade(lite, **{"k": 3} | here).fit(good, tmp_path / "here").predict(new)
    there = Spade("efficientnet_lite0", **{"k": 3} | more).fit(good, tmp_path / "there")
    found = there.predict(new)
    # A coreset is another one where features differ a little.
    near = {"rtol": 0.1 if "coreset" in settings else 0.02, "atol": 0.05}
    np.testing.assert_allclose(found.scores, expected.scores, **near)
    for left, right in zip(found.maps, expected.maps, strict=True):
        if "coreset" not in settings:
            np.testing.assert_allclose(left, right, **near)


@needs_gpu
@pytest.mark.parametrize("settings", [{}, {"preset": "best"}, {"mirror": True, "crop": None}])
def test_one_pass_finds_what_the_stages_find(lite, monkeypatch, settings):
    """Of several images at once, and of one again and again, which is then recorded."""
    spade = Spade("efficientnet_lite0", device="cuda", k=5, **settings).fit(texture("gravel", 8))
    new = [with_hole(one) for one in texture("gravel", 12, 5)]
    noted = []
    monkeypatch.setattr("spade_faiss.detector.gpu.logger.info", lambda *said: noted.append(said))
    found = list(spade.query(new))
    alone = [next(spade.query(one)) for one in new]
    assert GpuPass.of(spade.pipeline) is not None and noted == []
    monkeypatch.setattr(GpuPass, "of", lambda pipeline: None)
    for one, two, other in zip(found, alone, spade.query(new), strict=True):
        for mine in (one, two):
            assert np.array_equal(mine.neighbours, other.neighbours)
            assert mine.score() == pytest.approx(other.score(), rel=0.02)
            np.testing.assert_allclose(mine.map, other.map, rtol=0.02, atol=0.02)


@needs_gpu
def test_a_network_that_waits_is_not_recorded_and_leaves_nothing_behind(lite, monkeypatch):
    spade = Spade("efficientnet_lite0", device="cuda", k=3).fit(texture("gravel", 6))
    network, new = spade.pipeline.network, texture("gravel", 1, 5)[0]
    expected, kept = next(spade.query(new)).map, network._network

    class Waits(torch.nn.Module):
        def forward(self, x):
            held = torch.empty(1 << 28, device="cuda")
            assert x.sum().item() != 0
            del held
            return kept(x)

    before = torch.cuda.memory_reserved()
    monkeypatch.setattr(network, "_network", Waits())
    for _ in range(5):
        np.testing.assert_allclose(next(spade.query(new)).map, expected, rtol=1e-3, atol=1e-3)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.rand(3, device="cuda").shape == (3,)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + (64 << 20)


@needs_gpu
def test_threads_record_and_tune_at_once(lite, tmp_path):
    """As the service does while an index is replaced."""
    made = [
        Spade("efficientnet_lite0", device="cuda", k=3).fit(texture(name, 6), tmp_path / name)
        for name in ("gravel", "brick", "grass")
    ]
    new = [texture(name, 1, 5)[0] for name in ("gravel", "brick", "grass")]
    expected = [next(one.query(image)).map for one, image in zip(made, new, strict=True)]
    opened = [Spade.load(one.folder, device="cuda") for one in made]

    def again(at):
        return [next(opened[at].query(new[at])).map for _ in range(8)]

    with ThreadPoolExecutor(3) as pool:
        for maps, right in zip(pool.map(again, range(3)), expected, strict=True):
            for one in maps:
                np.testing.assert_allclose(one, right, rtol=1e-3, atol=1e-3)


@needs_gpu
def test_the_memory_of_an_index_that_goes_is_free(lite, tmp_path):
    good, new = texture("gravel", 8), texture("gravel", 1, 5)[0]
    folder = Spade("efficientnet_lite0", device="cuda", k=3).fit(good, tmp_path / "one").folder
    network, held = load_backbone("efficientnet_lite0", device="cuda"), []
    for _ in range(6):
        spade = Spade.load(folder, backbone=network, device="cuda")
        for _ in range(5):
            list(spade.query(new))
        del spade  # no collector: what a service has begun with is frozen
        held.append(torch.cuda.memory_allocated())
    assert held[-1] <= held[1] + (1 << 20)


@needs_gpu
def test_images_left_out_are_scored_as_on_the_cpu(lite, tmp_path):
    good = texture("gravel", 12)
    here = Spade(lite, k=4).fit(good, tmp_path / "here")
    there = Spade("efficientnet_lite0", device="cuda", k=4).fit(good, tmp_path / "there")
    np.testing.assert_allclose(there.calibration.peaks, here.calibration.peaks, rtol=0.02)


@needs_gpu
def test_a_baseline_s_training_is_taken_up(tmp_path):
    pytest.importorskip("sklearn", reason="needs the extra 'bench'")
    from benchmarks.baselines.training import Schedule, seeded, train

    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)).cuda()

    def trained(kept, until):
        network = seeded(lambda: torch.nn.Conv2d(3, 3, 3, padding=1), 0).cuda()

        def loss(step):
            if step == until:
                raise KeyboardInterrupt
            return (network(images[step % 8, None]) - images[step % 8]).square().mean()

        begin = train(network, loss, Schedule(20, 1, 1e-2, keep_every=3), kept, "a key")
        return begin, network.weight.cpu()

    _, expected = trained(None, None)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "kept", 11)
    begin, found = trained(tmp_path / "kept", None)
    assert begin == 9
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def written(folder):
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """A folder of new images: one with a hole, four without."""
    folder = tmp_path_factory.mktemp("new")
    for i, image in enumerate([with_hole(texture("gravel", 1, 5)[0]), *texture("gravel", 4, 9)]):
        cv2.imwrite(str(folder / f"{i:03}.png"), image)
    return folder


@needs_gpu
def test_commands_tell_what_they_tell_on_the_cpu(gravel_folder, new, tmp_path):
    for device in ("cuda", "cpu"):
        index = tmp_path / f"{device}_index"
        done("build", gravel_folder, "--index", index, *LITE, "--device", device)
        done("query", index, new, "--out", tmp_path / device, "--device", device)
    for there, here in zip(written(tmp_path / "cuda"), written(tmp_path / "cpu"), strict=True):
        assert there["path"] == here["path"]
        assert float(there["score"]) == pytest.approx(float(here["score"]), rel=0.02)


@needs_gpu
def test_workers_of_ray_find_on_the_gpu_what_one_process_finds(gravel_folder, new, tmp_path):
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    index = tmp_path / "index"
    done("build", gravel_folder, "--index", index, *LITE, "--device", "cuda")
    for name, more in (("plain", ()), ("ray", ("--ray", "local"))):
        # Of its own, as Ray must be started by a process that ends.
        done(
            "query", index, new, "--out", tmp_path / name, "--device", "cuda", *more, env=os.environ
        )
    assert written(tmp_path / "plain") == written(tmp_path / "ray")
