"""The demo: a small data set made of textures, then the main job on it."""

from __future__ import annotations

import time
from pathlib import Path

from ..datasets import Category, load_mvtec, make_demo
from ..detector import Result, Spade
from ..errors import SpadeError
from ..features import Backbone, load_backbone
from ..images import Found
from ..report import write_query
from .config import config_of
from .confusion import ConfusionCounter
from .localisation import localisation_of
from .results import results_of
from .scorer import Scorer
from .scores import Scores
from .tables import write_results
from .truth import CategoryTruth

_BACKBONE, _PRESET = "efficientnet_lite0", "best"


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
            raise SpadeError(f"{out} exists and is no demo; name another place with `out`")
        make_demo(data, seed)
    scores = {
        category.name: _query_and_score(network, category, data, out / category.name)
        for category in load_mvtec(data)
    }
    write_results(
        out, results_of("demo", config_of(Spade(network, preset=_PRESET)) | {"seed": seed}, scores)
    )
    return scores


def _query_and_score(network: Backbone, category: Category, data: Path, place: Path) -> Scores:
    """Build an index of a category's good images, query the others, and score the results."""
    start = time.perf_counter()
    spade = Spade(network, preset=_PRESET, progress=True).fit(category.train, place / "index")
    truth = CategoryTruth(category, spade.index_.manifest.framing.framing())
    scorer, counter = Scorer(), ConfusionCounter(spade.image_threshold, spade.score)

    def score(result: Result) -> None:
        known = truth.of(result.position, (result.map.shape[0], result.map.shape[1]))
        if known.problem:
            raise SpadeError(known.problem)
        scorer.add(result, known)
        counter.add(result, known)

    folder = data / category.name / "test"
    images = [Found(test.path, test.path.relative_to(folder), folder) for test in category.test]
    write_query(spade, images, place, explain=True, report=True, on_result=score)
    return scorer.scores(
        len(spade.index_),
        time.perf_counter() - start,
        extra=localisation_of(scorer).metrics,
        confusion=counter.compute(),
    )
