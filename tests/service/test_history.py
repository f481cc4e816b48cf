"""Results that are kept, and images that were called good."""

import csv
import io
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from spade_faiss.client import Client
from spade_faiss.index import index_lock
from spade_faiss.service import Bounds, History
from spade_faiss.service.past import Outcome, Which
from tests.service.serving import form, png, serving, set_threshold
from tests.service.test_region import DIRT, GOOD, HOLE, OPTIONS, verdicts
from tests.waiting import wait_for

PNG = png(GOOD[0][:16, :16])


@pytest.fixture
def folder(tiny, tmp_path):
    Spade(tiny, **OPTIONS).fit(GOOD, tmp_path / "parts")
    return tmp_path / "parts"


def outcome(history=None, **changes):
    values = {"name": "a.png", "score": 5.0, "threshold": 4.0, "review": None, "verdict": "NG"}
    values |= {"kind": "map", "places": 1, "generation": "0", "picture": b"jpeg", "image": None}
    if history:
        values["image"] = history.images.keep(PNG)
    return Outcome(**values | changes)


def settled(client):
    """Return what is said of the queue once no step is being made."""
    wait_for(lambda: client.get("/v1/feedback").json()["state"] in ("idle", "failed"))
    return client.get("/v1/feedback").json()


def call_good(client, number, by="Ada", remark=""):
    body = {"id": number, "by": by, "remark": remark}
    return client.post("/v1/feedback", json=body)


def tried(client):
    assert client.post("/v1/feedback/preview").status_code == 202
    return settled(client)


def added(client, preview, by="Bob"):
    body = {"generation": preview["generation"], "by": by}
    answer = client.post("/v1/feedback/add", json=body)
    assert answer.status_code == 202, answer.text
    return settled(client)


def stepped_back(client, by="Bob"):
    assert client.post("/v1/feedback/back", json={"by": by}).status_code == 202
    return settled(client)


def test_a_good_image_is_queued_tried_added_and_taken_back(tiny, folder, tmp_path):
    with serving(folder, tiny, editable=True, history=tmp_path / "kept") as service:
        client = service.client
        answer = client.post("/v1/query", files=form(png(DIRT), png(HOLE))).json()
        first, second = (image["id"] for image in answer["images"])
        assert [image["verdict"] for image in answer["images"]] == ["NG", "NG"]
        marked = call_good(client, first, "  Ada ", "dust").json()
        assert (marked["marked_by"], marked["remark"], marked["verdict"]) == ("Ada", "dust", "NG")
        whole = client.get("/v1/index").json()
        files = {path.name for path in folder.rglob("*")}
        said = tried(client)
        preview = said["preview"]
        # Nothing of the index is changed.
        assert client.get("/v1/index").json() == whole
        assert {path.name for path in folder.rglob("*")} == files
        assert preview["threshold_before"] == whole["threshold"] and preview["results"] == [first]
        assert (preview["images_before"], preview["images_after"]) == (6, 7)
        assert any("look at it, or remove it" in note for note in preview["notes"])
        assert not any(str(tmp_path) in note for note in preview["notes"])
        said = added(client, preview)
        now = client.get("/v1/index").json()
        assert now["images"] == 7 and now["threshold"] == preview["threshold_after"]
        assert now["generation"] == preview["generation"] and said["queue"] == []
        assert verdicts(client, DIRT, HOLE) == ["OK", "NG"]
        (change,) = said["changes"]
        assert (change["by"], change["kind"], change["images"]) == ("Bob", "added", 1)
        assert said["step"] == change
        taken = client.delete(f"/v1/feedback?id={first}")
        assert taken.status_code == 409 and "is in the index already" in taken.text
        said = stepped_back(client)
        again = client.get("/v1/index").json()
        assert {**again, "outdated": None} == whole
        assert [one["id"] for one in said["queue"]] == [first] and said["step"] is None
        assert [one["kind"] for one in said["changes"]] == ["back", "added"]
        assert verdicts(client, DIRT, HOLE) == ["NG", "NG"]
        line = "there is no step to go back: nothing was added last"
        refused = client.post("/v1/feedback/back", json={"by": "Bob"})
        assert (refused.status_code, refused.json()["detail"]) == (409, line)
        assert client.delete(f"/v1/feedback?id={first}").json()["marked_at"] is None
        assert client.get("/v1/feedback").json()["queue"] == []
        call_good(client, second)
    # A step that was begun in one run can be gone back in the next.
    with serving(folder, tiny, editable=True, history=tmp_path / "kept") as service:
        client = service.client
        assert [one["id"] for one in client.get("/v1/feedback").json()["queue"]] == [second]
        assert client.get("/v1/feedback").json()["preview"] is None
        added(client, tried(client)["preview"])
    with serving(folder, tiny, editable=True, history=tmp_path / "kept") as service:
        assert service.client.get("/v1/index").json()["images"] == 7
        stepped_back(service.client)
        assert service.client.get("/v1/index").json()["manifest_sha256"] == whole["manifest_sha256"]


