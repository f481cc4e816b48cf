"""`watch`, `query` of live sources, and messages; as processes that are ended and killed."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from spade_faiss import SpadeError
from spade_faiss.cli.console import Console
from spade_faiss.cli.line_run import LineRun
from tests.command import PROGRAM, done, one_line, run
from tests.line.conftest import line_index, png, views
from tests.line.test_live import streaming
from tests.notify.receivers import webhook
from tests.waiting import wait_for

__all__ = ["line_index", "webhook"]  # fixtures
ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "in").mkdir()
    for number, image in enumerate(views(4)):
        (tmp_path / "in" / f"{number}.png").write_bytes(png(image))
    (tmp_path / "secret").write_text("sixteen bytes and more")
    return tmp_path


def rows(place):
    try:
        with (place / "out" / "scores.csv").open(newline="") as file:
            return [*csv.reader(file)][1:]
    except FileNotFoundError:
        return []


@contextmanager
def ending_when(condition, monkeypatch):
    """Have a command that runs in this thread be asked to end once something is so."""
    stops = []

    @contextmanager
    def ended():
        stops.append(threading.Event())
        yield stops[-1]

    monkeypatch.setattr("spade_faiss.cli.line_run.ended_by_signals", ended)

    def wait():
        wait_for(lambda: stops and condition())
        stops[-1].set()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def watch(place, index, *more):
    folders = ("watch", index, place / "in", "--out", place / "out")
    return (*folders, "--settle", "0.1", "--patience", "0.3", "--every", "0.02", *more)


def test_a_watch_prints_a_line_of_json_an_image_and_tells_of_each(
    place, line_index, webhook, monkeypatch
):
    (place / "in" / "bad.png").write_bytes(b"no image")
    secret = ("--notify", webhook.url, "--notify-secret-file", place / "secret")
    with ending_when(lambda: len(rows(place)) == 5, monkeypatch):
        ended = done(*watch(place, line_index, "--json", "--explain", *secret))
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [one["path"] for one in events] == [row[0] for row in rows(place)]
    assert [one["verdict"] for one in events] == [row[3] for row in rows(place)]
    assert {one["verdict"] for one in events} == {"OK", "NG", "ERROR"}
    assert [json.loads(body) for _, body in webhook.posts] == events
    for one in events[:4]:
        assert all(Path(one[file]).exists() for file in ("map", "overlay", "explanation"))
    assert "cannot be decoded" in ended.stderr or "is not an image" in ended.stderr
    with ending_when(lambda: True, monkeypatch):
        ended = done(*watch(place, line_index))
    assert "5 images judged before" in ended.stderr and "0 images" in ended.stdout
    assert "not sent yet" not in ended.stderr and len(webhook.posts) == 5


def strict(text):
    """Parse JSON as programs do that take no lone surrogate, and return it as Python has it."""
    value = json.loads(text)
    json.dumps(value, ensure_ascii=False).encode()  # which raises of one
    return value


def test_names_that_are_no_unicode_are_written_out_for_other_programs(
    place, line_index, webhook, monkeypatch
):
    """As reports have them; scores.csv has the bytes, by which the file is found."""
    for path in (place / "in").iterdir():
        path.unlink()
    path = place / "in" / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(png(views(2)[1]))
    shown = str(place / "in") + r"/caf\udce9.png"
    with ending_when(lambda: len(webhook.posts) == 1, monkeypatch):
        ended = done(*watch(place, line_index, "--json", "--explain", "--notify", webhook.url))
    (event,) = map(strict, ended.stdout.splitlines())
    assert event["path"] == shown and event["map"].endswith(r"/maps/caf\udce9.tiff")
    assert strict(webhook.posts[0][1]) == event
    row = (place / "out" / "scores.csv").read_bytes().splitlines()[1]
    assert row.startswith(os.fsencode(path) + b",")
    (explained,) = (place / "out" / "explain").glob("*.json")
    assert strict(explained.read_text())["path"] == shown
    call = ("query", line_index, place / "in", "--out", place / "again", "--json")
    answer = strict(done(*call, "--notify", webhook.url).stdout)
    assert [one["path"] for one in answer["images"]] == [shown]
    assert strict(webhook.posts[1][1])["path"] == shown


def test_a_watch_prints_verdicts_in_words(place, line_index, monkeypatch):
    with ending_when(lambda: len(rows(place)) == 4, monkeypatch):
        ended = done(*watch(place, line_index, "--no-maps", "--no-overlays"))
    *lines, last = ended.stdout.splitlines()
    assert len(lines) == 4 and last.startswith("4 images: ") and "2 NG" in last
    assert {line.split()[0] for line in lines} == {"OK", "NG"}
    assert not (place / "out" / "maps").exists()


def test_a_watch_whose_reader_is_gone_fails(monkeypatch):
    """Else what starts it again, and its reader, would take it for done."""
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    run = LineRun(Console(), None, None, as_json=True)
    with pytest.raises(SpadeError, match=r"nobody reads standard output any more, of a\.png"):
        run._tell({"verdict": "OK", "path": "a.png"})
    sys.stdout.close()  # nor does what is left raise


def test_what_is_wrong_is_said_before_anything_is_watched(place, line_index, tmp_path):
    out = place / "out"
    one_line(run("watch", line_index, place / "none", "--out", out), "no such folder")
    one_line(run("watch", place / "in", place / "in", "--out", out), "index")
    one_line(run(*watch(place, line_index), "--every", "0"), "every = 0 must be 0.01 seconds")
    one_line(run("watch", line_index, place / "in", "--out", place / "in" / "o"), "lies inside")
    one_line(run(*watch(place, line_index, "--notify", "ftp://host/")), "--notify takes http://")
    one_line(run(*watch(place, line_index, "--notify-on", "ng")), "give an address, too")
    secret = ("--notify", "http://localhost/", "--notify-secret-file", place / "none")
    assert "the secret cannot be read" in run(*watch(place, line_index, *secret)).stderr
    done("query", line_index, place / "in", "--out", out)
    ended = run(*watch(place, line_index))
    assert ended.returncode == 2 and "holds the results of another command" in ended.stderr


def test_a_query_does_not_write_over_what_a_watch_wrote(place, line_index, monkeypatch):
    with ending_when(lambda: len(rows(place)) == 4, monkeypatch):
        done(*watch(place, line_index))
    before = rows(place)
    ended = run("query", line_index, place / "in", "--out", place / "out")
    assert ended.returncode == 2 and "which go on; name another folder" in ended.stderr
    assert rows(place) == before


def test_a_query_tells_of_each_image_and_again_the_next_time(place, line_index, webhook):
    (place / "in" / "bad.png").write_bytes(b"no image")
    call = ("query", line_index, place / "in", "--out", place / "out", "--notify", webhook.url)
    first = run(*call, "--notify-secret-file", place / "secret")
    assert first.returncode == 1
    told = {json.loads(body)["path"]: json.loads(body) for _, body in webhook.posts}
    assert len(webhook.posts) == 5 and set(told) == {row[0] for row in rows(place)}
    for path, _, _, verdict in rows(place):
        assert told[path]["verdict"] == verdict
    again = run(*call, "--notify-on", "not-ok")
    assert "is not signed" in again.stderr
    assert sorted(webhook.ids[5:]) == sorted(
        one["id"] for one in told.values() if one["verdict"] != "OK"
    )


def test_messages_that_cannot_be_sent_wait_in_the_results(place, line_index, webhook):
    webhook.shut()
    call = ("query", line_index, place / "in", "--out", place / "out")
    ended = done(*call, "--notify", webhook.url)
    assert "4 messages are for" in ended.stderr and "token" not in ended.stderr
    assert "4 unsent messages" in done(*call).stderr
    webhook.open()
    done(*call, "--notify", webhook.url)
    assert len(webhook.ids) == 4 == len(set(webhook.ids))


def test_a_live_source_is_queried(place, line_index, webhook):
    images = views(2)
    with streaming(picture=lambda number: images[number // 5 % 2]) as camera:
        call = ("query", line_index, camera.url, "--out", place / "out", "--json")
        told = ("--notify", webhook.url, "--notify-secret-file", place / "secret")
        ended = done(*call, "--frames", "12", *told, "--notify-on", "ng")
        events = [json.loads(line) for line in ended.stdout.splitlines()]
        assert len(events) == 12 == len(rows(place))
        wrong = [one for one in events if one["verdict"] == "NG"]
        assert wrong and [json.loads(body) for _, body in webhook.posts] == wrong
        assert "frames came, 12 were judged" in ended.stderr
        done(*call, "--seconds", "0.5")  # and goes on in the same folder
        assert len(rows(place)) > 12


def test_what_means_nothing_of_a_live_source_is_refused(place, line_index):
    out = ("--out", place / "out")
    query = ("query", line_index, "camera:0")
    one_line(run(*query, *out, "--report"), "--report does nothing of a camera")
    one_line(run(*query, *out, "--drift"), "--drift does nothing of a camera")
    one_line(run(*query, place / "in", *out), "is queried alone")
    one_line(run("query", line_index, "camera:front", *out), "by its number")
    one_line(run("query", line_index, "ftp://host/", *out), "no address of a stream")
    one_line(run("query", line_index, place / "in", *out, "--frames", "3"), "--frames")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_signals_end_a_watch_cleanly(place, line_index, number):
    command = [*PROGRAM, *map(str, watch(place, line_index))]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as one:
        wait_for(lambda: len(rows(place)) == 4)
        one.send_signal(number)
        said, errors = one.communicate(timeout=60)
        assert one.returncode == 0 and "Traceback" not in errors
    assert said.splitlines()[-1].startswith("4 images: ")


_KILLED = {
    "before the messages": "Notifier.put = end",
    "before the rows": "Ledger._append = end",
}
"""What ends a process when it would do its next step, once what it has said is sent."""


@pytest.mark.slow
@pytest.mark.parametrize("at", _KILLED)
def test_a_row_says_what_its_message_said_though_the_index_was_replaced(
    place, line_index, webhook, at
):
    """Of an image that a process was killed at, which would be judged otherwise later."""
    index = shutil.copytree(line_index, place / "index")
    call = [*map(str, watch(place, index, "--notify", webhook.url, "--json"))]
    code = f"""
