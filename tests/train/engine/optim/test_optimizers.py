"""Optimizers against the papers' formulas; test_optimizers_peers.py compares with PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnet import create_model
from train.config.loading import default_config
from train.engine.optim import optimizers
from train.engine.optim.optimizers import make_optimizer
from train.runtime.errors import UsageError

RATE = 0.05
DECAY = 0.1
SHAPES = {
    "stem": {"kernel": (3, 4), "bias": (4,), "scale": (4,)},
    "head": {"kernel": (4, 2), "bias": (2,)},
}


def optimizer_config(**keys):
    optimizer = default_config().optimizer
    optimizer.update({"weight_decay": DECAY} | keys)
    return optimizer


def random_params(seed):
    rng = np.random.default_rng(seed)
    return {m: {n: rng.normal(size=s) for n, s in leaves.items()} for m, leaves in SHAPES.items()}


def train(params, steps=4, scale=1.0, schedule=lambda step: RATE, **keys):
    """Take steps with random gradients in float64; return the parameters and the state."""
    with jax.enable_x64(True):
        optimizer = make_optimizer(optimizer_config(**keys), schedule)
        state = optimizer.init(params)
        for step in range(1, steps + 1):
            gradients = jax.tree.map(lambda g: scale * g, random_params(step))
            gradients = {module: gradients[module] for module in params}
            updates, state = optimizer.update(gradients, state, params)
            params = jax.tree.map(np.add, params, updates)
        return params, state


def check(update, start=random_params, **keys):
    """Compare :func:`train`, from the parameters ``start(0)``, with a formula.

    ``update(w, gradient, memory, t, decay, adapts)`` returns what step t = 1, 2, … subtracts from
    the leaf ``w``. ``memory`` is a dictionary for its state, ``decay`` the weight decay of the
    leaf, and ``adapts`` whether LARS and LAMB adapt its learning rate.
    """
    result, _ = train(start(0), **keys)
    for module, leaves in SHAPES.items():
        for name in leaves:
            w, memory = start(0)[module][name], {}
            kernel = name == "kernel"
            decay = DECAY if kernel or keys.get("decay_norm_and_bias") else 0.0
            for t in range(1, 5):
                w = w - update(w, random_params(t)[module][name], memory, t, decay, kernel)
            np.testing.assert_allclose(result[module][name], w, rtol=1e-6, err_msg=name)


def length(x):
    return np.sqrt(np.sum(np.square(x)))


def adam(g, memory, t, b1=0.9, b2=0.999, epsilon=1e-8, nesterov=False):
    """Algorithm 1 of arXiv:1412.6980, and Dozat 2016, algorithm 2, with a constant momentum."""
    m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g * g
    m_hat = m / (1 - b1**t)
    if nesterov:
        m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return m_hat / (np.sqrt(v / (1 - b2**t)) + epsilon)


# Formulas ----------------------------------------------------------------------------------


@pytest.mark.parametrize("decay_norm_and_bias", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_momentum(nesterov, decay_norm_and_bias):
    def update(w, g, memory, t, decay, adapts):
        g = g + decay * w
        v = memory["v"] = 0.8 * memory.get("v", 0.0) + g
        return RATE * (g + 0.8 * v if nesterov else v)

    check(update, nesterov=nesterov, decay_norm_and_bias=decay_norm_and_bias, momentum=0.8)


@pytest.mark.parametrize("nesterov", [False, True])
def test_adam_and_nadam_with_coupled_decay(nesterov):
    def update(w, g, memory, t, decay, adapts):
        return RATE * adam(g + decay * w, memory, t, nesterov=nesterov)

    check(update, name="adam", nesterov=nesterov)


def test_adamw_with_decoupled_decay():
    def update(w, g, memory, t, decay, adapts):
        return RATE * (adam(g, memory, t, 0.7, 0.9, 1e-3) + decay * w)

    check(update, name="adamw", b1=0.7, b2=0.9, eps=1e-3)


@pytest.mark.parametrize("weight_decay", [0.0, DECAY])
def test_lars_matches_the_paper(weight_decay):
    """Algorithm 1 of arXiv:1708.03888."""

    def update(w, g, memory, t, decay, adapts):
        decay = decay if weight_decay else 0.0
        local = 0.02 * length(w) / (length(g) + decay * length(w)) if adapts else 1.0
        v = memory["v"] = 0.8 * memory.get("v", 0.0) + RATE * local * (g + decay * w)
        return v

    check(update, name="lars", momentum=0.8, trust_coefficient=0.02, weight_decay=weight_decay)


def test_lamb_matches_the_paper():
    """Algorithm 2 of arXiv:1904.00962, with the identity as φ."""

    def update(w, g, memory, t, decay, adapts):
        r = adam(g, memory, t) + decay * w
        return RATE * (length(w) / length(r) if adapts else 1.0) * r

    check(update, name="lamb")


def zero_params(seed):
    return jax.tree.map(np.zeros_like, random_params(seed))


def test_parameters_at_zero_start_at_the_global_rate():
    """Where the norm of a kernel is 0, LARS and LAMB do not adapt: |w| / |g| would stop it."""

    def lars(w, g, memory, t, decay, adapts):
        adapts = adapts and t > 1
        local = 0.02 * length(w) / (length(g) + decay * length(w)) if adapts else 1.0
        v = memory["v"] = 0.8 * memory.get("v", 0.0) + RATE * local * (g + decay * w)
        return v

    def lamb(w, g, memory, t, decay, adapts):
        r = adam(g, memory, t) + decay * w
        return RATE * (length(w) / length(r) if adapts and t > 1 else 1.0) * r

    check(lars, zero_params, name="lars", momentum=0.8, trust_coefficient=0.02)
    check(lamb, zero_params, name="lamb")


def test_lars_of_a_gradient_of_zero_decays_at_the_global_rate():
    """The paper's local rate would be the trust coefficient / decay, a step of any length."""
    result, _ = train(random_params(0), steps=1, scale=0.0, name="lars", trust_coefficient=7.0)
    for name, factor in (("kernel", 1 - RATE * DECAY), ("bias", 1.0)):
        expected = factor * random_params(0)["head"][name]
        np.testing.assert_allclose(result["head"][name], expected, rtol=1e-9)
    result, _ = train(zero_params(0), steps=1, scale=0.0, name="lars")
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(result))


