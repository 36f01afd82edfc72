"""The effect of each field of ResNet, on small networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from flax_resnet import ResNet, create_model, feature_info, init_variables
from flax_resnet.attention import EfficientChannelAttention, kernel_size
from flax_resnet.downsampling import blur_pool
from flax_resnet.shortcuts import Shortcut
from tests.flax_resnet.representatives import representatives


def random_images(size=16, batch=2, channels=3):
    return jax.random.normal(jax.random.key(1), (batch, size, size, channels))


@pytest.mark.parametrize("name", representatives())
def test_feature_info_matches_endpoints(name):
    model = create_model(name, stage_sizes=(1, 2, 1))
    images = jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method="endpoints"), variables, images)
    assert {stage: leaf.shape for stage, leaf in maps.items()} == {
        stage: (1, 64 // feature.stride, 64 // feature.stride, feature.channels)
        for stage, feature in model.feature_info.items()
    }


@pytest.mark.parametrize("name", representatives())
def test_every_variant_is_differentiable(name):
    model = create_model(name, stage_sizes=(1, 1))
    images = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def loss(params, variables):
        variables = variables | {"params": params}
        logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return logits.sum()

    gradient = jax.eval_shape(jax.grad(loss), variables["params"], variables)
    assert jax.tree.structure(gradient) == jax.tree.structure(variables["params"])


def test_feature_info_of_a_name():
    info = feature_info("resnet50")
    assert list(info) == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert [feature.stride for feature in info.values()] == [4, 4, 8, 16, 32]
    assert info["stage4"].channels == 2048
    # Keras's V2 has the stride in a stage's last block.
    assert [feature.stride for feature in feature_info("resnet50v2").values()] == [4, 8, 16, 32, 32]


@pytest.mark.parametrize(
    "fields",
    [
        dict(block="residual"),
        dict(stride_conv="1x1", shortcut="zero_pad"),
        dict(stride_block="last"),
        dict(shortcut="average_pool"),
        dict(shortcut="projection_3x3", block="residual"),
        dict(antialias="blur"),
        dict(antialias="average", block="residual", preactivation=True),
    ],
)
def test_dilated_maps_contain_the_strided_ones(fields):
    """Dilation also computes the positions that the strided network skips (à trous)."""
    model = ResNet((1, 2, 1), width=8, stem="cifar", num_classes=0, **fields)
    variables = init_variables(model, 0, (32, 32, 3))
    images = random_images(32)
    strided = model.apply(variables, images, method="endpoints")
    for output_stride in (1, 2):
        dilated = model.clone(output_stride=output_stride)
        maps = dilated.apply(variables, images, method="endpoints")
        for stage, feature in model.feature_info.items():
            step = feature.stride // dilated.feature_info[stage].stride
            assert dilated.feature_info[stage].stride == min(feature.stride, output_stride)
            np.testing.assert_allclose(maps[stage][:, ::step, ::step], strided[stage], atol=2e-4)


def test_without_classes_the_output_is_the_pooled_features():
    model = create_model("resnet20", num_classes=0)
    variables = init_variables(model, 0, (16, 16, 3))
    assert "head" not in variables["params"]
    maps = model.apply(variables, random_images(), method="endpoints")
    features = model.apply(variables, random_images())
    assert features.shape == (2, 64) and features.dtype == jnp.float32
    np.testing.assert_allclose(features, maps["stage3"].mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("letter", "shortcut", "parameters"),
    # Section 3.3: A has no parameters, B has three projections, C has one in each of the 16 blocks.
    [("A", "zero_pad", 0), ("B", "projection", 3), ("C", "projection_all", 16)],
)
def test_shortcut_options_of_the_paper(letter, shortcut, parameters):
    model = create_model("resnet34", shortcut=letter)
    assert model.shortcut == shortcut
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    blocks = [module for name, module in shapes["params"].items() if "block" in name]
    assert sum("shortcut" in block for block in blocks) == parameters


def test_average_pool_shortcut_at_the_edge_of_odd_maps():
    shortcut = Shortcut("average_pool", features=1, stride=2, norm=None)
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    variables = {"params": {"conv": {"kernel": jnp.ones((1, 1, 1, 1))}}}
    # The windows of the last column and row have fewer pixels.
    np.testing.assert_allclose(shortcut.apply(variables, x)[0, ..., 0], [[2, 3.5], [6.5, 8]])


def test_projection_channels_subsamples_if_only_the_stride_changes():
    shortcut = Shortcut("projection_channels", features=3, stride=2)
    x = random_images(5)
    np.testing.assert_array_equal(shortcut.apply({}, x), x[:, ::2, ::2])


@pytest.mark.parametrize("preactivation", [False, True])
def test_plain_networks_have_no_shortcut(preactivation):
    model = create_model("plain20", preactivation=preactivation, zero_init_last=True)
    variables = init_variables(model, 0, (16, 16, 3))
    maps = model.apply(variables, random_images(), method="endpoints")
    assert not maps["stage1"].any()


def test_first_preactivation_shortcut_is_activated():
    """arXiv:1603.05027, section 3: the first unit is activated before both branches."""
    model = ResNet(
        (2,), "residual", 8, stem="cifar", preactivation=True, zero_init_last=True, num_classes=0
    )
    variables = init_variables(model, 0, (8, 8, 3))
    maps = model.apply(variables, random_images(8), method="endpoints")
    # All residual branches are zero, so the second block is the identity.
    assert maps["stem"].min() < 0
    np.testing.assert_allclose(maps["stage1"], jax.nn.relu(maps["stem"]), atol=1e-4)


def test_identity_of_the_first_stage_may_stay_raw():
    fields = dict(stem="cifar", preactivation=True, zero_init_last=True, activate_identity=False)
    model = ResNet((1, 1), "residual", 8, num_classes=0, **fields)
    variables = init_variables(model, 0, (8, 8, 3))
    maps = model.apply(variables, random_images(8), method="endpoints")
    np.testing.assert_array_equal(maps["stage1"], maps["stem"])
    # A projection follows norm and ReLU.
    kernel = variables["params"]["stage2_block1"]["shortcut"]["conv"]["kernel"][0, 0]
    expected = jax.nn.relu(maps["stem"])[:, ::2, ::2] @ kernel
    np.testing.assert_allclose(maps["stage2"], expected, atol=1e-4)


def test_pool_of_a_preactivation_stem_pads_with_zeros_or_nothing():
    """Where a window at the edge has only negative pixels, a padded zero is its maximum."""
    model = ResNet((1,), "residual", 8, preactivation=True, num_classes=0)
    variables, images = init_variables(model, 0, (32, 32, 3)), 2 + random_images(32)
    kernel = variables["params"]["stem_conv"]["kernel"]
    variables["params"]["stem_conv"]["kernel"] = kernel - kernel.mean() - 0.02
    padded, ignored = (
        model.clone(zero_pad_pool=zeros).apply(variables, images, method="endpoints")
        for zeros in (True, False)
    )
    inner = np.s_[:, 1:, 1:]  # the 3×3 windows with stride 2 reach over two of the edges
    np.testing.assert_array_equal(padded["stem"][inner], ignored["stem"][inner])
    edge = ignored["stem"][:, 0]
    assert (edge < 0).any()
    np.testing.assert_array_equal(padded["stem"][:, 0], np.maximum(edge, 0))


def blurred(x, stride):
    """Blur by SciPy: its mode "mirror" is PyTorch's "reflect"."""
    for axis in (1, 2):
        x = ndimage.correlate1d(x, [0.25, 0.5, 0.25], axis, mode="mirror")
    return x[:, ::stride, ::stride]


