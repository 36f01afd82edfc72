"""Losses, ranks and one whole step, each against a computation of its own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet import ResNet
from train import steps
from train.augment import Augment, example_keys
from train.mixing import Mix
from train.parallel import Pmap, ShardMap
from train.policies import trivial_augment

MODEL = ResNet((1, 1), block="residual", width=8, stem="small", num_classes=7)


def make_task(**fields):
    schedule = optax.constant_schedule(0.1)
    settings = dict(
        model=MODEL,
        optimizer=optax.sgd(schedule, 0.9),
        schedule=schedule,
        augment=Augment(),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
        seed=0,
    )
    return steps.Task(**settings | fields)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (16, 12, 12, 3)).astype(np.uint8),
        "label": rng.integers(0, 7, 16).astype(np.int32),
    }


def run_step(task, batch, devices=1, kind=Pmap, count=1, start=0):
    """Train steps; gives the state before, the state after and the last metrics."""
    devices = kind(jax.local_devices()[:devices])
    before = steps.create_state(task, (12, 12, 3)).replace(step=np.int32(start))
    step = devices.train(lambda state, data, batch: steps.train_step(task, state, batch))
    state = devices.replicate(before)
    for _ in range(count):
        state, metrics = step(state, {}, devices.split(batch))
    return before, devices.fetch(state), devices.fetch(metrics)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_with_smoothing_is_that_of_the_smoothed_target(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 4)) * 3
    labels = np.array([0, 3, 1, 1, 2])
    target = np.full((5, 4), smoothing / 4)
    target[np.arange(5), labels] += 1 - smoothing
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ours = steps.cross_entropy(jnp.float32(logits), jnp.asarray(labels), smoothing)
    np.testing.assert_allclose(ours, -(target * np.log(p)).sum(1), rtol=1e-5)


def test_rank_is_the_labels_place_with_ties_to_the_lower_class_and_nan_never_right():
    nan = np.nan
    logits = jnp.array([[1, 3, 2], [1, 3, 2], [5, 5, 5], [5, 5, 5], [nan, nan, nan], [1, nan, 0]])
    labels = jnp.array([1, 0, 0, 2, 0, 0])
    ranks = steps.rank_of(logits, labels).tolist()
    assert ranks[:4] == [0, 2, 0, 2]
    assert ranks[4] > 0 and ranks[5] > 0


def test_one_step_is_optaxs_update_of_the_mean_loss(batch):
    augment = Augment(flip=True, pad_crop=2)
    task = make_task(augment=augment, label_smoothing=0.1)
    before, after, metrics = run_step(task, batch, start=7)
    images = np.asarray(augment(batch["image"], example_keys(0, 7, jnp.arange(16))))
    assert not np.array_equal(images, batch["image"])
    images = (images / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], 7), 0.1)

    def loss_of(params):
        variables = {"params": params, "batch_stats": before.batch_stats}
        logits, updates = MODEL.apply(variables, jnp.float32(images), True, mutable="batch_stats")
        losses = optax.softmax_cross_entropy(logits, targets)
        return losses.mean(), (logits, updates["batch_stats"])

    (loss, (logits, stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(before.params)
    assert after.step == 8
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    assert metrics["top1"] == np.mean(logits.argmax(1) == batch["label"])
    assert metrics["learning_rate"] == np.float32(0.1)

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

    expected = jax.tree.map(lambda p, g: p - 0.1 * g, before.params, gradients)
    jax.tree.map(close, after.params, expected)
    jax.tree.map(close, after.batch_stats, stats)


def test_mixed_images_are_learnt_with_the_mixture_of_both_labels(batch):
    augment = Augment(flip=True, mix=Mix(mixup=1.0, cutmix=1.0))
    task = make_task(augment=augment, label_smoothing=0.1)
    before, after, metrics = run_step(task, batch, start=7)
    keys = example_keys(0, 7, jnp.arange(16))
    images, targets = jax.jit(augment.batch)(batch["image"], batch["label"], keys)
    images = (np.asarray(images) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    own, other = (
        jax.nn.one_hot(batch["label"], 7),
        jax.nn.one_hot(batch["label"][np.arange(16) ^ 1], 7),
    )
    share = targets.weight[:, None]
    soft = share * own + (1 - share) * other

    def loss_of(params):
        variables = {"params": params, "batch_stats": before.batch_stats}
        logits, _ = MODEL.apply(variables, jnp.float32(images), True, mutable="batch_stats")
        losses = optax.softmax_cross_entropy(logits, optax.smooth_labels(soft, 0.1))
        return losses.mean(), logits

    (loss, logits), gradients = jax.value_and_grad(loss_of, has_aux=True)(before.params)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    assert metrics["top1"] == np.mean(logits.argmax(1) == soft.argmax(1))
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, before.params, gradients)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, after.params, expected)


def test_devices_average_gradients_statistics_and_metrics(batch):
    """With statistics over all devices, four devices learn what one learns."""
    model = MODEL.clone(axis_name=steps.AXIS)
    mix = Mix(mixup=0.5, cutmix=1.0)
    augment = Augment(flip=True, pad_crop=2, policy=trivial_augment(), mix=mix)
    task = make_task(model=model, augment=augment)
    _, one, metrics_one = run_step(task, batch, devices=1, count=3)
    _, four, metrics_four = run_step(task, batch, devices=4, count=3)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, one, four)
    jax.tree.map(close, metrics_one, metrics_four)


def test_shard_map_learns_what_pmap_learns(batch):
    """Each repeats its own bits; between them the compiler fuses differently (last bits)."""
    task = make_task(augment=Augment(flip=True, pad_crop=2))
    _, by_pmap, _ = run_step(task, batch, 4, Pmap, count=3)
    _, again, _ = run_step(task, batch, 4, Pmap, count=3)
    _, by_shard_map, _ = run_step(task, batch, 4, ShardMap, count=3)
    jax.tree.map(np.testing.assert_array_equal, by_pmap, again)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), by_pmap, by_shard_map)


def test_local_statistics_are_averaged_so_that_devices_stay_equal(batch):
    task = make_task()
    before, after, _ = run_step(task, batch, devices=4)
    quarters = [{name: array[i : i + 4] for name, array in batch.items()} for i in range(0, 16, 4)]
    each = [run_step(task, quarter)[1].batch_stats for quarter in quarters]
    expected = jax.tree.map(lambda *parts: np.mean(parts, axis=0), *each)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, after.batch_stats, expected)
    assert before.batch_stats["stem_norm"]["mean"].sum() == 0


def test_eval_counts_valid_examples_alone(batch):
    task = make_task()
    state = steps.create_state(task, (12, 12, 3))
    valid = np.arange(16) < 11
    images = (batch["image"] / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = np.asarray(MODEL.apply(variables, jnp.float32(images)))[:11]
    labels = batch["label"][:11]
    place = (-logits).argsort(axis=1).argsort(axis=1)[np.arange(11), labels]
    losses = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), labels)

    for count in (1, 4):
        devices = Pmap(jax.local_devices()[:count])
        step = devices.evaluate(lambda state, data, batch: steps.eval_step(task, state, batch))
        batches = devices.split(batch | {"valid": valid, "bad": ~valid})
        sums = devices.fetch(step(devices.replicate(state), {}, batches))
        assert sums["examples"] == 11
        assert sums["top1"] == (place < 1).sum()
        assert sums["top5"] == (place < 5).sum()
        np.testing.assert_allclose(sums["loss"], losses.sum(), rtol=1e-5)


def test_steps_need_no_data_library():
    import subprocess
    import sys

    code = (
        "import sys; sys.modules |= dict.fromkeys("
        "['tensorflow_datasets', 'grain', 'ml_collections', 'orbax', 'cv2'], None);"
        "import flax_resnet, train.steps, train.parallel, train.optimizers, train.augment"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
