import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spade_faiss.report.charts import clip_curve, histogram, line, thinned, timeline

SCORES = st.lists(st.floats(0, 1e6, width=32), max_size=60)


@given(SCORES, SCORES, st.none() | st.floats(0.0625, 1e6, width=32))
def test_every_score_is_in_a_bar(upper, lower, threshold):
    chart = histogram(upper, lower, threshold)
    for sample, bars in ((upper, chart.upper), (lower, chart.lower)):
        assert bool(sample) == bool(bars)
        if bars:
            assert max(bar.height for bar in bars) == 100
        for bar in bars:
            assert -0.01 <= bar.left <= bar.left + bar.width <= 100.01
            assert 0 < bar.height <= 100 and bar.foot == 0 and bar.verdict == ""
    if threshold is not None and (upper or lower):
        assert 0 <= chart.threshold <= 100
        for bar in chart.upper + chart.lower:  # the threshold is an edge
            right = bar.left + bar.width
            assert right <= chart.threshold + 0.01 or bar.left >= chart.threshold - 0.01
    assert all(-0.01 <= at <= 100.01 for at, _ in chart.ticks)


def test_what_is_far_beyond_does_not_flatten_the_rest():
    chart = histogram([1.0, 1.1, 1e6], [0.9, 1.0], 1.5)
    assert chart.beyond == 1 and len(chart.lower) == 2
    assert float(chart.ticks[-1][1]) <= 6.3
    # A bar is where its score is.
    at = {text: left for left, text in chart.ticks}
    assert any(bar.left <= at["1"] <= bar.left + bar.width for bar in chart.lower)


@given(
    st.lists(
        st.tuples(st.floats(0, 100, width=32), st.sampled_from(["OK", "REVIEW", "NG"])),
        min_size=1,
        max_size=60,
    ),
    st.none() | st.floats(0.0625, 100, width=32),
)
def test_an_image_is_coloured_by_its_own_verdict(images, threshold):
    """Whatever the threshold says: it may have been another when they were judged."""
    scores, verdicts = zip(*images, strict=True)
    chart = histogram(scores, [], threshold, verdicts)
    tallest = max(bar.foot + bar.height for bar in chart.upper)
    assert tallest == pytest.approx(100, abs=0.01)
    columns = {}
    for bar in chart.upper:
        columns.setdefault(bar.left, []).append(bar)
    for parts in columns.values():  # each stands on the one before: OK, REVIEW, NG
        words = [bar.verdict for bar in parts]
        assert words == [word for word in ("OK", "REVIEW", "NG") if word in words]
        for foot, bar in zip(np.cumsum([0, *(bar.height for bar in parts)]), parts, strict=False):
            assert bar.foot == pytest.approx(foot, abs=0.01)
    heights = {
        word: sum(bar.height for bar in chart.upper if bar.verdict == word)
        for word in ("OK", "REVIEW", "NG")
    }
    for word, height in heights.items():
        assert height == pytest.approx(
            verdicts.count(word) / len(images) * sum(heights.values()), abs=0.1
        )


def test_the_threshold_parts_the_bars_as_it_parts_the_verdicts():
    threshold = 1.0
    close = [0.999999, 1.0, np.nextafter(1.0, 2), 1.000001]  # OK, OK, NG, NG
    chart = histogram([0.5, *close, 1.7], [], threshold, ["OK", "OK", "OK", "NG", "NG", "NG"])
    parts = {
        (bar.left < chart.threshold - 0.01, bar.verdict): bar.height
        for bar in chart.upper
        if abs(bar.left + bar.width / 2 - chart.threshold) <= bar.width
    }
    assert parts == {(True, "OK"): 100, (False, "NG"): 100}
    # Scores that no float lies between, and one alone.
    for scores in ([1.0, np.nextafter(1.0, 2)], [1.0], [0.0], [0.0, 5e-324]):
        for limit in (None, 1.0, 0.0):
            assert histogram(scores, [], limit).upper


@given(st.integers(2, 400), st.integers(0, 2**32 - 1), st.sampled_from([0.3, 1.0]))
def test_a_thinned_curve_stays_close(points, seed, right):
    rng = np.random.default_rng(seed)
    x, y = (
        np.sort(np.concatenate([[0.0, 1.0], rng.beta(0.3, 1, points).round(2)])) for _ in range(2)
    )
    parts = 50
    kept = np.array(thinned(x, y, right, parts))
    assert kept.shape[1] <= 4 * parts + 4 and (np.diff(kept) >= 0).all()
    assert kept[0, -1] == right
    for a, b in zip(x, y, strict=True):
        if a <= right:
            far = np.maximum(abs(kept[0] - a) / right, abs(kept[1] - b))
            assert far.min() <= 1 / parts + 1e-5


def test_a_line_goes_through_its_points():
    assert line(([0, 0.15, 0.3], [0, 0.5, 1]), 0.3) == "M0 100L50 50L100 0"


def test_a_long_video_is_thinned_but_its_peak_is_not():
    scores = np.random.default_rng(0).random(100_000)
    scores[70_000] = 9.0
    chart = timeline(np.arange(100_000) / 24, scores, 5.0, [(70_000, "a.mp4#070000")])
    heights = [float(pair.split(" ")[1]) for pair in re.split("[ML]", chart.path)[1:]]
    assert len(heights) <= 2400 and min(heights) == pytest.approx(100 - 100 / 1.08, rel=1e-3)
    assert (chart.over, chart.frames, len(chart.alarms)) == (1, 100_000, 1)
    (left, width), (mark, bottom, name) = chart.alarms[0], chart.marks[0]
    assert left <= mark <= left + width + 0.2 and name == "a.mp4#070000"
    assert bottom == pytest.approx(100 / 1.08, abs=0.01) and chart.threshold < bottom
    one = timeline([0.0], [0.0], None, [])
    assert one.threshold is None and one.path.startswith("M")


def test_a_clip_s_curve_stands_over_its_labelled_spans():
    labels = [False, True, True, False, False, True]
    # Frame 13 could not be decoded.
    numbers, scores = [10, 11, 12, 14, 15, 16], [1.0, 3.0, 5.0, 2.0, 1.0, 4.0]
    chart = clip_curve(numbers, scores, labels, (1.0, 5.0), [(2, "012.jpg")])
    points = [tuple(map(float, one.split())) for one in chart.path[1:].split("L")]
    across = [100 * (number - 10) / 6 for number in numbers]
    heights = [100 - 25 * (score - 1) for score in scores]
    np.testing.assert_allclose(points, list(zip(across, heights, strict=True)), atol=0.01)
    # A span reaches half way to the next frame.
    np.testing.assert_allclose(chart.spans, [(100 / 12, 125 / 3), (1100 / 12, 100 / 12)], atol=0.01)
    assert chart.marks == [(33.333, 100, "012.jpg")]
    assert (chart.frames, chart.labelled) == (6, 3)
    assert [text for _, text in chart.x] == ["10", "12", "14", "16"]
    assert chart.y[0] == (0, "1") and chart.y[-1] == (100, "5")
    flat = clip_curve([0], [2.0], [True], (2.0, 2.0), [(0, "a")])
    assert flat.spans == [(0, 100)] and flat.marks == [(0, 0, "a")] and "nan" not in flat.path