@pytest.mark.parametrize("size", [(7, 4), (2, 2), (5, 1)])
def test_blur_pool_matches_scipy(size):
    x = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)
    np.testing.assert_allclose(blur_pool(x, 2), blurred(x, 2), atol=1e-6)
    np.testing.assert_allclose(blur_pool(x, 1), blurred(x, 1), atol=1e-6)


@pytest.mark.parametrize("size", [9, 6, 3, 2])
def test_dilated_blur_contains_the_strided_one(size):
    x = np.random.default_rng(0).standard_normal((1, size, size, 2)).astype(np.float32)
    for dilation in (1, 2, 4):
        dilated = blur_pool(x, 1, dilation)
        assert dilated.shape == x.shape
        apart = blur_pool(x[:, ::dilation, ::dilation], 1)
        np.testing.assert_allclose(dilated[:, ::dilation, ::dilation], apart, atol=1e-6)


def test_antialiased_network_moves_less_under_a_shift_of_one_pixel():
    """The purpose of the filter (arXiv:1904.11486, section 4)."""
    plain = ResNet((1, 1, 1), "residual", 16, stem="cifar", num_classes=0)
    variables = init_variables(plain, 0, (32, 32, 3))
    images = np.pad(random_images(32), ((0, 0), (0, 1), (0, 0), (0, 0)), mode="edge")
    change = {}
    for filter in (None, "blur", "average"):
        model = plain.clone(antialias=filter)
        first, second = (model.apply(variables, x) for x in (images[:, :-1], images[:, 1:]))
        change[filter] = float(abs(first - second).mean() / first.std())
    assert change["blur"] < 0.8 * change[None] and change["average"] < 0.8 * change[None]


