"""The demo: a small data set made of textures, then the main job on it."""

from __future__ import annotations

import time
from pathlib import Path

from ..datasets import load_mvtec, make_demo
from ..detector.spade import Spade
from ..errors import SpadeError
from ..features import load_backbone
from ..images import Found
from ..report import write_query
from .config import config_of
from .images import judge_of
from .localisation import localised
from .scores import Scorer, Scores
from .tables import results_of, write_results
from .truth import CategoryTruth

_BACKBONE = "efficientnet_lite0"


def run_demo(out: Path, seed: int = 0) -> dict[str, Scores]:
    """Make the data set in `out/data`, then build, query and evaluate each of its categories.

    Leaves `out/<category>/index`, `scores.csv`, `report.html`, `maps`, `overlays` and `explain`,
    and `out/results.json` and `out/table.md`. A data set that is there is used again.

    Raises
    ------
    SpadeError
        If `out` holds something else, or the backbone's packages are missing.
    """
    network = load_backbone(_BACKBONE)
    data = out / "data"
    if not data.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SpadeError(f"{out} exists and is no demo; name another place with --out")
        make_demo(data, seed)
    scores: dict[str, Scores] = {}
    for category in load_mvtec(data):
        place = out / category.name
        start = time.perf_counter()
        spade = Spade(network, progress=True).fit(category.train, place / "index")
        framing = spade.index_.manifest.framing.framing()
        scorer = Scorer(CategoryTruth(category, framing), judge=judge_of(spade, category.kinds))
        folder = data / category.name / "test"
        images = [Found(test.path, test.path.relative_to(folder), folder) for test in category.test]
        write_query(spade, images, place, explain=True, report=True, on_result=scorer.add)
        n_train = len(spade.index_)
        figures, _ = localised(scorer)
        scores[category.name] = scorer.scores(n_train, time.perf_counter() - start, figures)
    write_results(out, results_of("demo", config_of(Spade(network)) | {"seed": seed}, scores))
    return scores
