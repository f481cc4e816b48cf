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


def spro(maps, regions, max_fpr):
    points = [(0.0, 0.0)]
    for threshold in thresholds(maps):
        good, overlaps = [], []
        for scores, own in zip(map(np.asarray, maps), regions, strict=True):
            called = scores >= threshold
            wrong = np.zeros(scores.shape, bool)
            for mask, saturation in own:
                wrong |= mask > 0
                found = (called & (mask > 0)).sum()
                overlaps.append(min(found / min(saturation, (mask > 0).sum()), 1))
            good.append(called[~wrong])
        points.append((np.concatenate(good).mean(), np.mean(overlaps)))
    return area(*zip(*points, strict=True), max_fpr)  # type: ignore[call-arg]


def aupimo(maps, masks, bounds):
    """Return one figure an image; None for good ones."""
    maps = [np.asarray(scores, np.float64) for scores in maps]
    defects = [scores[mask != 0] for scores, mask in zip(maps, masks, strict=True)]
    good = [scores for scores, mask in zip(maps, masks, strict=True) if not (mask != 0).any()]
    rates, overlaps = [0.0], [[0.0] * len(maps)]
    for threshold in thresholds(maps):
        rates.append(np.mean([(scores >= threshold).mean() for scores in good]))
        overlaps.append([(own >= threshold).mean() if len(own) else 0.0 for own in defects])
        if rates[-1] >= bounds[1]:
            break
    return [
        log_area(rates, own, *bounds) if len(defects[i]) else None
        for i, own in enumerate(zip(*overlaps, strict=True))
    ]


def log_area(xs, ys, lower, upper):
    """Integrate straight lines over the logarithm of x, and divide by the width."""
    total = 0.0
    for x0, x1, y0, y1 in zip(xs, xs[1:], ys, ys[1:], strict=False):
        left, right = max(x0, lower), min(x1, upper)
        if right > left:
            slope = (y1 - y0) / (x1 - x0)
            total += (y0 - slope * x0) * np.log(right / left) + slope * (right - left)
    return total / np.log(upper / lower)
