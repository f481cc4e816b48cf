"""The benchmark of GPUs, small and on the CPU: each part, what it is measured beside, its time."""

import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import adaptive_avg_pool1d, interpolate, unfold

from benchmarks.gpu import files, single
from benchmarks.gpu.build import build_part
from benchmarks.gpu.entrant import Ours
from benchmarks.gpu.options import parsed
from benchmarks.gpu.others import ENTRANTS, OURS, compared, others_part
from benchmarks.gpu.packages import Anomalib, Inspection, load_into
from benchmarks.gpu.parts import Part
from benchmarks.gpu.patchcore import LikeAnomalib, LikeInspection, k_centres, smoothed
from benchmarks.gpu.results import in_all, stage_two
from benchmarks.gpu.running import _results, results_of
from benchmarks.gpu.setting import Setting, textures
from spade_faiss.features.resnet import RESNETS
from spade_faiss.images import read_image


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    args = parsed(["--rehearse", "--folder", str(tmp_path_factory.mktemp("gpu"))])
    return Setting.of(args)


def test_views_are_the_same_however_many_there_are(setting, tmp_path):
    few, many = textures(2, 5, 64), textures(4, 5, 64)
    assert np.array_equal(few, many[:2]) and not np.array_equal(many[2], many[3])
    paths = setting.write_views(tmp_path, 2, 5)
    assert read_image(paths[1]).shape == (80, 80, 3) and len(paths) == 2


# The parts ------------------------------------------------------------------------------------


def test_files_become_results_and_maps(setting):
    results = list(files.files_part(setting))
    ways = [result["way"] for result in results]
    assert ways == [
        "decoding alone, threads: 1",
        "decoding alone, threads: 2",
        "network alone, batch 8",
        "results, batch 8",
        "written maps, batch 8",
    ]
    assert [result["images"] for result in results] == [4, 4, 2, 4, 4]
    assert all(result["images_a_second"] > 0 for result in results)
    for result in results[3:]:
        assert {"features", "stage_two", "maps"} <= result["stages_s"].keys()
        assert sum(result["stages_s"].values()) < 2 * result["s_an_image"]


def test_one_image_is_timed_to_its_map_and_to_its_verdict(setting, monkeypatch):
    monkeypatch.setattr(single, "BATCHES", ())
    *ways, kernels, memory, agreement = single.single_part(setting)
    assert [one["way"] for one in ways] == [
        "array to map",
        "array to verdict",
        "array to verdict, predict",
    ]
    assert all(0 < one["median_ms"] <= one["p95_ms"] and one["images"] == 2 for one in ways)
    assert memory["peak_gib"] is None and kernels["skipped"] == "no GPU"
    assert agreement["compared"] == 2 and agreement["verdicts_as_by_the_cpu"]
    for other in ("a_batch", "the_cpu"):  # which is where all of it was computed
        assert agreement[f"score_from_{other}"] < 1e-4 and agreement[f"map_from_{other}"] < 1e-4


@pytest.mark.slow
def test_one_image_is_timed_through_the_service(setting):
    *_, one = single.single_part(setting)
    assert one["way"].startswith("file to the service's answer")
    assert one["median_ms"] > 0 and one["images"] == 2


@pytest.mark.slow
def test_a_service_that_does_not_start_says_why(setting, tmp_path):
    with (
        pytest.raises(RuntimeError, match=r"did not start: .*no index"),
        single.served(setting, tmp_path / "none", 1),
    ):
        pass


def test_a_build_finds_thresholds_and_tells_its_stages(setting):
    (result,) = build_part(setting)
    assert result["left_out"] == result["train_images"] == 4
    assert {"features", "index", "calibration"} <= result["stages_total_s"].keys()
    assert sum(result["stages_total_s"].values()) <= result["build_s"]


@pytest.mark.parametrize("name", ENTRANTS)
def test_all_that_are_compared_are_measured_alike(setting, name):
    (result,) = others_part(setting, name)
    assert result["way"] == name and result["images"] == 3
    for measure in ("images_a_second", "alone_ms", "learn_s"):
        assert result[measure] > 0
    assert ("learn_with_thresholds_s" in result) == (name == OURS)
    if "not_the_package" in result:
        assert result["by"].startswith(f"a rewrite of {name}'s steps")
    else:
        assert result["by"].startswith(name)


