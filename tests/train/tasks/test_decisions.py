"""Decision thresholds, compared with scikit-learn's precision-recall curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from train.runtime.errors import RunError, UsageError
from train.tasks.decisions import DecisionRequest, parse_decision, threshold_for


@pytest.mark.parametrize(
    "text, expected",
    [
        ("cat=0.3", ("cat", None, 0.3)),
        ("cat:recall=0.95", ("cat", "recall", 0.95)),
        ("a:b=c:precision=1", ("a:b=c", "precision", 1.0)),
        ("cat:other=0.5", ("cat:other", None, 0.5)),
    ],
)
def test_requests(text, expected):
    assert parse_decision(text) == DecisionRequest(*expected)


@pytest.mark.parametrize("text", ["cat", "=0.3", "cat=", "cat=1", "cat=nan", "cat:recall=0", "a=x"])
def test_invalid_requests(text):
    with pytest.raises(UsageError, match="--decide must be CLASS=THRESHOLD"):
        parse_decision(text)


@given(
    st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=2, max_size=40),
    st.sampled_from(["recall", "precision"]),
    st.sampled_from([0.3, 0.5, 0.8, 0.95, 1.0]),
)
def test_the_best_threshold_that_reaches_the_target(pairs, goal, value):
    scores = np.array([score / 21 for score, _ in pairs])
    positive = np.array([flag for _, flag in pairs])
    request = DecisionRequest("cat", goal, value)
    if not positive.any():
        with pytest.raises(RunError, match="none of the fitted images is of this class"):
            threshold_for(request, scores, positive)
        return
    precision, recall, _ = precision_recall_curve(positive, scores)
    reached, other = (recall, precision) if goal == "recall" else (precision, recall)
    possible = reached[:-1] >= value - 1e-9  # the last one is of no threshold
    if not possible.any():
        with pytest.raises(
            RunError,
            match=f"the highest {goal} in the .* {reached[:-1].max():.1%}".replace("%", " %"),
        ):
            threshold_for(request, scores, positive)
        return
    chosen = scores >= threshold_for(request, scores, positive)
    hits = (chosen & positive).sum()
    shares = {"recall": hits / positive.sum(), "precision": hits / chosen.sum()}
    assert shares.pop(goal) >= value - 1e-9
    [share] = shares.values()
    if goal == "precision":
        assert share == pytest.approx(other[:-1][possible].max())
    else:  # the highest threshold
        assert chosen.sum() == min(
            (scores >= t).sum()
            for t in scores
            if (positive & (scores >= t)).sum() >= value * positive.sum() - 1e-9
        )
