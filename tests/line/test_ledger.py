"""What a folder of results knows after it was left in any state."""

import csv
import hashlib
import os
from pathlib import Path

import pytest

from spade_faiss import SpadeError
from spade_faiss.line.ledger import SCORES, Judged, Ledger
from spade_faiss.line.scan import State
from spade_faiss.report import Row
from spade_faiss.report.folder import LEDGER, LIST
from tests.full_disk import no_file_over

WATCHED = Path("in")


def judged(path, changed=1, content=b"a", verdict="OK", row=None):
    return Judged(
        path,
        Row(row or str(WATCHED / path), 0.5, 1.0, verdict),
        Path(path).with_suffix(""),
        State(10, changed),
        hashlib.sha256(content).digest(),
    )


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def opened(out):
    return Ledger(out, "/in", WATCHED)


def add(ledger, judged, tell=lambda events: None):
    ledger.add(judged, [{"id": one.path, "verdict": one.row.verdict} for one in judged], tell)


def paths(out):
    with (out / SCORES).open(newline="", errors="surrogateescape") as file:
        heading, *rows = csv.reader(file)
    assert heading == ["path", "score", "threshold", "verdict"]
    return [row[0] for row in rows]


def test_rows_go_on_from_run_to_run(out):
    with opened(out) as ledger:
        add(ledger, [judged("a.png"), judged("b.png", 2)])
        assert paths(out) == ["in/a.png", "in/b.png"]
    with opened(out) as ledger:
        assert not ledger.mended and len(ledger) == 2
        add(ledger, [judged("a.png", 3, b"other")])
        known = ledger.known("a.png")
        assert len(ledger) == 3 and known.state == State(10, 3)
        assert known.digest == hashlib.sha256(b"other").digest()
        assert ledger.known("c.png") is None
    assert paths(out) == ["in/a.png", "in/b.png", "in/a.png"]


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_row_that_was_cut_off_anywhere_is_judged_again(out, cut):
    """Also one whose name has a line break and quotes."""
    with opened(out) as ledger:
        add(ledger, [judged("a.png")])
        whole = (out / SCORES).read_bytes()
        add(ledger, [judged('b\n".png')])
    last = (out / SCORES).read_bytes()[len(whole) :]
    assert last == b'"in/b\n"".png",0.5,1,OK\n'
    (out / SCORES).write_bytes(whole + last[:-cut])
    with opened(out) as ledger:
        assert ledger.mended == (cut < len(last)) and (out / SCORES).read_bytes() == whole
        assert ledger.known("a.png") and ledger.known('b\n".png') is None


def test_the_scores_say_what_counts(out):
    with opened(out) as ledger:
        add(ledger, [judged("a.png", 1), judged("a.png", 2, b"b"), judged("c.png")])
    lines = (out / SCORES).read_bytes().splitlines(keepends=True)
    (out / SCORES).write_bytes(b"".join(lines[:2]))
    with opened(out) as ledger:
        assert ledger.known("a.png").state == State(10, 1) and ledger.known("c.png") is None
    (out / SCORES).unlink()
    with opened(out) as ledger:
        assert ledger.known("a.png") is None and len(ledger) == 0
    # A loss of power may have taken the account's end, and not that of the scores.
    (out / SCORES).write_bytes(lines[0] + lines[3])
    with opened(out) as ledger:
        known = ledger.known("c.png")
        assert known.digest is None and len(ledger) == 1
        ledger.touched("c.png", State(5, 5), b"digest")
        assert ledger.known("c.png").state == State(5, 5)
        assert ledger.known("c.png").digest == b"digest"


@pytest.mark.parametrize(
    "name",
    [
        os.fsdecode(b"\xff.png"),
        "a\rb.png",
        'a\r\n"b.png',
        "a,b.png",
        "\n.png",
        " .png",
        "a;b\t.png",
    ],
)
def test_names_may_have_any_bytes(out, name):
    with opened(out) as ledger:
        add(ledger, [judged(name)])
    with opened(out) as ledger:
        assert ledger.known(name) and len(ledger) == 1 and not ledger.mended
    assert paths(out) == [f"in/{name}"]