@pytest.mark.slow
def test_an_ensemble_learns_and_a_step_whose_record_is_lost_can_be_gone_back(tiny, tmp_path):
    folder = tmp_path / "views"
    Ensemble.of([tiny], ["flip"], **OPTIONS).fit(GOOD, folder)
    with serving(folder, tiny, editable=True, history=tmp_path / "kept") as service:
        client = service.client
        client.post("/v1/query", files=form(png(DIRT)))
        call_good(client, 1)
        preview = tried(client)["preview"]

        def lost(*_):
            raise SpadeError("no room")

        service.kept.note_change = lost
        assert added(client, preview)["changes"] == []
    with serving(folder, tiny, editable=True, history=tmp_path / "kept") as service:
        client = service.client
        step = client.get("/v1/feedback").json()["step"]
        assert (step["images"], step["by"]) == (1, "")
        assert step["threshold_before"] == preview["threshold_before"]
        stepped_back(client)
        assert client.get("/v1/index").json()["images"] == 6
    assert len(open_detector(folder, networks=[tiny]).index_) == 6


def test_what_was_tried_counts_only_while_index_and_queue_are_the_same(tiny, folder, tmp_path):
    with serving(folder, tiny, editable=True, history=tmp_path / "kept", every=0.02) as service:
        client = service.client
        client.post("/v1/query", files=form(png(DIRT), png(HOLE)))
        line = "the queue is empty: call the images of some results good first"
        assert client.post("/v1/feedback/preview").json()["detail"] == line
        call_good(client, 1)
        preview = tried(client)["preview"]
        call_good(client, 2)
        stale = "the index or the queue changed meanwhile: try the images again"

        def refused(preview):
            body = {"generation": preview["generation"], "by": "Bob"}
            answer = client.post("/v1/feedback/add", json=body)
            return answer.status_code, answer.json()["detail"]

        assert refused(preview) == (409, stale)
        assert client.get("/v1/feedback").json()["preview"] is None
        preview = tried(client)["preview"]
        assert preview["images_after"] == 8
        set_threshold(folder, 77.5)
        wait_for(lambda: client.get("/v1/index").json()["threshold"] == 77.5)
        assert refused(preview) == (409, stale)
        preview = tried(client)["preview"]
        assert preview["threshold_before"] == preview["threshold_after"] == 77.5
        assert "the threshold was set by hand, and stays" in preview["notes"]
        with index_lock(folder):
            said = added(client, preview)
        problem = f"{folder} is being written by another process; wait for it"
        assert (said["state"], said["problem"]) == ("failed", problem)
        assert client.get("/v1/index").json()["images"] == 6 and said["preview"] == preview
        # What another change takes away cannot be gone back to.
        added(client, preview)
        spade = Spade.load(folder, backbone=tiny)
        spade.remove([path.path for path in spade.index_.manifest.images][:1])
        wait_for(lambda: client.get("/v1/index").json()["images"] == 7)
        assert client.get("/v1/feedback").json()["step"] is None


