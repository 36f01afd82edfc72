"""The feature pyramid, the semantic head and resizing."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet import create_model
from flax_resnet.dense.pyramid import FeaturePyramid
from flax_resnet.dense.resizing import resize_bilinear, upsample_nearest
from tests.flax_resnet.peers import assert_close, peer, random_images, randomized
from tests.flax_resnet.torch_nets import from_torch, to_torch

SMALL = dict(
    stage_sizes=(1, 1, 1, 1), width=8, pyramid_channels=16, head_channels=8, head_norm="batch"
)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("before", "after"), [((9, 7), (65, 49)), ((5, 4), (9, 7)), ((9, 7), (4, 5))]
)
def test_bilinear_resizing_equals_pytorchs(before, after):
    torch = peer("torch")
    x = np.random.default_rng(0).standard_normal((2, *before, 3), np.float32)
    interpolate = torch.nn.functional.interpolate
    theirs = interpolate(to_torch(x), size=after, mode="bilinear", align_corners=False)
    assert_close(resize_bilinear(jnp.asarray(x), after), from_torch(theirs), "resized")


def test_bilinear_resizing_reproduces_a_plane_between_the_outer_centers():
    height, width = np.mgrid[:4, :6]
    plane = jnp.asarray(2.0 * height + 3.0 * width, jnp.float32)[None, :, :, None]
    large = resize_bilinear(plane, (12, 12))[0, :, :, 0]
    rows = np.clip((np.arange(12) + 0.5) / 3 - 0.5, 0, 3)
    columns = np.clip((np.arange(12) + 0.5) / 2 - 0.5, 0, 5)
    np.testing.assert_allclose(large, 2 * rows[:, None] + 3 * columns, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 5), (7, 9), (8, 10)])
def test_nearest_upsampling_repeats_pixels_and_crops(size):
    x = jnp.arange(20.0).reshape(1, 4, 5, 1)
    large = upsample_nearest(x, size)[0, :, :, 0]
    rows, columns = (np.arange(n) * before // n for n, before in zip(size, (4, 5), strict=True))
    np.testing.assert_array_equal(large, x[0, :, :, 0][rows][:, columns])


@pytest.mark.peer
def test_the_pyramid_equals_torchvisions():
    peer("torchvision")
    ops = importlib.import_module("torchvision.ops.feature_pyramid_network")
    rng, channels = np.random.default_rng(0), (8, 16, 24, 32)
    sizes = ((17, 13), (9, 7), (5, 4), (3, 2))  # odd, so that maps are cropped
    maps = {
        f"stage{n}": rng.standard_normal((2, *size, c), np.float32)
        for n, (size, c) in enumerate(zip(sizes, channels, strict=True), 1)
    }
    pyramid = FeaturePyramid(12)
    variables = pyramid.init(jax.random.key(0), maps)
    variables = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), variables)
    levels = pyramid.apply(variables, {"stem": maps["stage1"], **maps})

    torch, net = peer("torch"), ops.FeaturePyramidNetwork(list(channels), 12)
    kinds = {"lateral": "inner_blocks", "output": "layer_blocks"}
    state = {}
    for name, leaves in variables["params"].items():
        kind = kinds[name[:-1]]
        prefix = f"{kind}.{int(name[-1]) - 1}.0"
        state[f"{prefix}.weight"] = torch.from_numpy(leaves["kernel"].transpose(3, 2, 0, 1).copy())
        state[f"{prefix}.bias"] = torch.from_numpy(leaves["bias"])
    net.load_state_dict(state, strict=True)
    with torch.no_grad():
        theirs = net({name: to_torch(x) for name, x in maps.items()})
    assert list(levels) == list(theirs)
    for name, level in levels.items():
        assert_close(level, from_torch(theirs[name]), name)


def test_the_pyramid_takes_the_maps_of_endpoints():
    backbone = create_model("resnet50", num_classes=0, width=8, stage_sizes=(1, 1, 1, 1))
    images = jnp.zeros((2, 65, 49, 3))

    def levels(key):
        maps = backbone.init_with_output(key, images, method="endpoints")[0]
        return FeaturePyramid(16).init_with_output(key, maps)[0]

    shapes = {
        name: level.shape for name, level in jax.eval_shape(levels, jax.random.key(0)).items()
    }
    assert shapes == {
        "stage1": (2, 17, 13, 16),
        "stage2": (2, 9, 7, 16),
        "stage3": (2, 5, 4, 16),
        "stage4": (2, 3, 2, 16),
    }


def test_the_semantic_head_adds_every_level_at_the_finest_size():
    """Kirillov et al. 2019, figure 3, computed step by step from the head's own parameters."""
    model = create_model("semantic_fpn_resnet50", **SMALL, num_classes=3)
    variables = randomized(model, 65)
    images = random_images(65)[:, :, :49]
    head = {name: variables[name]["head"] for name in variables}
    maps = model.apply(variables, images, method="endpoints")
    levels = FeaturePyramid(16).apply({"params": head["params"]["pyramid"]}, maps)

    def layer(x, name):
        kernel = head["params"][name]["conv"]["kernel"]
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        norm, moments = head["params"][name]["norm"], head["batch_stats"][name]["norm"]
        x = (x - moments["mean"]) / np.sqrt(moments["var"] + 1e-5) * norm["scale"] + norm["bias"]
        return jax.nn.relu(x)

    def resize(x, size):
        return jax.image.resize(x, (2, *size, x.shape[-1]), "linear")

    sizes = [(17, 13), (9, 7), (5, 4), (3, 2)]
    total = layer(levels["stage1"], "stage1_layer1")
    for number in (2, 3, 4):
        x = levels[f"stage{number}"]
        for step, size in enumerate(reversed(sizes[: number - 1]), 1):
            x = resize(layer(x, f"stage{number}_layer{step}"), size)
        total += x
    classifier = head["params"]["classifier"]
    expected = resize(total @ classifier["kernel"][0, 0] + classifier["bias"], (65, 49))
    assert_close(model.apply(variables, images), expected, "logits")
