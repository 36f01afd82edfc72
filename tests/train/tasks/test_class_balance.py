"""Class weights, logit adjustment and the effective distribution of classes."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from train.config.loading import default_config
from train.data.source import DataSource
from train.runtime.errors import UsageError
from train.tasks.class_balance import make_balance, parse_weights

NAMES = ("cat", "large, gray dog", "owl")
LABELS = np.repeat([0, 1, 2], [60, 30, 10])


def source(labels=LABELS, weights=None):
    records = [{"image": b"", "label": label} for label in labels]
    return DataSource("own", "train", NAMES, records, weights=weights)


def balance(data=None, **keys):
    config = default_config()
    config.loader.sampling = keys.pop("sampling", "shuffle")
    config.update(keys)
    return make_balance(config, data or source())


def test_balanced_weights_are_those_of_scikit_learn():
    assert balance() is None
    found = balance(class_weights="balanced")
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(found.class_weights, expected)
    np.testing.assert_allclose(np.array(found.class_weights)[LABELS].mean(), 1)
    np.testing.assert_allclose(found.effective, 1 / 3)
    assert found.logit_adjustment is None and found.counts.tolist() == [60, 30, 10]
    text = found.describe()
    assert "cat 60.0 % → 33.3 %, large, gray dog 30.0 % → 33.3 %, owl 10.0 % → 33.3 %" in text


def test_weights_of_records_count_as_images():
    weights = np.random.default_rng(0).exponential(size=100).astype(np.float32)
    found = balance(source(weights=weights), class_weights="balanced")
    total = weights * np.array(found.class_weights)[LABELS]
    np.testing.assert_allclose(np.bincount(LABELS, total), total.sum() / 3, rtol=1e-6)
    np.testing.assert_allclose(total.mean(), weights.mean(), rtol=1e-6)  # as given


def test_a_class_without_images_does_not_count():
    found = balance(source(np.repeat([0, 2], [90, 10])), class_weights="balanced")
    np.testing.assert_allclose(np.array(found.class_weights)[[0, 2]], [100 / 180, 5])
    np.testing.assert_allclose(found.effective, [0.5, 0, 0.5])
    found = balance(source(np.repeat([0, 2], [90, 10])), sampling="balanced")
    np.testing.assert_allclose(found.sampled, [0.5, 0, 0.5])


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
def test_weights_by_name_have_a_mean_of_one(sampling):
    found = balance(class_weights="owl=6, large, gray dog = 0.5", sampling=sampling)
    weights = np.array(found.class_weights)
    np.testing.assert_allclose(weights / weights[0], [1, 0.5, 6])
    shares = np.array([0.6, 0.3, 0.1] if sampling == "shuffle" else [1 / 3] * 3)
    np.testing.assert_allclose(found.sampled, shares)
    np.testing.assert_allclose(shares @ weights, 1)
    np.testing.assert_allclose(found.effective, shares * weights)


def test_logits_are_adjusted_by_the_effective_distribution():
    found = balance(logit_adjustment=1.5)
    np.testing.assert_allclose(found.logit_adjustment, 1.5 * np.log([0.6, 0.3, 0.1]))
    found = balance(logit_adjustment=1.0, class_weights="cat=2")
    shares = np.array([1.2, 0.3, 0.1]) / 1.6
    np.testing.assert_allclose(found.logit_adjustment, np.log(shares))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"class_weights": "balanced", "sampling": "balanced"}, "sampling.*class_weights.* twice"),
        ({"logit_adjustment": 1.0, "sampling": "balanced"}, "logit_adjustment=1 each balance"),
        ({"class_weights": "balanced", "logit_adjustment": 0.5}, "logit_adjustment=0.5 each"),
        ({"class_weights": "bird=2"}, "'bird', which is none of the classes cat, large"),
    ],
)
def test_keys_that_exclude_each_other_are_usage_errors(keys, message):
    with pytest.raises(UsageError, match=message):
        balance(**keys)


def test_logit_adjustment_needs_images_of_every_class():
    with pytest.raises(UsageError, match="there are none of large, gray dog"):
        balance(source(np.repeat([0, 2], 5)), logit_adjustment=1.0)


def test_names_may_contain_separators():
    assert parse_weights("a=b=2,large, gray dog=0.5,x=1e-3") == {
        "a=b": 2.0,
        "large, gray dog": 0.5,
        "x": 1e-3,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat", "numbers by class .* not 'cat'"),
        ("cat=x", "not 'x' for 'cat'"),
        ("cat=0", "above 0 and finite, not 0 for 'cat'"),
        ("cat=inf", "above 0 and finite"),
        ("cat=nan", "above 0 and finite"),
        ("cat=1,cat=2", "'cat' twice"),
    ],
)
def test_invalid_weights_are_usage_errors(text, message):
    with pytest.raises(UsageError, match=message):
        parse_weights(text)


@pytest.mark.parametrize(("batch_size", "rare"), [(16, True), (4096, False)])
def test_shares_that_batches_do_not_reach_are_named(batch_size, rare):
    """The share of the rare class in the loss of batches that are drawn and weighted."""
    made = balance(source([0] * 98 + [1] * 2), class_weights="balanced")
    drawn = np.random.default_rng(0).binomial(batch_size, 0.02, 4000)
    weighted = drawn * made.class_weights[1]
    share = (weighted / (weighted + (batch_size - drawn) * made.class_weights[0])).mean()
    assert made.effective[1] == pytest.approx(0.5) and (share < 0.4) == rare
    text = made.describe_rare(batch_size)
    assert text.startswith("a batch of 16 has 0.32 images of 'large, gray dog' on av") == rare
    assert bool(text) == rare
    assert balance(source([0] * 50 + [1] * 50), class_weights="balanced").describe_rare(4) == ""
    assert balance(logit_adjustment=1.0).describe_rare(1) == ""
