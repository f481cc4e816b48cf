"""Stage two of SPADE on a GPU: against the ways of others, and as a part of the whole.

Wide-ResNet-50-2's three levels (at a crop of 224 pixels: 56x56x256, 28x28x512 and 14x14x1024),
K training images for each query image, its nearest patch among theirs. Features are of views of
photographed textures; without `--weights` the network has random weights (a fixed seed, and
batch normalisation fitted to the images), which the output says.

Parts, each in a process of its own, so that one that fails costs only itself:

- device: the GPU, and how fast it multiplies large float16 and bfloat16 matrices (the floor);
- level 1 to 3: seconds an image, the median of the repeats, all ways in turn in each repeat:
    - fused: spade_faiss.search.cuda, the gallery prepared; at each batch size;
    - cdist, bmm: float32 torch.cdist, and the expanded product, over tiles of the gallery;
    - pairwise: torch.pairwise_distance over chunks of 100 gallery rows, as SPADE-pytorch does
      (a part of the chunks is measured and scaled up);
    - faiss: a GpuIndexFlatL2 built for each image and then searched, as SPADE-fast does, and
      faiss.knn_gpu; where faiss has no GPU, this is said;
  with the fused search's exactness (all queries of one image against float64), the pairs a query
  that it rescores, the GPU time of each of its kernels, and the tiles that it chose;
- pipeline: images a second from PNG files to maps, and the time of each stage;
- spade: the same by `Spade.query`.

Times are of CUDA events; those of faiss and of the pipeline are the host's, synchronised.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from skimage import data

NETWORK = "wide_resnet50_2"
PARTS = ("device", "level 1", "level 2", "level 3", "pipeline", "spade")
CHUNK = 100
TILE = 1 << 26
"""Distances that the float32 ways hold at a time."""
TARGET = 0.72e-3

Result = dict[str, Any]


def textures(count: int, seed: int, side: int = 256) -> np.ndarray:
    """Return views uint8 [count, side, side, 3] of photographs, tinted and with noise."""
    random = np.random.default_rng(seed)
    photo = data.gravel()
    views = np.empty((count, side, side, 3), np.uint8)
    for view in views:
        y, x = random.integers(0, [photo.shape[0] - side, photo.shape[1] - side])
        tinted = photo[y : y + side, x : x + side, None] * random.uniform(0.8, 1, 3)
        view[:] = np.clip(tinted + random.normal(0, 2, tinted.shape), 0, 255)
    return views


@dataclass
class Setting:
    """What all parts share."""

    args: argparse.Namespace
    device: torch.device
    side: int
    crop: int

    @classmethod
    def of(cls, args: argparse.Namespace) -> Setting:
        """Return the setting; a rehearsal is small and on the CPU."""
        if args.rehearse:
            return cls(args, torch.device("cpu"), 80, 64)
        return cls(args, torch.device("cuda"), 256, 224)

    def views(self, count: int, seed: int) -> np.ndarray:
        """Return images of the setting's size."""
        return textures(count, seed, self.side)

    def framed(self, count: int, seed: int) -> np.ndarray:
        """Return images as the network sees them."""
        edge = (self.side - self.crop) // 2
        views = self.views(count, seed)
        return np.ascontiguousarray(views[:, edge : -edge or None, edge : -edge or None])

    def weights(self, folder: str) -> Path:
        """Return a checkpoint: the one that was passed, or a random one."""
        if self.args.weights:
            return Path(self.args.weights)
        from spade_faiss.features.resnet import RESNETS

        torch.manual_seed(0)
        network = RESNETS[NETWORK]().to(self.device).train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            pixels = torch.from_numpy(self.framed(8, 9)).to(self.device).float()
            network((pixels.permute(0, 3, 1, 2) / 255 - 0.45) / 0.23)
        path = Path(folder, "random.safetensors")
        save_file({k: v.contiguous().cpu() for k, v in network.state_dict().items()}, path)
        return path

    def network(self) -> Any:
        """Return the network on the device."""
        from spade_faiss.features import load_backbone

        with tempfile.TemporaryDirectory() as folder:
            return load_backbone(NETWORK, self.weights(folder), str(self.device))

    @property
    def weights_are(self) -> str:
        """What to say of the weights."""
        return self.args.weights or "random (seed 0, batch normalisation fitted)"

    def synchronize(self) -> None:
        """Wait for the GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def gpu_seconds(self, call: Callable[[], Any]) -> float:
        """Return the time of a call by CUDA events (on the CPU by the clock)."""
        if self.device.type != "cuda":
            return self.host_seconds(call)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def host_seconds(self, call: Callable[[], Any]) -> float:
        """Return the time of a call by the host's clock, until the GPU is done."""
        self.synchronize()
        begin = time.perf_counter()
        call()
        self.synchronize()
        return time.perf_counter() - begin

    def peak_gib(self) -> float | None:
        """Return the peak of GPU memory, in GiB, since the process began."""
        if self.device.type != "cuda":
            return None
        return round(torch.cuda.max_memory_allocated() / 2**30, 3)