def test_lars_decays_norms_and_biases_on_request():
    def update(w, g, memory, t, decay, adapts):
        local = 0.02 * length(w) / (length(g) + decay * length(w)) if adapts else 1.0
        return RATE * local * (g + decay * w)

    keys = {"name": "lars", "momentum": 0.0, "trust_coefficient": 0.02}
    check(update, decay_norm_and_bias=True, **keys)
    check(update, **keys)


def test_matches_optax_optimizers():
    same = {
        "sgd": optax.sgd(RATE, 0.9),
        "adam": optax.adam(RATE),
        "adamw": optax.adamw(RATE, weight_decay=DECAY, mask=optimizers.kernels),
        # Without decay, since Optax differs from the paper with it.
        "lars": optax.lars(RATE, 0.0, trust_ratio_mask=optimizers.kernels),
    }
    for name, theirs in same.items():
        keys = {} if name == "adamw" else {"weight_decay": 0.0}
        result, _ = train(random_params(0), name=name, **keys)
        with jax.enable_x64(True):
            params = random_params(0)
            state = theirs.init(params)
            for step in range(1, 5):
                updates, state = theirs.update(random_params(step), state, params)
                params = jax.tree.map(np.add, params, updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), result, params)


def test_schedule_is_applied():
    result, _ = train(
        random_params(0), momentum=0.0, weight_decay=0.0, schedule=lambda step: 0.1 * step
    )
    expected = random_params(0)["head"]["bias"]
    for t in (1, 2, 3, 4):
        expected = expected - 0.1 * (t - 1) * random_params(t)["head"]["bias"]
    np.testing.assert_allclose(result["head"]["bias"], expected, rtol=1e-6)


