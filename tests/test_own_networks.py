"""The blocks and networks of docs/own-networks.md: computed as in their papers, and whole runs."""

import json
import re
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet import create_model, fold_batch_norm, init_variables, load_run, summarize
from flax_resnet.gradcam import gradcam
from flax_resnet.registry import BLOCKS
from flax_resnet.resnet import FeatureInfo
from flax_resnet.runs import model_from_config
from tests.conftest import ROOT
from tests.flax_resnet.peers import assert_close, peer, random_images, randomized
from tests.flax_resnet.test_init import assert_same_distributions
from tests.flax_resnet.test_models import count
from tests.train.test_main import final_state
from tests.without_report import NoReport
from train.config.access import flatten
from train.config.loading import load_config
from train.export.stablehlo import write_stablehlo
from train.loop import train
from train.runtime.errors import UsageError
from train.runtime.signals import StopRequest


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """The two recipes of the page, loaded by a user who has not trained with any."""
    folder = tmp_path_factory.mktemp("own")
    text = (ROOT / "docs/own-networks.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    recipes = {}
    blocks = (block for block in blocks if "get_config" in block)
    for name, block in zip(("sk", "convnext"), blocks, strict=True):
        assert len(block.splitlines()) <= 40
        recipes[name] = str(folder / f"{name}.py")
        (folder / f"{name}.py").write_text(block)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        for recipe in recipes.values():
            load_config(recipe)
        yield recipes


@pytest.fixture(params=["sk", "convnext"])
def model(request, recipes):
    """A small network with the block."""
    if request.param == "sk":
        return create_model("sknet50", stage_sizes=(1, 1), width=32, groups=4, num_classes=5)
    fields = dict(stage_sizes=(1, 1), norm="layer", activation="gelu", num_classes=5)
    return create_model("resnet20", block="convnext", **fields)


class Torch:
    """Functions of PyTorch with the parameters of a block, on maps (N, C, H, W)."""

    def __init__(self, variables):
        self.functional = peer("torch").nn.functional
        self.variables, self.tensor = variables, peer("torch").from_numpy

    def leaf(self, name, leaf, kind="params"):
        return self.tensor(np.ascontiguousarray(self.variables[kind][name][leaf]))

    def conv(self, x, name, bias=False, **arguments):
        kernel = self.leaf(name, "kernel").permute(3, 2, 0, 1)
        bias = self.leaf(name, "bias") if bias else None
        return self.functional.conv2d(x, kernel, bias, **arguments)

    def batch_norm(self, x, name):
        mean, var = (self.leaf(name, leaf, "batch_stats") for leaf in ("mean", "var"))
        scale, bias = (self.leaf(name, leaf) for leaf in ("scale", "bias"))
        return self.functional.batch_norm(x, mean, var, scale, bias, eps=1e-5)

    def layer_norm(self, x, name):
        scale, bias = (self.leaf(name, leaf) for leaf in ("scale", "bias"))
        y = x.permute(0, 2, 3, 1)
        return self.functional.layer_norm(y, y.shape[-1:], scale, bias, 1e-5).permute(0, 3, 1, 2)


def compare_with_torch(block, channels, reference):
    variables = randomized(block, size=8, channels=channels)
    x = np.random.default_rng(1).standard_normal((2, 8, 8, channels), np.float32)
    torch = Torch(variables)
    theirs = reference(torch, torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert_close(jax.jit(block.apply)(variables, x), theirs, type(block).__name__)


@pytest.mark.parametrize(
    ("stride", "channels", "shortcut"), [(1, 64, "projection"), (2, 24, "none")]
)
def test_the_sk_block_computes_the_equations_of_the_paper(recipes, stride, channels, shortcut):
    """arXiv:1903.06586, equations 1 to 7: split, fuse and select."""
    block = BLOCKS["sk"](width=32, stride=stride, groups=4, shortcut=shortcut)

    def reference(torch, x):
        def conv_norm(x, name, **arguments):
            return torch.batch_norm(torch.conv(x, f"{name}_conv", **arguments), f"{name}_norm")

        y = conv_norm(x, "reduce").relu()
        paths = [
            conv_norm(y, f"path{d}", stride=stride, padding=d, dilation=d, groups=4).relu()
            for d in (1, 2)
        ]
        s = (paths[0] + paths[1]).mean((2, 3), keepdim=True)
        z = conv_norm(s, "squeeze").relu()
        a, b = (torch.conv(z, f"select{i}") for i in (1, 2))
        a = 1 / (1 + (b - a).exp())  # softmax over the two paths
        out = conv_norm(a * paths[0] + (1 - a) * paths[1], "expand")
        return (out + (x if shortcut == "projection" else 0)).relu()

    compare_with_torch(block, channels, reference)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_convnext_block_computes_figure_4_of_the_paper(recipes, stride):
    model = create_model("resnet20", block="convnext", norm="layer", activation="gelu")
    fields = dict(
        norm=model._norm_layer(), activation=model.activation_function, shortcut="zero_pad"
    )
    random_scale = jax.nn.initializers.normal(1.0)  # with 1e-6 the block would be its shortcut
    block = BLOCKS["convnext"](16, stride, layer_scale_init=random_scale, **fields)

    def reference(torch, x):
        y = torch.conv(x, "depthwise", bias=True, stride=stride, padding=3, groups=16)
        y = torch.conv(torch.layer_norm(y, "norm"), "expand", bias=True)
        y = torch.conv(torch.functional.gelu(y), "reduce", bias=True)
        scale = torch.tensor(np.asarray(torch.variables["params"]["layer_scale"]))
        return x[:, :, ::stride, ::stride] + y * scale[:, None, None]

    compare_with_torch(block, 16, reference)


def sknet50_parameters(stage_sizes):
    parameters, channels = 3 * 7 * 7 * 64 + 2 * 64 + 2048 * 1000 + 1000, 64
    for blocks, c in zip(stage_sizes, (128, 256, 512, 1024), strict=True):
        for _ in range(blocks):
            d = max(c // 16, 32)
            parameters += channels * c + 2 * (9 * c * c // 32) + 3 * c * d + 2 * c * c
            parameters += 2 * (c + 2 * c + d + 2 * c)  # norms
            if channels != 2 * c:
                parameters += channels * 2 * c + 2 * 2 * c
            channels = 2 * c
    return parameters


def test_parameters_are_those_of_the_paper(recipes):
    """arXiv:1903.06586, table 1: SKNet-50 has 27.5 million."""
    assert round(sknet50_parameters((3, 4, 6, 3)) / 1e6, 1) == 27.5
    sizes = (1, 2, 1, 1)
    assert count(create_model("sknet50", stage_sizes=sizes)) == sknet50_parameters(sizes)
    assert create_model("sknet50").stage_sizes == (3, 4, 6, 3)


def test_the_summary_counts_depthwise_convolutions(recipes):
    model = create_model("resnet20", block="convnext", norm="layer", activation="gelu")
    *_, stage, _ = summarize(model, 8).rows
    c = 64  # on 2×2 pixels; the first block has two outputs for each of 32 channels
    assert stage.parameters == 3 * (49 * c + c + 2 * c + 8 * c * c + 5 * c + c)
    assert stage.multiply_adds == 3 * 4 * (49 * c + 8 * c * c)
    assert stage.layers == "[7×7, 64, 32 groups; 1×1, 256; 1×1, 64] × 3"


def test_maps_have_the_announced_shapes_and_keep_their_size_with_dilation(model):
    images = random_images(16)
    for output_stride, size in ((None, 2), (4, 4)) if model.stem == "imagenet" else ((None, 8),):
        network = model.clone(output_stride=output_stride)
        variables = jax.eval_shape(network.init, jax.random.key(0), images)
        maps = jax.eval_shape(partial(network.apply, method="endpoints"), variables, images)
        assert maps["stage2"].shape[1] == size
        for name, leaf in maps.items():
            info = FeatureInfo(16 // leaf.shape[1], leaf.shape[-1])
            assert network.feature_info[name] == info


@pytest.mark.parametrize("name", ["sk", "convnext"])
def test_variables_have_the_distributions_of_init(recipes, name):
    block, x = BLOCKS[name](width=32, groups=4), jnp.zeros((1, 8, 8, 32))
    theirs = jax.jit(block.init)(jax.random.key(0, impl="rbg"), x)
    assert_same_distributions(init_variables(block, 0, (8, 8, 32)), theirs)


def test_folding_keeps_the_logits(recipes):
    model = create_model("sknet50", stage_sizes=(1,), width=32, groups=4, num_classes=5)
    variables, images = randomized(model), random_images(16)
    folded, weights = fold_batch_norm(model, variables)
    logits = jax.jit(model.apply)(variables, images)
    assert_close(jax.jit(folded.apply)(weights, images), logits, "logits")
    assert set(weights["params"]["stage1_block1"]) == set(variables["params"]["stage1_block1"])
    assert "stem_norm" not in weights["params"]


def test_heat_maps_of_an_early_stage(recipes):
    model = create_model("resnet20", stage_sizes=(1, 1), block="convnext", num_classes=5)
    variables, images = randomized(model), random_images(16)
    maps = np.asarray(gradcam(model, variables, images, stage=1))
    assert maps.shape == (2, 16, 16) and maps.min() >= 0 and maps.max() == pytest.approx(1, rel=0.3)


@pytest.mark.parametrize("name", ["sk", "convnext"])
def test_a_run_with_the_block_is_whole(recipes, name, data_dir, commands, tmp_path, monkeypatch):
    monkeypatch.setattr("train.reporting.observers.LiveReport", NoReport)
    width = {"sk": "32", "convnext": "16"}[name]
    small = {"model.width": width, "model.stage_sizes": "1", "dataset.image_size": "8"}
    small |= {"num_epochs": "2", "dataset.data_dir": data_dir, "checkpoint.every_epochs": "1"}
    config = load_config(recipes[name], list(small.items()))
    workdir = str(tmp_path / "run")
    result = train(config, workdir, StopRequest())
    assert result["step"] == 22 and result["loss"] < 2.25 < np.log(10)  # chance
    info = json.loads((tmp_path / "run/run.json").read_text())
    assert info["own_parts"] == [{"sk": "model sknet50", "convnext": "block convnext"}[name]]

    done = commands.call("train.evaluate", "--workdir", workdir)
    assert json.loads(done.stdout.splitlines()[-1])["top1"] == pytest.approx(result["top1"])
    run, file = load_run(workdir), tmp_path / "own.stablehlo"
    write_stablehlo(run, str(file))
    exported = jax.export.deserialize(bytearray(file.read_bytes()))
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    expected = run.predict(images, prepared=True)
    np.testing.assert_allclose(exported.call(images), expected, atol=1e-5)

    shutil.copytree(workdir, tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed/checkpoints/22")
    train(config, str(tmp_path / "resumed"), StopRequest())
    jax.tree.map(
        np.testing.assert_array_equal, final_state(tmp_path / "resumed"), final_state(workdir)
    )


def test_keys_name_own_and_built_in_layers(recipes):
    values = {"block": "bottleneck", "norm": "group", "activation": "silu", "width": "32"}
    overrides = [(f"model.{key}", value) for key, value in values.items()]
    model = model_from_config(flatten(load_config(recipes["convnext"], overrides)), 10)
    assert (model.block, model.norm, model.activation) == ("bottleneck", "group", "silu")
    message = "model.block must be '' or 'residual' or 'bottleneck'.* or 'convnext'"
    with pytest.raises(UsageError, match=message):
        load_config(recipes["convnext"], [("model.block", "convnxt")])
    for key, valid in (("model.norm", "'group' or 'layer'"), ("model.activation", "'gelu'")):
        with pytest.raises(UsageError, match=f"{key} must be .*{valid}"):
            load_config(recipes["convnext"], [(key, "folded")])