def guarded(call: Callable[[], Any]) -> Any:
    """Return a call's result, or one line on why there is none."""
    try:
        return call()
    except Exception as error:
        traceback.print_exc()
        return {"error": one_line(error)}


def one_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


# The GPU itself ---------------------------------------------------------------------------


def device_part(setting: Setting) -> Iterator[Result]:
    """Say what the GPU is and how fast it multiplies."""
    import platform

    result: Result = {"part": "device", "torch": torch.__version__}
    result["python"] = platform.python_version()
    result["host"] = platform.processor() or platform.machine()
    result["host_cores"] = os.cpu_count()
    try:
        import triton

        result["triton"] = triton.__version__
    except ImportError as error:
        result["triton"] = one_line(error)
    result["faiss"], gpus = faiss_kind()
    result["faiss_gpus"] = gpus
    if setting.device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        result["gpu"] = properties.name
        result["multiprocessors"] = properties.multi_processor_count
        result["memory_gib"] = round(properties.total_memory / 2**30, 1)
        result["cuda"] = torch.version.cuda
    n = 256 if setting.args.rehearse else 8192
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        a, b = (torch.randn(n, n, device=setting.device).to(dtype) for _ in range(2))
        for _ in range(3):
            a @ b
        times = [setting.gpu_seconds(partial(operator.matmul, a, b)) for _ in range(9)]
        name = str(dtype).removeprefix("torch.")
        result[f"{name}_tflops"] = round(2 * n**3 / statistics.median(times) / 1e12, 1)
    yield result


def faiss_kind() -> tuple[str, int]:
    """Return faiss's version and how many GPUs it can use."""
    try:
        import faiss
    except ImportError:
        return "not installed", 0
    if not hasattr(faiss, "StandardGpuResources"):
        return f"{faiss.__version__}, without GPU", 0
    return faiss.__version__, faiss.get_num_gpus()


# Stage two --------------------------------------------------------------------------------


