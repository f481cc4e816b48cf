"""The metrics word for word, in float64, one threshold after another."""

import numpy as np
from skimage.measure import label


def thresholds(maps):
    return np.unique(np.concatenate([np.asarray(m, np.float64).ravel() for m in maps]))[::-1]


def point(maps, masks, threshold):
    """Return the false-positive rate, the true-positive rate and the mean overlap."""
    good, defect, overlaps = [], [], []
    for scores, mask in zip(map(np.asarray, maps), map(np.asarray, masks), strict=True):
        called = scores >= threshold
        good.append(called[mask == 0])
        defect.append(called[mask != 0])
        regions = label(mask != 0, connectivity=2)
        for region in range(1, regions.max(initial=0) + 1):
            overlaps.append(called[regions == region].mean())
    return np.concatenate(good).mean(), np.concatenate(defect).mean(), np.mean(overlaps)


def area(xs, ys, limit):
    total = 0.0
    for x0, x1, y0, y1 in zip(xs, xs[1:], ys, ys[1:], strict=False):
        if x1 <= limit:
            total += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            total += (limit - x0) * (y0 + (y0 + (y1 - y0) * (limit - x0) / (x1 - x0))) / 2
    return total / limit


def pro(maps, masks, max_fpr):
    points = [(0.0, 0.0, 0.0)] + [point(maps, masks, t) for t in thresholds(maps)]
    return area([p[0] for p in points], [p[2] for p in points], max_fpr)