# Clipping and the backbone's learning rate --------------------------------------------------


def test_gradients_are_clipped_by_global_norm():
    plain = {"momentum": 0.0, "weight_decay": 0.0, "steps": 1}
    whole = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(random_params(1))))
    for limit, factor in ((0.5, 0.5 / whole), (1.01 * whole, 1.0), (0.0, 1.0)):
        result, _ = train(random_params(0), grad_clip_norm=limit, **plain)
        for module, name in (("stem", "kernel"), ("head", "bias")):
            expected = (
                random_params(0)[module][name] - RATE * factor * random_params(1)[module][name]
            )
            np.testing.assert_allclose(result[module][name], expected, rtol=1e-9)


def test_weight_decay_is_not_clipped():
    result, _ = train(random_params(0), grad_clip_norm=1e-9, momentum=0.0, steps=1)
    expected = random_params(0)["stem"]["kernel"] * (1 - RATE * DECAY)
    np.testing.assert_allclose(result["stem"]["kernel"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars", "lamb"])
def test_backbone_lr_scale_equals_a_run_at_that_rate(name):
    result, state = train(random_params(0), name=name, backbone_lr_scale=0.1)
    slow, _ = train(random_params(0), name=name, schedule=lambda step: 0.1 * RATE)
    usual, usual_state = train(random_params(0), name=name)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9),
        result,
        {"stem": slow["stem"], "head": usual["head"]},
    )
    size, usual_size = (sum(x.size for x in jax.tree.leaves(s)) for s in (state, usual_state))
    assert size == usual_size  # no additional state


# Parameters of networks ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars", "lamb"])
def test_part_of_the_parameters_trains_as_in_the_whole(name):
    keys = {"name": name, "backbone_lr_scale": 0.5}
    whole, _ = train(random_params(0), **keys)
    for module in SHAPES:
        part, state = train({module: random_params(0)[module]}, **keys)
        jax.tree.map(np.testing.assert_array_equal, part, {module: whole[module]})
        slots = {"sgd": 1, "lars": 1}.get(name, 2)  # momentum; Adam's two
        taken = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)
        assert taken == slots * sum(leaf.size for leaf in part[module].values())
    assert train({}, grad_clip_norm=1.0, **keys)[0] == {}


@pytest.mark.parametrize(
    "name", ["resnet18", "seresnet50", "resnet20", "resnet50v2", "resnetv2_50x1_bit"]
)
def test_only_kernels_of_a_network_decay(name):
    model = create_model(name, num_classes=10)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    decays = jax.tree_util.tree_leaves_with_path(optimizers.kernels(params))
    assert {path[-1].key for path, decayed in decays if decayed} == {"kernel"}
    assert {path[-1].key for path, decayed in decays if not decayed} == {"scale", "bias"}
    # Everything outside the module named head is backbone.
    slow = jax.tree_util.tree_leaves_with_path(optimizers.backbone(params))
    fast = [jax.tree_util.keystr(path) for path, backbone in slow if not backbone]
    assert fast == ["['head']['bias']", "['head']['kernel']"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"nesterov": True, "momentum": 0.0}, "nesterov=True needs momentum"),
        ({"name": "lars", "nesterov": True, "momentum": 0.0}, "nesterov=True needs momentum"),
    ],
)
def test_conflicting_keys_are_usage_errors(keys, message):
    with pytest.raises(UsageError, match=message) as error:
        make_optimizer(optimizer_config(**keys), lambda step: RATE)
    assert "\n" not in str(error.value)
    make_optimizer(optimizer_config(name="adam", nesterov=True, momentum=0.0), lambda step: RATE)
