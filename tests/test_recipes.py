"""Every recipe in configs/ runs, is documented and has the numbers of its source."""

import ast
import json
import math
import os
import re
import subprocess
import sys

import jax
import pytest

from flax_resnet import load_weights
from tests.conftest import ROOT
from tests.flags import QUICK
from tests.smoke_recipes import WHOLE
from train.config.access import flatten
from train.config.loading import default_config, load_config
from train.data.image_sizes import ImageSizes
from train.engine.experiment import make_model
from train.engine.optim.schedules import make_schedule
from train.runtime.errors import UsageError

RECIPES = {
    path.stem: path
    for path in sorted((ROOT / "configs").glob("*.py"))
    if path.stem not in ("__init__", "bases", "default")
}
IMAGENET_EPOCH = 1_281_167


def smoke_form(recipe):
    """Return the effective configuration of a smoke test: the network instead of its name."""
    config = load_config(str(recipe), [("smoke", "true")])
    model = make_model(config, 10)
    return flatten(config) | {"model.name": "", "model": str(model)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """``{recipe: (workdir, final evaluation)}`` of the smoke tests of all recipes.

    Recipes with equal smoke tests, such as ResNets of any depth with one block per stage, run once.
    """
    folder = tmp_path_factory.mktemp("smoke")
    forms, runs = {}, {}
    for name, path in RECIPES.items():
        form = smoke_form(path)
        runs[name] = next((other for other in forms if forms[other] == form), name)
        forms.setdefault(runs[name], form)
    env = os.environ | {
        "XLA_FLAGS": QUICK,
        "PYTHONPATH": str(ROOT),
        "TFDS_DATA_DIR": data_dir,
    }
    script = [sys.executable, str(ROOT / "tests/smoke_recipes.py"), str(folder)]
    paths = [str(RECIPES[name]) for name in forms]
    process = subprocess.run(
        [*script, *paths], env=env, cwd=folder, text=True, capture_output=True, timeout=900
    )
    rows = map(json.loads, process.stdout.splitlines())
    results = {row["name"]: (folder / row["name"], row["result"]) for row in rows}
    # A recipe that fails ends the process, so later ones are missing too.
    missing = [name for name in forms if name not in results]
    assert not missing, f"{missing[0]} failed:\n{process.stderr[-3000:]}"
    return {name: results[run] for name, run in runs.items()}


@pytest.mark.parametrize("name", RECIPES)
def test_smoke_test_of_a_recipe_trains_and_evaluates(name, trained):
    path, result = trained[name]
    assert result["step"] == 2 and result["examples"] == 32
    assert math.isfinite(result["loss"])
    if "miou" in result:
        assert 0 <= result["miou"] <= result["pixel_accuracy"] <= 1
    else:
        assert 0 <= result["top1"] <= result["top5"] <= 1
    assert (path / "checkpoints" / "2").is_dir()


def test_bfloat16_recipe_stores_float32_variables(trained):
    """With the recipe whose smoke test runs as users run it, with all stages."""
    config = load_config(str(RECIPES[WHOLE]), [("smoke", "true")])
    assert config.model.dtype == "bfloat16" and config.model.stage_sizes == (1, 1, 1, 1)
    variables = load_weights(make_model(config, 10), trained[WHOLE][0])
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_documents_its_source_and_command_and_is_in_the_table(name):
    text = ast.get_docstring(ast.parse(RECIPES[name].read_text()))
    command = f"python -m train.main --config configs/{name}.py"
    assert re.search(rf"^    {re.escape(command)}( \\)?$", text, re.M), "the command"
    for field in ("^Source: ", "^Reports: ", r"\bOurs: .*measured", "^Assumes: "):
        assert re.search(field, text, re.M | re.S), field
    load_config(str(RECIPES[name]))
    row = re.search(rf"^\| `{name}` \|.*\|$", (ROOT / "docs/recipes.md").read_text(), re.M)
    assert row, f"docs/recipes.md has no row for {name}"


def test_table_lists_only_existing_recipes():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/recipes.md").read_text(), re.M)
    assert sorted(rows) == sorted(RECIPES)


# Numbers of the sources that depend on more than one key ------------------------------------


def rates(name, images, overrides=()):
    """Return the learning rate as a function of the step, steps per epoch and steps of the run."""
    config = load_config(str(RECIPES[name]), overrides)
    per_epoch = images // config.batch_size
    num_steps = config.num_steps or round(config.num_epochs * per_epoch)
    schedule = make_schedule(config.schedule, per_epoch, num_steps, config.batch_size)
    return lambda step: float(schedule(step)), per_epoch, num_steps


@pytest.mark.parametrize(("batch_size", "peak"), [(256, 0.1), (1024, 0.4)])
def test_imagenet_recipe_divides_the_scaled_rate_by_ten_at_epochs_30_60_80(batch_size, peak):
    overrides = [("batch_size", str(batch_size))]
    rate, epoch, num_steps = rates("resnet50_imagenet", IMAGENET_EPOCH, overrides)
    assert rate(0) == pytest.approx(peak) and num_steps == 90 * epoch
    for power, at in enumerate((30, 60, 80)):
        assert rate(at * epoch - 1) == pytest.approx(peak * 0.1**power)
        assert rate(at * epoch) == pytest.approx(peak * 0.1 ** (power + 1))


@pytest.mark.parametrize("name", ["resnet20_cifar10", "resnet110_cifar10", "plain56_cifar10"])
def test_cifar_recipe_divides_the_rate_by_ten_at_32k_and_48k_of_64k_steps(name):
    rate, _, num_steps = rates(name, 50_000)
    assert num_steps == 64_000
    values = [rate(step) for step in (400, 31_999, 32_000, 47_999, 48_000)]
    assert values == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_recipe_in_steps_accepts_epochs_on_the_command_line():
    """Its milestones are at the same fractions of the run."""
    rate, epoch, num_steps = rates("resnet20_cifar10", 50_000, [("num_epochs", "5")])
    assert num_steps == 5 * epoch
    values = [rate(share * epoch) for share in (2.4, 2.6, 3.7, 3.8)]
    assert values == pytest.approx([0.1, 0.01, 0.01, 0.001])


def test_wide_resnet_recipe_multiplies_the_rate_by_a_fifth_at_epochs_60_120_160():
    rate, epoch, _ = rates("wrn28_10_cifar100", 50_000)
    values = [rate(at * epoch) for at in (59, 60, 120, 160)]
    assert values == pytest.approx([0.1, 0.02, 0.004, 0.0008])


def test_ema_decay_equals_torchvisions_over_32_steps():
    config = load_config(str(RECIPES["resnet50_imagenet_tv2"]))
    theirs = 1 - (1 - 0.99998) * 1024 * 32 / 600
    assert config.ema.decay**32 == pytest.approx(theirs, abs=1e-5)


def test_fast_recipe_changes_its_image_size_once():
    sizes = ImageSizes(load_config(str(RECIPES["resnet50_imagenet_fast"])).dataset, training=True)
    assert [sizes.at(epoch) for epoch in (0, 11.99, 12, 15.99)] == [160, 160, 192, 192]


def test_default_recipe_returns_every_key_at_its_default():
    config, defaults = load_config(str(ROOT / "configs/default.py")), default_config()
    assert flatten(config) == flatten(defaults)


# Smoke tests --------------------------------------------------------------------------------


def test_smoke_test_keeps_the_training_of_the_recipe():
    recipe = str(RECIPES["resnet50_imagenet_a1"])
    whole, smoke = (flatten(load_config(recipe, o)) for o in ([], [("smoke", "true")]))
    changed = {name for name in whole if whole[name] != smoke[name]}
    assert changed == {
        *("smoke", "batch_size", "num_steps", "log.every_steps"),
        *("eval.every_epochs", "checkpoint.every_epochs"),
        *("schedule.warmup_epochs", "schedule.warmup_steps", "schedule.max_warmup_fraction"),
        *("dataset.name", "dataset.train_split", "dataset.eval_split", "dataset.image_size"),
        *("model.stage_sizes", "model.width"),
    }
    assert smoke["batch_size"] % smoke["augment.repeated_aug"] == 0
    assert smoke["model.stage_sizes"] == (1, 1, 1, 1) and smoke["model.width"] == 8


def test_smoke_test_reaches_every_image_size_and_milestone():
    fast = load_config(str(RECIPES["resnet50_imagenet_fast"]), [("smoke", "true")])
    sizes = ImageSizes(fast.dataset, training=True)
    assert sizes.at(0) < sizes.at(0.75) < fast.dataset.image_size == 32
    rate, _, num_steps = rates("resnet20_cifar10", 32, [("smoke", "true")])
    assert num_steps == 2 and [rate(0), rate(1)] == pytest.approx([0.1, 0.01])


def test_smoke_test_keeps_keys_given_on_the_command_line(tmp_path):
    recipe = str(RECIPES["resnet18_folder"])
    given = [("smoke", "true"), ("batch_size", "6"), ("num_epochs", "3"), ("model.width", "4")]
    config = load_config(recipe, given)
    assert (config.batch_size, config.model.width) == (6, 4)
    assert (config.num_epochs, config.num_steps) == (3, 0)
    assert config.dataset.name == "digits"
    own = [("dataset.data_dir", str(tmp_path))]
    config = load_config(recipe, [*given, *own])
    assert (config.dataset.name, config.dataset.data_dir) == ("folder", str(tmp_path))
    assert config.dataset.eval_split == "val"
    # A directory of TFDS data is not used to prepare the digits, unless they are the data set.
    config = load_config(str(RECIPES["resnet20_cifar10"]), [*given, *own])
    assert (config.dataset.name, config.dataset.data_dir) == ("digits", "")


def test_smoke_test_downloads_no_weights_but_keeps_a_file_and_its_network(tmp_path):
    recipe = str(RECIPES["resnet50_folder_finetune"])
    config = load_config(recipe, [("smoke", "true")])
    assert config.init_from == "" and config.freeze == "stem*,stage1*"
    (tmp_path / "weights.safetensors").touch()
    weights = str(tmp_path / "weights.safetensors")
    config = load_config(recipe, [("smoke", "true"), ("init_from", weights)])
    assert config.init_from == weights and config.model.stage_sizes == ()


def test_smoke_test_uses_at_most_the_images_of_the_data_set():
    recipe = str(RECIPES["resnet50_imagenet"])
    given = [("smoke", "true"), ("batch_size", "1024"), ("dataset.name", "digits")]
    assert load_config(recipe, given).dataset.train_split == "train[:1437]"
    given += [("dataset.train_split", "train[:50%]")]
    assert load_config(recipe, given).dataset.train_split == "train[:50%]"


@pytest.mark.parametrize("devices", [3, 16])
def test_smoke_test_batch_size_divides_among_any_number_of_devices(devices, monkeypatch):
    monkeypatch.setattr("jax.device_count", lambda: devices)
    given = [("smoke", "true"), ("grad_accum_steps", "2")]
    config = load_config(str(RECIPES["resnet50_imagenet_a1"]), given)
    # Micro-batches per device, pairs of images for mixup, three copies of each image.
    assert config.batch_size % (2 * devices * 2) == 0 and config.batch_size % 3 == 0


def test_smoke_test_of_an_unknown_model_is_an_error():
    with pytest.raises(UsageError, match="unknown model 'resnet9000'"):
        overrides = [("smoke", "true"), ("model.name", "resnet9000")]
        load_config(str(RECIPES["resnet20_digits"]), overrides)


def test_smoke_test_width_is_a_multiple_of_the_groups():
    overrides = [("smoke", "true"), ("model.name", "resnext101_64x4d")]
    assert load_config(str(RECIPES["resnext50_imagenet"]), overrides).model.width == 16
    overrides = [("smoke", "true"), ("model.name", "resnet50_gn")]
    assert load_config(str(RECIPES["resnet50_imagenet"]), overrides).model.width == 32


# The command --------------------------------------------------------------------------------


# Runs train.main as installed by pip install -e, where a hook finds the packages and sys.path does
# not; instead of training it prints the workdir and keys.
AS_INSTALLED = """
import importlib.util, os, sys

class Hook:
    def find_spec(self, name, path=None, target=None):
        folder = os.path.join(ROOT, name)
        if name in ("train", "flax_resnet", "configs"):
            init = os.path.join(folder, "__init__.py")
            return importlib.util.spec_from_file_location(name, init)

sys.meta_path.append(Hook())
import train.loop
from train.main import main

def fake_train(config, path, stop):
    return {"path": path, "smoke": config.smoke, "nesterov": config.optimizer.nesterov}

train.loop.train = fake_train
main()
"""


@pytest.mark.parametrize(("smoke", "workdir"), [(False, "runs/mine"), (True, "runs/mine_smoke")])
def test_own_recipes_import_the_bases_in_any_folder(smoke, workdir, tmp_path):
    """Their smoke test has its own workdir."""
    (tmp_path / "configs").mkdir()  # without the bases
    (tmp_path / "configs" / "mine.py").write_text(
        "from configs.bases import cifar\n"
        "def get_config():\n"
        "    config = cifar('resnet20')\n"
        "    config.optimizer.nesterov = True\n"
        "    return config\n"
    )
    script = AS_INSTALLED.replace("ROOT", repr(str(ROOT)))
    arguments = ("--config", "configs/mine.py", f"--config.smoke={smoke}")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", script, *arguments]
    process = subprocess.run(command, env=env, cwd=tmp_path, text=True, capture_output=True)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result == {"path": workdir, "smoke": smoke, "nesterov": True}


def test_stage_sizes_and_width_define_unnamed_models():
    config = default_config()
    config.model.name, config.model.stage_sizes, config.model.width = "resnet18", (1, 3), 16
    model = make_model(config, 7)
    assert (tuple(model.stage_sizes), model.width, model.num_classes) == ((1, 3), 16, 7)
