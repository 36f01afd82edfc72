"""Networks for segmentation give the same logits in ONNX Runtime and StableHLO as in JAX."""

import jax
import numpy as np
import pytest
from jax import export

from flax_resnet import create_model, fold_batch_norm, ops
from tests.flax_resnet.peers import randomized
from tests.train.export.onnx.conversion import BATCHES, kinds, run, to_onnx

HEIGHT, WIDTH = 33, 25  # odd, so that maps are rounded up and resized by odd ratios
SMALL = dict(stage_sizes=(1, 1, 1), width=8, num_classes=3)
NETWORKS = {
    "fcn_resnet50": SMALL | dict(output_stride=8, aux_head=True),
    "deeplabv3_resnet50": SMALL | dict(output_stride=8, head_channels=8, atrous_rates=(1, 2)),
    "semantic_fpn_resnet18": SMALL | dict(pyramid_channels=8, head_channels=32),
    "semantic_fpn_resnet50": SMALL
    | dict(backbone="resnet18", pyramid_channels=8, head_channels=8, head_norm="batch"),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """A network, its variables, images and their logits."""
    model = create_model(request.param, **NETWORKS[request.param])
    rng = np.random.default_rng(0)
    images = rng.standard_normal((sum(BATCHES), HEIGHT, WIDTH, 3), np.float32)
    variables = randomized(model, HEIGHT)
    with ops.use_xla_ops():
        logits = np.asarray(jax.jit(model.apply)(variables, images))
    assert logits.std(axis=(0, 1, 2)).min() > 0.01 * abs(logits).max()
    return model, variables, images, logits


def test_onnx_runtime_computes_the_logits_of_every_pixel(network):
    model, variables, images, logits = network
    if model.norm == "batch":
        model, variables = fold_batch_norm(model, variables)
    converted = to_onnx(lambda images: model.apply(variables, images), images.shape[1:])
    assert abs(run(converted, images) - logits).max() <= 1e-4 * abs(logits).max()
    if model.head != "semantic_fpn":  # it repeats pixels, which takes transposes
        assert kinds(converted).count("Transpose") == 2  # of the images and of the logits


def test_stablehlo_computes_the_logits_for_any_batch_size(network):
    model, variables, images, logits = network
    (batch,) = export.symbolic_shape("N")
    shape = jax.ShapeDtypeStruct((batch, *images.shape[1:]), images.dtype)
    with ops.use_xla_ops():
        exported = export.export(jax.jit(lambda images: model.apply(variables, images)))(shape)
    loaded = export.deserialize(exported.serialize())
    for part in (slice(0, 1), slice(1, 3)):
        difference = abs(np.asarray(loaded.call(images[part])) - logits[part]).max()
        assert difference <= 1e-4 * abs(logits).max()
