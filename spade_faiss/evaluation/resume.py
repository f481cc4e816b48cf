"""Keep what is finished, so that the same command takes up where it was stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .._support.files import replace_file
from ..errors import SpadeError
from ..images import OnError, OnNote
from .scores import INDEX, Scores

_REPORTED = "done/.report"
"""Is there if `report.html` was written by an evaluation."""


@dataclass(frozen=True)
class Job:
    """One category or scene to be evaluated.

    Attributes
    ----------
    name : str
    files : list of Path
        All that its scores depend on.
    evaluate : callable
        Returns its scores, and what a report shows besides, as JSON values (see
        `spade_faiss.evaluation.evidence`); is given where to report what cannot be used.
    writes : tuple of Path
        Files that `evaluate` leaves, besides.
    labels : sequence of str
        What the test images are, where the files' places do not say.
    """

    name: str
    files: Sequence[Path]
    evaluate: Callable[[OnError], tuple[list[Scores], dict[str, Any]]]
    writes: tuple[Path, ...] = ()
    labels: Sequence[str] = ()


def run_jobs(
    jobs: Iterable[Job],
    out: Path,
    config: Mapping[str, Any],
    finish: Callable[[dict[str, list[Scores]]], dict[str, Any]],
    on_error: OnError,
    on_note: OnNote,
    report: bool = False,
) -> dict[str, Any]:
    """Evaluate what is not finished yet, and return the results of all.

    What a finished job gave lies in `out/done/<name>.json`, with the configuration, a digest of
    its files' names, sizes and times, and one of its labels. If any of these is another one now,
    or an older version left fewer figures, the job is run anew, and a note says why. Problems that
    a finished job had are reported again.

    Parameters
    ----------
    jobs : iterable of Job
    out : Path
    config : mapping
        All options and versions that the scores depend on; JSON values.
    finish : callable
        Writes the results of all jobs so far, and returns them.
    on_error, on_note : callable
    report : bool
        Whether what a report shows is needed, too, of what is finished.

    Raises
    ------
    SpadeError
        If no job could be finished, or another process evaluates into the same folder now.
    """
    done = out / "done"
    done.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(done / ".lock", timeout=0):
            for left in out.glob(f"{INDEX}*"):  # by an evaluation that was killed
                shutil.rmtree(left, ignore_errors=True)
            return _run(jobs, out, config, finish, on_error, on_note, report)
    except Timeout:
        raise SpadeError(
            f"{out} is being written by another evaluation; wait for it, or name "
            "another folder with --out"
        ) from None


def _run(
    jobs: Iterable[Job],
    out: Path,
    config: Mapping[str, Any],
    finish: Callable[[dict[str, list[Scores]]], dict[str, Any]],
    on_error: OnError,
    on_note: OnNote,
    report: bool,
) -> dict[str, Any]:
    """Run jobs for `run_jobs`, which holds the folder's lock."""
    finished: dict[str, list[Scores]] = {}
    results: dict[str, Any] = {}
    for job in jobs:
        path = _place(out, job.name)
        key = {"config": dict(config), "files": _digest(job.files), "labels": _said(job.labels)}
        old = _read(path, on_note)
        if old and (why := _difference(old.key, key, job.writes)):
            on_note(f"{job.name} is evaluated anew: {why}")
            old = None
        if old and any(one.image_ap is None for one in old.scores):
            on_note(f"{job.name} is evaluated anew: an older version left fewer figures of it")
            old = None
        if old and report and old.evidence is None:
            on_note(f"{job.name} is evaluated anew: nothing was kept of it for a report")
            old = None
        if old is None:
            problems: list[tuple[str, str]] = []

            def complain(name: str, why: str, problems: list[tuple[str, str]] = problems) -> None:
                problems.append((name, why))
                on_error(name, why)

            try:
                scores, evidence = job.evaluate(complain)
            except SpadeError as error:
                on_error(job.name, f"{error}; left out")
                continue
            record = {
                "key": key,
                "problems": problems,
                "scores": [one.record() for one in scores],
                "evidence": evidence,
            }
            replace_file(path, (json.dumps(record) + "\n").encode(), sync=True)
        else:
            scores = old.scores
            for name, why in old.problems:
                on_error(name, why)
        finished[job.name] = scores
        if not report:
            _discard_report(out)
        results = finish(finished)
    if not finished:
        raise SpadeError("nothing could be evaluated")
    return results


def _digest(files: Sequence[Path]) -> str:
    """Return a digest of the files' paths, sizes and times of change."""
    digest = hashlib.sha256()
    for path in files:
        try:
            status = path.stat()
            line = f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\n"
        except OSError:
            line = f"{path.absolute()}\0gone\n"
        digest.update(os.fsencode(line))
    return digest.hexdigest()


def _said(labels: Sequence[str]) -> str:
    """Return a digest of labels; empty of none."""
    text = json.dumps(list(labels))
    return hashlib.sha256(text.encode()).hexdigest() if labels else ""


@dataclass(frozen=True)
class _Finished:
    """What a finished job left."""

    key: dict[str, Any]
    problems: list[tuple[str, str]]
    scores: list[Scores]
    evidence: dict[str, Any] | None


def evidence_of(out: Path, name: str) -> dict[str, Any]:
    """Return what a report shows of a finished job besides its scores.

    Raises
    ------
    SpadeError
        If it is not there.
    """
    finished = _read(_place(out, name), lambda note: None)
    if finished is None or finished.evidence is None:
        raise SpadeError(f"{_place(out, name)} was changed meanwhile; run the same command again")
    return finished.evidence


def claim_report(out: Path) -> Path:
    """Return where an evaluation's report goes, and keep in `done` that it is one."""
    (out / _REPORTED).touch()
    return out / "report.html"


def _discard_report(out: Path) -> None:
    """Remove the report of an earlier evaluation, which would look as if it were of this one."""
    if (out / _REPORTED).exists():
        (out / "report.html").unlink(missing_ok=True)
        (out / _REPORTED).unlink()


def _place(out: Path, name: str) -> Path:
    return out / "done" / f"{name}.json"


def _read(path: Path, on_note: OnNote) -> _Finished | None:
    """Return what a finished job left, or None."""
    try:
        record = json.loads(path.read_bytes())
        key = {
            "config": dict(record["key"]["config"]),
            "files": record["key"]["files"],
            "labels": record["key"].get("labels", ""),
        }
        problems = [(str(name), str(why)) for name, why in record["problems"]]
        scores = [Scores.from_record(one) for one in record["scores"]]
        evidence = dict(record["evidence"]) if record.get("evidence") else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        on_note(f"{path.stem} is evaluated anew: {path} cannot be read")
        return None
    return _Finished(key, problems, scores, evidence)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], writes: Sequence[Path]) -> str:
    """Return why an old result is not one of these options, files and versions; empty if it is."""
    was, now = _flat(old["config"]), _flat(new["config"])
    changes = [
        f"{name} was {was.get(name, 'not set')} and is now {now.get(name, 'not set')}"
        for name in dict.fromkeys([*was, *now])
        if was.get(name) != now.get(name)
    ]
    if old["files"] != new["files"]:
        changes.append("its files have changed")
    elif old["labels"] != new["labels"]:
        changes.append("the labels of its images have changed")
    changes += [f"{path} is gone" for path in writes if not path.exists()]
    return ", ".join(changes)


def _flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Return settings by name as text, those of nested mappings by name, too."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{name} {inner}": text for inner, text in _flat(value).items()}
        else:
            flat[name] = "none" if value is None else str(value)
    return flat