@pytest.mark.parametrize("zeros", [1, 5000])
def test_zeros_that_a_loss_of_power_left_are_cut_off(out, zeros):
    with opened(out) as ledger:
        add(ledger, [judged("a.png")])
        whole = (out / SCORES).read_bytes()
        add(ledger, [judged("b.png")])
    (out / SCORES).write_bytes(whole + b"in/b" + bytes(zeros) + b"\nin/c.png,1,1,OK\n")
    with opened(out) as ledger:
        assert ledger.mended and (out / SCORES).read_bytes() == whole
        assert ledger.known("b.png") is None


def test_the_folder_in_which_one_works_may_be_watched(out):
    """What the account lost is known by the rows, which do not name that folder."""
    with Ledger(out, "/in", Path()) as ledger:
        add(ledger, [judged("a.png", row="a.png")])
    (out / LEDGER).unlink()
    (out / LEDGER).touch()
    with Ledger(out, "/in", Path()) as ledger:
        assert ledger.known("a.png") and len(ledger) == 1


def test_a_renamed_file_is_known_and_has_no_row(out):
    with opened(out) as ledger:
        add(ledger, [judged("a.png")])
        assert ledger.same_file(State(10, 1), hashlib.sha256(b"a").digest()) == ["a.png"]
        assert ledger.same_file(State(10, 2), hashlib.sha256(b"a").digest()) == []
        ledger.renamed(judged("b.png"))
    with opened(out) as ledger:
        assert len(ledger) == 1 and ledger.known("b.png").state == State(10, 1)
    assert paths(out) == ["in/a.png"]


def test_files_of_two_images_have_two_names_also_later(out):
    with opened(out) as ledger:
        taken = set()
        stems = [ledger.stem(Path(one), 255, taken) for one in ("a.png", "a.jpg", "a.png")]
        assert stems == [Path("a"), Path("a.jpg"), Path("a.png")]
        add(ledger, [judged("a.png")])
    with opened(out) as ledger:
        assert ledger.stem(Path("a.png"), 255, set()) == Path("a")
        assert ledger.stem(Path("a.jpg"), 255, set()) == Path("a.jpg")


def test_a_full_disk_leaves_whole_rows_and_the_rest_is_written_later(out):
    told = []
    with opened(out) as ledger:
        add(ledger, [judged("a.png")])
        with (out / SCORES).open("ab") as file:  # more than the account has
            file.write(b"in/many.png,1,1,OK\n" * 20_000)
        size = (out / SCORES).stat().st_size
        many = [Judged(f"{i}.png", Row(f"{i}.png", 0.5, 1.0, "OK"), Path("a")) for i in range(9)]
        with no_file_over(size + 10), pytest.raises(OSError, match=r"scores\.csv"):
            add(ledger, many, told.extend)
        assert (out / SCORES).stat().st_size == size
    with opened(out) as ledger:
        assert not ledger.mended and len(ledger) == 20_001
        assert ledger.go_on(told.extend) == told[:9] == told[9:]
    assert paths(out)[-9:] == [f"{i}.png" for i in range(9)]


def test_a_full_disk_of_the_account_leaves_nothing_said(out):
    told = []
    with opened(out) as ledger:
        size = (out / SCORES).stat().st_size
        with no_file_over(size), pytest.raises(SpadeError, match="cannot be written"):
            add(ledger, [judged("a.png")], told.extend)
    with opened(out) as ledger:
        assert ledger.go_on(told.extend) == told == [] and ledger.known("a.png") is None


def test_scores_that_are_taken_away_begin_anew(out):
    with opened(out) as ledger:
        add(ledger, [judged("a.png")])
        (out / SCORES).rename(out / "yesterday.csv")
        add(ledger, [judged("b.png")])
        assert paths(out) == ["in/b.png"]


def test_scores_that_are_emptied_begin_anew(out):
    """As a program does that takes logs away."""
    with opened(out) as ledger:
        add(ledger, [judged("a.png")])
        os.truncate(out / SCORES, 0)
        add(ledger, [judged("b.png")])
        assert paths(out) == ["in/b.png"]
    with opened(out) as ledger:
        assert ledger.known("b.png") and ledger.known("a.png") is None


