"""The published figures that results are set beside (Cohen & Hoshen, 2020, tables 3 and 4)."""

from __future__ import annotations

import csv
from importlib.resources import files


def published_mvtec() -> dict[str, dict[str, float]]:
    """Return MVTec AD's PRO by category, then method, in 0…1.

    Table 3: PRO integrated to a false-positive rate of 0.3. Figures are as printed; the last
    key, `average`, is the printed mean of the 15 categories, rounding included. That 1-NN and
    OC-SVM hold the same pair for carpet and for zipper is so in print.
    """
    return {
        row.pop("category"): {method: _fraction(value) for method, value in row.items()}
        for row in _rows("mvtec_pro.csv")
    }


def published_stc() -> dict[str, float]:
    """Return ShanghaiTech Campus' image ROCAUC by method, in 0…1.

    Table 4: the mean over scenes, as printed.
    """
    return {row["method"]: _fraction(row["rocauc"]) for row in _rows("stc_rocauc.csv")}


def _rows(name: str) -> list[dict[str, str]]:
    text = (files(__package__) / "published" / name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def _fraction(percent: str) -> float:
    return float(percent) / 100
