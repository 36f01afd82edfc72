"""Training and evaluation steps against independent computations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.train.engine.steps import MODEL, make_step_config, run_step
from train.data.augment.auto_augment import trivial_augment
from train.data.augment.mixup import Mixup
from train.data.augment.pipeline import Augment, example_keys
from train.engine.devices import Pmap, ShardMap
from train.engine.step import AXIS, create_state, eval_step
from train.tasks.classification import mixed_cross_entropy

SMOOTH_LOSS = partial(mixed_cross_entropy, smoothing=0.1)


def test_step_is_the_optax_update_of_the_mean_loss(batch):
    augment = Augment(hflip=True, pad_crop=2)
    step_config = make_step_config(augment=augment, loss=SMOOTH_LOSS)
    before, after, metrics = run_step(step_config, batch, start=7)
    images = np.asarray(augment(batch["image"], example_keys(0, 7, jnp.arange(16))))
    assert not np.array_equal(images, batch["image"])
    images = (images / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], 7), 0.1)

    def loss_fn(params):
        variables = {"params": params, "batch_stats": before.batch_stats}
        logits, updates = MODEL.apply(variables, jnp.float32(images), True, mutable="batch_stats")
        losses = optax.softmax_cross_entropy(logits, targets)
        return losses.mean(), (logits, updates["batch_stats"])

    (loss, (logits, stats)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(before.params)
    assert after.step == 8
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    assert metrics["top1"] == np.mean(logits.argmax(1) == batch["label"])
    assert (metrics["learning_rate"], metrics["nonfinite"]) == (np.float32(0.1), 0)

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

    expected = jax.tree.map(lambda p, g: p - 0.1 * g, before.params, gradients)
    jax.tree.map(close, after.params, expected)
    jax.tree.map(close, after.batch_stats, stats)


def test_mixed_images_use_the_mixture_of_both_labels_and_weights(batch):
    """With weights of classes and logits that are adjusted, too."""
    augment = Augment(hflip=True, mix=Mixup(mixup=1.0, cutmix=1.0))
    by_class, adjustment = np.float32([0.5, 3, 1, 0.2, 2, 1, 1]), np.log(np.arange(1, 8) / 28)
    balance = {"class_weights": tuple(by_class), "logit_adjustment": tuple(adjustment)}
    step_config = make_step_config(augment=augment, loss=SMOOTH_LOSS, **balance)
    colors = np.random.default_rng(3).integers(0, 256, (16, 1, 1, 3)).astype(np.uint8)
    batch = batch | {"image": np.tile(colors, (1, 12, 12, 1))}  # with different predictions
    keys = example_keys(0, 8, jnp.arange(16))
    images, targets = jax.jit(augment.batch)(batch["image"], batch["label"], keys)
    images = (np.asarray(images) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    # Mixing ignores the labels: choose some for which own, other and dominant ones are predicted
    # in different numbers of images.
    initial = create_state(step_config, (12, 12, 3))
    variables = {"params": initial.params, "batch_stats": initial.batch_stats}
    predicted, _ = MODEL.apply(variables, jnp.float32(images), True, mutable="batch_stats")
    predicted = np.asarray(predicted.argmax(1), np.int32)

    def accuracies(label):
        partner = label[np.arange(16) ^ 1]
        dominant = np.where(targets.weight < 0.5, partner, label)
        return [np.mean(predicted == each) for each in (label, partner, dominant)]

    rng = np.random.default_rng(0)
    choices = [(predicted + rng.integers(0, 2, 16, np.int32)) % 7 for _ in range(100)]
    label = next(label for label in choices if len({*accuracies(label)}) == 3)
    weights = np.float32(rng.choice([0, 0.5, 1, 3], 16))  # of the records
    weights[:2] = 0
    batch = batch | {"label": label, "weight": weights}
    before, after, metrics = run_step(step_config, batch, start=8)
    own, other = (
        jax.nn.one_hot(batch["label"], 7),
        jax.nn.one_hot(batch["label"][np.arange(16) ^ 1], 7),
    )
    share = targets.weight[:, None]
    assert (share != 0.5).all()  # otherwise either label is correct
    soft = share * own + (1 - share) * other
    partner, both = np.arange(16) ^ 1, np.stack([share[:, 0], 1 - share[:, 0]])
    records, weights = weights, weights * by_class[label]
    scale = (both * [records, records[partner]]).sum() / (both * [weights, weights[partner]]).sum()
    assert abs(scale - 1) > 0.01  # of the classes' weights over the batch
    parts = list(zip(scale * both * [weights, weights[partner]], (own, other), strict=True))

    def loss_fn(params):
        variables = {"params": params, "batch_stats": before.batch_stats}
        logits, _ = MODEL.apply(variables, jnp.float32(images), True, mutable="batch_stats")
        losses = [
            factor
            * optax.softmax_cross_entropy(logits + adjustment, optax.smooth_labels(target, 0.1))
            for factor, target in parts
        ]
        return sum(losses).mean(), logits

    (loss, logits), gradients = jax.value_and_grad(loss_fn, has_aux=True)(before.params)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    assert np.mean(logits.argmax(1) == soft.argmax(1)) == accuracies(label)[2]
    assert metrics["top1"] == accuracies(label)[2]
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, before.params, gradients)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, after.params, expected)


def test_gradients_statistics_and_metrics_are_averaged_over_devices(batch):
    """With synchronized batch norm, four devices learn the same as one."""
    model = MODEL.clone(axis_name=AXIS)
    mix = Mixup(mixup=0.5, cutmix=1.0)
    augment = Augment(hflip=True, pad_crop=2, policies=(trivial_augment(),), mix=mix)
    by_class = (0.5, 3.0, 1.0, 0.2, 2.0, 1.0, 1.0)
    step_config = make_step_config(model=model, augment=augment, class_weights=by_class)
    weights = np.float32(np.random.default_rng(0).exponential(size=16))
    batch = batch | {"weight": weights}
    _, one, metrics_one = run_step(step_config, batch, devices=1, count=3)
    _, four, metrics_four = run_step(step_config, batch, devices=4, count=3)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, one, four)
    jax.tree.map(close, metrics_one, metrics_four)


def test_shard_map_matches_pmap(batch):
    """Each is deterministic; the last bits differ, since the compiler fuses differently."""
    step_config = make_step_config(augment=Augment(hflip=True, pad_crop=2))
    _, by_pmap, _ = run_step(step_config, batch, 4, Pmap, count=3)
    _, again, _ = run_step(step_config, batch, 4, Pmap, count=3)
    _, by_shard_map, _ = run_step(step_config, batch, 4, ShardMap, count=3)
    jax.tree.map(np.testing.assert_array_equal, by_pmap, again)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), by_pmap, by_shard_map)


def test_local_batch_statistics_are_averaged_over_devices(batch):
    step_config = make_step_config()
    before, after, _ = run_step(step_config, batch, devices=4)
    quarters = [{name: array[i : i + 4] for name, array in batch.items()} for i in range(0, 16, 4)]
    each = [run_step(step_config, quarter)[1].batch_stats for quarter in quarters]
    expected = jax.tree.map(lambda *parts: np.mean(parts, axis=0), *each)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, after.batch_stats, expected)
    assert before.batch_stats["stem_norm"]["mean"].sum() == 0


def test_evaluation_counts_only_valid_examples(batch):
    step_config = make_step_config()
    state = create_state(step_config, (12, 12, 3))
    valid = np.arange(16) < 11
    images = (batch["image"] / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = np.asarray(MODEL.apply(variables, jnp.float32(images)))[:11]
    labels = batch["label"][:11]
    rank = (-logits).argsort(axis=1).argsort(axis=1)[np.arange(11), labels]
    losses = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), labels)

    for count in (1, 4):
        devices = Pmap(jax.local_devices()[:count])
        step = devices.evaluate(lambda state, data, batch: eval_step(step_config, state, batch))
        batches = devices.split(batch | {"valid": valid, "bad": ~valid})
        sums = devices.fetch(step(devices.replicate(state), {}, batches))
        assert (sums["examples"], sums["bad"]) == (11, 5)
        assert sums["top1"] == (rank < 1).sum()
        assert sums["top5"] == (rank < 5).sum()
        np.testing.assert_allclose(sums["loss"], losses.sum(), rtol=1e-5)


def test_steps_need_no_data_library():
    import subprocess
    import sys

    code = (
        "import sys; sys.modules |= dict.fromkeys("
        "['tensorflow_datasets', 'grain', 'ml_collections', 'orbax', 'cv2'], None);"
        "import flax_resnet, train.engine.step, train.engine.devices, train.tasks.task;"
        "import train.engine.optim.optimizers, train.data.augment.pipeline"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