# What is measured beside ------------------------------------------------------------------------


@pytest.mark.parametrize("starts", [1, 10])
def test_k_centres_are_each_the_farthest_from_those_before(starts):
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32))
    chosen = k_centres(rows, 20, channels=6, starts=starts).tolist()
    drawn = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:starts]
    apart = torch.cdist(rows.double(), rows.double()).square()
    bound, expected = apart[drawn].mean(0), []
    for number in range(20):
        expected.append(int(drawn if number == 0 and starts == 1 else bound.argmax()))
        bound = torch.minimum(bound, apart[expected[-1]])
    assert chosen == expected


def test_k_centres_on_a_projection_leave_no_row_far():
    random = np.random.default_rng(0)
    centres = random.normal(size=(8, 300)) * 10
    rows = np.concatenate([centre + random.normal(size=(30, 300)) for centre in centres])
    chosen = k_centres(torch.from_numpy(rows.astype(np.float32)), 8, channels=128, starts=1)
    assert sorted((chosen // 30).tolist()) == list(range(8))


def test_patches_are_averaged_as_patchcore_inspection_says(setting):
    torch.manual_seed(0)
    levels = torch.randn(2, 128, 8, 8), torch.randn(2, 256, 4, 4)
    found = LikeInspection(setting).patches(levels)
    expected = []
    for level in levels:
        batch, channels, height, width = level.shape
        cells = unfold(level, 3, padding=1).view(batch, channels * 9, height, width)
        larger = interpolate(cells, (8, 8), mode="bilinear").permute(0, 2, 3, 1).flatten(0, 2)
        expected.append(adaptive_avg_pool1d(larger[:, None], 1024)[:, 0])
    both = adaptive_avg_pool1d(torch.stack(expected, 1).flatten(1)[:, None], 1024)[:, 0]
    assert torch.allclose(LikeInspection.rows(found), both, atol=1e-5)


def test_an_image_is_scored_as_patchcores_paper_says(setting):
    entrant, good = LikeAnomalib(setting), setting.views(3, 1)
    entrant.learn(good)
    (batch,) = entrant.batches(good)
    rows = entrant.rows(entrant.patches(entrant._trunk(batch)))
    memory = entrant._memory.numpy()
    assert len(memory) == int(0.1 * len(rows)) and set(map(bytes, memory)) <= set(
        map(bytes, rows.numpy())
    )
    new = setting.views(1, 2)
    patches = entrant.patches(entrant._trunk(next(entrant.batches(new))))[0].permute(1, 2, 0)
    apart = np.linalg.norm(patches.numpy()[:, :, None] - memory, axis=3)
    near = apart.min(2)
    y, x = np.unravel_index(near.argmax(), near.shape)
    match = memory[apart[y, x].argmin()]
    around = np.argsort(np.linalg.norm(memory - match, axis=1))[:9]
    others = np.linalg.norm(memory[around] - patches[y, x].numpy(), axis=1)
    weight = 1 - np.exp(near[y, x]) / np.exp(others).sum()
    (score,), (found,) = entrant.judge(new)
    assert score == pytest.approx(weight * near[y, x], rel=1e-3)
    larger = interpolate(torch.from_numpy(near)[None, None], (64, 64), mode="bilinear")[0, 0]
    assert found == pytest.approx(gaussian_filter(larger.numpy(), 4, mode="mirror"), rel=1e-3)


def test_smoothing_is_a_gaussian_of_mirrored_maps():
    maps = torch.rand(2, 1, 40, 50)
    for found, one in zip(smoothed(maps, 4.0)[:, 0], maps[:, 0].numpy(), strict=True):
        assert found.numpy() == pytest.approx(gaussian_filter(one, 4, mode="mirror"), abs=1e-5)


@pytest.mark.parametrize("kind", [Ours, LikeAnomalib, LikeInspection])
def test_a_planted_flaw_is_found_by_all(setting, kind):
    entrant = kind(setting)
    entrant.learn(setting.views(3, 1))
    good = setting.views(1, 2)
    flawed = good.copy()
    flawed[0, 36:52, 28:44] = 255, 0, 0
    (low, high), maps = entrant.judge(np.concatenate([good, flawed]))
    assert high > 1.5 * low
    y, x = np.unravel_index(maps[1].argmax(), maps[1].shape)
    edge = (80 - maps[1].shape[0]) // 2
    assert 30 <= y + edge < 58 and 22 <= x + edge < 50


# The packages, by stand-ins that have their names and arguments ---------------------------------


class Model(torch.nn.Module):
    """As anomalib's, which keeps what it is shown, and answers."""

    def __init__(self, layers, backbone, pre_trained, num_neighbors):
        super().__init__()
        assert layers == ["layer2", "layer3"] and not pre_trained and num_neighbors == 9
        self.feature_extractor = torch.nn.Sequential(RESNETS[backbone]())
        self.kept = []

    def forward(self, images):
        assert not self.feature_extractor.training
        if self.training:
            self.kept.append(images.flatten(1))
            return self.kept[-1]
        return self.answer(images.mean((1, 2, 3)), images[:, :1])


class Stored(Model):
    """As from 2.1 on: it learns from what it kept, and answers an object."""

    def answer(self, scores, maps):
        return SimpleNamespace(pred_score=scores[:, None], anomaly_map=maps)

    def subsample_embedding(self, sampling_ratio, embeddings=None):
        assert embeddings is None
        self.learnt = sampling_ratio, len(torch.vstack(self.kept))


class Handed(Model):
    """As before: it is handed what it was shown, and answers a dictionary."""

    def answer(self, scores, maps):
        return {"pred_score": scores, "anomaly_map": maps}

    def subsample_embedding(self, embedding, sampling_ratio):
        self.learnt = sampling_ratio, len(embedding)


def put(monkeypatch, name, **content):
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.mark.parametrize("model", [Stored, Handed])
def test_anomalib_is_called_as_its_trainer_does(setting, monkeypatch, model):
    place = ""
    for part in ("anomalib", ".models", ".image", ".patchcore", ".torch_model"):
        place += part
        put(monkeypatch, place, PatchcoreModel=model)
    monkeypatch.setattr("benchmarks.gpu.packages.version", lambda name: "2.x")
    entrant = Anomalib(setting)
    assert entrant.by == "anomalib 2.x"
    loaded = entrant._model.feature_extractor[0].state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in setting.state().items())
    entrant.learn(setting.views(3, 1))
    assert entrant._model.learnt == (0.1, 3)
    scores, maps = entrant.judge(setting.views(2, 2))
    assert scores.shape == (2,) and maps.shape == (2, 64, 64)


def test_patchcore_inspection_is_loaded_as_its_pages_say(setting, monkeypatch):
    class PatchCore:
        def __init__(self, device):
            pass

        def load(self, **options):
            self.options = options

        def fit(self, batches):
            self.learnt = [tuple(batch.shape) for batch in batches]

        def predict(self, batch):
            return list(range(len(batch))), list(np.zeros((len(batch), 64, 64)))

    sampler = put(
        monkeypatch, "patchcore.sampler", ApproximateGreedyCoresetSampler=lambda *given: given
    )
    common = put(monkeypatch, "patchcore.common", FaissNN=lambda on_gpu, threads: on_gpu)
    core = put(monkeypatch, "patchcore.patchcore", PatchCore=PatchCore)
    put(monkeypatch, "patchcore", sampler=sampler, common=common, patchcore=core)
    networks = SimpleNamespace(resnet18=lambda weights: RESNETS["resnet18"]())
    put(monkeypatch, "torchvision", models=networks)
    entrant = Inspection(setting)
    assert entrant.by.startswith("patchcore-inspection, FAISS")
    options = entrant._model.options
    assert options["featuresampler"] == (0.1, setting.device)
    assert options["input_shape"] == (3, 64, 64)
    entrant.learn(setting.views(3, 1))
    assert entrant._model.learnt == [(3, 3, 64, 64)]
    scores, maps = entrant.judge(setting.views(2, 2))
    assert scores.tolist() == [0, 1] and maps.shape == (2, 64, 64)


def test_a_package_that_cannot_learn_gives_way_to_its_rewrite(setting, monkeypatch):
    class Broken(LikeAnomalib):
        def learn(self, images):
            raise TypeError("learn() takes no images")

    monkeypatch.setitem(ENTRANTS, "anomalib", (Broken, LikeAnomalib))
    (result,) = others_part(setting, "anomalib")
    assert result["not_the_package"] == "TypeError: learn() takes no images"
    assert result["by"] == LikeAnomalib.by


def test_a_network_of_other_names_is_refused(setting):
    with pytest.raises(RuntimeError, match="Linear has no network of the checkpoint's names"):
        load_into(torch.nn.Linear(2, 2), setting.state())


# Results and time -------------------------------------------------------------------------------


def test_the_comparison_says_how_many_times_as_good():
    ours = {"way": OURS, "images_a_second": 800, "alone_ms": 4, "learn_s": 2, "peak_gib": 3.0}
    other = {"way": "anomalib", "by": "b", "images_a_second": 400, "alone_ms": 8, "learn_s": 1}
    found = compared(ours, other | {"peak_gib": None})
    assert found["times_as_good"] == {"images_a_second": 2, "alone_ms": 2, "learn_s": 0.5}
    assert not found["ahead_in_all"]
    results = [{"part": "others"} | one for one in (other | {"learn_s": 6}, ours)]
    (line,) = in_all(results)
    assert line["ahead_in_all"] and line["times_as_good"]["learn_s"] == 3


def test_levels_add_up_where_all_three_are_there():
    results = [
        {"part": f"level {n}", "way": way, "gflop": 100.0, "s_an_image": n / 1e3}
        for n in (1, 2, 3)
        for way in ("fused, batch 8", "cdist")
        if (n, way) != (3, "cdist")
    ]
    device = {"part": "device", "float16_tflops": 100.0}
    (line,) = stage_two([device, *results])
    assert line["s_an_image"] == pytest.approx(6e-3)
    assert line["floor_s"] == pytest.approx(3e-3) and line["times_the_floor"] == 2


def test_a_part_is_ended_after_its_time_with_all_that_it_began(tmp_path):
    child = f"import time, pathlib; time.sleep(1); pathlib.Path({str(tmp_path / 'on')!r}).touch()"
    script = (
        'import subprocess, sys, time; print(\'{"part": "files", "s": 1}\', flush=True); '
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    )
    begin = time.monotonic()
    done = list(_results([sys.executable, "-c", script], "files", "files", 0.3))
    assert time.monotonic() - begin < 30
    assert [one.get("s") for one in done] == [1, None, None]
    assert done[1]["error"] == "was ended after its 0 s" and done[2]["process"] == "files"
    time.sleep(1)
    assert not (tmp_path / "on").exists()


def test_a_part_that_dies_is_said_with_its_last_line():
    script = "import sys; print('noise'); sys.exit('out of memory')"
    error, took = _results([sys.executable, "-c", script], "files", "files", 30)
    assert error["error"].startswith("ended with status 1") and "out of memory" in error["error"]
    assert took["process_s"] < 30


def test_what_was_not_reached_in_the_minutes_is_said():
    parts = {"level 1": Part("level 1", lambda setting: iter(()), 60)}
    args = parsed(["--rehearse", "--minutes", "0.2"])
    (line,) = results_of(["level 1"], parts, args, [])
    assert line["not_reached"] == "the 0.2 minutes were over"


def test_others_names_all_that_are_compared(capsys):
    assert parsed(["--only", "others", "device"]).only == [
        *(f"others {name}" for name in ENTRANTS),
        "device",
    ]
    with pytest.raises(SystemExit):
        parsed(["--k", "201"])
    assert "--k 201 is more than the 200 training images" in capsys.readouterr().err
