"""Named networks: parameter counts, maps, dtypes and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet import ResNet, create_model, init_variables, list_models
from flax_resnet.dense.variants import DENSE
from flax_resnet.registry import MODELS

# torchvision's counts for 1,000 classes, timm's or Keras's for networks that only they have; for
# CIFAR those of implementations of the papers. No other library has resnet18v2, resnet34v2, the
# ImageNet plain networks and the zero-padded resnet110v2: their counts are derived from resnet18's
# minus its projections' norms, plus biases and the final norm, and from the residual networks'
# minus the projections.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet50_v1": 25_557_032,
    "resnet101_v1": 44_549_160,
    "resnet152_v1": 60_192_808,
    "resnet18v2": 11_690_600,
    "resnet34v2": 21_800_616,
    "resnet50v2": 25_568_360,
    "resnet101v2": 44_577_896,
    "resnet152v2": 60_236_904,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "seresnet50": 28_088_024,
    "resnet50d": 25_576_264,
    "resnet101d": 44_568_392,
    "resnetrs50": 35_691_912,
    "resnet50_gn": 25_557_032,
    "resnetv2_50x1_bit": 25_549_352,
    "resnet10t": 5_435_488,
    "resnet14t": 10_081_632,
    "resnet18d": 11_708_744,
    "resnet26": 15_995_176,
    "resnet26d": 16_014_408,
    "resnet26t": 16_011_872,
    "resnet34d": 21_816_904,
    "resnet50c": 25_576_264,
    "resnet50s": 25_680_808,
    "resnet50t": 25_573_728,
    "resnet101c": 44_568_392,
    "resnet101s": 44_672_936,
    "resnet152c": 60_212_040,
    "resnet152d": 60_212_040,
    "resnet152s": 60_316_584,
    "resnet200": 64_673_832,
    "resnet200d": 64_693_064,
    "resnext50d_32x4d": 25_048_136,
    "resnext101_32x4d": 44_177_704,
    "resnext101_32x16d": 194_026_792,
    "resnext101_32x32d": 468_530_472,
    "seresnet18": 11_779_624,
    "seresnet34": 21_960_416,
    "seresnet50t": 28_104_720,
    "seresnet101": 49_326_872,
    "seresnet152": 66_821_848,
    "seresnet152d": 66_841_080,
    "seresnet200d": 71_855_096,
    "seresnet269d": 113_672_760,
    "seresnext26d_32x4d": 16_809_512,
    "seresnext26t_32x4d": 16_806_976,
    "seresnext50_32x4d": 27_559_896,
    "seresnext101_32x4d": 48_955_416,
    "seresnext101_32x8d": 93_569_048,
    "seresnext101_64x4d": 88_232_984,
    "seresnext101d_32x8d": 93_588_280,
    "senet154": 115_088_984,
    "ecaresnet26t": 16_011_916,
    "ecaresnet50d": 25_576_350,
    "ecaresnet50t": 25_573_814,
    "ecaresnet101d": 44_568_563,
    "ecaresnet200d": 64_693_400,
    "ecaresnet269d": 102_093_077,
    "ecaresnetlight": 30_162_046,
    "ecaresnext26t_32x4d": 15_406_220,
    "ecaresnext50t_32x4d": 25_045_686,
    "resnetblur18": 11_689_512,
    "resnetblur50": 25_557_032,
    "resnetblur50d": 25_576_264,
    "resnetblur101d": 44_568_392,
    "resnetaa34d": 21_816_904,
    "resnetaa50": 25_557_032,
    "resnetaa50d": 25_576_264,
    "resnetaa101d": 44_568_392,
    "seresnetaa50d": 28_107_256,
    "seresnextaa101d_32x8d": 93_588_280,
    "seresnextaa201d_32x8d": 149_394_904,
    "resnetv2_18": 11_687_720,
    "resnetv2_18d": 11_706_952,
    "resnetv2_34": 21_795_880,
    "resnetv2_34d": 21_815_112,
    "resnetv2_50": 25_549_352,
    "resnetv2_50d": 25_568_584,
    "resnetv2_50d_gn": 25_568_584,
    "resnetv2_50t": 25_566_048,
    "resnetv2_101": 44_541_480,
    "resnetv2_101d": 44_560_712,
    "resnetv2_152": 60_185_128,
    "resnetv2_152d": 60_204_360,
    "resnetv2_50x3_bit": 217_319_080,
    "resnetv2_101x1_bit": 44_541_480,
    "resnetv2_101x3_bit": 387_934_888,
    "resnetv2_152x2_bit": 236_335_208,
    "resnetv2_152x4_bit": 936_533_224,
    "resnetrs101": 63_618_696,
    "resnetrs152": 86_621_576,
    "resnetrs200": 93_209_992,
    "resnetrs270": 129_861_448,
    "resnetrs350": 163_956_168,
    "resnetrs420": 191_891_656,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet1202": 19_421_274,
    "resnet110v2": 1_727_962,
    "resnet164v2": 1_703_258,
    "resnet1001v2": 10_327_706,
    "wrn16_8": 10_961_370,
    "wrn28_10": 36_479_194,
    "wrn40_2": 2_243_546,
    "plain18": 11_515_688,
    "plain34": 21_623_848,
    "plain20": 269_722,
    "plain32": 464_154,
    "plain44": 658_586,
    "plain56": 853_018,
}


# In millions. arXiv:1512.03385, table 6; arXiv:1605.07146, tables 4 and 5.
PUBLISHED = {
    "resnet20": "0.27",
    "resnet32": "0.46",
    "resnet44": "0.66",
    "resnet56": "0.85",
    "resnet110": "1.7",
    "resnet1202": "19.4",
    "resnet110v2": "1.7",
    "resnet164v2": "1.7",
    "wrn16_8": "11.0",
    "wrn28_10": "36.5",
    "wrn40_2": "2.2",
}


def abstract_variables(model, size=32):
    images = jnp.zeros((1, size, size, 3))
    return jax.eval_shape(model.init, jax.random.key(0), images)


def count(model, leaf=""):
    """Return the number of values in ``params``, or in the leaves with the given name.

    All further blocks of a stage have as many as the second, so deep networks need not be built.
    """
    sizes = model.stage_sizes
    two = model.clone(stage_sizes=(2,) * len(sizes))
    leaves = jax.tree_util.tree_flatten_with_path(abstract_variables(two)["params"])[0]
    further = {f"stage{stage}_block2": blocks - 1 for stage, blocks in enumerate(sizes, 1)}
    return sum(
        value.size * further.get(path[0].key, 1)
        for path, value in leaves
        if path[-1].key == leaf or not leaf
    )


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    assert count(create_model(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_match_papers(name):
    digits = len(PUBLISHED[name].partition(".")[2])
    assert f"{PARAMETERS[name] / 1e6:.{digits}f}" == PUBLISHED[name]


def test_published_count_of_resnet1001_excludes_norms():
    """arXiv:1603.05027 has 10.2 million for ResNet-1001: 10.18, and 10.33 with norms."""
    assert round(count(create_model("resnet1001v2"), "kernel") / 1e6, 1) == 10.2


def test_models_are_listed_by_pattern():
    assert list_models("resnet1[0-9]?_v1") == ["resnet101_v1", "resnet152_v1"]
    assert list_models("*next*64x4d") == ["resnext101_64x4d", "seresnext101_64x4d"]
    assert list_models("resnet18") == ["resnet18"]
    assert list_models("ResNet18") == []
    assert list_models("*") == list_models()


def test_every_listed_model_has_an_expected_count():
    ours = {name for name in list_models() if MODELS.owner(name) is None}
    assert ours == {*PARAMETERS, *DENSE}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet50_v1", 25_636_712),
        ("resnet101_v1", 44_707_176),
        ("resnet152_v1", 60_419_944),
        ("resnet50v2", 25_613_800),
        ("resnet101v2", 44_675_560),
        ("resnet152v2", 60_380_648),
    ],
)
def test_counts_with_running_statistics_match_keras(name, count):
    # Keras's v1 has biases before batch norm, which have no effect; in ours they are optional.
    biases = dict(conv_bias="all") if name.endswith("_v1") else {}
    variables = abstract_variables(create_model(name, **biases))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == count


@pytest.mark.parametrize(
    ("name", "size", "strides"),
    [("resnet50", 224, (4, 4, 8, 16, 32)), ("resnet20", 32, (1, 1, 2, 4))],
)
def test_endpoints_have_the_sizes_of_the_paper(name, size, strides):
    model = create_model(name)
    variables = abstract_variables(model)
    images = jnp.zeros((4, size, size, 3))
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method="endpoints"), variables, images)
    channels = {"resnet50": (64, 256, 512, 1024, 2048), "resnet20": (16, 16, 32, 64)}[name]
    names = ["stem", "stage1", "stage2", "stage3", "stage4"][: len(strides)]
    assert {name: leaf.shape for name, leaf in maps.items()} == {
        name: (4, size // stride, size // stride, features)
        for name, stride, features in zip(names, strides, channels, strict=True)
    }


def test_any_image_size_channels_and_classes():
    model = create_model("resnet18", num_classes=7)
    images = jnp.zeros((2, 75, 53, 1))
    logits, _ = jax.eval_shape(lambda key: model.init_with_output(key, images), jax.random.key(0))
    assert logits.shape == (2, 7)


def test_training_updates_running_statistics_with_momentum():
    model = create_model("resnet20", stage_sizes=(1,))
    variables = init_variables(model, 0, (8, 8, 3))
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    _, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
    stem = jax.lax.conv_general_dilated(
        images,
        variables["params"]["stem_conv"]["kernel"],
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(
        updates["batch_stats"]["stem_norm"]["mean"], 0.1 * stem.mean((0, 1, 2)), atol=1e-5
    )
    np.testing.assert_allclose(
        updates["batch_stats"]["stem_norm"]["var"], 0.9 + 0.1 * stem.var((0, 1, 2)), rtol=1e-4
    )


def test_bfloat16_computes_maps_in_bfloat16_and_logits_in_float32():
    model = create_model("resnet20", stage_sizes=(1, 1), dtype=jnp.bfloat16)
    variables = init_variables(model, 0, (8, 8, 3))
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    logits, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
    maps = model.apply(variables, images, method="endpoints")
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in maps.values()} == {jnp.dtype(jnp.bfloat16)}
    reference = model.clone(dtype=jnp.float32)
    reference, _ = reference.apply(variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(logits, reference, atol=0.1)


def test_zero_pad_shortcut_subsamples_and_pads_channels():
    model = create_model("resnet20", stage_sizes=(2, 1), zero_init_last=True)
    variables = init_variables(model, 0, (8, 8, 3))
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    maps = model.apply(variables, images, method="endpoints")
    # Every block is its shortcut, so stage 2 is stage 1, subsampled and padded.
    np.testing.assert_array_equal(maps["stage1"], maps["stem"])
    np.testing.assert_array_equal(maps["stage2"][..., 8:24], maps["stem"][:, ::2, ::2])
    assert not maps["stage2"][..., :8].any() and not maps["stage2"][..., 24:].any()


def test_stem_without_a_pool_halves_the_resolution_once():
    model = ResNet((1, 1), "residual", 8, stem="no_pool", num_classes=4)
    variables = init_variables(model, 0, (16, 24, 3))
    assert variables["params"]["stem_conv"]["kernel"].shape == (7, 7, 3, 8)
    maps = model.apply(variables, jnp.ones((1, 16, 24, 3)), method="endpoints")
    shapes = {name: maps[name].shape for name in maps}
    assert shapes == {"stem": (1, 8, 12, 8), "stage1": (1, 8, 12, 8), "stage2": (1, 4, 6, 16)}
    assert model.feature_info["stage1"].stride == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: create_model("resnet5"), r"did you mean 'resnet56'.*valid are resnet18, resnet34"),
        (lambda: create_model("resnet50", widht=3), "'widht'; valid are stage_sizes"),
        (lambda: create_model("resnet50", shortcut="c"), "'c'; valid are projection"),
        (lambda: create_model("resnet50", stem="tiny"), "valid are imagenet, cifar"),
        (
            lambda: create_model("resnet50", norm="instance"),
            "valid are batch, group, layer, folded",
        ),
        (lambda: create_model("resnet50", num_classes=-3), "num_classes.*not -3"),
        (lambda: create_model("resnet50", output_stride=2), "valid are 4, 8, 16, 32"),
        (
            lambda: create_model("resnet50", groups=3),
            r"groups=3 must divide width \* width_multiplier, the 64 channels",
        ),
        (lambda: create_model("resnet18", groups=2), "residual block has no groups"),
        (
            lambda: create_model("resnet20", norm="group"),
            "32 groups, which must divide 16 channels",
        ),
        (lambda: create_model("resnet50", drop_path=1.0), r"drop_path must be in \[0, 1\)"),
        (lambda: ResNet(()), "stage_sizes"),
        (lambda: create_model("resnet50", stage_sizes=5), "stage_sizes.*not 5"),
        (
            lambda: create_model("resnet50", width=1.5),
            "width must be an integer of at least 1, not 1.5",
        ),
        (lambda: create_model("resnet50", num_classes="5"), "num_classes.*not '5'"),
        (lambda: create_model("resnet50", stem_width=0), "stem_width.*not 0"),
        (lambda: create_model("resnet50", se_ratio=-1), "se_ratio must be in"),
        (lambda: create_model("resnet50", norm_epsilon=-1), "norm_epsilon must be positive"),
        (
            lambda: create_model("resnet50", antialias="box"),
            "antialias 'box'; valid are None, 'blur', 'average'",
        ),
        (lambda: create_model("resnetrs50", antialias="blur"), "'deep_conv' replaces.*stem='deep'"),
        (lambda: create_model("seresnet50", eca=True), "se_ratio and eca=True exclude each other"),
        (lambda: create_model("resnet50", reduce_first=0), "reduce_first.*at least 1, not 0"),
        (lambda: create_model("resnet50", reduce_first=3), "reduce_first=3 must divide.* 64 ch"),
        (lambda: create_model("resnet50", stem="tiered", stem_width=2), "stem_width.* 3, not 2"),
        (lambda: create_model("resnet50t", norm="group"), "must divide 24 channels"),
    ],
)
def test_errors_list_the_valid_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_without_a_batch_axis_are_rejected():
    model = create_model("resnet20")
    with pytest.raises(ValueError, match=r"\(N, H, W, C\).*\(32, 32, 3\)"):
        model.init(jax.random.key(0), jnp.zeros((32, 32, 3)))