def test_what_another_program_changed_is_not_undone(tiny, folder, tmp_path, held):
    def another_adds():
        held.clear()  # it is not in service for a while
        Spade.load(folder, backbone=tiny).add([HOLE])

    def images():
        return len(Spade.load(folder, backbone=tiny).index_)

    with serving(folder, tiny, editable=True, history=tmp_path / "kept", every=0.02) as service:
        client = service.client
        client.post("/v1/query", files=form(png(DIRT)))
        call_good(client, 1)
        another_adds()
        assert client.post("/v1/feedback/preview").status_code == 202
        problem = f"{folder} was changed, and is not in service yet: try the images again"
        assert settled(client)["problem"] == problem
        held.set()
        wait_for(lambda: client.get("/v1/index").json()["images"] == 7)
        preview = tried(client)["preview"]
        assert (preview["images_before"], preview["images_after"]) == (7, 8)
        added(client, preview)
        another_adds()
        assert client.post("/v1/feedback/back", json={"by": "Bob"}).status_code == 202
        problem = f"{folder} was changed meanwhile: there is no step to go back"
        assert settled(client)["problem"] == problem
        held.set()
        assert images() == 9


def test_the_same_picture_is_called_good_once(tiny, folder, tmp_path):
    with serving(folder, tiny, editable=True, history=tmp_path / "kept") as service:
        client = service.client
        client.post("/v1/query", files=form(png(DIRT), png(HOLE), png(DIRT)))
        assert call_good(client, 1).status_code == call_good(client, 2).status_code == 200
        assert call_good(client, 1, "Bob").json()["marked_by"] == "Bob"
        refused = call_good(client, 3)
        line = "the same picture was called good already, as that of result 1"
        assert (refused.status_code, refused.json()["detail"]) == (409, line)
        client.delete("/v1/feedback?id=1")
        assert call_good(client, 3).status_code == 200


def test_how_many_others_would_pass_is_said(tiny, tmp_path):
    Spade(tiny, **OPTIONS).fit(GOOD, tmp_path / "parts")
    kept = tmp_path / "kept"
    with serving(tmp_path / "parts", tiny, editable=True, history=kept) as service:
        client = service.client
        with Client(f"http://127.0.0.1:{service.port}") as other:  # as other programs do
            (image,) = other.query(png(HOLE)).images
            assert other.call_good(image.id, "Ada").marked_by == "Ada"
            assert other.take_off(image.id).marked_by is None
            other.call_good(image.id, "Ada", "light")
            assert other.history(verdict="NG").results == other.feedback().queue
            assert other.try_adding().state == "trying"
            settled(client)
            generation = other.feedback().preview.generation
            assert other.add(generation, "Bob").state == "adding"
            settled(client)
            assert other.info().generation == generation
            assert other.step_back("Bob").state == "returning"
            settled(client)
        preview = tried(client)["preview"]
        low, high = preview["threshold_before"], preview["threshold_after"]
        assert low < high and preview["passed"] == 0
        between, generation = (low + high) / 2, client.get("/v1/index").json()["generation"]
        for changes in (
            {},
            {"verdict": "OK"},
            {"score": high * 1.01},
            {"generation": "another"},
            {"kind": "mean"},
        ):
            values = {"score": between, "threshold": low, "generation": generation} | changes
            service.kept.record("parts", [outcome(**values)])
        assert tried(client)["preview"]["passed"] == 1


