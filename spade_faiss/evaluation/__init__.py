"""Score SPADE on data sets of known defects, beside the paper's tables."""

from .confusion import Confusion, ConfusionCounter
from .mvtec import evaluate_category, evaluate_folder, evaluate_mvtec
from .points import Point
from .results import results_of
from .runs import runs_table
from .scorer import Scorer
from .scores import Scores
from .stc import evaluate_stc
from .sweep import Sweep
from .tables import table, write_results
from .truth import CategoryTruth, GroundTruth

__all__ = [
    "CategoryTruth",
    "Confusion",
    "ConfusionCounter",
    "GroundTruth",
    "Point",
    "Scorer",
    "Scores",
    "Sweep",
    "evaluate_category",
    "evaluate_folder",
    "evaluate_mvtec",
    "evaluate_stc",
    "results_of",
    "runs_table",
    "table",
    "write_results",
]
