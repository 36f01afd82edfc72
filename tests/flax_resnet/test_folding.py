"""Folding batch norm into the convolutions does not change the logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flax_resnet import create_model, fold_batch_norm
from tests.flax_resnet.peers import randomized

SMALL = dict(num_classes=5, stage_sizes=(1, 2), width=16)
NETS = {
    "residual": ("resnet18", dict(shortcut="projection_all")),
    "plain": ("plain20", {}),
    "squeeze, deep stem, average pool": ("resnetrs50", dict(se_ratio=0.25)),
    "grouped, wide": ("resnext50_32x4d", dict(width=16)),
    "biases, stride in the 1×1": ("resnet50_v1", dict(conv_bias="all")),
    "pre-activation with biases": ("resnet50v2", {}),
    "pre-activation, residual": ("wrn16_8", dict(stem_width=16)),
    "pre-activation, deep stem": ("resnet50v2", dict(stem="deep", conv_bias="none")),
    "attention, blurred strides, tiered stem": (
        "ecaresnet50t",
        dict(antialias="blur", stem_width=16),
    ),
    "3×3 shortcut, reduced": ("senet154", dict(stem_width=32, groups=4)),
    "standardized kernels": ("resnet18", dict(weight_standardization=True)),
}


def norms(params):
    """Return the names of the norms."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    return {path[-2].key for path, _ in paths if "norm" in path[-2].key}


@pytest.mark.parametrize("name", NETS)
def test_folded_network_has_the_same_logits(name):
    network, fields = NETS[name]
    model = create_model(network, **SMALL | fields)
    variables = randomized(model)
    images = np.random.default_rng(1).standard_normal((2, 32, 32, 3), np.float32)
    logits = model.apply(variables, images)
    folded, weights = fold_batch_norm(model, variables)
    assert set(weights) == {"params"}
    for leaf in jax.tree.leaves(weights):
        assert isinstance(leaf, np.ndarray) and leaf.dtype == np.float32
    folded_logits = folded.apply(weights, images)
    assert np.std(logits) > 1e-2
    np.testing.assert_allclose(folded_logits, logits, rtol=0, atol=1e-5 * np.abs(logits).max())
    assert norms(weights["params"]) == ({"norm1", "final_norm"} if model.preactivation else set())
    expected = jax.eval_shape(folded.init, jax.random.key(0), images)
    assert jax.tree.map(np.shape, weights) == jax.tree.map(np.shape, expected)


@pytest.mark.parametrize(
    ("norm", "name"), [("group", "'group'"), ("layer", "'layer'"), (nn.RMSNorm, "'RMSNorm'")]
)
def test_only_batch_norm_can_be_folded(norm, name):
    model = create_model("resnet50", norm=norm)
    with pytest.raises(ValueError, match=f"norm {name} cannot be folded.*only 'batch' can"):
        fold_batch_norm(model, {"params": {}})


def test_folded_network_cannot_be_trained():
    model = create_model("resnet20", norm="folded")
    images = jnp.zeros((1, 8, 8, 3))
    with pytest.raises(ValueError, match="cannot be trained; train the original network"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=True))
