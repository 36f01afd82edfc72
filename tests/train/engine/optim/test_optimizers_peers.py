"""Schedules and optimizers against PyTorch."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tests.flax_resnet.peers import peer
from train.engine.optim.optimizers import make_optimizer
from train.engine.optim.schedules import make_schedule

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def torch():
    return peer("torch")


# Schedules ---------------------------------------------------------------------------------


def our_rates(count, **keys):
    """Return the learning rates of ``count`` steps, from keys of ``config.schedule``."""
    schedule = SimpleNamespace(
        **{
            "base_batch_size": 0,
            "warmup_epochs": 0.0,
            "warmup_steps": 0,
            "max_warmup_fraction": 0.25,
        }
        | {
            "milestones": (),
            "milestone_epochs": (),
            "milestone_steps": (),
            "end_lr_fraction": 0.0,
            "power": 1.0,
        }
        | keys
    )
    return jax.vmap(make_schedule(schedule, 10, count, 64))(np.arange(count))


def their_rates(torch, name, count, learning_rate, **keys):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=learning_rate)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **keys)
    result = []
    for step in range(count):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < count - 1:
            scheduler.step()
    return result


@pytest.mark.parametrize("count", [4, 20, 333])
@pytest.mark.parametrize("pct_start", [0.3, 0.42])
def test_one_cycle(torch, count, pct_start):
    keys = {"max_lr": 0.7, "total_steps": count, "pct_start": pct_start}
    theirs = their_rates(torch, "OneCycleLR", count, 0.1, **keys)
    ours = our_rates(count, name="one_cycle", learning_rate=0.7, pct_start=pct_start)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("ours", "name", "theirs"),
    [
        ({"name": "cosine"}, "CosineAnnealingLR", {"T_max": 100}),
        ({"name": "cosine", "end_lr_fraction": 0.25}, "CosineAnnealingLR",
         {"T_max": 100, "eta_min": 0.1}),
        ({"name": "polynomial"}, "LinearLR",
         {"total_iters": 100, "start_factor": 1.0, "end_factor": 0.0}),
        ({"name": "polynomial", "power": 2.0}, "PolynomialLR", {"total_iters": 100, "power": 2.0}),
        ({"name": "step", "milestone_steps": (30, 70), "gamma": 0.2}, "MultiStepLR",
         {"milestones": [30, 70], "gamma": 0.2}),
        ({"name": "constant", "warmup_steps": 20}, "LinearLR",
         {"total_iters": 19, "start_factor": 1 / 20}),
    ],
)  # fmt: skip
def test_schedules(torch, ours, name, theirs):
    expected = their_rates(torch, name, 100, 0.4, **theirs)
    result = our_rates(100, learning_rate=0.4, **ours)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-7)


# Optimizers --------------------------------------------------------------------------------

SHAPES = {"stem": {"kernel": (3, 4), "bias": (4,)}, "head": {"kernel": (4, 2), "bias": (2,)}}
PATHS = [(module, leaf) for module, leaves in SHAPES.items() for leaf in leaves]


def random_params(seed):
    rng = np.random.default_rng(seed)
    return {m: {n: rng.normal(size=s) for n, s in leaves.items()} for m, leaves in SHAPES.items()}


@pytest.mark.parametrize(
    ("ours", "name", "theirs"),
    [
        ({"name": "sgd"}, "SGD", {"momentum": 0.9}),
        ({"name": "sgd", "nesterov": True}, "SGD", {"momentum": 0.9, "nesterov": True}),
        ({"name": "sgd", "momentum": 0.0}, "SGD", {}),
        ({"name": "adam"}, "Adam", {}),
        ({"name": "adam", "b2": 0.9, "eps": 0.1}, "Adam", {"betas": (0.9, 0.9), "eps": 0.1}),
        ({"name": "adamw", "b1": 0.8}, "AdamW", {"betas": (0.8, 0.999)}),
        ({"name": "adamw", "decay_norm_and_bias": True}, "AdamW", {}),
        ({"name": "sgd", "grad_clip_norm": 0.5}, "SGD", {"momentum": 0.9}),
        ({"name": "sgd", "backbone_lr_scale": 0.1}, "SGD", {"momentum": 0.9}),
        ({"name": "adamw", "backbone_lr_scale": 0.1, "grad_clip_norm": 0.5}, "AdamW", {}),
    ],
)  # fmt: skip
def test_optimizers(torch, ours, name, theirs):
    rate, decay = 0.05, 0.1
    keys = SimpleNamespace(
        **{"momentum": 0.9, "nesterov": False, "b2": 0.999, "eps": 1e-8}
        | {"weight_decay": decay, "b1": 0.9, "decay_norm_and_bias": False}
        | {"trust_coefficient": 0.001, "grad_clip_norm": 0.0, "backbone_lr_scale": 1.0}
        | ours
    )
    params = random_params(0)
    tensors = {(m, n): torch.tensor(params[m][n], requires_grad=True) for m, n in PATHS}
    groups = [
        {
            "params": [tensor],
            "weight_decay": decay if leaf == "kernel" or keys.decay_norm_and_bias else 0.0,
            "lr": rate * (keys.backbone_lr_scale if module != "head" else 1),
        }
        for (module, leaf), tensor in tensors.items()
    ]
    optimizer = getattr(torch.optim, name)(groups, **theirs)

    with jax.enable_x64(True):
        transform = make_optimizer(keys, lambda step: rate)
        state = transform.init(params)
        for step in range(1, 5):
            gradients = random_params(step)
            updates, state = transform.update(gradients, state, params)
            params = jax.tree.map(np.add, params, updates)
            for (module, leaf), tensor in tensors.items():
                tensor.grad = torch.tensor(gradients[module][leaf])
            if keys.grad_clip_norm:
                torch.nn.utils.clip_grad_norm_(tensors.values(), keys.grad_clip_norm)
            optimizer.step()
    for (module, leaf), tensor in tensors.items():
        expected = tensor.detach().numpy()
        np.testing.assert_allclose(params[module][leaf], expected, rtol=1e-5, err_msg=leaf)
