"""Score SPADE on data sets of known defects, beside the paper's tables."""

from .images import Confusion, Judge, judge_of
from .mvtec import evaluate_category, evaluate_folder, evaluate_mvtec
from .scores import Point, Scorer, Scores
from .stc import evaluate_stc
from .sweep import Sweep
from .tables import results_of, runs_table, table, write_results
from .truth import CategoryTruth

__all__ = [
    "CategoryTruth",
    "Confusion",
    "Judge",
    "Point",
    "Scorer",
    "Scores",
    "Sweep",
    "evaluate_category",
    "evaluate_folder",
    "evaluate_mvtec",
    "evaluate_stc",
    "judge_of",
    "results_of",
    "runs_table",
    "table",
    "write_results",
]
