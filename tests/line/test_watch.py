"""A folder that is watched, and what becomes of the files in it."""

import csv
import json
import os
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import tifffile

from spade_faiss import Spade, SpadeError, open_detector
from spade_faiss.line import (
    CurrentIndex,
    Files,
    Ledger,
    Pace,
    Recorder,
    Watch,
    check_place,
    source_of,
)
from tests.conftest import texture
from tests.full_disk import no_file_over
from tests.line.conftest import SMALL, png, views
from tests.waiting import wait_for

QUICK = Pace(every=0.02, settle=0.1, patience=0.6)


class Told:
    """Stands in for a notifier."""

    def __init__(self):
        self.events = []

    def put(self, events):
        self.events += events


@pytest.fixture
def place(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path


@contextmanager
def watching(place, index, tiny, pace=QUICK, ends_after=None, **files):
    """Watch `in` in a thread, with results in `out`."""
    said, events, told, stop = [], [], Told(), threading.Event()
    folder = place / "in"

    def opener(networks):
        return open_detector(index, networks=networks or (tiny,))

    current = CurrentIndex(index, opener, said.append)
    with Ledger(place / "out", source_of(folder), folder) as ledger:

        def keep(event):
            events.append(event)
            if len(events) == ends_after:
                stop.set()

        recorder = Recorder(ledger, Files(**files), told, keep, said.append)
        watch = Watch(folder, current, ledger, recorder, pace, said.append)
        raised = []

        def run():
            try:
                watch.run(stop)
            except Exception as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield SimpleNamespace(
                folder=folder, said=said, events=events, told=told.events, raised=raised
            )
            assert thread.is_alive() or raised or ends_after
        finally:
            stop.set()
            thread.join()


def rows(place):
    with (place / "out" / "scores.csv").open(newline="") as file:
        return [
            [os.path.relpath(row[0], place / "in"), *row[1:]] for row in [*csv.reader(file)][1:]
        ]


def names(place):
    return [row[0] for row in rows(place)]


def test_images_are_judged_as_they_come_and_as_query_would(place, line_index, tiny):
    images = views(4)
    with watching(place, line_index, tiny) as line:
        for number, image in enumerate(images):
            (line.folder / f"{number}.png").write_bytes(png(image))
        wait_for(lambda: len(line.events) == 4)
    spade = Spade.load(line_index, backbone=tiny)
    expected = list(spade.query(sorted(line.folder.iterdir())))
    assert sorted(names(place)) == [f"{i}.png" for i in range(4)]
    for name, score, threshold, verdict in rows(place):
        result = expected[int(name[0])]
        assert float(score) == pytest.approx(spade.score_of(result), rel=1e-6)
        assert float(threshold) == pytest.approx(spade.image_threshold, rel=1e-6)
        assert verdict == spade.verdict_of(spade.score_of(result))
        written = tifffile.imread(place / "out" / "maps" / f"{name[0]}.tiff")
        assert written.shape == (64, 64) and (written == result.map).all()
        assert (place / "out" / "overlays" / f"{name[0]}.png").exists()
    assert {"OK", "NG"} == {row[3] for row in rows(place)}
    assert line.told == line.events and len({one["id"] for one in line.events}) == 4
    for one in line.events:
        assert bool(one["regions"]) == (one["verdict"] == "NG")


def test_a_file_that_is_half_written_waits(place, line_index, tiny):
    data = png(views(1)[0])
    with watching(place, line_index, tiny) as line:
        with (line.folder / "slow.png").open("wb") as file:
            for at in range(0, len(data), len(data) // 5):
                file.write(data[at : at + len(data) // 5])
                file.flush()
                time.sleep(0.2)  # longer than it takes to count as complete
                if at + len(data) // 5 < len(data):
                    assert not line.events
        wait_for(lambda: line.events)
    assert [(row[0], row[3]) for row in rows(place)] == [("slow.png", "OK")]


def test_files_that_are_renamed_into_place_are_seen_once(place, line_index, tiny):
    with watching(place, line_index, tiny) as line:
        for number, image in enumerate(views(3)):
            beside = line.folder / f"{number}.png.part"
            beside.write_bytes(png(image))
            beside.rename(line.folder / f"{number}.png")
        # One that waits is renamed, and another that is judged.
        (line.folder / "tmp.png").write_bytes(png(views(9)[8]))
        (line.folder / "tmp.png").rename(line.folder / "last.png")
        wait_for(lambda: len(line.events) == 4)
        (line.folder / "done").mkdir()
        (line.folder / "0.png").rename(line.folder / "done" / "0.png")
        wait_for(lambda: any("under another name" in one for one in line.said))
        time.sleep(0.3)
    assert sorted(names(place)) == ["0.png", "1.png", "2.png", "last.png"]


def test_a_name_that_is_written_again_is_another_image(place, line_index, tiny):
    good, bad = views(2)
    with watching(place, line_index, tiny) as line:
        for number, image in enumerate((good, bad, good), 1):
            (line.folder / "latest.png").write_bytes(png(image))
            wait_for(lambda number=number: len(line.events) == number)
        os.utime(line.folder / "latest.png")  # the same bytes, at another time
        time.sleep(0.5)
    assert [row[3] for row in rows(place)] == ["OK", "NG", "OK"]
    assert len({one["id"] for one in line.events}) == 3
    with watching(place, line_index, tiny) as line:  # nor after a restart
        time.sleep(0.4)
        assert not line.events


def test_pictures_that_are_all_the_same_are_judged_each(place, line_index, tiny):
    """A camera that is dark: each is taken away before the next comes."""
    data = png(views(1)[0] * 0)
    with watching(place, line_index, tiny) as line:
        for number in range(3):
            (line.folder / f"{number}.png").write_bytes(data)
            wait_for(lambda number=number: len(line.events) == number + 1)
            (line.folder / f"{number}.png").unlink()
    assert names(place) == ["0.png", "1.png", "2.png"]


def test_what_cannot_be_read_is_an_error_after_a_time_and_stops_nothing(place, line_index, tiny):
    data = png(views(1)[0])
    with watching(place, line_index, tiny) as line:
        (line.folder / "half.png").write_bytes(data[:1000])
        (line.folder / "empty.png").touch()
        (line.folder / "words.jpg").write_bytes(b"no image")
        (line.folder / "good.png").write_bytes(data)
        start = time.monotonic()
        wait_for(lambda: len(line.events) == 4)
        assert time.monotonic() - start > 0.5
        (line.folder / "half.png").write_bytes(data)  # it comes whole, late
        wait_for(lambda: len(line.events) == 5)
    found = [(row[0], row[3]) for row in rows(place)]
    assert found[0] == ("good.png", "OK") and found[-1] == ("half.png", "OK")
    assert sorted(found[1:-1]) == [
        (f"{one}", "ERROR") for one in ("empty.png", "half.png", "words.jpg")
    ]
    assert any("is cut short" in one for one in line.said)
    errors = [one for one in line.events if one["verdict"] == "ERROR"]
    assert all(one["error"] and one["score"] is None for one in errors)


def test_a_file_that_may_not_be_read_yet_is_tried_again(place, line_index, tiny, monkeypatch):
    """As one that its writer has locked, on a network folder."""
    opened, locked = Path.open, threading.Event()
    locked.set()

    def refused(path, *arguments, **options):
        if path.name == "a.png" and locked.is_set():
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refused)
    pace = Pace(every=0.02, settle=0.1, patience=60)
    with watching(place, line_index, tiny, pace) as line:
        for name, image in zip(("a.png", "b.png"), views(2), strict=True):
            (line.folder / f"{name}.part").write_bytes(png(image))
            (line.folder / f"{name}.part").rename(line.folder / name)
        wait_for(lambda: line.events)
        assert names(place) == ["b.png"]
        locked.clear()
        wait_for(lambda: len(line.events) == 2, 30)


def test_a_file_that_could_not_be_read_for_long_is_judged_when_it_can(
    place, line_index, tiny, monkeypatch
):
    """As where a network folder lists what it does not give: the file looks as it did after."""
    opened, away = Path.open, threading.Event()

    def refused(path, *arguments, **options):
        if path.suffix == ".png" and away.is_set():
            raise OSError(5, "Input/output error")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refused)
    for name, image in zip(("a.png", "b.png"), views(2), strict=True):
        (place / "in" / name).write_bytes(png(image))
    away.set()
    pace = Pace(every=0.02, settle=0.05, patience=0.1)
    with watching(place, line_index, tiny, pace) as line:
        wait_for(lambda: len(line.events) == 2)
        time.sleep(0.3)
    with watching(place, line_index, tiny, pace) as line:
        time.sleep(0.3)
        assert not line.events  # nor after a restart
        away.clear()
        wait_for(lambda: len(line.events) == 2)
        time.sleep(0.3)
    assert [row[3] for row in rows(place)] == ["ERROR", "ERROR", "OK", "NG"]


def test_a_burst_is_judged_once_over_restarts(place, line_index, tiny):
    """The watch ends in the midst of it, twice."""
    images = views(70)
    for number, image in enumerate(images[:60]):
        (place / "in" / f"{number:02}.png").write_bytes(png(image))
    for _ in range(2):
        with watching(place, line_index, tiny, ends_after=5, overlays=False) as line:
            wait_for(lambda: len(line.events) >= 5)
    assert 10 <= len(names(place)) < 60
    with watching(place, line_index, tiny, overlays=False) as line:
        for number, image in enumerate(images[60:], 60):
            (line.folder / f"{number:02}.png").write_bytes(png(image))
        wait_for(lambda: len(names(place)) == 70)
        time.sleep(0.3)
    assert sorted(names(place)) == [f"{i:02}.png" for i in range(70)]


def test_another_index_that_takes_the_place_is_used(place, line_index, tiny):
    index = shutil.copytree(line_index, place / "index")
    image = views(2)[1]
    with watching(place, index, tiny) as line:
        (line.folder / "a.png").write_bytes(png(image))
        wait_for(lambda: len(line.events) == 1)
        (index / "manifest.json").rename(index / "aside")
        (line.folder / "b.png").write_bytes(png(image))
        wait_for(lambda: len(line.events) == 2)
        assert any("cannot be opened; the index before stays" in one for one in line.said)
        (index / "aside").rename(index / "manifest.json")
        Spade(tiny, **SMALL).fit([one[:64, :64] for one in texture("gravel", 9, seed=3)], index)
        (line.folder / "c.png").write_bytes(png(image))
        wait_for(lambda: len(line.events) == 3)
    generations = [one["generation"] for one in line.events]
    assert generations[0] == generations[1] != generations[2]
    assert generations[2] == Spade.load(index, backbone=tiny).manifest.generation
    scores = [row[1] for row in rows(place)]
    assert scores[0] == scores[1] != scores[2]


def test_an_index_of_a_network_that_is_not_here_leaves_the_one_before(place, line_index, tiny):
    index = shutil.copytree(line_index, place / "index")
    with watching(place, index, tiny) as line:
        (line.folder / "a.png").write_bytes(png(views(1)[0]))
        wait_for(lambda: len(line.events) == 1)
        text = (index / "manifest.json").read_text()
        record = json.loads(text)
        record["backbone"]["weights_sha256"] = "0" * 64
        (index / "beside").write_text(json.dumps(record))
        (index / "beside").rename(index / "manifest.json")
        (line.folder / "b.png").write_bytes(png(views(2)[1]))
        wait_for(lambda: len(line.events) == 2 or line.raised)
    assert not line.raised and [row[3] for row in rows(place)] == ["OK", "NG"]
    assert any("the index before stays in use" in one for one in line.said)


def test_a_folder_that_is_gone_for_a_time_is_waited_for(place, line_index, tiny):
    """As a network folder that breaks off; what was judged in it is not judged again."""
    with watching(place, line_index, tiny) as line:
        (line.folder / "a.png").write_bytes(png(views(1)[0]))
        wait_for(lambda: line.events)
        line.folder.rename(place / "away")
        wait_for(lambda: any("cannot be looked at" in one for one in line.said))
        line.folder.mkdir()  # as where nothing is mounted
        time.sleep(0.2)
        line.folder.rmdir()
        (place / "away" / "b.png").write_bytes(png(views(3)[2]))
        (place / "away").rename(line.folder)
        wait_for(lambda: len(line.events) == 2)
        time.sleep(0.3)
    assert any("can be looked at again" in one for one in line.said)
    assert names(place) == ["a.png", "b.png"]


def test_a_full_disk_ends_the_watch_and_keeps_what_is_done(place, line_index, tiny):
    with watching(place, line_index, tiny) as line:
        (line.folder / "a.png").write_bytes(png(views(1)[0]))
        wait_for(lambda: line.events)
        shutil.copy(line.folder / "a.png", place / "b.png")
        with no_file_over(4096):
            (place / "b.png").rename(line.folder / "b.png")
            (line.folder / "b.png").touch()  # or it would be a.png under another name
            wait_for(lambda: line.raised)
    assert isinstance(line.raised[0], (OSError, SpadeError))
    with watching(place, line_index, tiny) as line:
        wait_for(lambda: line.events)
    assert names(place) == ["a.png", "b.png"]


def test_results_may_not_lie_where_images_come(place, line_index):
    for folder, out, why in (
        (place / "in", place / "in" / "out", "lies inside"),
        (place / "in", line_index / "out", "lies in the index"),
        (place / "out" / "maps", place / "out", "where results go"),
    ):
        with pytest.raises(SpadeError, match=why):
            check_place(folder, line_index, out)
    check_place(place / "in", line_index, place / "out")


@pytest.mark.parametrize("name", ["every", "settle", "patience"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_pace_that_is_none_is_refused(name, value):
    with pytest.raises(SpadeError, match=f"{name} = .* must be"):
        Pace(**{name: value})