def test_results_are_of_one_source_and_one_process(out, tmp_path):
    with opened(out), pytest.raises(SpadeError, match="another process"):
        opened(out)
    with pytest.raises(SpadeError, match="results of /in"):
        Ledger(out, "/other", WATCHED)
    for name in (LIST, SCORES):
        (tmp_path / name / "out").mkdir(parents=True)
        (tmp_path / name / "out" / name).touch()
        with pytest.raises(SpadeError, match="another command"):
            opened(tmp_path / name / "out")
    (tmp_path / "file").touch()
    with pytest.raises(SpadeError, match="is a file"):
        opened(tmp_path / "file")
    (out / LEDGER).write_bytes(b"no database, but some text" * 100)
    with pytest.raises(SpadeError, match="is damaged"):
        opened(out)


class KilledError(Exception):
    """Stands in for a signal that ends the process at once."""


def killed(*_):
    raise KilledError


def left(out, monkeypatch):
    """Have a process be killed between telling of two images and writing their rows."""
    told = []
    with opened(out) as ledger, monkeypatch.context() as patched:
        add(ledger, [judged("a.png")])
        patched.setattr(ledger, "_append", killed)
        with pytest.raises(KilledError):
            add(ledger, [judged("b.png", 2, verdict="NG"), judged('c\n".png', 3)], told.append)
    return told


@pytest.mark.parametrize("written", range(0, len('"in/c\n"".png",0.5,1,OK\n') + 18))
def test_what_was_said_stays_said_however_much_of_it_was_written(out, monkeypatch, written):
    """The rows are written as they were told, and only of those without one it is told again."""
    told = left(out, monkeypatch)
    before = (out / SCORES).read_bytes()
    rows = b'in/b.png,0.5,1,NG\n"in/c\n"".png",0.5,1,OK\n'
    (out / SCORES).write_bytes(before + rows[:written])
    again = []
    with opened(out) as ledger:
        assert len(ledger) == 3 and ledger.known("b.png").state == State(10, 2)
        events = ledger.go_on(again.append)
        assert (out / SCORES).read_bytes() == before + rows
        add(ledger, [judged("d.png", 4)])
    assert told == [[{"id": "b.png", "verdict": "NG"}, {"id": 'c\n".png', "verdict": "OK"}]]
    assert events == told[0][1 if written >= 18 else 0 :] and again == [events]
    with opened(out) as ledger:
        assert ledger.go_on(again.append) == [] and len(again) == 1 and len(ledger) == 4
    assert paths(out) == ["in/a.png", "in/b.png", 'in/c\n".png', "in/d.png"]


def test_a_process_may_be_killed_again_before_it_is_told(out, monkeypatch):
    told = left(out, monkeypatch)
    with opened(out) as ledger, pytest.raises(KilledError):
        ledger.go_on(killed)
    with opened(out) as ledger:
        assert ledger.go_on(told.append) == told[0]
    assert told[0] == told[1] and len(paths(out)) == 3


@pytest.mark.parametrize("what", ["taken away", "cut", "written to"])
def test_what_someone_did_to_the_scores_since_counts_for_more(out, monkeypatch, what):
    left(out, monkeypatch)
    before = (out / SCORES).read_bytes()
    if what == "taken away":
        (out / SCORES).unlink()
    else:
        changed = before[:-18] if what == "cut" else before + b"in/z.png,1,1,OK\n"
        (out / SCORES).write_bytes(changed)
    with opened(out) as ledger:
        assert ledger.go_on(killed) == [] and ledger.known("b.png") is None
    assert paths(out) == {"taken away": [], "cut": [], "written to": ["in/a.png", "in/z.png"]}[what]


def test_a_frame_that_was_told_of_gets_its_row_though_it_never_comes_again(out, monkeypatch):
    frame = Judged("rtsp://h/s#1", Row("rtsp://h/s#1", 2.0, 1.0, "NG"), Path("s/1"))
    with Ledger(out, "rtsp://h/s", lasting=True) as ledger, monkeypatch.context() as patched:
        patched.setattr(ledger, "_append", killed)
        with pytest.raises(KilledError):
            add(ledger, [frame])
    with Ledger(out, "rtsp://h/s", lasting=True) as ledger:
        assert ledger.go_on(lambda events: None) == [{"id": "rtsp://h/s#1", "verdict": "NG"}]
    assert paths(out) == ["rtsp://h/s#1"]
