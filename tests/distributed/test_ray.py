"""Ray: the same files whatever ran where, and whatever was killed meanwhile."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import cv2
import numpy as np
import pytest
import torch

from spade_faiss import Ensemble, Spade, SpadeError
from spade_faiss._support.warning import notes_to
from spade_faiss.detector import Detector
from spade_faiss.detector.executor import ThisProcess
from spade_faiss.detector.pipeline import Executor, Pipeline
from spade_faiss.distributed import stream
from spade_faiss.distributed.cluster import (
    _keep_stdout,
    _shares,
    executor_of,
    ray_executor,
    start_workers,
)
from spade_faiss.distributed.production_lines import each_production_line
from spade_faiss.evaluation import evaluate_mvtec, evaluate_stc
from spade_faiss.features import Backbone
from spade_faiss.features.efficientnet import packaged_weights
from spade_faiss.features.resnet import RESNETS
from spade_faiss.images import Frame, find_images
from spade_faiss.report import write_query
from tests.command import environment
from tests.conftest import texture, with_hole
from tests.images.video.videos import make_stc

# Ray warns of its own settings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Chosen = TypeVar("Chosen", bound=Detector)


@contextmanager
def on_ray(detector: Chosen, address: str | None, workers: int | None = None) -> Iterator[Chosen]:
    """Give a copy of a detector that works on a cluster."""
    with ray_executor(address, workers, detector.settings.device) as executor:
        yield detector.on(executor)


class Interrupted:
    """An executor that does something once, before it has training images scored."""

    def __init__(self, executor: Executor, act: Callable[[], object]) -> None:
        self._executor = executor
        self._act = act
        self.acted = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._executor, name)

    def of_members(self, members: int) -> "Interrupted":
        self._executor = self._executor.of_members(members)
        return self

    def map(
        self, pipeline: Pipeline, calls: Iterable[tuple[Callable[[Pipeline], object], str]]
    ) -> Iterator[object]:
        for call, what in calls:
            if what.startswith(("the maps", "the normal distances")) and not self.acted:
                self.acted = True
                self._act()
            yield from self._executor.map(pipeline, [(call, what)])


OPTIONS = {"engine": "faiss", "batch_size": 3}
SMALL = {"k": 4, "resize": 96, "crop": 64, **OPTIONS}


@pytest.fixture(scope="module")
def ray() -> Iterator[object]:
    """A cluster of this machine with room for four workers."""
    module = pytest.importorskip("ray", reason="needs the extra 'ray'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    module.init(
        "local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 << 20,
    )
    yield module
    module.shutdown()


@pytest.fixture(scope="module")
def index(lite: Backbone, gravel_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "gravel.index"
    Spade(lite, **SMALL).fit(gravel_folder, folder)
    return folder


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventeen images, and one that is none, so that later batches are cut anew."""
    folder = tmp_path_factory.mktemp("new") / "images"
    folder.mkdir()
    for i, image in enumerate(texture("gravel", 17, seed=3)):
        cv2.imwrite(str(folder / f"{i:03}.png"), with_hole(image) if i % 3 else image)
    (folder / "004b.png").write_bytes(b"no image")
    return folder


