"""Several indices in service: `serve` on a folder of them."""

import asyncio
import gc
import json
import os
import platform
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest

from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from spade_faiss.client import Client
from spade_faiss.index.manifest import MANIFEST
from spade_faiss.service import IndexFolder, Limits, LiveIndex, indices, serve
from spade_faiss.service.context import Resources, State
from spade_faiss.service.indices import Indices
from spade_faiss.service.server import _kept
from tests.command import one_line, run
from tests.conftest import texture, with_hole
from tests.service.serving import SMALL, form, png, running, serving, set_threshold
from tests.service.test_process import served
from tests.service.test_requests import SITE
from tests.service.test_service import why
from tests.waiting import wait_for

NAMES = ["gravel", "grass", "one two é"]
IMAGE = png(with_hole(texture("gravel", 1, seed=8)[0], radius=20))


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A folder of three indices and of what is none."""
    folder = tmp_path_factory.mktemp("indices")
    for name, kind in zip(NAMES, ("gravel", "grass", "brick"), strict=True):
        Spade(tiny, **SMALL).fit(texture(kind, 4), folder / name)
    shutil.copytree(folder / "gravel", folder / ".hidden")
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("no index")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "indices")


@pytest.fixture
def opened():
    """What was opened, in order: the names of folders, and weak references to detectors."""
    return []


@pytest.fixture
def several(tiny, opened):
    """Return a function that serves a folder of indices."""

    def serve_them(folder, max_memory=None, every=0.05, **options):
        def opener(one, networks):
            # Not the networks at hand: they are to be shared by the service itself.
            detector = open_detector(one, networks=networks, batch_size=8)
            opened.append((one.name, weakref.ref(detector)))
            return detector

        return running(IndexFolder(folder, opener, max_memory, every), **options)

    return serve_them


def query(service, name, **parameters):
    return service.client.post(f"/v1/indices/{name}/query", files=form(IMAGE), params=parameters)


def states(service):
    listed = service.client.get("/v1/indices")
    assert listed.status_code == 200, listed.text
    return {one["name"]: one for one in listed.json()["indices"]}


def metric(service, line):
    """Return the value of a line of the metrics, 0 if it is not there."""
    for one in service.client.get("/metrics").text.splitlines():
        if one.startswith(f"{line} "):
            return float(one.rsplit(" ", 1)[1])
    return 0.0


def test_each_index_answers_as_it_does_alone_and_is_opened_when_it_is_asked_for(
    folder, several, tiny, opened
):
    with several(folder) as service:
        found = states(service)
        assert [*found] == sorted(NAMES)
        assert {one["state"] for one in found.values()} == {"closed"} and not opened
        for name in NAMES:
            answer = query(service, name, pictures=True).json()
            with serving(folder / name, tiny) as alone:
                expected = alone.client.post("/v1/query?pictures=true", files=form(IMAGE)).json()
                assert alone.client.get("/v1/indices").status_code == 404
                assert alone.client.get("/v1/index").json() == (
                    service.client.get(f"/v1/indices/{name}/index").json()
                )
            assert answer["images"] == expected["images"]
            assert answer["manifest_sha256"] == expected["manifest_sha256"]
        assert [name for name, _ in opened] == NAMES
        assert len({ref() for _, ref in opened}) == 3
        networks = {id(member.network) for _, ref in opened for member in ref().members}
        assert len(networks) == 1
        found = states(service)
        assert {one["state"] for one in found.values()} == {"open"}
        assert found["grass"]["images"] == 4 and found["grass"]["last_used"]
        region = service.client.get("/v1/indices/grass/region").json()
        assert region["everything"] and region["refused"]
        picture = service.client.get("/v1/indices/grass/region/picture?image=3")
        assert picture.headers["content-type"] == "image/jpeg"


def test_what_is_not_there_is_named(folder, several, opened):
    with several(folder) as service:
        assert "did you mean 'gravel'?" in why(query(service, "gravle"), 404)
        assert "/v1/indices lists" in why(query(service, "xyz"), 404)
        for name in ("notes", ".hidden", "..", "%2e%2e", "..%2fgravel", "a%00b", "%ff", " "):
            answer = service.client.get(f"/v1/indices/{name}/index")
            assert answer.status_code == 404, (name, answer.text)
        detail = why(service.client.post("/v1/query", files=form(IMAGE)), 404)
        assert "'/v1/indices/{name}/query'" in detail
        detail = why(service.client.post("/v1/indices/gravel/qery"), 404)
        assert "did you mean '/v1/indices/gravel/query'?" in detail
        assert "'verbose'" in why(service.client.get("/v1/indices?verbose=1"), 422)
        assert "'verbose'" in why(service.client.get("/v1/indices/gravel/index?verbose=1"), 422)
        assert "use POST" in why(service.client.get("/v1/indices/gravel/query"), 405)
        assert {name for name, _ in opened} <= {"gravel"}


def test_metrics_tell_indices_apart(folder, several, monkeypatch):
    monkeypatch.setattr(Indices, "GRACE", 0.1)
    with several(folder) as service:
        query(service, "gravel")
        query(service, "gravel")
        query(service, "grass")
        query(service, "nothing")
        path = 'path="/v1/indices/{name}/query"'
        for line, value in (
            (f'spade_faiss_requests_total{{index="gravel",{path},status="200"}}', 2),
            (f'spade_faiss_requests_total{{index="grass",{path},status="200"}}', 1),
            (f'spade_faiss_requests_total{{index="",{path},status="404"}}', 1),
            ('spade_faiss_batch_images_count{index="gravel"}', 2),
            ('spade_faiss_index_openings_total{index="grass",outcome="served"}', 1),
            ('spade_faiss_index_loaded{index="grass"}', 1),
            ('spade_faiss_index_outdated_seconds{index="grass"}', 0),
        ):
            assert metric(service, line) == value, line
        text = service.client.get("/metrics").text
        assert 'spade_faiss_verdicts_total{index="grass",verdict="NG"} 1.0' in text
        shutil.rmtree(folder / "grass")
        wait_for(lambda: 'index="grass"' not in service.client.get("/metrics").text)
        assert 'index="gravel"' in service.client.get("/metrics").text


def test_new_replaced_and_removed_folders_are_noticed(folder, several, tiny, monkeypatch, opened):
    monkeypatch.setattr(Indices, "GRACE", 0.5)
    with several(folder) as service:
        assert query(service, "gravel").json()["images"][0]["threshold"] != 77.5
        assert why(query(service, "new"), 404)
        shutil.copytree(folder / "grass", folder / "unfinished")
        (folder / "unfinished").rename(folder / "new")
        assert query(service, "new").status_code == 200
        set_threshold(folder / "gravel", 77.5)  # by one atomic replacement
        wait_for(lambda: query(service, "gravel").json()["images"][0]["threshold"] == 77.5)
        # Another folder in its place: it is gone for a moment, and goes on answering.
        (folder / "gravel").rename(folder / ".old")
        answer = query(service, "gravel").json()
        assert answer["images"][0]["threshold"] == 77.5 and answer["outdated"]
        (folder / "new").rename(folder / "gravel")
        generation = query(service, "grass").json()["generation"]
        wait_for(lambda: query(service, "gravel").json()["generation"] == generation)
        assert query(service, "gravel").json()["outdated"] is None
        shutil.rmtree(folder / "grass")
        wait_for(lambda: query(service, "grass").status_code == 404)
        wait_for(lambda: query(service, "new").status_code == 404)
        wait_for(lambda: [*states(service)] == ["gravel", "one two é"])
        # Of what is gone, nothing is kept.
        gone = [ref for name, ref in opened if name == "grass"]
        wait_for(lambda: gc.collect() >= 0 and not any(ref() for ref in gone))


def test_a_damaged_index_leaves_the_others_alone(folder, several, monkeypatch, opened):
    monkeypatch.setattr(LiveIndex, "RETRY", 0.3)
    manifest = folder / "grass" / MANIFEST
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:100])
    with several(folder) as service:
        answer = query(service, "grass")
        assert "damaged" in why(answer, 503) and "retry-after" not in answer.headers
        assert query(service, "gravel").status_code == 200
        found = states(service)
        assert found["grass"]["state"] == "failed" and "damaged" in found["grass"]["problem"]
        assert found["gravel"]["state"] == "open" and found["gravel"]["problem"] is None
        assert service.client.get("/readyz").status_code == 200
        refused = 'spade_faiss_index_openings_total{index="grass",outcome="refused"}'
        tried = metric(service, refused)
        query(service, "grass")
        assert metric(service, refused) <= tried + 1
        manifest.write_bytes(whole)  # another manifest is tried at once
        assert query(service, "grass").status_code == 200
        # One that is open goes on as it was while what takes its place is damaged.
        manifest.write_bytes(whole[:100])
        wait_for(lambda: states(service)["grass"]["problem"])
        assert query(service, "grass").json()["outdated"]["problem"]


def test_requests_that_come_while_an_index_is_opened_wait_for_it_and_others_do_not(
    folder, several, monkeypatch, opened
):
    go_on, begun = threading.Event(), threading.Event()
    real = LiveIndex.__init__

    def slow(live, folder, *arguments, **options):
        if folder.name == "grass":
            begun.set()
            assert go_on.wait(60)
        real(live, folder, *arguments, **options)

    monkeypatch.setattr(LiveIndex, "__init__", slow)
    with several(folder) as service, ThreadPoolExecutor(3) as pool:
        assert query(service, "gravel").status_code == 200
        waiting = [pool.submit(query, service, "grass") for _ in range(3)]
        assert begun.wait(60)
        assert query(service, "gravel").status_code == 200
        assert states(service)["grass"]["state"] == "opening"
        assert not any(one.done() for one in waiting)
        go_on.set()
        assert [one.result().status_code for one in waiting] == [200] * 3
    assert [name for name, _ in opened].count("grass") == 1


@pytest.fixture
def memory(monkeypatch, opened):
    """Have the service believe that each index in memory takes 100 bytes, and nothing else."""

    def anonymous():
        return 100 * sum(ref() is not None for _, ref in opened)

    monkeypatch.setattr(indices, "anonymous", anonymous)
    gc.freeze()  # as `serve` does
    yield anonymous
    gc.unfreeze()


def test_the_least_recently_used_are_dropped(folder, several, memory, opened):
    shutil.copytree(folder / "gravel", folder / "more")
    with several(folder, max_memory=250) as service:
        for name in ("gravel", "grass", "gravel", "one two é"):
            assert query(service, name).status_code == 200
            assert memory() <= 200
        found = states(service)
        assert {name for name, one in found.items() if one["state"] == "open"} == {
            "gravel",
            "one two é",
        }
        assert found["grass"]["last_used"] and found["grass"]["problem"] is None
        assert metric(service, 'spade_faiss_index_drops_total{index="grass"}') == 1
        assert metric(service, 'spade_faiss_index_loaded{index="grass"}') == 0
        assert query(service, "grass").status_code == 200  # is opened again
        assert {name for name, one in states(service).items() if one["state"] == "open"} == {
            "grass",
            "one two é",
        }
        with ThreadPoolExecutor(8) as pool:  # all want all at once, in memory for two
            names = [*NAMES, "more"] * 3
            answers = [*pool.map(lambda name: query(service, name), names)]
        assert {one.status_code for one in answers} == {200}
        wait_for(lambda: memory() <= 200)


def test_an_index_that_no_memory_is_left_for_is_refused(folder, several, memory, monkeypatch):
    with several(folder, max_memory=250) as service:
        assert query(service, "gravel").status_code == 200
        monkeypatch.setattr(indices, "anonymous", lambda: 3 * memory())
        detail = why(query(service, "grass"), 503)
        assert "no room for grass" in detail and "`max_memory`" in detail
        assert states(service)["grass"]["state"] == "failed"


def test_memory_that_is_too_little_or_limits_nothing_is_refused(folder):
    with pytest.raises(SpadeError, match=r"`max_memory=1\.0 MiB` is too little.*takes"):
        serve(folder, port=0, max_memory=1 << 20)
    with pytest.raises(SpadeError, match="`max_memory` is for a folder of indices"):
        serve(folder / "gravel", port=0, max_memory=1 << 40)


@pytest.mark.parametrize("place", ["gravel", "gravel/kept"])
def test_a_history_within_an_index_is_refused(folder, place):
    refused = pytest.raises(SpadeError, match=r"`history=.*lies in the index .*gravel, where")
    with refused, _kept(folder / place, None):
        pass
    assert not (folder / "gravel" / "kept").exists()


def test_a_folder_that_cannot_be_looked_at_takes_nothing_out_of_service(
    folder, several, monkeypatch
):
    monkeypatch.setattr(Indices, "GRACE", 0.1)
    with several(folder) as service:
        assert query(service, "gravel").status_code == 200
        folder.rename(folder.with_name("unmounted"))
        time.sleep(0.4)
        assert query(service, "gravel").status_code == 200
        assert "cannot be looked at" in why(query(service, "grass"), 503)
        assert "cannot be looked at" in why(service.client.get("/v1/indices"), 503)
        folder.with_name("unmounted").rename(folder)
        assert query(service, "grass").status_code == 200
        assert [*states(service)] == sorted(NAMES)


def test_an_ensemble_among_them_and_a_region_that_is_learnt(folder, several, tiny):
    Ensemble([Spade(tiny, **SMALL), Spade(tiny, mirror=True, **SMALL)]).fit(
        texture("gravel", 4), folder / "both"
    )
    with several(folder, editable=True) as service:
        assert len(service.client.get("/v1/indices/both/index").json()["members"]) == 2
        mask = png(with_hole(texture("gravel", 1)[0] * 0 + 255, radius=40))
        assert service.client.put("/v1/indices/grass/region", content=mask).status_code == 202
        wait_for(lambda: service.client.get("/v1/indices/grass/region").json()["state"] == "idle")
        assert service.client.get("/v1/indices/grass/index").json()["region"] < 1
        assert service.client.get("/v1/indices/gravel/index").json()["region"] is None


@pytest.fixture
def looked_after(folder, tiny, monkeypatch):
    """Return a function that has a coroutine function do something with indices."""
    monkeypatch.setattr(indices, "_PATIENCE", 0.01)
    source = IndexFolder(folder, lambda at, _: open_detector(at, networks=(tiny,), batch_size=8))

    def look_after(work):
        async def begin():
            resources = Resources(Limits(), State(), None, several=True)
            try:
                several = Indices(source, resources)
                await work(several, resources)
                await several.close()
            finally:
                resources.close()

        asyncio.run(begin())

    return look_after


def test_an_index_is_opened_anew_while_somebody_still_uses_what_was_dropped(looked_after):
    async def work(several, resources):
        async with several.using("gravel") as before:
            await several._drop("gravel", several._entries["gravel"])
            async with several.using("gravel") as now:
                assert now is not before
        await asyncio.gather(*several._leaving)
        line = 'spade_faiss_index_outdated_seconds{index="gravel"} 0.0'
        assert line in generate_latest(resources.metrics.registry).decode()

    looked_after(work)


def test_an_index_that_comes_back_while_it_is_dropped_is_known(looked_after, monkeypatch):
    dropped = threading.Event()

    def slow():
        dropped.set()
        time.sleep(0.2)

    async def work(several, _):
        async with several.using("gravel"):
            pass
        await several._tidy([])
        entry = several._entries["gravel"]
        assert entry.loaded and entry.gone
        await several._tidy(["gravel"])
        assert entry.gone is None  # an absence later is another
        monkeypatch.setattr(Indices, "GRACE", 0.0)
        monkeypatch.setattr(indices, "give_back", slow)
        tidying = asyncio.create_task(several._tidy([]))
        await asyncio.to_thread(dropped.wait)
        async with several.using("gravel") as context:
            await tidying
            assert several._entries["gravel"].loaded.context is context

    looked_after(work)


def test_draining_refuses_queries_of_all(folder, several):
    with several(folder) as service:
        assert query(service, "gravel").status_code == 200
        service.state.draining = True
        answer = query(service, "grass")
        assert "shutting down" in why(answer, 503) and answer.headers["retry-after"]


def test_what_is_wrong_with_the_options_of_a_folder_is_one_line(folder):
    one_line(run("serve", folder, "--allow-origin", "*"), "--allow-origin *", "--token")
    one_line(run("serve", folder, "--allow-origin", "mes"), "--allow-origin mes is no origin")
    one_line(run("serve", folder, "--access-log", folder / "no" / "log"), "--access-log", "No such")
    one_line(run("serve", folder / "notes"), "holds no index")


@pytest.mark.slow
def test_the_command_serves_a_folder_within_real_memory(folder):
    """And each request is logged."""
    options = ("--access-log", "-", "--allow-origin", SITE, "--max-memory", "64GiB")
    with served(folder, *options) as (process, url), Client(url) as client:
        for name in NAMES:
            assert client.for_index(name).query(IMAGE, request_id=name[:3]).images[0].verdict
        answer = httpx.get(f"{url}/v1/indices", headers={"origin": SITE})
        assert answer.headers["access-control-allow-origin"] == SITE
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        said = process.stderr.read().splitlines()
    lines = [json.loads(line) for line in said if line.startswith("{")]
    assert [line["index"] for line in lines if line["method"] == "POST"] == NAMES
    assert [line["path"] for line in lines][-1] == "/v1/indices"
    assert any(line.startswith("spade-faiss: note: gravel: the threshold rests") for line in said)


DROPPED = """
import ctypes, json, re, sys
from contextlib import suppress
from pathlib import Path
from spade_faiss import open_detector
from spade_faiss._support.memory import give_back
from spade_faiss.features import load_backbone
from spade_faiss.service import IndexFolder
from tests.service.serving import running
from tests.service.test_indices import metric, query
from tests.tiny import register
from tests.waiting import wait_for