def test_the_history_is_asked_for_by_time_and_verdict_and_saved_as_csv(tiny, folder, tmp_path):
    with serving(folder, tiny, history=tmp_path / "kept") as service:
        client = service.client
        start = datetime.now(UTC) - timedelta(seconds=1)
        files = [("images", ("=1+1.png", png(DIRT))), ("images", ("ünd, so.png", png(GOOD[1])))]
        answer = client.post("/v1/query", files=files).json()
        client.post("/v1/query", files=form(png(HOLE)))
        found = client.get("/v1/history").json()
        assert (found["refused"], found["index"], found["more"]) == (None, "parts", False)
        assert [one["id"] for one in found["results"]] == [3, 2, 1]
        assert found["counts"] == {"OK": 1, "REVIEW": 0, "NG": 2, "none": 0}
        for one, image in zip(found["results"][:0:-1], answer["images"], strict=True):
            for name in ("id", "name", "score", "threshold", "verdict"):
                assert one[name] == image[name]
            assert one["generation"] == answer["generation"] and one["kept"]
            assert start <= datetime.fromisoformat(one["time"]) <= datetime.now(UTC)
        good = client.get("/v1/history", params={"verdict": "OK"}).json()
        assert [one["id"] for one in good["results"]] == [2] and good["counts"] == found["counts"]
        page = client.get("/v1/history?limit=2").json()
        assert [one["id"] for one in page["results"]] == [3, 2] and page["more"]
        page = client.get("/v1/history?limit=2&before=2").json()
        assert [one["id"] for one in page["results"]] == [1] and not page["more"]
        for since, count in ((start, 3), (datetime.now(UTC), 0)):
            params = {"since": since.isoformat()}
            assert len(client.get("/v1/history", params=params).json()["results"]) == count
            params = {"until": since.isoformat()}
            assert len(client.get("/v1/history", params=params).json()["results"]) == 3 - count
        assert client.get("/v1/history?until=0001-01-01T00:00:00%2B14:00").status_code == 422
        call_good(client, 1, "Ada", "-dust")
        table = client.get("/v1/history.csv")
        assert table.headers["content-type"] == "text/csv; charset=utf-8"
        rows = list(csv.DictReader(io.StringIO(table.content.decode(), newline="")))
        assert [row["id"] for row in rows] == ["3", "2", "1"]
        assert [row["verdict"] for row in rows] == ["NG", "OK", "NG"]
        # No spreadsheet is to take a client's words for a formula.
        assert (rows[2]["name"], rows[2]["remark"]) == ("'=1+1.png", "'-dust")
        assert rows[1]["name"] == answer["images"][1]["name"]
        assert float(rows[2]["score"]) == answer["images"][0]["score"]
        assert client.get("/v1/history.csv?verdict=OK").text.count("\n") == 2
        # Pictures.
        small = client.get("/v1/history/picture?id=1")
        assert Image.open(io.BytesIO(small.content)).size == (256, 256)
        sent = client.get("/v1/history/image?id=1")
        assert (sent.content, sent.headers["content-type"]) == (png(DIRT), "image/png")
        for path in ("picture", "image"):
            missing = client.get(f"/v1/history/{path}?id=99")
            assert missing.json()["detail"] == "there is no result 99 of parts"
            assert missing.status_code == 404


