"""From scores and maps to verdicts: thresholds, regions, rates of false alarms, and drift.

Nothing here runs a network or searches an index: it is given scores, maps and manifests.
"""

from .calibration import calibration_sample
from .drift import Drift, detect_drift
from .finding import Finding, judge_result
from .judge import VERDICTS, check_limits, over, verdict
from .limits import Limits
from .rates import (
    CONFIDENCE,
    Rate,
    conformal_rank,
    expected_rate,
    images_needed,
    observed_rate,
    percent,
)
from .regions import Match, Region, find_regions, shown_map
from .threshold import Threshold, aimed_quantile, draw_threshold, good_threshold

__all__ = [
    "CONFIDENCE",
    "VERDICTS",
    "Drift",
    "Finding",
    "Limits",
    "Match",
    "Rate",
    "Region",
    "Threshold",
    "aimed_quantile",
    "calibration_sample",
    "check_limits",
    "conformal_rank",
    "detect_drift",
    "draw_threshold",
    "expected_rate",
    "find_regions",
    "good_threshold",
    "images_needed",
    "judge_result",
    "observed_rate",
    "over",
    "percent",
    "shown_map",
    "verdict",
]
