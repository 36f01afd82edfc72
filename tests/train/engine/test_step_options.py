"""Steps with accumulation, a moving average, frozen modules, dropout and skipped steps."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.trainer import TASK
from flax_resnet import init_variables
from tests.train.engine.steps import MODEL, make_step_config, run_step
from train.config.registries import register_metric
from train.data.augment.mixup import Mixup, Targets
from train.data.augment.pipeline import Augment
from train.engine.devices import Pmap
from train.engine.experiment import parameter_shapes
from train.engine.step import (
    AXIS,
    accumulate_gradients,
    create_state,
    eval_step,
    train_step,
)
from train.runtime.errors import UsageError
from train.tasks.classification import top1
from train.tasks.task import Task

GROUPS = MODEL.clone(width=32, norm="group")


def test_gradient_accumulation_matches_the_whole_batch(batch):
    """With group norm: batch statistics would be those of each micro-batch."""
    fields = dict(model=GROUPS, augment=Augment(hflip=True, mix=Mixup(mixup=1.0)))
    fields |= dict(class_weights=(0.5, 3.0, 1.0, 0.2, 2.0, 1.0, 1.0))
    runs = [
        run_step(
            make_step_config(**fields, grad_accum_steps=steps),
            batch,
            devices,
            count=2,
        )
        for steps, devices in ((1, 1), (4, 1), (2, 2))
    ]
    _, whole, whole_metrics = runs[0]
    for _, after, metrics in runs[1:]:
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)  # noqa: E731
        jax.tree.map(close, after.params, whole.params)
        jax.tree.map(close, metrics, whole_metrics)


def test_scanned_and_unrolled_micro_batches_match(batch, monkeypatch):
    """The loop is scanned on GPU and TPU; running statistics pass through all micro-batches."""
    step_config = make_step_config(grad_accum_steps=2)
    _, unrolled, _ = run_step(step_config, batch)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    _, scanned, _ = run_step(step_config, batch)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        (unrolled.params, unrolled.batch_stats),
        (scanned.params, scanned.batch_stats),
    )


def test_micro_batches_have_their_own_statistics(batch):
    """Gradients are averaged; running statistics pass from one micro-batch to the next."""
    step_config = make_step_config(grad_accum_steps=2)
    before, after, _ = run_step(step_config, batch)
    images = (jnp.float32(batch["image"]) / 255 - jnp.float32([0.5, 0.4, 0.3])) / jnp.float32(
        [0.2, 0.3, 0.4]
    )
    batch_stats, gradients = before.batch_stats, []
    for part in (slice(0, 8), slice(8, 16)):

        def loss(params, batch_stats=batch_stats, part=part):
            variables = {"params": params, "batch_stats": batch_stats}
            logits, updates = MODEL.apply(
                variables, images[part], train=True, mutable=["batch_stats"]
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"][part])
            return losses.mean(), updates["batch_stats"]

        gradient, batch_stats = jax.grad(loss, has_aux=True)(before.params)
        gradients.append(gradient)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *gradients)
    updates, _ = step_config.optimizer.update(mean, before.opt_state, before.params)
    params = optax.apply_updates(before.params, updates)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
        (after.params, after.batch_stats),
        (params, batch_stats),
    )


@pytest.mark.parametrize("name", ["loss", "learning_rate", "nonfinite", "steps"])
def test_metrics_with_names_of_the_step_are_refused(batch, name):
    class Own(Task):
        def training_loss(self, outputs, prepared):
            loss, metrics = super().training_loss(outputs, prepared)
            return loss, metrics | {name: loss}

    fields = {field: getattr(TASK, field) for field in ("loss", "eval_loss", "metrics")}
    step_config = make_step_config().on_one_device()
    step_config = dataclasses.replace(step_config, task=Own(**fields))
    state = create_state(step_config, (12, 12, 3))
    with pytest.raises(UsageError, match=f"returns a metric '{name}'.*choose another name"):
        jax.eval_shape(partial(train_step, step_config), state, batch)
    with pytest.raises(ValueError, match=name):
        register_metric(name, top1)


def test_ema_matches_its_closed_form(batch):
    step_config = make_step_config(ema_decay=0.15)  # less than the 2 / 11 of step 2
    states = [run_step(step_config, batch, count=count)[1] for count in (1, 2, 3)]
    before = create_state(step_config, (12, 12, 3))
    average = {"params": before.params, "batch_stats": before.batch_stats}
    for n, state in enumerate(states, 1):
        old = min(0.15, n / (n + 9))
        new = {"params": state.params, "batch_stats": state.batch_stats}
        average = jax.tree.map(lambda a, b, old=old: old * a + (1 - old) * b, average, new)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.ema, average
        )
    assert run_step(make_step_config(), batch)[1].ema == {}


def test_evaluation_uses_the_ema_or_the_raw_weights(batch):
    _, state, _ = run_step(make_step_config(ema_decay=0.9), batch, count=3)
    batch = batch | {"valid": np.ones(16, bool), "bad": np.zeros(16, bool)}
    losses = {}
    for ema in (True, False):
        step_config = make_step_config(ema_decay=0.9, evaluate_ema=ema)
        devices = Pmap(jax.local_devices()[:1])
        step = devices.evaluate(
            lambda s, data, batch, step_config=step_config: eval_step(step_config, s, batch)
        )
        sums = devices.fetch(step(devices.replicate(state), {}, devices.split(batch)))
        variables = state.ema if ema else {"params": state.params, "batch_stats": state.batch_stats}
        images = (batch["image"] / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
        logits = MODEL.apply(variables, jnp.float32(images))
        expected = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).sum()
        losses[ema] = float(sums["loss"])
        np.testing.assert_allclose(sums["loss"], expected, rtol=1e-5)
    assert losses[True] != losses[False]


def test_frozen_modules_keep_every_bit_and_have_no_optimizer_state(batch):
    """On three devices, since their mean of equal numbers may round."""
    batch = {name: array[:15] for name, array in batch.items()}
    frozen = ("stage1_block1", "stem_conv", "stem_norm")
    model = MODEL.clone(frozen=frozen)
    rng = np.random.default_rng(0)
    variables = init_variables(model, 0, (12, 12, 3))
    variables = jax.tree.map(  # numbers that use all bits of the mantissa
        lambda leaf: (leaf + rng.uniform(0.1, 0.2, leaf.shape)).astype(np.float32), variables
    )
    step_config = make_step_config(model=model, frozen=frozen, ema_decay=0.5)
    devices = Pmap(jax.local_devices()[:3])
    state = create_state(step_config, (12, 12, 3), variables)
    momentum = jax.tree_util.tree_leaves_with_path(state.opt_state)
    assert not [path for path, _ in momentum if any(name in str(path) for name in frozen)]
    step = devices.train(lambda state, data, batch: train_step(step_config, state, batch))
    after = devices.replicate(state)
    for _ in range(2):
        after, _ = step(after, {}, devices.split(batch))
    after = devices.fetch(after)
    for collection in ("params", "batch_stats"):
        for one in (getattr(after, collection), after.ema[collection]):
            for name, module in one.items():
                leaves = zip(
                    jax.tree.leaves(module),
                    jax.tree.leaves(variables[collection][name]),
                    strict=True,
                )
                same = [np.array_equal(*pair) for pair in leaves]
                assert all(same) if name in frozen else not any(same), (collection, name)


def test_frozen_batch_norm_uses_running_statistics(batch):
    """Frozen modules compute the same in training and in evaluation."""
    frozen = ("stage1_block1", "stem_conv", "stem_norm")
    images = jnp.float32(batch["image"]) / 255
    variables = init_variables(MODEL, 0, (12, 12, 3))
    train = partial(MODEL.clone(frozen=frozen).apply, variables, images, mutable=["batch_stats"])
    maps, updates = train(train=True, method="endpoints")
    expected = MODEL.apply(variables, images, method="endpoints")
    np.testing.assert_array_equal(maps["stage1"], expected["stage1"])
    assert not np.allclose(maps["stage2"], expected["stage2"])
    same = jax.tree.map(np.array_equal, updates["batch_stats"], variables["batch_stats"])
    assert all(jax.tree.leaves([same[name] for name in ("stem_norm", "stage1_block1")]))
    assert not any(jax.tree.leaves(same["stage2_block1"]))


def test_dropout_and_stochastic_depth_depend_on_the_step(batch):
    step_config = make_step_config(model=MODEL.clone(drop_path=0.5, dropout=0.5))
    losses = []
    for start in (0, 1, 1):
        losses.append(float(run_step(step_config, batch, start=start)[2]["loss"]))
    assert losses[0] != losses[1] and losses[1] == losses[2]


def test_devices_drop_different_features(batch):
    """With the same images on all devices, the same dropout would give the loss of one."""
    step_config = make_step_config(model=GROUPS.clone(dropout=0.5))
    quarter = {name: array[:4] for name, array in batch.items()}
    alike = {name: np.concatenate([array] * 4) for name, array in quarter.items()}
    _, _, first = run_step(step_config, quarter)
    _, _, mean = run_step(step_config, alike, devices=4)
    assert abs(first["loss"] - mean["loss"]) > 1e-3

    without = make_step_config(model=GROUPS)
    _, _, first = run_step(without, quarter)
    _, _, mean = run_step(without, alike, devices=4)
    np.testing.assert_allclose(first["loss"], mean["loss"], rtol=1e-5)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_micro_batches_have_their_own_images_statistics_and_keys(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    images, labels = jnp.arange(12.0).reshape(12, 1), jnp.arange(12)
    traced = []

    def compute(records, images, targets, key):
        """Record the calls in place of batch statistics."""
        traced.append(key)
        row = jnp.stack([images[0, 0], targets.label[-1], jax.random.uniform(key)])
        return records.at[(records[:, 0] >= 0).sum()].set(row), {"mean": images.mean()}

    records, result = accumulate_gradients(
        compute, 4, jnp.full((4, 3), -1.0), images, Targets(labels), jax.random.key(3)
    )
    assert records[:, 0].tolist() == [0, 3, 6, 9]
    assert records[:, 1].tolist() == [2, 5, 8, 11]
    assert len(np.unique(records[:, 2])) == 4
    assert result == {"mean": 5.5}
    # The shapes take one call; a scan compiles one micro-batch instead of all four.
    assert (len(traced) - 1 == 4) == (backend == "cpu")


@pytest.mark.parametrize("skip", [False, True])
def test_nonfinite_gradient_with_a_finite_loss_is_detected(batch, skip):
    """In one logit of one example of one device: the root of zero has an infinite slope."""

    def loss(logits, targets):
        broken = (jnp.arange(len(logits)) == 2) & (jax.lax.axis_index(AXIS) == 1)
        return jnp.sqrt(jnp.where(broken, 0 * logits[:, 3], 2.25))

    # The gradients of all other modules would have no finite value.
    frozen = tuple(name for name in parameter_shapes(MODEL, (64, 64, 3)) if name != "head")
    step_config = make_step_config(loss=loss, skip_nonfinite=skip, ema_decay=0.5, frozen=frozen)
    before, after, metrics = run_step(step_config, batch, devices=2)
    assert metrics["nonfinite"] == 1
    if skip:
        assert metrics["loss"] == metrics["top1"] == 0
        jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
        jax.tree.map(np.testing.assert_array_equal, after.ema, before.ema)
    else:
        np.testing.assert_allclose(metrics["loss"], 1.5 * 15 / 16, rtol=1e-6)


def test_finite_steps_are_not_skipped(batch):
    learned = [
        run_step(make_step_config(skip_nonfinite=skip, ema_decay=0.5), batch, count=2)
        for skip in (False, True)
    ]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)  # noqa: E731
    jax.tree.map(close, *[(after, metrics) for _, after, metrics in learned])


def test_skipped_step_only_advances_step_and_schedule(batch):
    def broken(logits, targets):
        return logits.sum(-1) * jnp.nan

    step_config = make_step_config(
        loss=broken, skip_nonfinite=True, optimizer=optax.sgd(lambda count: 0.1 / (1 + count), 0.9)
    )
    before, after, metrics = run_step(step_config, batch, count=2)
    counts = [
        leaf.count
        for leaf in jax.tree.leaves(
            after.opt_state, is_leaf=lambda node: isinstance(node, optax.ScaleByScheduleState)
        )
        if isinstance(leaf, optax.ScaleByScheduleState)
    ]
    assert (after.step, counts, metrics["nonfinite"]) == (2, [2], 1)
    for name in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(after.opt_state[0]))  # momentum
