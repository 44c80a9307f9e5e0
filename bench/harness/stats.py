# SPDX-License-Identifier: Apache-2.0
"""Medians with their spread, ratios of rounds, and when a verdict may be given."""

import math
import random
import statistics


def median(values):
    return statistics.median(values)


def percentile(values, p):
    """The smallest value that at least p percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(p / 100 * len(ordered)) - 1)]


def spread(values):
    """{"median", "min", "max", "rounds"} of one figure's rounds."""
    return {"median": median(values), "min": min(values), "max": max(values),
            "rounds": len(values)}


def ratio(mine, other):
    """Of rounds measured side by side: the ratio in each, with its spread."""
    return spread([a / b for a, b in zip(mine, other)])


def bootstrap(statistic, *samples, repeats=500, seed=1):
    """(low, high): 95 % interval of statistic(*samples), each sample drawn anew."""
    draw = random.Random(seed)
    values = sorted(
        statistic(*[draw.choices(s, k=len(s)) for s in samples]) for _ in range(repeats))
    return values[int(0.025 * repeats)], values[min(repeats - 1, int(0.975 * repeats))]


def verdict(low, high, bound):
    """Is the figure at most `bound`? "met" or "not met" only when the whole spread
    [low, high] lies on one side; "open" says that the spread is larger than the
    difference."""
    if high <= bound:
        return "met"
    return "not met" if low > bound else "open"