def query(spade: Spade, new: Path, out: Path, **more: object) -> dict[str, bytes]:
    """Return all files that a query writes."""
    problems: list[str] = []
    found = find_images([new], lambda *_: None)
    write_query(
        spade,
        found,
        out,
        on_error=lambda name, _: problems.append(name),
        on_note=lambda _: None,
        **more,
    )
    assert problems == [str(new / "004b.png")]
    return files(out)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def expected(index: Path, new: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    found = query(Spade.load(index, **OPTIONS), new, tmp_path_factory.mktemp("one") / "out")
    assert len(found) == 2 * 17 + 2  # maps, overlays, scores, and the names of all these
    return found


def test_one_line_where_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Spade("efficientnet_lite0")
    with pytest.raises(SpadeError, match="`ray_workers` is for `ray`"), on_ray(plain, None, 2):
        pass
    with ray_executor(None) as executor:
        assert isinstance(executor, ThisProcess)
    with (
        pytest.raises(SpadeError, match=r"^`device=cuda:1`: with `ray` each worker is"),
        on_ray(Spade("efficientnet_lite0", device="cuda:1"), "local"),
    ):
        pass
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        with pytest.raises(SpadeError, match="pip install"), on_ray(plain, "local"):
            pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("127.0.0.1:1", r"^`ray=127.0.0.1:1`: no Ray cluster could be reached \(.*refused"),
        ("ray://127.0.0.1:1", "give HOST:PORT, auto or local"),
        ("nowhere", "give HOST:PORT, auto or local"),
    ],
)
def test_one_line_where_an_address_is_wrong(address: str, line: str) -> None:
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    with pytest.raises(SpadeError, match=line), on_ray(Spade("efficientnet_lite0"), address):
        pass


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_writes_the_same_files(
    ray: object, index: Path, new: Path, tmp_path: Path, expected: dict[str, bytes], workers: int
) -> None:
    with on_ray(Spade.load(index, **OPTIONS), "local", workers) as spade:
        assert query(spade, new, tmp_path / "out") == expected


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_tiles_are_learnt_and_queried_as_in_one_process(
    ray: object, lite: Backbone, tmp_path: Path, preset: str
) -> None:
    train, new = texture("gravel", 4), [with_hole(one) for one in texture("gravel", 3, seed=5)]
    settings = {"tile": 96, "preset": preset, "engine": "faiss", "batch_size": 5}
    alone = Spade(lite, **settings).fit(train, tmp_path / "alone")
    with on_ray(Spade(lite, **settings), "local", 2) as spade:
        spade.fit(train, tmp_path / "together")
        found = spade.predict(new)
    one, other = alone.index_.manifest, spade.index_.manifest
    assert other.calibration == one.calibration and other.elsewhere == one.elsewhere
    assert [file.sha256 for file in other.files] == [file.sha256 for file in one.files]
    expected = alone.predict(new)
    assert np.array_equal(found.scores, expected.scores)
    assert all(map(np.array_equal, found.maps, expected.maps))
    assert spade.estimate(train).seconds is None


@pytest.mark.parametrize(
    ("has", "device", "workers", "count", "share"),
    [
        ({"CPU": 4.0}, "auto", None, 4, {"num_cpus": 1.0}),
        ({"CPU": 4.0}, "auto", 8, 8, {"num_cpus": 0.5}),
        ({"CPU": 4.0, "GPU": 2.0}, "auto", None, 2, {"num_cpus": 0, "num_gpus": 1.0}),
        ({"CPU": 4.0, "GPU": 2.0}, "cuda", 3, 3, {"num_cpus": 0, "num_gpus": 0.5}),
        ({"CPU": 4.0, "GPU": 2.0}, "cpu", 2, 2, {"num_cpus": 1.0}),
    ],
)
def test_what_a_worker_asks_of_its_node(
    has: dict[str, float], device: str, workers: int | None, count: int, share: dict[str, float]
) -> None:
    cluster = SimpleNamespace(cluster_resources=lambda: has)
    assert _shares(cluster, device, workers) == (count, share, 4)


LOGICAL_GPUS = """
import os, sys
import numpy as np
import ray
from spade_faiss import Spade
from spade_faiss.distributed.cluster import ray_executor

ray.init("local", num_cpus=1, num_gpus=2, include_dashboard=False, log_to_driver=False,
         logging_level="ERROR", object_store_memory=200 << 20)
index, *images = sys.argv[1:]
plain = Spade.load(index, engine="faiss", batch_size=3)
with ray_executor("local") as executor:
    spade = plain.on(executor)
    for here, there in zip(plain.query(images), spade.query(images), strict=True):
        np.testing.assert_array_equal(here.map, there.map)
    print(*sorted(ray.get([worker.__ray_call__.remote(lambda _: os.environ["CUDA_VISIBLE_DEVICES"])
                           for worker in executor.workers.handles])))
"""


