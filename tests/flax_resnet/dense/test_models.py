"""Fields of the networks for segmentation, and what the rest of the library does with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flax_resnet import (
    ResNet,
    create_model,
    feature_info,
    fold_batch_norm,
    init_variables,
    list_models,
    save_weights,
    summarize,
)
from flax_resnet.dense.segmentation import SegmentationModel
from flax_resnet.own_layers import PartError
from flax_resnet.own_networks import check_network
from flax_resnet.runs import model_from_config
from flax_resnet.weights.__main__ import main as weights_command
from tests.flax_resnet.peers import assert_close, assert_same, random_images, randomized

SMALL = dict(stage_sizes=(1, 1, 1), width=8, num_classes=3, output_stride=8)
FPN = dict(stage_sizes=(1, 1, 1), width=8, num_classes=3, pyramid_channels=8, head_channels=8)
IMAGES = random_images(33)[:, :, :25]


@pytest.fixture(scope="module")
def fcn():
    model = create_model("fcn_resnet50", **SMALL, aux_head=True, dropout=0.0)
    return model, randomized(model, 33)


def train(model, variables, images=IMAGES):
    return model.apply(variables, images, train=True, mutable=["batch_stats"])


# torchvision's counts with its auxiliary head (21 classes); of the semantic FPN, that of ResNet
# without a head, of the pyramid, and of seven convolutions with group norm and the classifier.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("fcn_resnet50", 35_322_218),
        ("fcn_resnet101", 54_314_346),
        ("deeplabv3_resnet50", 42_004_074),
        ("deeplabv3_resnet101", 60_996_202),
        (
            "semantic_fpn_resnet50",
            23_508_032
            + (3840 * 256 + 4 * 256 + 4 * (9 * 256 * 256 + 256))
            + (4 * 9 * 256 * 128 + 3 * 9 * 128 * 128 + 7 * 2 * 128 + 128 * 21 + 21),
        ),
    ],
)
def test_parameter_counts(name, count):
    model = create_model(name, aux_head="fpn" not in name)
    assert summarize(model, 64).parameters == count


def test_multiply_adds_are_torchvisions():
    """Its documentation has 152.717 billion for fcn_resnet50 at 520×520, auxiliary head included.

    Ours is not computed outside of training: a 3×3 convolution and the classifier on 65×65 pixels.
    """
    auxiliary = 65 * 65 * (9 * 1024 * 256 + 256 * 21)
    summary = summarize(create_model("fcn_resnet50", aux_head=True), 520)
    assert round((summary.multiply_adds + auxiliary) / 1e9, 3) == 152.717
    assert [row.stage for row in summary.rows][-2:] == ["head", "aux_head"]
    assert "fcn, in training only" in str(summary)


def test_fields_of_the_backbone_are_fields_of_the_network():
    model = create_model("deeplabv3_resnet50", backbone="resnet50d", width=16, drop_path=0.1)
    assert model.backbone == create_model(
        "resnet50d", num_classes=0, width=16, drop_path=0.1, output_stride=8
    )
    own = ResNet((1, 1), block="residual", width=4, stem="cifar", num_classes=9)
    model = create_model("fcn_resnet50", backbone=own, output_stride=None, dtype=jnp.bfloat16)
    assert model.backbone == own.clone(num_classes=0, dtype=jnp.bfloat16)
    model = model.clone(axis_name="batch", frozen=("backbone/stage1_block1", "head"))
    assert (model.backbone.axis_name, model.backbone.frozen) == ("batch", ("stage1_block1",))
    assert model.feature_info == model.backbone.feature_info
    assert feature_info("fcn_resnet50")["stage4"] == (8, 2048)
    assert "fcn_resnet50" in list_models("fcn*")


@pytest.mark.parametrize(
    ("stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))]
)
def test_atrous_rates_follow_the_output_stride(stride, rates):
    assert create_model("deeplabv3_resnet50", output_stride=stride).dilations == rates


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_clases": 3}, "'fcn_resnet50' has no field 'num_clases'; valid are backbone, head, "),
        ({"backbone": "resnet5"}, "backbone: unknown model 'resnet5' .did you mean 'resnet5"),
        ({"backbone": "fcn_resnet50"}, "must be a ResNet, and 'fcn_resnet50' has a head"),
        ({"head": "unet"}, "unknown head 'unet'; valid are fcn, deeplabv3, semantic_fpn"),
        ({"pyramid_channels": 8}, "pyramid_channels belongs to head='semantic_fpn', not to 'fcn'"),
        ({"num_classes": 0}, "num_classes must be an integer of at least 1, not 0"),
        ({"head_channels": 0}, "head_channels must be an integer of at least 1, not 0"),
        ({"head_channels": 48, "head_norm": "group"}, "which must divide the 48 channels"),
        ({"head_norm": "bach"}, "unknown head_norm 'bach'; valid are batch, group, layer"),
        ({"frozen": ("stem",)}, "unknown module 'stem' in frozen; valid are backbone, head"),
        ({"dropout": 1.0}, "dropout must be in .0, 1., not 1.0"),
        ({"width": 0}, "width must be an integer of at least 1, not 0"),
        ({"stage_sizes": (1,), "output_stride": 4}, "must have at least 2 stages"),
    ],
)
def test_invalid_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        create_model("fcn_resnet50", **fields)


def test_a_configuration_describes_a_network():
    keys = {
        "model.name": "semantic_fpn_resnet50",
        "model.backbone": "resnet18",
        "model.width": 16,
        "model.head_channels": 32,
        "model.head_norm": "batch",
        "model.pyramid_channels": 48,
        "model.aux_head": True,
        "model.freeze_batch_norm": True,
        "model.output_stride": 0,
        "model.dtype": "bfloat16",
    }
    expected = SegmentationModel(
        create_model("resnet18", width=16),
        "semantic_fpn",
        num_classes=4,
        head_channels=32,
        head_norm="batch",
        pyramid_channels=48,
        aux_head=True,
        freeze_batch_norm=True,
        dtype=jnp.dtype("bfloat16"),
        axis_name="batch",
    )
    assert model_from_config(keys, 4, "batch") == expected


def test_frozen_modules_and_batch_norm_keep_their_statistics(fcn):
    model, variables = fcn
    before = variables["batch_stats"]
    for fields, frozen in (
        ({"frozen": ("backbone", "aux_head")}, {"backbone", "aux_head"}),
        ({"frozen": ("head",)}, {"head"}),
        ({"freeze_batch_norm": True}, {"backbone"}),
    ):
        _, updates = train(model.clone(**fields), variables)
        for name, collection in updates["batch_stats"].items():
            same = [
                np.array_equal(a, b)
                for a, b in zip(
                    jax.tree.leaves(collection), jax.tree.leaves(before[name]), strict=True
                )
            ]
            assert all(same) if name in frozen else not any(same), (fields, name)
    _, updates = train(model.clone(frozen=("backbone/stage2_block1",)), variables)
    after = updates["batch_stats"]["backbone"]
    assert_same(after["stage2_block1"], before["backbone"]["stage2_block1"])
    assert not np.array_equal(after["stem_norm"]["mean"], before["backbone"]["stem_norm"]["mean"])


def test_synchronized_batch_norm_sees_the_batch_of_all_devices(fcn):
    model, variables = fcn
    images = random_images(33, batch=4)[:, :, :25]
    (logits, aux), updates = train(model, variables, images)
    halves = images.reshape(2, 2, *images.shape[1:])
    synchronized = model.clone(axis_name="batch")
    outputs, parts = jax.vmap(lambda x: train(synchronized, variables, x), axis_name="batch")(
        halves
    )
    for whole, part in zip((logits, aux), outputs, strict=True):
        assert_close(part.reshape(whole.shape), whole, "logits")
    jax.tree.map(
        lambda part, whole: np.testing.assert_allclose(part[1], whole, rtol=1e-4, atol=1e-5),
        parts,
        updates,
    )


def test_bfloat16_computes_logits_in_float32(fcn):
    model, variables = fcn
    (logits, aux), updates = train(model.clone(dtype=jnp.bfloat16), variables)
    assert logits.dtype == aux.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}
    (reference, _), _ = train(model, variables)
    assert 1e-4 < abs(logits - reference).max() / abs(reference).max() < 0.1


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("fcn_resnet50", SMALL),  # by default, as in torchvision
        ("deeplabv3_resnet50", SMALL | {"head_channels": 8}),
        ("semantic_fpn_resnet50", FPN | {"head_norm": "batch", "dropout": 0.5}),
    ],
)
def test_dropout_acts_in_training_only(name, fields):
    model = create_model(name, **fields)
    variables = randomized(model, 33)

    def logits(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, IMAGES, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    assert not np.allclose(logits(0), logits(1))
    assert model.apply(variables, IMAGES).shape == (2, 33, 25, 3)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("fcn_resnet50", SMALL | {"backbone": "resnet50v2"}),  # the last map after norm and ReLU
        (
            "semantic_fpn_resnet50",
            FPN | {"backbone": "resnet50_gn", "width": 32, "head_channels": 32},
        ),
        ("deeplabv3_resnet50", SMALL | {"backbone": "seresnet50", "head_channels": 8}),
        ("fcn_resnet50", SMALL | {"backbone": "resnet20", "output_stride": 2}),
    ],
)
def test_backbones_of_every_kind(name, fields):
    model = create_model(name, **fields)
    logits = jax.eval_shape(lambda k, x: model.init_with_output(k, x)[0], jax.random.key(0), IMAGES)
    assert (logits.shape, logits.dtype) == ((2, 33, 25, 3), jnp.float32)


def test_the_head_on_a_preactivation_network_uses_the_activated_map():
    model = create_model("fcn_resnet50", **SMALL | {"backbone": "resnet50v2"})
    variables = randomized(model, 33)
    backbone = {name: variables[name]["backbone"] for name in variables}
    maps = model.backbone.apply(backbone, IMAGES, method="feature_maps")
    features = model.backbone.apply(backbone, IMAGES, method="forward_features")
    assert_same(maps["stage3"], features)
    assert (maps["stage3"] >= 0).all() and (maps["stage2"] < 0).any()


def test_initial_variables_are_those_of_model_init():
    model = create_model("semantic_fpn_resnet50", **FPN, aux_head=True, head_norm="batch")
    ours = init_variables(model, 0, (33, 25, 3))
    theirs = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, theirs)
    kernel = ours["params"]["head"]["pyramid"]["output1"]["kernel"]
    assert 0.9 < abs(kernel).max() * (9 * 8 / 3) ** 0.5 <= 1  # uniform with variance 1 / fan_in
    assert not ours["params"]["head"]["classifier"]["bias"].any()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("deeplabv3_resnet50", SMALL | {"aux_head": True, "head_channels": 8}),
        ("semantic_fpn_resnet50", FPN | {"head_norm": "batch", "backbone": "resnet18"}),
        ("semantic_fpn_resnet50", FPN | {"head_channels": 32}),  # group norm stays
        ("fcn_resnet50", SMALL | {"backbone": "resnet50v2"}),
    ],
)
def test_batch_norm_is_folded_in_backbone_and_heads(name, fields):
    model = create_model(name, **fields)
    variables = randomized(model, 33)
    folded, weights = fold_batch_norm(model, variables)
    assert set(weights) == {"params"}
    assert_close(folded.apply(weights, IMAGES), model.apply(variables, IMAGES), name)
    expected = jax.eval_shape(folded.init, jax.random.key(0), IMAGES)
    assert jax.tree.map(np.shape, weights) == jax.tree.map(np.shape, expected)
    with pytest.raises(ValueError, match="folded batch norm cannot be trained"):
        train(folded, weights)


def test_a_network_that_does_not_fit_the_task_is_refused():
    model = create_model("fcn_resnet50", **SMALL)
    check_network(model, "fcn_resnet50", (32, 32, 3), 3, per_pixel=True)
    with pytest.raises(PartError, match="returns logits per pixel, and the task needs them per im"):
        check_network(model, "fcn_resnet50", (32, 32, 3), 3)
    with pytest.raises(PartError, match="per image, and the task needs them per pixel: use a netw"):
        check_network(create_model("resnet50"), "resnet50", (32, 32, 3), 1000, per_pixel=True)

    class Own(nn.Module):
        num_classes: int = 3
        dtype: jnp.dtype = jnp.float32
        frozen: tuple = ()
        axis_name: str | None = None

        @nn.compact
        def __call__(self, images, train=False):
            return nn.Conv(self.num_classes, (1, 1), strides=2)(images)

    with pytest.raises(
        PartError, match=r"must return logits \(N, H, W, 3\), and for two images re"
    ):
        check_network(Own(), "own", (32, 32, 3), 3, per_pixel=True)


def test_own_parts_of_the_backbone_are_named_in_errors():
    class Bad(nn.Module):
        @nn.compact
        def __call__(self, x, use_running_average=None):
            return x[..., :1]

    model = create_model("fcn_resnet50", **SMALL | {"norm": Bad})
    with pytest.raises(PartError, match=r"Bad .*must keep the shape"):
        check_network(model, "fcn_resnet50", (32, 32, 3), 3, per_pixel=True)


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50", "semantic_fpn_resnet18"])
def test_files_of_named_networks_are_recognized(name, tmp_path, capsys):
    model = create_model(name, num_classes=4)
    variables = init_variables(model, 0, (64, 64, 3))
    layout = "flax" if "fpn" in name else "torchvision"
    save_weights(name, variables, tmp_path / "w.safetensors", layout=layout)
    assert weights_command(["inspect", str(tmp_path / "w.safetensors")]) == 0
    output = capsys.readouterr().out
    assert f"network   {name}\n" in output and "classes   4\n" in output