def test_eca_gates_channels_by_their_neighbors():
    model = ResNet((1,), "residual", 16, stem="cifar", eca=True, num_classes=0, zero_init_last=True)
    variables = init_variables(model, 0, (8, 8, 3))
    assert variables["params"]["stage1_block1"]["eca"]["conv"]["kernel"].shape == (3, 1, 1)
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 16)).astype(np.float32)
    kernel = np.float32([0.5, -1, 2])
    module = EfficientChannelAttention()
    y = module.apply({"params": {"conv": {"kernel": kernel.reshape(3, 1, 1)}}}, x)
    sums = ndimage.correlate1d(x.mean((1, 2)), kernel, axis=1, mode="constant")
    np.testing.assert_allclose(y, x / (1 + np.exp(-sums))[:, None, None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "size"), [(16, 3), (64, 3), (128, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_kernel_size_of_eca_grows_with_the_channels(channels, size):
    """As timm's rule has it: the truncated (log2 C + 1) / 2, raised to an odd number."""
    assert kernel_size(channels) == size


def test_first_convolution_may_be_reduced():
    model = ResNet((1,), width=32, reduce_first=2, num_classes=0)
    block = jax.eval_shape(model.init, jax.random.key(0), random_images())["params"][
        "stage1_block1"
    ]
    shapes = {name: block[name]["kernel"].shape for name in ("conv1", "conv2", "conv3")}
    assert shapes == {"conv1": (1, 1, 32, 16), "conv2": (3, 3, 16, 32), "conv3": (1, 1, 32, 128)}


@pytest.mark.parametrize("preactivation", [False, True])
def test_stochastic_depth_drops_blocks_per_example(preactivation):
    fields = dict(block="residual", width=8, stem="cifar", preactivation=preactivation)
    model = ResNet((2,), num_classes=0, drop_path=0.5, **fields)
    variables = init_variables(model, 0, (8, 8, 3))
    images = random_images(8, batch=16)

    def stage(model):
        maps, _ = model.apply(
            variables,
            images,
            train=True,
            method="endpoints",
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        return maps["stage1"]

    # The first block's rate is 0, the second's 0.5: a residual branch that is kept is doubled.
    always = stage(model.clone(drop_path=0.0))
    first = stage(model.clone(drop_path=0.0, stage_sizes=(1,)))
    kept = stage(model)
    dropped = np.array([np.allclose(a, b, atol=1e-5) for a, b in zip(kept, first, strict=True)])
    assert 0 < dropped.sum() < 16
    if preactivation:
        np.testing.assert_allclose(kept[~dropped], (2 * always - first)[~dropped], atol=1e-4)
    evaluated = model.apply(variables, images)
    np.testing.assert_array_equal(evaluated, model.clone(drop_path=0.0).apply(variables, images))


@pytest.mark.parametrize("field", ["dropout", "block_dropout"])
def test_dropout_applies_only_in_training_and_depends_on_its_key(field):
    model = create_model("wrn16_8", width=16, num_classes=4, **{field: 0.3})
    variables = init_variables(model, 0, (8, 8, 3))

    def train(seed):
        logits, _ = model.apply(
            variables,
            random_images(8),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(seed)},
        )
        return logits

    np.testing.assert_array_equal(train(0), train(0))
    assert not np.allclose(train(0), train(1))
    without = model.clone(**{field: 0.0})
    np.testing.assert_array_equal(
        model.apply(variables, random_images(8)), without.apply(variables, random_images(8))
    )


def test_group_norm_has_no_statistics_and_the_same_output_in_training():
    model = ResNet((1,), width=32, norm="group", num_classes=4)
    variables = init_variables(model, 0, (32, 32, 3))
    assert set(variables) == {"params"}
    images = random_images(32)
    trained, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
    assert not updates
    np.testing.assert_array_equal(trained, model.apply(variables, images))


def test_weight_standardization_removes_mean_and_scale_of_the_weights():
    model = ResNet((1,), width=8, weight_standardization=True, num_classes=4)
    variables = init_variables(model, 0, (32, 32, 3))
    images = random_images(32)

    def rescale(path, leaf):
        return 3 * leaf + 1 if path[-1].key == "kernel" and leaf.ndim == 4 else leaf

    rescaled = jax.tree_util.tree_map_with_path(rescale, variables)
    np.testing.assert_allclose(
        model.apply(variables, images), model.apply(rescaled, images), atol=1e-4
    )


def test_squeeze_and_excitation_gates_channels():
    model = ResNet((1,), "residual", 16, stem="cifar", se_ratio=0.25, num_classes=0)
    variables = init_variables(model, 0, (8, 8, 3))
    se = variables["params"]["stage1_block1"]["se"]
    assert se["reduce"]["kernel"].shape == (16, 8)  # a quarter, but at least 8
    closed = jax.tree.map(np.copy, variables)
    closed["params"]["stage1_block1"]["se"]["expand"]["bias"][:] = -100.0
    maps = model.apply(closed, random_images(8), method="endpoints")
    np.testing.assert_allclose(maps["stage1"], maps["stem"], atol=1e-6)


def test_initial_values_of_every_variant_are_finite_and_complete():
    for name in representatives():
        model = create_model(name, stage_sizes=(1, 1))
        initial = init_variables(model, 0, (32, 32, 3))
        expected = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        assert jax.tree.structure(initial) == jax.tree.structure(expected), name
        for leaf in jax.tree.leaves(initial):
            assert leaf.dtype == np.float32 and np.isfinite(leaf).all(), name