def test_what_cannot_be_done_is_one_line(tiny, folder, index, tmp_path):
    with serving(index, tiny, editable=True) as service:
        client = service.client
        off = "this service keeps no results: start it with `history=DIR`"
        assert client.get("/v1/history").json()["refused"] == off
        assert client.get("/v1/feedback").json()["refused"] == off
        for answer in (
            call_good(client, 1),
            client.delete("/v1/feedback?id=1"),
            client.post("/v1/feedback/preview"),
            client.post("/v1/feedback/back", json={"by": "Bob"}),
            client.get("/v1/history.csv"),
            client.get("/v1/history/image?id=1"),
        ):
            assert (answer.status_code, answer.json()["detail"]) == (409, off)
        assert client.post("/v1/query", files=form(png(DIRT))).json()["images"][0]["id"] is None
    token = "a-token-of-32-characters-or-more"
    options = {"history": tmp_path / "kept", "token": token}
    with serving(folder, tiny, **options) as service:
        client = service.client
        for path in ("history", "history.csv", "history/picture?id=1", "feedback"):
            assert client.get(f"/v1/{path}").status_code == 401
        assert call_good(client, 1).status_code == 401
        client.headers["authorization"] = f"Bearer {token}"
        client.post("/v1/query", files=form(png(DIRT)))
        assert call_good(client, 2).status_code == 404
        assert call_good(client, 1).status_code == 200
        # To call an image good is no change of the index; to add it is.
        off = "this service does not change its index: start it with `editable=True`"
        assert client.get("/v1/feedback").json()["refused"] == off
        for answer in (
            client.post("/v1/feedback/preview"),
            client.post("/v1/feedback/add", json={"generation": "a", "by": "Bob"}),
            client.post("/v1/feedback/back", json={"by": "Bob"}),
        ):
            assert (answer.status_code, answer.json()["detail"]) == (403, off)
        foreign = {"origin": "http://elsewhere"}
        answer = client.post("/v1/feedback", json={"id": 1, "by": "Eve"}, headers=foreign)
        assert answer.status_code == 403
        kind = {"content-type": "application/json"}
        for status, line, options in (
            (415, "send JSON, with Content-Type: application/json", {"content": b"{}"}),
            (422, "by: Field required", {"json": {"id": 1}}),
            (422, "by: String should match", {"json": {"id": 1, "by": "  "}}),
            (422, "id: Input should be greater than", {"json": {"id": 0, "by": "Bob"}}),
            (422, "who: Extra inputs", {"json": {"id": 1, "by": "Bob", "who": 1}}),
            (422, "the body: Invalid JSON", {"content": b"{", "headers": kind}),
            (413, "the body has more than 65536 bytes", {"content": b" " * 70000, "headers": kind}),
        ):
            answer = client.post("/v1/feedback", **options)
            assert answer.json()["detail"].startswith(line) and answer.status_code == status
        service.state.draining = True
        assert call_good(client, 1).status_code == 503
        service.state.draining = False


def test_what_cannot_be_kept_is_answered_with_a_note(tiny, folder, tmp_path):
    with serving(folder, tiny, history=tmp_path / "kept") as service:
        for path in (tmp_path / "kept" / "images").iterdir():
            path.unlink()
        (tmp_path / "kept" / "images").rmdir()
        (answer,) = service.client.post("/v1/query", files=form(png(DIRT))).json()["images"]
        assert answer["verdict"] == "NG" and answer["id"] == 1
        assert "the image is not kept: " in answer["notes"][0]
        refused = call_good(service.client, 1)
        line = "the image of result 1 is kept no more: send it again"
        assert (refused.status_code, refused.json()["detail"]) == (409, line)
        damage = tmp_path / "kept" / "history.sqlite"
        with closing(sqlite3.connect(damage)) as other:
            other.execute("DROP TABLE pictures")
        (answer,) = service.client.post("/v1/query", files=form(png(DIRT))).json()["images"]
        assert answer["verdict"] == "NG" and answer["id"] is None
        assert "the result is not kept: " in answer["notes"][-1]
        assert len(service.kept.find(Which("parts"))) == 1
        answer = service.client.get("/v1/history/picture?id=1")
        assert answer.status_code == 404 and "no such table: pictures" in answer.json()["detail"]
        with closing(sqlite3.connect(damage)) as other:
            other.execute("DROP TABLE results")
        for place in ("history", "feedback"):
            answer = service.client.get(f"/v1/{place}")
            assert answer.status_code == 500
            assert "history.sqlite cannot be used: no such table" in answer.json()["detail"]


