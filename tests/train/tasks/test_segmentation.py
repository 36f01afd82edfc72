"""Loss and metrics of segmentation against PyTorch and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, jaccard_score

from flax_resnet.dense.views import PictureView
from train.config.loading import default_config
from train.config.task_defaults import set_task_defaults
from train.data.augment.mixup import Targets
from train.data.datasets import open_source
from train.runtime.errors import RunError, UsageError
from train.tasks.configured import make_task
from train.tasks.segmentation import Segmentation
from train.tasks.segmentation_metrics import IGNORED, confusion_metrics, count_pixels

RNG = np.random.default_rng(0)
CLASSES = 5
LOGITS = np.float32(RNG.normal(size=(8, 6, 7, CLASSES)) * 2)
AUX = np.float32(RNG.normal(size=LOGITS.shape))
# Class 3 is nowhere, image 2 has no labeled pixel, and images have different numbers of them.
LABELS = RNG.choice([0, 1, 2, 4, IGNORED], LOGITS.shape[:3], p=[0.4, 0.2, 0.1, 0.1, 0.2])
LABELS = LABELS.astype(np.uint8)
LABELS[2] = IGNORED
LABELS[5, :3] = IGNORED
WEIGHTS = (0.5, 2.0, 1.0, 4.0, 3.0)


def configured(**keys):
    config = default_config()
    config.task = "segmentation"
    config.update_from_flattened_dict(keys)
    set_task_defaults(config)
    return config


def loss_in_parts(task, logits, aux, labels, parts, record_weights=None):
    """Return the mean loss of the parts, as devices and micro-batches compute it."""
    mean = lambda values: jnp.mean(values)  # noqa: E731 (of the global batch)
    prepared = task.prepare(Targets(labels), record_weights, mean)
    losses = []
    for part in np.split(np.arange(len(labels)), parts):
        outputs = logits[part] if aux is None else (logits[part], aux[part])
        losses.append(task.training_loss(outputs, jax.tree.map(lambda x: x[part], prepared)))  # noqa: B023
    return jax.tree.map(lambda *values: sum(values) / parts, *losses)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient_equal_pytorch_however_the_batch_is_split(weights, smoothing):
    torch = pytest.importorskip("torch")
    kind = torch.nn.CrossEntropyLoss(
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
    )
    logits, aux = (torch.tensor(x, requires_grad=True) for x in (LOGITS, AUX))
    target = torch.tensor(LABELS.astype(np.int64))
    main, other = (kind(x.permute(0, 3, 1, 2), target) for x in (logits, aux))
    (main + 0.4 * other).backward()
    task = Segmentation(0.4, smoothing, weights)
    for parts in (1, 2, 8):  # with 8, one of them has no labeled pixel

        def compute(logits, aux, parts=parts):
            return loss_in_parts(task, logits, aux, jnp.asarray(LABELS), parts)

        grad = jax.value_and_grad(compute, (0, 1), has_aux=True)
        (loss, metrics), gradients = grad(jnp.asarray(LOGITS), jnp.asarray(AUX))
        assert float(loss) == pytest.approx((main + 0.4 * other).item(), rel=1e-5)
        for ours, theirs in zip(gradients, (logits, aux), strict=True):
            np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-4, atol=1e-7)
        labeled = LABELS != IGNORED
        accuracy = (LOGITS.argmax(-1) == LABELS)[labeled].mean()
        assert float(metrics["pixel_accuracy"]) == pytest.approx(accuracy, rel=1e-5)


def test_a_batch_without_labeled_pixels_has_no_loss_and_no_gradient():
    labels = jnp.full((2, 6, 7), IGNORED, jnp.uint8)

    def compute(logits):
        return loss_in_parts(Segmentation(), logits, None, labels, 1)[0]

    loss, gradient = jax.value_and_grad(compute)(jnp.asarray(LOGITS[:2]))
    assert loss == 0 and not np.asarray(gradient).any()


def test_weights_of_records_are_factors_of_their_images():
    weights = np.float32([1, 2, 1, 0, 1, 3, 1, 1])
    task = Segmentation()
    labels = jnp.asarray(LABELS)
    prepared = task.prepare(Targets(labels), jnp.asarray(weights), jnp.mean)
    loss, _ = task.training_loss(jnp.asarray(LOGITS), prepared)
    log_p = np.asarray(jax.nn.log_softmax(LOGITS))
    labeled = LABELS != IGNORED
    of_label = np.take_along_axis(log_p, np.minimum(LABELS, 4)[..., None], -1)[..., 0]
    expected = -(weights[:, None, None] * of_label)[labeled].sum() / labeled.sum()
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_of_records_and_classes_equal_pytorch_with_repeated_images(smoothing):
    """Times the mean weight of the pixels' records, so that a weight changes the gradient's size.

    A record of weight 2 counts as two of weight 1.
    """
    torch = pytest.importorskip("torch")
    records = np.array([1, 2, 1, 0, 1, 3, 1, 1])
    logits, labels = (torch.tensor(np.repeat(x, records, 0)) for x in (LOGITS, LABELS))
    loss = torch.nn.functional.cross_entropy(
        logits.permute(0, 3, 1, 2),
        labels.long(),
        torch.tensor(WEIGHTS),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
    )
    pixels = (LABELS != IGNORED).sum((1, 2))
    expected = loss.item() * (records * pixels).sum() / pixels.sum()
    task = Segmentation(0.0, smoothing, WEIGHTS)
    for parts in (1, 4):
        for factor in (1, 10):
            weights = jnp.float32(factor * records)
            value, _ = loss_in_parts(task, LOGITS, None, jnp.asarray(LABELS), parts, weights)
            assert float(value) == pytest.approx(factor * expected, rel=1e-5)
    weights = jnp.zeros(len(LABELS))
    assert loss_in_parts(task, LOGITS, None, jnp.asarray(LABELS), 1, weights)[0] == 0


def evaluated(valid, batch=8):
    """Return the metrics of an evaluation in batches, with images that do not count."""
    task, parts, collected = Segmentation(), [], []
    for start in range(0, 8, batch):
        part = slice(start, start + batch)
        arrays = jnp.asarray(LOGITS[part]), jnp.asarray(LABELS[part])
        parts.append(task.sums(*arrays, jnp.asarray(valid[part])))
        collected.append(task.per_example(*arrays)["counts"])
    totals = {"examples": int(valid.sum())}
    totals |= jax.tree.map(lambda *values: sum(map(np.asarray, values)), *parts)
    return task, totals, task.means(totals, CLASSES), np.concatenate(collected)


@pytest.mark.parametrize("batch", [2, 8])
def test_metrics_equal_scikit_learn_and_padding_does_not_count(batch):
    valid = np.array([True] * 6 + [False] * 2)
    task, totals, metrics, counts = evaluated(valid, batch)
    labeled = (LABELS != IGNORED) & valid[:, None, None]
    label, predicted = LABELS[labeled], LOGITS.argmax(-1)[labeled]
    union = np.union1d(label, predicted)  # class 3 is predicted somewhere
    assert 3 in predicted and 3 not in label
    iou = jaccard_score(label, predicted, labels=union, average=None)
    assert metrics["miou"] == pytest.approx(iou.mean(), abs=1e-12)
    assert metrics["pixel_accuracy"] == pytest.approx(accuracy_score(label, predicted), abs=1e-12)
    recall = np.mean([np.mean(predicted[label == k] == k) for k in np.unique(label)])
    assert metrics["mean_accuracy"] == pytest.approx(recall, abs=1e-12)
    constant = np.full_like(label, np.bincount(label).argmax())
    assert metrics["baseline"] == pytest.approx(accuracy_score(label, constant), abs=1e-12)
    assert metrics["miou_baseline"] == pytest.approx(
        jaccard_score(label, constant, average="macro"), abs=1e-12
    )
    balanced = balanced_accuracy_score(label, constant)
    assert balanced == pytest.approx(1 / len(np.unique(label)))
    log_p = np.asarray(jax.nn.log_softmax(LOGITS))[labeled]
    assert metrics["loss"] == pytest.approx(-log_p[np.arange(len(label)), label].mean(), rel=1e-5)
    arrays = {"record": np.flatnonzero(valid), "counts": counts[valid]}
    found = task.predictions(arrays, totals, CLASSES)
    np.testing.assert_array_equal(found.confusion.sum(1), counts[valid][:, 0].sum(0))
    np.testing.assert_array_equal(found.confusion.sum(0), counts[valid][:, 1].sum(0))
    np.testing.assert_array_equal(np.diagonal(found.confusion), counts[valid][:, 2].sum(0))


def test_miou_equals_torchmetrics():
    classification = pytest.importorskip("torchmetrics.classification")
    torch = pytest.importorskip("torch")
    metric = classification.MulticlassJaccardIndex(CLASSES, ignore_index=IGNORED)
    target = torch.tensor(LABELS.astype(np.int64))
    metric.update(torch.tensor(LOGITS.argmax(-1)), target)
    metrics = evaluated(np.ones(8, bool))[2]
    # It divides in float32.
    assert metrics["miou"] == pytest.approx(metric.compute().item(), abs=1e-7)
    confusion = metric.confmat.numpy().astype(np.int64)
    assert metrics["miou"] == pytest.approx(confusion_metrics(confusion)["miou"], abs=1e-9)


def test_a_class_that_is_nowhere_does_not_count():
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert confusion_metrics(confusion)["miou"] == pytest.approx((3 / 4 + 4 / 5) / 2, abs=1e-15)


def test_counts_of_large_splits_are_exact():
    large = np.array([[2**40 + 1, 1], [1, 2**40]])
    metrics = confusion_metrics(large)
    assert metrics["pixel_accuracy"] == pytest.approx(1 - 2 / (2**41 + 3), rel=1e-15)


def test_masks_without_any_class_are_an_error():
    with pytest.raises(RunError, match="no pixel of the evaluated masks has a class"):
        Segmentation().means({"confusion": np.zeros((3, 3), np.int64), "loss": 0.0}, 3)


def test_pixels_of_wrong_classes_are_counted_in_no_other_image():
    predicted = jnp.asarray([[[1, 1]], [[0, 2]]])
    counts = count_pixels(predicted, jnp.asarray([[[0, IGNORED]], [[0, 0]]]), 3)
    expected = np.zeros((2, 3, 3), int)
    expected[0, 0, 1] = expected[1, 0, 0] = expected[1, 0, 2] = 1
    np.testing.assert_array_equal(counts, expected)


def test_mirrored_outputs_are_those_of_the_images():
    undone = Segmentation().undo(jnp.asarray(LOGITS), PictureView(mirrored=True), LOGITS.shape[1:3])
    np.testing.assert_array_equal(undone, LOGITS[:, :, ::-1])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss", "focal"),
        ("bce_target_threshold", 0.2),
        ("pos_weight", "balanced"),
        ("logit_adjustment", 1.0),
        ("loader.sampling", "balanced"),
        ("eval.metrics", ("top3",)),
    ],
)
def test_keys_without_a_meaning_are_refused(key, value):
    with pytest.raises(UsageError, match=rf"config\.{key}=.* no meaning .*'segmentation'"):
        make_task(configured(**{key: value}), CLASSES)


@pytest.mark.parametrize(
    ("key", "value"),
    [("mixup", 0.2), ("cutmix", 1.0), ("random_erasing", 0.25), ("policy", "rand")],
)
def test_augmentations_without_a_meaning_are_refused(key, value):
    config = configured(**{f"augment.{key}": value})
    with pytest.raises(UsageError, match=rf"config\.augment\.{key}=.*not for images with masks"):
        make_task(config, CLASSES).make_augment(config)


@pytest.mark.parametrize("metric", ["top1", "map", "balanced_accuracy"])
def test_metrics_of_other_tasks_are_refused(metric):
    with pytest.raises(UsageError, match=r"no metric of task=.segmentation.*miou, pixel_accuracy"):
        make_task(configured(**{"eval.metric": metric}), CLASSES)


def test_weights_of_classes_are_numbers_by_name():
    config = configured(class_weights="cross=3,circle=0.5")
    config.dataset.name = "drawn_shapes"
    source = open_source(config.dataset, "test")
    task = make_task(config, CLASSES)
    balance = task.make_balance(config, source)
    assert task.balanced(balance).class_weights == (1.0, 0.5, 1.0, 1.0, 3.0)
    assert "circle 0.5, cross 3, others 1" in balance.describe()


def test_data_without_masks_and_batches_of_too_many_pixels_are_refused():
    config = configured()
    task = make_task(config, CLASSES)
    config.dataset.name = "drawn_shapes"
    masks = open_source(config.dataset, "test")
    task.check_labels(config, masks)
    task.check_split(config, masks, 2**10, CLASSES)
    config.dataset.image_size = (2048, 1024)
    with pytest.raises(UsageError, match=r"1,024 images of 2048×1024 .*eval\.batch_size"):
        task.check_split(config, masks, 2**10, CLASSES)