@pytest.mark.slow
def test_each_worker_has_a_gpu_of_its_own(index: Path, new: Path) -> None:
    """GPUs that Ray only thinks there are, on which the CPU does the work."""
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("is for machines without a GPU")
    images = [str(path) for path in sorted(new.iterdir()) if path.name != "004b.png"]
    ended = subprocess.run(
        [sys.executable, "-c", LOGICAL_GPUS, str(index), *images],
        env=environment("CUDA_VISIBLE_DEVICES"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.stdout == "0 1\n", ended.stderr


def end_worker(ray: object, spade: object) -> None:
    """Kill one of the actors' processes, whatever it is doing."""
    handle = spade.pipeline.executor.workers.handles[0]  # type: ignore
    os.kill(ray.get(handle.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)  # type: ignore


def test_a_killed_worker_loses_and_doubles_nothing(
    ray: object, index: Path, new: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    killed: list[object] = []

    def kill(result: object) -> None:
        if not killed:
            end_worker(ray, spade)
            killed.append(result)

    with on_ray(Spade.load(index, **OPTIONS), "local", 2) as spade:
        assert query(spade, new, tmp_path / "out", on_result=kill) == expected
    assert killed


def test_what_is_killed_while_it_waits_is_replaced(
    ray: object, index: Path, new: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """Even all workers at once, between one query and the next."""
    with on_ray(Spade.load(index, **OPTIONS), "local", 1) as spade:
        assert query(spade, new, tmp_path / "first") == expected
        end_worker(ray, spade)
        assert query(spade, new, tmp_path / "second") == expected


class Deadly(str):
    """The name of an image that ends whoever receives it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


def test_a_batch_that_ends_every_worker_is_named(ray: object, index: Path) -> None:
    frame = Frame(Deadly("deadly.png"), texture("gravel", 1)[0])
    with (
        on_ray(Spade.load(index, **OPTIONS), "local", 1) as spade,
        pytest.raises(SpadeError, match=r"^deadly\.png and the 0 images after it ended 3 Ray"),
    ):
        list(spade.query([frame]))


def test_what_a_task_that_is_killed_was_to_decode_is_decoded_by_another(
    ray: object,
    index: Path,
    new: Path,
    tmp_path: Path,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, begun = stream.decode, tmp_path / "begun"

    def once_killed(*arguments: object, **more: object) -> object:
        result = whole(*arguments, **more)
        if not begun.exists():
            begun.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    monkeypatch.setattr(stream, "decode", once_killed)
    monkeypatch.setattr(stream, "WORTH_A_TASK", 4)  # of 18
    with on_ray(Spade.load(index, **OPTIONS), "local", 2) as spade:
        assert query(spade, new, tmp_path / "out") == expected
    assert begun.exists()
    assert not capsys.readouterr().out


def test_what_ray_says_goes_to_stderr() -> None:
    said: list[dict[str, object]] = []
    internals = SimpleNamespace(print_to_stdstream=lambda data, ignore_prefix: said.append(data))
    for _ in range(2):
        _keep_stdout(internals)
    internals.print_to_stdstream({"lines": ["a worker died"], "is_err": False}, ignore_prefix=False)
    assert said == [{"lines": ["a worker died"], "is_err": True}]
    _keep_stdout(SimpleNamespace())  # a Ray that has no such function


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        (True, "^an image ended 3 Ray workers that were to decode it; try parts of the images"),
        (False, "^a Ray worker ran out of memory: lower `batch_size`"),
    ],
)
def test_what_cannot_be_decoded_at_all_is_one_line(
    ray: object, index: Path, new: Path, monkeypatch: pytest.MonkeyPatch, ends: bool, line: str
) -> None:
    whole = stream.decode

    class Fatal:
        def apply_with_margin(self, _: object) -> None:
            if ends:
                os._exit(1)
            raise MemoryError

    def decode(table: object, folder: str, framing: object) -> object:
        return whole(table, folder, Fatal())  # type: ignore

    monkeypatch.setattr(stream, "decode", decode)
    with (
        on_ray(Spade.load(index, **OPTIONS), "local", 1) as spade,
        pytest.raises(SpadeError, match=line),
    ):
        list(spade.query([new / "001.png"]))


def test_a_query_that_is_left_ends_its_stream(ray: object, index: Path, new: Path) -> None:
    paths = 40 * [path for path in sorted(new.iterdir()) if path.name != "004b.png"]
    with on_ray(Spade.load(index, **OPTIONS), "local", 2) as spade:
        results = spade.query(paths)
        assert [next(results).position for _ in range(4)] == [0, 1, 2, 3]
        results.close()  # type: ignore[attr-defined]
        assert not [one for one in threading.enumerate() if "StreamingExecutor" in one.name]
        with pytest.raises(SpadeError, match=r"004b\.png: "):
            list(spade.query(new))
        assert len(list(spade.query(paths[:5]))) == 5


def test_paths_of_all_kinds(
    ray: object, index: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative to the folder that this process is in now, and with names that are no Unicode."""
    odd = tmp_path / os.fsdecode(b"h\xe4sslich\n.png")
    odd.write_bytes((new / "001.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    plain = Spade.load(index, **OPTIONS)
    torn = tmp_path / os.fsdecode(b"h\xe4sslich.png")
    torn.write_bytes(odd.read_bytes()[:9000])
    paths = [odd.name, new / "002.png", torn, str(odd)]
    problems: list[list[tuple[str, str]]] = [[], []]
    with on_ray(plain, "local", 1) as spade:
        for here, there in zip(
            plain.query(paths, lambda *why: problems[0].append(why)),
            spade.query(paths, lambda *why: problems[1].append(why)),
            strict=True,
        ):
            assert here.name == there.name and here.position == there.position
            np.testing.assert_array_equal(here.map, there.map)
    assert problems[0] == problems[1] and len(problems[0]) == 1


def test_what_is_noted_of_images_is_said_here(
    ray: object, index: Path, new: Path, tmp_path: Path
) -> None:
    """Wherever they were decoded, once a batch; each of two that are one file counts."""
    paths: list[Path] = [new / "001.png"]
    for i, bits in enumerate((16, 16, 4096)):
        paths.append(tmp_path / f"{i}.png")
        image = texture("gravel", 1)[0][:96, :96, 0].astype(np.uint16)
        cv2.imwrite(str(paths[-1]), image * (bits // 16))
    paths.append(paths[1])
    plain = Spade.load(index, **OPTIONS)
    said: list[list[str]] = [[], []]
    with notes_to(said[0].append):
        assert len(list(plain.query(paths))) == 5
    with on_ray(plain, "local", 1) as spade, notes_to(said[1].append):
        assert len(list(spade.query(paths))) == 5
    assert said[0] == said[1] and [*map(len, said)] == [1, 1]
    assert said[0][0].startswith(f"{paths[1]} and 2 more: 16-bit samples"), said


def test_arrays_keep_their_numbers(ray: object, index: Path) -> None:
    images = texture("gravel", 7, seed=8)
    plain = Spade.load(index, **OPTIONS)
    with on_ray(plain, "local", 2) as spade:
        there, here = list(spade.query(images)), list(plain.query(images))
        assert [one.name for one in there] == [one.name for one in here]
        assert [one.position for one in there] == list(range(7))
        for one, other in zip(there, here, strict=True):
            np.testing.assert_array_equal(one.map, other.map)
            np.testing.assert_array_equal(one.image, other.image)
        images[5] = images[5].astype(np.float32)  # type: ignore
        with pytest.raises(SpadeError, match="image 5: holds floats from 0 to"):
            list(spade.query(images))


def test_an_index_is_the_same_byte_for_byte(
    ray: object, lite: Backbone, new: Path, tmp_path: Path
) -> None:
    problems: list[str] = []

    def note(name: str, _: str) -> None:
        problems.append(name)

    plain = Spade("efficientnet_lite0", preset="best", **SMALL)
    plain.fit(new, tmp_path / "one", on_error=note)
    with on_ray(plain, "local", 2) as spade:
        spade.fit(new, tmp_path / "many", on_error=note)
        interrupted = Interrupted(spade.pipeline.executor, lambda: end_worker(ray, spade))
        spade.on(interrupted).fit(new, tmp_path / "killed", on_error=note)
        assert interrupted.acted
    assert problems == 3 * [str(new / "004b.png")]
    one, many, killed = (written(tmp_path / name) for name in ("one", "many", "killed"))
    assert one == many
    assert one == killed


def test_a_region_is_looked_at_by_every_worker(ray: object, new: Path, tmp_path: Path) -> None:
    mask = np.zeros((256, 256), bool)
    mask[60:200, 40:220] = True
    plain = Spade("efficientnet_lite0", region=mask, **SMALL)
    plain.fit(new, tmp_path / "one", on_error=lambda *_: None)
    images = texture("gravel", 3, seed=5)
    dirty = [np.where(mask[..., None], image, np.uint8(255)) for image in images]
    with on_ray(plain.unfitted(), "local", 2) as spade:
        spade.fit(new, tmp_path / "many", on_error=lambda *_: None)
        assert written(tmp_path / "one") == written(tmp_path / "many")
        for one, other in zip(plain.query(images), spade.query(dirty), strict=True):
            np.testing.assert_array_equal(one.map, other.map)
        for detector in (plain, spade):  # at another, by what the index keeps
            assert detector.look_at(~mask)
        assert written(tmp_path / "one") == written(tmp_path / "many")


def written(folder: Path) -> dict[str, object]:
    """Return what an index holds, but for its name, its time and their digest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    text = json.dumps({**manifest, "created": "", "sha256": ""})
    found: dict[str, object] = {}
    for name, data in files(folder).items():
        generation, _, file = name.rpartition("/")
        if generation and file != "verified.json":
            found[file] = data
            text = text.replace(generation, "")
    return found | {"manifest": text}


def test_an_ensemble_is_the_same_and_writes_the_same_files(
    ray: object, lite: Backbone, new: Path, tmp_path: Path
) -> None:
    """Two networks, one of them on a view as well; workers are killed in the middle of both."""

    def ignore(*_: object) -> None:
        pass

    weights = tmp_path / "resnet18.pth"
    torch.manual_seed(0)
    torch.save(RESNETS["resnet18"]().state_dict(), weights)

    def members() -> list[Spade]:
        return [
            *Ensemble.of([lite], ["scale"], **SMALL).members,
            Spade("resnet18", weights=weights, **SMALL),
        ]

    Ensemble(members()).fit(new, tmp_path / "one", on_error=ignore)
    with on_ray(Ensemble(members()), "local", 2) as spread_out:
        interrupted = Interrupted(spread_out.pipeline.executor, lambda: end_worker(ray, spread_out))
        spread_out.on(interrupted).fit(new, tmp_path / "many", on_error=ignore)
        assert interrupted.acted
    both = [packaged_weights("efficientnet_lite0"), weights]
    one, many = (
        Ensemble.load(tmp_path / name, weights=both, **OPTIONS) for name in ("one", "many")
    )
    assert one.calibration == many.calibration
    here, there = ([member.statistics for member in each.manifest.members] for each in (one, many))
    assert here == there
    for number in range(3):
        here, there = (written(one.members[number].index_.folder) for one in (one, many))
        assert here == there
    expected = query(one, new, tmp_path / "expected", explain=True)
    killed: list[object] = []

    def kill(result: object) -> None:
        if not killed:
            end_worker(ray, spread_out.members[0])
            killed.append(result)

    with on_ray(many, "local", 2) as spread_out:
        assert query(spread_out, new, tmp_path / "out", explain=True, on_result=kill) == expected
        frames = texture("gravel", 4, seed=5)
        results = list(spread_out.query(iter(frames)))
    assert killed and [one.position for one in results] == [0, 1, 2, 3]
    for here, there in zip(one.query(frames), results, strict=True):
        np.testing.assert_array_equal(here.map, there.map)  # type: ignore[attr-defined]


def test_an_evaluation_has_the_same_scores(ray: object, lite: Backbone, tmp_path: Path) -> None:
    root = tmp_path / "data"
    images = texture("gravel", 12, seed=1)
    for i, image in enumerate(images):
        kind = "train/good" if i < 6 else "test/good" if i < 9 else "test/hole"
        path = root / "gravel" / kind / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), with_hole(image) if "hole" in kind else image)
        if "hole" in kind:
            mask = root / "gravel" / "ground_truth" / "hole" / f"{i:03}_mask.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(mask), with_hole(np.zeros((256, 256, 3), np.uint8)) // 10 * 255)
    plain = Spade(lite, **SMALL)

    def scores(spade: Spade, out: Path) -> dict[str, object]:
        found = evaluate_mvtec(
            spade,
            root,
            out,
            names=["gravel"],
            sweep=["k=2,5"],
            on_error=lambda *_: None,
            on_note=lambda _: None,
        )
        return {
            name: value
            for name, value in found["categories"]["gravel"].items()
            if name not in ("seconds", "stages")
        }

    with on_ray(plain, "local", 2) as spade:
        assert scores(spade, tmp_path / "many") == scores(plain, tmp_path / "one")


@pytest.mark.parametrize("preset", ["paper", "video"])
def test_scenes_have_the_same_scores(
    ray: object, lite: Backbone, preset: str, tmp_path: Path
) -> None:
    root = make_stc(tmp_path / "campus")

    def scores(spade: Spade, out: Path) -> tuple[object, dict[str, bytes]]:
        found = evaluate_stc(
            spade, root, out, fps=4, on_error=lambda *_: None, on_note=lambda _: None
        )
        for row in found["categories"].values():
            del row["seconds"], row["stages"]
        return found["categories"], files(out / "frames")

    plain = Spade(lite, preset=preset, **SMALL)
    with on_ray(plain, "local", 2) as spade:
        many = scores(spade, tmp_path / "many")
    one = scores(plain, tmp_path / "one")
    assert one == many
    assert len(one[1]) == 2


def test_lines_side_by_side_are_those_of_one_machine(
    ray: object, lite: Backbone, gravel_folder: Path, new: Path, tmp_path: Path
) -> None:
    """Of three lines one has no images; a worker is killed meanwhile."""
    lines = tmp_path / "lines"
    for name, folder in (("a", gravel_folder), ("b", new), ("c", None)):
        (lines / name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:6] if folder else ():
            (lines / name / path.name).write_bytes(path.read_bytes())
    problems: list[str] = []
    failed: list[str] = []
    plain = Spade(lite, **SMALL)
    with start_workers("local", 2) as workers:
        killed: list[str] = []

        def learn(name: str) -> int:
            executor = executor_of(workers, name)
            paths = [one.path for one in find_images([lines / name], lambda *_: None)]

            def kill() -> None:
                if not killed:
                    killed.append(name)
                    end_worker(ray, spade)

            spade = plain.unfitted().on(Interrupted(executor, kill))
            spade.fit(
                paths, tmp_path / "many" / name, on_error=lambda path, _: problems.append(path)
            )
            return len(spade.index_)

        done = each_production_line(
            ["a", "b", "c"], learn, lambda name, error: failed.append(name), workers
        )
    assert done == {"a": 6, "b": 5} and failed == ["c"] and killed
    assert problems == [str(lines / "b" / "004b.png")]
    for name in done:
        paths = [one.path for one in find_images([lines / name], lambda *_: None)]
        plain.unfitted().fit(paths, tmp_path / "one" / name, on_error=lambda *_: None)
        assert written(tmp_path / "one" / name) == written(tmp_path / "many" / name)


def test_another_index_in_its_place_is_noticed(
    ray: object, lite: Backbone, gravel_folder: Path, tmp_path: Path
) -> None:
    spade = Spade(lite, **SMALL).fit(gravel_folder, tmp_path / "index", calibrate=False)
    Spade(lite, **SMALL).fit(gravel_folder, tmp_path / "index", calibrate=False)
    with (
        on_ray(spade, "local", 1) as spread,
        pytest.raises(SpadeError, match="was changed while it was queried"),
    ):
        list(spread.query(gravel_folder))