def resident():
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def drops():
    lines = (f'spade_faiss_index_drops_total{{index="{name}"}}' for name in names)
    return sum(metric(service, line) for line in lines)

register()
ctypes.CDLL(None).mallopt(-8, 1)  # one heap, as the command has it
folder, patches, names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
network = load_backbone("tiny", device="cpu")

def opener(one, networks):
    return open_detector(one, networks=[network])

source = IndexFolder(folder, opener, None, 0.05)
with running(source) as service:
    held = []
    for name in names:
        assert query(service, name).status_code == 200
        give_back()  # what opening and queries left, as the service does where memory is limited
        held.append(resident())
    object.__setattr__(source, "max_memory", 1)  # for none but the last
    wait_for(lambda: drops() == len(names) - 1)
    # An index is counted when it is closed; then its memory goes back.
    with suppress(AssertionError):
        wait_for(lambda: resident() < held[0] + patches, 30)
    print(json.dumps([held[0], held[-1], resident()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others keep what is freed")
def test_what_dropped_indices_took_goes_back_to_the_system(tiny, tmp_path):
    """By the resident size of a process that opens several, and then may hold one.

    Each takes its patches twice while it is in memory: mapped from its files, and packed.
    """
    folder, names = tmp_path / "indices", [f"line{i}" for i in range(5)]
    spade = Spade(tiny, k=40, resize=512, crop=512)
    spade.fit(texture("gravel", 40), folder / names[0], calibrate=False)
    patches = sum(path.stat().st_size for path in (folder / names[0]).glob("*/level*.faiss"))
    for name in names[1:]:
        shutil.copytree(folder / names[0], folder / name, copy_function=os.link)
    ended = subprocess.run(
        [sys.executable, "-c", DROPPED, folder, str(patches), *names],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    one, every, after = json.loads(ended.stdout)
    assert every - one > 4 * patches
    assert after - one < patches


@pytest.mark.slow
def test_clients_of_several_indices_see_no_error_while_these_change(
    folder, several, tiny, tmp_path
):
    """In small what benchmarks/serve.py --indices does for a minute."""
    benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "serve.py"))
    (folder / "one two é").rename(folder / "brick")
    Spade(tiny, **SMALL).fit(texture("brick", 4, seed=3), tmp_path / "other")
    Spade(tiny, **SMALL).fit(texture("brick", 4, seed=4), tmp_path / "new")
    for hidden in (".hidden", "notes"):
        shutil.rmtree(folder / hidden)
    with several(folder) as service:
        found = benchmark["Several"](folder, tmp_path / "other", tmp_path / "new").load(
            f"http://127.0.0.1:{service.port}", os.getpid(), clients=6, seconds=6
        )
    assert found["errors"] == 0, found["first_error"]
    assert found["replaced_answers_after_s"] > 0 and found["added_answers_after_s"] > 0
    assert len(found["by_index"]) == 4 and min(found["by_index"].values()) >= 1
