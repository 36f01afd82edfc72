"""Losses, ranks and metrics of images with any number of classes, against other libraries."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from tests.flax_resnet.peers import peer
from train import register_task
from train.config.loading import default_config
from train.config.task_defaults import set_task_defaults
from train.data.augment.mixup import Targets, swap_pairs
from train.data.datasets import open_source
from train.data.source import DataSource
from train.runtime.errors import UsageError
from train.tasks.configured import make_task
from train.tasks.multi_label import asymmetric_loss, best_rank, sigmoid_cross_entropy
from train.tasks.multi_label_metrics import (
    MULTI_LABEL_METRICS,
    decide,
    multi_label_metrics,
    random_average_precision,
)
from train.tasks.positive_weights import make_positive_weights

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 5)).astype(np.float32) * 3
LABELS = (RNG.random((6, 5)) < 0.4).astype(np.uint8)
WEIGHTS = (0.5, 2.0, 1.0, 4.0, 3.0)


def configured(**keys):
    config = default_config()
    config.task = "multi_label"
    config.update_from_flattened_dict(keys)
    set_task_defaults(config)
    return config


def test_metrics_of_the_other_task_are_refused():
    for task, wrong, right in (("multi_label", "kappa", "map"), ("classification", "map", "kappa")):
        config = configured(task=task)
        config.eval.metrics = (right, "top3", wrong)
        message = f"eval.metrics has '{wrong}', which is no metric of task='{task}'.*{right}"
        with pytest.raises(UsageError, match=message):
            make_task(config, 5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_that_of_pytorch(weights):
    torch = pytest.importorskip("torch")
    weight = None if weights is None else torch.tensor(weights)
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=weight, reduction="none")
    expected = loss(torch.tensor(LOGITS), torch.tensor(LABELS).float()).mean(1).numpy()
    got = sigmoid_cross_entropy(LOGITS, Targets(jnp.asarray(LABELS)), positive_weights=weights)
    np.testing.assert_allclose(got, expected, rtol=1e-5)

    # Mixed images have soft targets, which smoothing brings nearer to one half.
    share = np.float32([0.9, 0.9, 0.2, 0.2, 0.5, 0.5])
    soft = share[:, None] * LABELS + (1 - share)[:, None] * LABELS[[1, 0, 3, 2, 5, 4]]
    soft = torch.tensor(0.8 * soft + 0.1, dtype=torch.float32)
    expected = loss(torch.tensor(LOGITS), soft).mean(1).numpy()
    mixed = Targets(jnp.asarray(LABELS), swap_pairs(LABELS), jnp.asarray(share))
    got = sigmoid_cross_entropy(LOGITS, mixed, 0.2, weights)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(("gammas", "margin"), [((1, 4), 0.05), ((0, 4), 0.0), ((0.5, 2), 0.2)])
def test_asymmetric_loss_and_its_gradient_are_those_of_timm(gammas, margin):
    losses = peer("timm.loss")
    torch = pytest.importorskip("torch")
    loss = losses.AsymmetricLossMultiLabel(
        gamma_neg=gammas[1], gamma_pos=gammas[0], clip=margin, disable_torch_grad_focal_loss=False
    )
    logits = torch.tensor(LOGITS, requires_grad=True)
    total = loss(logits, torch.tensor(LABELS).float())
    total.backward()

    def ours(logits):
        return LOGITS.shape[1] * asymmetric_loss(logits, LABELS, gammas, margin).mean()

    got, gradient = jax.value_and_grad(ours)(jnp.asarray(LOGITS))
    np.testing.assert_allclose(got, total.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_losses_are_finite_for_any_logits():
    logits = jnp.asarray([[-1e4, 1e4, 0.0], [1e4, -1e4, 40.0]])
    labels = jnp.asarray([[1, 0, 1], [0, 1, 0]])
    for loss in (
        lambda logits: sigmoid_cross_entropy(logits, Targets(labels)).sum(),
        lambda logits: asymmetric_loss(logits, labels, (0.5, 4.0), 0.05).sum(),
    ):
        value, gradient = jax.value_and_grad(loss)(logits)
        assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


def test_best_rank_counts_the_outputs_before_the_best_label():
    order = np.argsort(-LOGITS, axis=1, kind="stable")
    for labels in (LABELS, LABELS[:, :4]):  # a head may have more outputs than there are classes
        places = [[k for k, c in enumerate(row) if c < labels.shape[1]] for row in order]
        expected = [
            next((k for k in place if labels[i, order[i, k]]), LOGITS.shape[1])
            for i, place in enumerate(places)
        ]
        np.testing.assert_array_equal(best_rank(jnp.asarray(LOGITS), jnp.asarray(labels)), expected)
    assert best_rank(jnp.asarray(LOGITS[:1]), jnp.zeros((1, 5))).tolist() == [5]
    assert best_rank(jnp.full((1, 3), jnp.nan), jnp.ones((1, 3))).tolist() == [3]


@pytest.mark.parametrize("thresholds", [None, np.array([0.2, 0.9, 0.5, 0.4])])
def test_metrics_are_those_of_scikit_learn(thresholds):
    rng = np.random.default_rng(1)
    labels = rng.random((300, 4)) < [0.5, 0.1, 0.02, 0.8]
    probabilities = rng.random((300, 6)).round(2)  # with ties, and outputs without a class
    probabilities[:, :4] = (probabilities[:, :4] + 0.3 * labels).clip(0, 1)
    predictions = {"label": labels.astype(np.uint8), "probabilities": probabilities}
    metrics = multi_label_metrics(predictions | {"thresholds": thresholds}, 6)
    scores = probabilities[:, :4]
    predicted = scores >= (0.5 if thresholds is None else thresholds)
    np.testing.assert_array_equal(decide(probabilities, thresholds, 4), predicted)
    expected = {
        "map": sklearn.metrics.average_precision_score(labels, scores, average="macro"),
        "auroc_macro": sklearn.metrics.roc_auc_score(labels, scores, average="macro"),
        "f1_macro": sklearn.metrics.f1_score(labels, predicted, average="macro"),
        "f1_micro": sklearn.metrics.f1_score(labels, predicted, average="micro"),
        "exact_match": sklearn.metrics.accuracy_score(labels, predicted),
        "map_baseline": random_average_precision(labels.sum(axis=0), 300).mean(),
        "baseline": labels[:, 3].mean(),
    }
    assert {*metrics} == {*expected} == {*MULTI_LABEL_METRICS, "map_baseline", "baseline"}
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-12), name


def test_the_baseline_is_the_mean_over_all_orders_of_the_images():
    for positives in (1, 2, 4):
        label = np.arange(5) < positives
        orders = map(np.array, itertools.permutations(range(5)))
        scores = [sklearn.metrics.average_precision_score(label, order) for order in orders]
        expected = random_average_precision(np.array([positives]), 5)
        assert expected == pytest.approx([np.mean(scores)], abs=1e-12)
    many = random_average_precision(np.array([30_000]), 100_000)
    assert many == pytest.approx([0.3], abs=1e-3)


def test_classes_of_all_images_or_none_are_not_in_the_means():
    labels = np.array([[1, 0, 1], [1, 0, 0], [1, 0, 1]], np.uint8)
    probabilities = np.array([[0.9, 0.1, 0.8], [0.8, 0.2, 0.4], [0.7, 0.1, 0.3]])
    metrics = multi_label_metrics({"label": labels, "probabilities": probabilities}, 3)
    assert metrics["map"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics["map_baseline"] == pytest.approx((1 + 5 / 6 + 7 / 12) / 3)  # of three orders
    one = {"label": labels[:1], "probabilities": probabilities[:1]}
    assert "map" not in multi_label_metrics(one, 3)


def sets_source(sets=((1, 0, 0), (0, 1, 1), (0, 0, 0)), labels=(0, 0, 1, 1, 1, 2)):
    records = [{"image": np.zeros((2, 2, 3), np.uint8), "label": label} for label in labels]
    sets = np.array(sets, bool)
    return DataSource("own", "train", ("a", "b", "c"), records, label_sets=sets)


def test_balanced_positive_weights_are_negatives_per_positive():
    source = sets_source()
    weights = make_positive_weights(configured(pos_weight="balanced"), source)
    assert weights.weights == (4 / 2, 3 / 3, 3 / 3)
    assert "a 33.3 % → 50.0 % (weight 2)" in weights.describe()
    weights = make_positive_weights(configured(pos_weight="b=3"), source)
    assert weights.weights == (1, 3, 1)
    for value, message in (
        ("d=2", "config.pos_weight names 'd', which is none"),
        ("b=0", "config.pos_weight must be above 0"),
        ("x", "config.pos_weight must be 'balanced', or numbers"),
    ):
        with pytest.raises(UsageError, match=message):
            make_positive_weights(configured(pos_weight=value), source)
    with pytest.raises(UsageError, match="but none of the 6 are of 'c'"):
        nothing = sets_source(((1, 0, 0), (0, 1, 0), (0, 0, 0)))
        make_positive_weights(configured(pos_weight="balanced"), nothing)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"class_weights": "balanced"}, "class_weights='balanced' has no meaning.*pos_weight"),
        ({"loader.sampling": "balanced"}, "loader.sampling='balanced' has no meaning"),
        ({"logit_adjustment": 1.0}, "logit_adjustment=1.0 has no meaning"),
        ({"bce_target_threshold": 0.2}, "bce_target_threshold=0.2 has no meaning"),
        ({"loss": "focal"}, "loss='focal' is for one class per image"),
        ({"loss": "asymmetric", "pos_weight": "a=2"}, "weights the sigmoid cross-entropy"),
        ({"loss": "asymmetric", "label_smoothing": 0.1}, "label_smoothing=0.1 has no effect"),
        ({"eval.metric": "kappa"}, "eval.metric='kappa' is no metric of task='multi_label'.*map"),
        ({"task": "classification", "eval.metric": "map"}, "'map' is no metric of task='class"),
        ({"task": "classification", "pos_weight": "a=2"}, "needs task='multi_label'"),
        ({"task": "classification", "loss": "asymmetric"}, "needs task='multi_label'"),
    ],
)
def test_keys_of_the_other_task_are_refused(keys, message):
    with pytest.raises(UsageError, match=message):
        make_task(configured(**keys), 3)


@pytest.mark.parametrize(
    ("key", "value"),
    [("class_weights", "a=2"), ("logit_adjustment", 1.0), ("loader.sampling", "balanced")],
)
def test_own_tasks_with_several_classes_ignore_no_balance(key, value):
    def own(config):
        task = make_task(configured(), 3)
        return dataclasses.replace(task, weigh_positives=None)

    register_task("own_labels", own)
    assert make_task(configured(task="own_labels"), 3).several_labels
    with pytest.raises(UsageError, match=rf"{key}=.*no meaning with task='own_labels'.*reset it"):
        make_task(configured(**{"task": "own_labels", key: value}), 3)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "asymmetric"])
def test_task_has_the_metrics_of_its_rank(loss):
    task = make_task(configured(loss=loss, **{"eval.metrics": ("top1",)}), 5)
    top1 = task.metrics["top1"](jnp.asarray(LOGITS), jnp.asarray(LABELS))
    np.testing.assert_array_equal(top1, LABELS[np.arange(6), LOGITS.argmax(1)])


def test_data_and_task_must_agree_on_the_labels():
    source = sets_source()
    single = dataclasses.replace(source, label_sets=None)

    def check(task, data):
        config = configured(task=task)
        make_task(config, 3).check_labels(config, data)

    check("multi_label", source)
    check("classification", single)
    with pytest.raises(UsageError, match=r"may have several classes.*task='multi_label'"):
        check("classification", source)
    with pytest.raises(UsageError, match=r"labels\.argmax\(axis=1\)"):
        check("classification", sets_source(np.eye(3)))
    with pytest.raises(UsageError, match=r"have one class each.*'cat\|dog'"):
        check("multi_label", single)
    masks = default_config().dataset
    masks.name = "drawn_shapes"
    with pytest.raises(UsageError, match=r"have masks.*set config.task='segmentation'"):
        check("multi_label", open_source(masks, "test"))