class Level:
    """One level's queries and gallery, and the ways of searching it."""

    def __init__(self, setting: Setting, number: int) -> None:
        args = setting.args
        network = setting.network()
        most = max(args.batch)
        patches = [self._features(network, setting.framed(args.train, 1), number)]
        queries = self._features(network, setting.framed(most, 2), number)
        del network
        self.setting = setting
        self.patches = torch.cat(patches)
        self.per_image, self.channels = queries.shape[1:]
        self.patches = self.patches.view(-1, self.channels)
        self.queries = queries
        generator = torch.Generator().manual_seed(0)
        ids = [torch.randperm(args.train, generator=generator)[: args.k] for _ in range(most)]
        self.images = torch.stack(ids).to(setting.device)

    @staticmethod
    def _features(network: Any, images: np.ndarray, number: int) -> torch.Tensor:
        """Return [images, patches, channels]."""
        parts = [
            network(images[at : at + 16]).levels[number].flatten(1, 2)
            for at in range(0, len(images), 16)
        ]
        return torch.cat(parts)

    @property
    def flops(self) -> float:
        """Operations of the product, an image."""
        gallery = self.per_image * self.images.shape[1]
        return 2.0 * self.per_image * gallery * self.channels

    def tiles(self, item: int) -> Iterator[torch.Tensor]:
        """Yield an item's gallery [rows, C] in tiles of whole images."""
        images = self.patches.view(-1, self.per_image, self.channels)
        step = max(1, TILE // self.per_image**2)
        for ids in self.images[item].split(step):
            yield images[ids].flatten(0, 1)

    def cdist(self) -> torch.Tensor:
        """Search for the first item's queries by torch.cdist."""
        best = None
        for tile in self.tiles(0):
            near = torch.cdist(self.queries[0], tile).min(1)
            best = near.values if best is None else torch.minimum(best, near.values)
        assert best is not None
        return best.square()

    def bmm(self) -> torch.Tensor:
        """Search for some items' queries at once by norms and a batched product."""
        items = min(4, len(self.queries))
        queries = self.queries[:items]
        best = None
        for tiles in zip(*(self.tiles(item) for item in range(items)), strict=True):
            for rows in torch.stack(tiles).split(max(1, TILE // self.per_image // items), 1):
                distances = torch.baddbmm(rows.square().sum(2)[:, None], queries, rows.mT, alpha=-2)
                near = distances.min(2).values
                best = near if best is None else torch.minimum(best, near)
        assert best is not None
        return (best + queries.square().sum(2)).clamp_(min=0)

    def pairwise(self, chunks: int) -> torch.Tensor:
        """Take some chunks of the first item's gallery through torch.pairwise_distance."""
        best = torch.full((self.per_image,), torch.inf, device=self.queries.device)
        rows = next(self.tiles(0))
        for at in range(chunks):
            # Where in the gallery the rows lie does not change the time.
            chunk = rows[at * CHUNK % max(1, len(rows) - CHUNK) :][:CHUNK]
            near = torch.pairwise_distance(chunk[:, None], self.queries[0][None])
            best = torch.minimum(best, near.min(0).values)
        return best

    @cached_property
    def on_host(self) -> tuple[np.ndarray, np.ndarray]:
        """The first item's queries and gallery as arrays."""
        gallery = torch.cat(list(self.tiles(0)))
        return self.queries[0].cpu().numpy(), gallery.cpu().numpy()

    def faiss_index(self, resources: Any) -> np.ndarray:
        """Build an index of the first item's gallery on the GPU, and search it, from the host."""
        import faiss

        queries, gallery = self.on_host
        index = faiss.GpuIndexFlatL2(resources, self.channels)
        index.add(gallery)
        return index.search(queries, 1)[0]

    def faiss_knn(self, resources: Any) -> torch.Tensor:
        """Search the first item's gallery by faiss.knn_gpu, all on the GPU."""
        import faiss
        import faiss.contrib.torch_utils  # makes faiss take tensors

        best = None
        for tile in self.tiles(0):
            near = faiss.knn_gpu(resources, self.queries[0], tile, 1)[0][:, 0]
            best = near if best is None else torch.minimum(best, near)
        assert best is not None
        return best


def level_part(setting: Setting, number: int) -> Iterator[Result]:
    """Time all ways of searching one level."""
    from spade_faiss.search import cuda as module

    args = setting.args
    level = Level(setting, number)
    shape = {
        "part": f"level {number + 1}",
        "patches": level.per_image,
        "channels": level.channels,
        "k": args.k,
        "train_images": args.train,
        "weights": setting.weights_are,
        "gflop": round(level.flops / 1e9, 2),
    }
    prepared = module.prepare(level.patches, level.per_image)
    prepare_s = setting.gpu_seconds(lambda: module.prepare(level.patches, level.per_image))
    yield shape | {"way": "prepare", "s": prepare_s}

    ways: dict[str, tuple[Callable[[], Any], float, Callable[[Callable[[], Any]], float]]] = {}

    def fused(batch: int) -> Any:
        return module.fused_in_images(
            level.queries[:batch], prepared, level.images[:batch], level.per_image
        )

    for batch in args.batch:
        ways[f"fused, batch {batch}"] = (
            partial(fused, batch),
            batch,
            setting.gpu_seconds,
        )
    ways["cdist"] = (level.cdist, 1, setting.gpu_seconds)
    ways["bmm"] = (level.bmm, min(4, len(level.queries)), setting.gpu_seconds)
    every = -(-args.k * level.per_image // CHUNK)
    chunks = min(every, 32)
    ways["pairwise (SPADE-pytorch)"] = (
        lambda: level.pairwise(chunks),
        chunks / every,
        setting.gpu_seconds,
    )
    if faiss_kind()[1]:
        import faiss

        resources = faiss.StandardGpuResources()
        ways["faiss index an image (SPADE-fast)"] = (
            lambda: level.faiss_index(resources),
            1,
            setting.host_seconds,
        )
        ways["faiss.knn_gpu"] = (lambda: level.faiss_knn(resources), 1, setting.host_seconds)
    else:
        yield shape | {"way": "faiss", "skipped": f"faiss: {faiss_kind()[0]}"}

    times: dict[str, list[float]] = {}
    for name, (call, _, _) in list(ways.items()):
        first = guarded(partial(setting.host_seconds, call))
        if isinstance(first, dict):
            yield shape | {"way": name} | first
            del ways[name]
    for _ in range(args.repeats):
        for name, (call, images, clock) in ways.items():
            seconds = guarded(partial(clock, call))
            if isinstance(seconds, float):
                times.setdefault(name, []).append(seconds / images)
    for name, values in times.items():
        median = statistics.median(values)
        yield shape | {
            "way": name,
            "s_an_image": median,
            "least_s": min(values),
            "most_s": max(values),
            "tflops": round(level.flops / median / 1e12, 1),
        }
    yield shape | {"way": "exactness"} | guarded(lambda: exactness(level, fused))
    yield shape | {"way": "pairs"} | guarded(lambda: pairs(level, prepared))
    yield shape | {"way": "kernels"} | guarded(lambda: kernel_times(setting, fused))
    yield shape | {"way": "tiles"} | guarded(tiles_chosen)
    yield shape | {"way": "memory", "peak_gib": setting.peak_gib()}


def exactness(level: Level, fused: Callable[[int], Any]) -> Result:
    """Compare all queries of the last item with float64, and all ids with the images named."""
    near, ids = (values[:, :, 0] for values in fused(len(level.queries)))
    named = (
        ids.div(level.per_image, rounding_mode="floor")[:, :, None] == level.images[:, None]
    ).any(2)
    near, ids, queries = near[-1], ids[-1], level.queries[-1].double()
    best = torch.full(near.shape, torch.inf, dtype=torch.float64, device=near.device)
    for tile in level.tiles(len(level.queries) - 1):
        for rows in tile.split(4096):
            apart = torch.cdist(queries, rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
            best = torch.minimum(best, apart.square().min(1).values)
    chosen = (queries - level.patches[ids].double()).square().sum(1)
    tiny = 1e-300
    return {
        "queries": len(queries),
        "max_relative_error": float(((near - best).abs() / (best + tiny)).max()),
        "max_excess_of_the_rows_found": float(((chosen - best) / (best + tiny)).max()),
        "all_among_their_images": bool(named.all()),
    }


def pairs(level: Level, prepared: Any) -> Result:
    """Count the groups of rows that the bounds leave, of the first item's queries."""
    from spade_faiss.search.cuda.rescore import collect_pairs
    from spade_faiss.search.cuda.screen import Limits, Workspace, screen_queries

    count = level.images.shape[1] * prepared.groups
    space = Workspace(count * level.per_image, Limits().pairs, level.queries.device)
    left = torch.zeros(1, dtype=torch.int32, device=level.queries.device)
    best = level.images.new_empty(1, level.per_image)
    part = screen_queries(
        level.queries[:1].contiguous(), prepared, level.images[:1], space, best, left.clone()
    )
    collect_pairs(part, part.floor, space, left, 0, count)
    return {"groups": count, "left_mean": int(left) / level.per_image}


def kernel_times(setting: Setting, fused: Callable[[int], Any]) -> Result:
    """Return the GPU time of each kernel of one search, in microseconds an image."""
    if setting.device.type != "cuda":
        return {"skipped": "no GPU"}
    from torch.profiler import ProfilerActivity, profile

    result: Result = {}
    for batch in (min(setting.args.batch), max(setting.args.batch)):
        fused(batch)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
            fused(batch)
            torch.cuda.synchronize()
        total: dict[str, float] = {}
        for event in profiler.key_averages():
            spent = getattr(event, "self_device_time_total", 0) or 0
            if spent:
                total[event.key[:60]] = round(spent / batch, 2)
        most = sorted(total.items(), key=lambda pair: -pair[1])[:12]
        result[f"batch_{batch}_us_an_image"] = dict(most)
    return result


def tiles_chosen() -> Result:
    """Return the tiles that were chosen, and the time of each that was tried."""
    from spade_faiss.search.cuda.tiles import tuner

    if tuner is None:
        return {"skipped": "interpreted"}
    tried = {
        str(config): round(1e3 * (t[0] if isinstance(t, list | tuple) else t), 1)
        for config, t in getattr(tuner, "configs_timings", {}).items()
    }
    return {"chosen": str(tuner.best_config), "tried_us": tried}


# The whole --------------------------------------------------------------------------------


def write_views(setting: Setting, folder: str, count: int, seed: int) -> list[str]:
    """Write images as PNG files; return their paths."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = []
    for i, view in enumerate(setting.views(count, seed)):
        paths.append(str(Path(folder, f"{i:04}.png")))
        cv2.imwrite(paths[-1], view)
    return paths


def pipeline_part(setting: Setting) -> Iterator[Result]:
    """Time each stage from files to maps, a batch at a time, one stage after the other."""
    from spade_faiss.images import Framing, load_images
    from spade_faiss.maps.smoothing import anomaly_map
    from spade_faiss.search import nearest
    from spade_faiss.search.cuda import fused_in_images, prepare

    args = setting.args
    network = setting.network()
    features: list[Any] = []
    train = setting.framed(args.train, 1)
    for at in range(0, len(train), 16):
        features.append(network(train[at : at + 16]))
    descriptors = torch.cat([batch.descriptors for batch in features])
    galleries = []
    for number in range(len(features[0].levels)):
        level = torch.cat([batch.levels[number].flatten(1, 2) for batch in features])
        galleries.append(prepare(level.flatten(0, 1), level.shape[1]))
    framing = Framing.choose(setting.side, setting.crop, (1, 1))
    with tempfile.TemporaryDirectory() as folder:
        for batch in args.batch:
            paths = write_views(setting, folder, batch, 2)
            seconds: dict[str, list[float]] = {}

            def run(paths: list[str] = paths, seconds: dict[str, list[float]] = seconds) -> None:
                found: dict[str, Any] = {}

                def stage(name: str, call: Callable[[], Any]) -> Any:
                    def keep() -> None:
                        found[name] = call()

                    seconds.setdefault(name, []).append(setting.host_seconds(keep))
                    return found[name]

                loaded = stage("decode", lambda: list(load_images(paths, framing)))
                new = stage("network", lambda: network(np.stack([v.wide for v in loaded])))
                _, ids = stage("stage_one", lambda: nearest(new.descriptors, descriptors, args.k))

                def correspond() -> list[np.ndarray]:
                    distances = []
                    for values, gallery in zip(new.levels, galleries, strict=True):
                        near, _ = fused_in_images(
                            values.flatten(1, 2), gallery, ids, gallery.per_image
                        )
                        distances.append(near.sqrt().view(values.shape[:3]).cpu().numpy())
                    return distances

                levels = stage("stage_two", correspond)
                stage(
                    "maps",
                    lambda: [
                        framing.place(anomaly_map([v[i] for v in levels], framing.size), one.size)
                        for i, one in enumerate(loaded)
                    ],
                )

            run()
            seconds.clear()
            for _ in range(args.repeats):
                run()
            medians = {f"{k}_s": statistics.median(v) / batch for k, v in seconds.items()}
            total = sum(medians.values())
            yield {
                "part": "pipeline",
                "way": f"batch {batch}",
                "k": args.k,
                "train_images": args.train,
                "weights": setting.weights_are,
                "images_a_second": 1 / total,
                "s_an_image": total,
                **medians,
                "peak_gib": setting.peak_gib(),
            }


def spade_part(setting: Setting) -> Iterator[Result]:
    """Time `Spade` as a user calls it, decoding ahead of the network."""
    from spade_faiss import Spade

    args = setting.args
    with tempfile.TemporaryDirectory() as folder:
        weights = setting.weights(folder)
        write_views(setting, f"{folder}/train", args.train, 1)
        new = write_views(setting, f"{folder}/new", max(8, 4 * max(args.batch)), 2)
        spade = Spade(
            NETWORK,
            args.k,
            weights=weights,
            resize=setting.side,
            crop=setting.crop,
            device=str(setting.device),
            batch_size=max(args.batch),
        )
        fit_s = setting.host_seconds(
            lambda: spade.fit(f"{folder}/train", index=f"{folder}/index", calibrate=False)
        )
        some = new[: len(new) // 4]
        list(spade.query(some))
        seconds = setting.host_seconds(lambda: list(spade.query(new)))
        yield {
            "part": "spade",
            "way": f"batch {max(args.batch)}",
            "k": args.k,
            "train_images": args.train,
            "weights": setting.weights_are,
            "fit_s": fit_s,
            "images": len(new),
            "images_a_second": len(new) / seconds,
            "s_an_image": seconds / len(new),
            "peak_gib": setting.peak_gib(),
        }


# Running ----------------------------------------------------------------------------------


def run_part(args: argparse.Namespace) -> None:
    """Print the results of one part; of what fails, an error."""
    setting = Setting.of(args)
    torch.backends.cuda.matmul.allow_tf32 = False
    name = args.part
    try:
        if name.startswith("level"):
            results = level_part(setting, int(name[-1]) - 1)
        else:
            parts = {"device": device_part, "pipeline": pipeline_part, "spade": spade_part}
            results = parts[name](setting)
        for result in results:
            print(json.dumps(result), flush=True)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"part": name, "error": one_line(error)}), flush=True)
        sys.exit(1)


def results_of(part: str, args: argparse.Namespace) -> Iterator[Result]:
    """Run a part in a process of its own and yield its results."""
    command = [sys.executable, __file__, "--part", part, *sys.argv[1:]]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        seen = False
        begin = time.monotonic()
        try:
            out, _ = process.communicate(timeout=args.timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
        for line in out.splitlines():
            try:
                result = json.loads(line)
            except ValueError:
                continue
            seen = seen or "error" in result
            rehearsal = {"rehearsal": True} if args.rehearse else {}
            yield {"benchmark": "gpu"} | rehearsal | result
        errors.seek(0)
        told = errors.read().strip()
        if process.returncode and not seen:
            why = f"ended with status {process.returncode} after {time.monotonic() - begin:.0f} s"
            last = told.splitlines()[-1] if told else ""
            yield {"benchmark": "gpu", "part": part, "error": f"{why}; {last}"}
        if process.returncode:
            print(told, file=sys.stderr)


def in_all(results: list[Result]) -> Iterator[Result]:
    """Add up the levels, for each way that all three have."""
    device = next((r for r in results if r.get("float16_tflops")), None)
    levels: dict[str, dict[str, float]] = {}
    work: dict[str, float] = {}
    for result in results:
        if "gflop" in result:
            work[result["part"]] = result["gflop"]
        if "s_an_image" in result and "way" in result:
            levels.setdefault(result["way"], {})[result["part"]] = result["s_an_image"]
    for way, seconds in levels.items():
        if len(seconds) == 3:
            total = sum(seconds.values())
            line: Result = {"part": "stage two", "way": way, "s_an_image": total}
            if way.startswith("fused"):
                line["target_s"] = TARGET
                if device:
                    rate = device["float16_tflops"] * 1e3
                    line["floor_s"] = sum(work.values()) / rate
                    line["times_the_floor"] = round(total / line["floor_s"], 2)
            yield {"benchmark": "gpu"} | line


def show(result: Result, as_json: bool) -> None:
    """Print one result: JSON, or a line of a table."""
    if as_json:
        print(json.dumps(result), flush=True)
        return
    title = f"{result['part']}: {result.get('way', '')}".removesuffix(": ")
    if "error" in result:
        print(f"{title:48} failed: {result['error']}", flush=True)
    elif "s_an_image" in result:
        text = f"{title:48} {1e3 * result['s_an_image']:10.3f} ms an image"
        for key in ("tflops", "times_the_floor", "images_a_second"):
            if key in result:
                text += f"  {key.replace('_', ' ')} {result[key]:.1f}"
        stages = {k[:-2]: v for k, v in result.items() if k in STAGES}
        print(text, flush=True)
        for name, seconds in stages.items():
            print(f"    {name:44} {1e3 * seconds:10.3f} ms", flush=True)
    else:
        print(title, flush=True)
        hidden = ("benchmark", "part", "way", "k", "patches", "channels", "train_images", "gflop")
        for key, value in result.items():
            if isinstance(value, dict):
                for inner, amount in value.items():
                    print(f"    {inner:68} {amount}", flush=True)
            elif key not in hidden:
                print(f"    {key:34} {value}", flush=True)


STAGES = ("decode_s", "network_s", "stage_one_s", "stage_two_s", "maps_s")


def main() -> None:
    """Run the benchmark."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="a checkpoint of Wide-ResNet-50-2")
    parser.add_argument("--train", type=int, default=200, help="training images")
    parser.add_argument("--k", type=int, default=50, help="nearest training images")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--timeout", type=float, default=900, help="seconds for each part")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="run on the CPU, interpreted and small, to try the script; its times mean nothing",
    )
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"
        args.train, args.k, args.batch, args.repeats = 3, 2, [1, 2], 1
    elif not torch.cuda.is_available():
        print(
            "benchmarks/gpu.py needs a CUDA device and a torch built for it; none is here "
            "(--rehearse tries the script on the CPU)",
            file=sys.stderr,
        )
        sys.exit(2)
    if args.k > args.train:
        parser.error(f"--k {args.k} is more than the {args.train} training images")
    if args.part:
        run_part(args)
        return
    results: list[Result] = []
    for part in args.only:
        for result in results_of(part, args):
            show(result, args.json)
            results.append(result)
    rehearsal = {"rehearsal": True} if args.rehearse else {}
    for result in in_all(results):
        result |= rehearsal
        show(result, args.json)
    if any("error" in result for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