def test_a_result_is_kept_though_older_ones_cannot_be_removed(tmp_path, monkeypatch, caplog):
    with closing(History(tmp_path, Bounds(bytes=1))) as history:
        monkeypatch.setattr(history.images, "forget", lambda _: (tmp_path / "none" / "x").unlink())
        assert history.record("a", [outcome(history)]) == [1]
        assert history.get("a", 1).score == 5
    assert "what is too old is not removed" in caplog.text


# The file -----------------------------------------------------------------------------------


def test_no_more_is_kept_than_was_asked_for(tmp_path):
    bounds = Bounds(days=1, results=6, bytes=3 * len(PNG))
    with closing(History(tmp_path, bounds)) as history:
        for verdict in ("NG", "OK", "NG", "OK", "OK"):
            history.record("a", [outcome(history, verdict=verdict)])
        # Images of what was OK go first, and of these the oldest.
        found = history.find(Which("a"))
        assert [past.image is not None for past in found[::-1]] == [True, False, True, False, True]
        assert len(list((tmp_path / "images").iterdir())) == 3
        kept = history.mark("a", 1, "Ada", "")
        for _ in range(250):
            history.record("b", [outcome()])
        assert 6 <= len(history.find(Which("b"))) < 6 + 100
        assert history.images.read(kept) == PNG
    with closing(History(tmp_path, bounds)) as history:
        assert [past.id for past in history.find(Which("a"))] == [1]
        assert len(history.find(Which("b"))) == 6
    soon = Bounds(days=1e-9)
    time.sleep(0.01)
    with closing(History(tmp_path, soon)) as history:
        assert history.find(Which("b")) == []
        # What was called good stays, and so does its image.
        (past,) = history.marked("a")
        assert history.images.read(past) == PNG
        assert history.unmark("a", 1).good is None
        assert not list((tmp_path / "good" / "a").iterdir())
    for wrong in (
        {"days": 0},
        {"days": 1e9},
        {"days": float("nan")},
        {"results": 0},
        {"bytes": -1},
    ):
        with pytest.raises(SpadeError, match="history"):
            Bounds(**wrong)


def test_a_file_that_is_damaged_foreign_or_in_use_is_one_line(tmp_path):
    with closing(History(tmp_path)) as history:
        history.record("a", [outcome() for _ in range(500)])
        with pytest.raises(SpadeError, match="is the history of another service that runs"):
            History(tmp_path)
    path = tmp_path / "history.sqlite"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[8192:20480] = np.random.default_rng(0).bytes(12288)
    for data, line in (
        (whole[: len(whole) // 2], "is damaged"),
        (bytes(damaged), "is damaged"),
        (b"no database" * 1000, "is damaged .file is not a database.: move it away, and a new"),
    ):
        path.write_bytes(data)
        with pytest.raises(SpadeError, match=line) as caught:
            History(tmp_path)
        assert str(caught.value).count("\n") == 0 and str(path) in str(caught.value)
    path.write_bytes(whole[:60] + (2).to_bytes(4) + whole[64:])  # SQLite's user_version
    with pytest.raises(SpadeError, match="of another kind or of a newer version"):
        History(tmp_path)
    path.unlink()
    with closing(History(tmp_path)) as history:
        assert history.find(Which("a")) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(SpadeError, match="cannot be written"):
        History(tmp_path / "file" / "kept")


WRITER = """
import sys
from pathlib import Path
from tests.service.test_history import History, outcome
history = History(Path(sys.argv[1]))
while True:
    print(*history.record("a", [outcome(history), outcome(history)]), flush=True)
"""


@pytest.mark.slow
def test_what_was_answered_survives_a_kill(tmp_path):
    said = []
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            said += map(int, line.split())
            if len(said) == 40:
                process.kill()
    with closing(History(tmp_path)) as history:
        found = {past.id: past for past in history.every(Which("a"))}
        assert said and set(said) <= set(found)
        assert all(history.images.read(found[number]) == PNG for number in said)
        # Nothing is left of what came to no result.
        assert {past.image for past in found.values()} == {
            path.name for path in (tmp_path / "images").iterdir()
        }