import os, signal, sys, time
from spade_faiss.cli.app import run
from spade_faiss.line import Ledger
from spade_faiss.notify import Notifier
from tests.tiny import register

def end(*_):
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)

{_KILLED[at]}
register()
run(sys.argv[1:])
"""
    command = [sys.executable, "-c", code, *call]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not ended.stdout and not rows(place)
    assert bool(webhook.posts) == (at == "before the rows")
    done("calibrate", index, "--threshold", "1000")
    with subprocess.Popen([*PROGRAM, *call], stdout=subprocess.PIPE, text=True) as one:
        wait_for(lambda: len(rows(place)) == len(webhook.posts) == 4)
        one.terminate()
        lines = one.communicate(timeout=60)[0].splitlines()
    told = [json.loads(body) for _, body in webhook.posts]
    assert told == [json.loads(line) for line in lines] and len({one["id"] for one in told}) == 4
    said = [
        [one["path"], f"{one['score']:.9g}", f"{one['threshold']:.9g}", one["verdict"]]
        for one in told
    ]
    assert said == rows(place)
    assert sorted(one[0] for one in said) == [str(place / "in" / f"{i}.png") for i in range(4)]
    before = [one for one in said if one[2] != "1000"]
    assert before and before == said[: len(before)]  # what was noted before it was killed


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        ("watch", "--images", "150", "--burst", "50", "--pause", "0.2"),
        ("down", "--seconds", "6", "--rate", "5"),
    ],
    ids=lambda what: what[0],
)
def test_nothing_is_lost_or_doubled_when_processes_are_killed(what):
    """The benchmark of a line, in small: it ends with 1 if something is."""
    program = f"{sys.executable} -m tests"
    options = (*what, "--backbone", "tiny", "--program", program, "--json")
    command = [sys.executable, "benchmarks/line.py", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, (ended.stdout, ended.stderr)
    found = json.loads(ended.stdout)
    assert found["missing"] == found["doubled"] == 0 and found["rows"] == found["images"]
    if what[0] == "watch":
        assert len(found["killed_at_rows"]) == 2 and found["killed_at_rows"][1] < 150
    else:
        assert found["lost"] == 0 and found["identities"] == found["images"]
