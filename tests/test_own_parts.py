"""Own parts of docs/extend.md: a run with them is a whole run, and needs its recipe."""

import json
import os
import re
import shutil
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from flax_resnet import load_run, recipe_store, register_block
from flax_resnet.recipes import read_recipe, running
from flax_resnet.weights import WeightsError
from tests.conftest import ROOT
from tests.train.test_main import final_state
from train import (
    declare_key,
    register_augmentation,
    register_loss,
    register_metric,
    register_optimizer,
    register_schedule,
    register_source,
    register_task,
)
from train.config import own_parts
from train.config.checks import check_value
from train.config.keys import KEYS
from train.config.loading import check_config, load_config
from train.config.registries import LOSSES, METRICS, SCHEDULES
from train.data.augment.configured import make_augment
from train.data.augment.mixup import Targets
from train.data.datasets import open_source
from train.data.images import encode_png
from train.engine.optim.optimizers import make_optimizer
from train.engine.optim.own_checks import check_optimizer
from train.engine.optim.schedules import Span, make_schedule
from train.runtime.errors import RunError, UsageError
from train.tasks.classification import top1
from train.tasks.configured import make_task
from train.tasks.task import Task
from train.workdir import run_files

SMALL = ("--config.model.stage_sizes=1,1", "--config.dataset.image_size=8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the recipe of the page, part of which is in a module beside it."""
    folder = tmp_path_factory.mktemp("own")
    text = (ROOT / "docs/extend.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text[: text.index("```bash")], re.M | re.S)
    (folder / "own_numbers.py").write_text("EPOCHS = 2\n")
    recipe = "".join(blocks).replace("num_epochs = 2", "num_epochs = EPOCHS")
    (folder / "my_recipe.py").write_text(f"from own_numbers import EPOCHS\n{recipe}")
    return folder


@pytest.fixture(scope="module", autouse=True)
def home(folder):
    """A user who has not trained with any recipe."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    yield
    os.environ.pop("XDG_STATE_HOME")
    if before is not None:
        os.environ["XDG_STATE_HOME"] = before


@pytest.fixture(scope="module")
def arguments(folder, data_dir):
    data = f"--config.dataset.data_dir={data_dir}"
    return ["--config", folder / "my_recipe.py", data, "--config.checkpoint.every_steps=3", *SMALL]


@pytest.fixture(scope="module")
def run(folder, arguments, commands):
    """A finished run with its workdir and the last line of its output."""
    done = commands.run("train.main", *arguments, "--workdir", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run", json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def config(folder):
    return load_config(str(folder / "my_recipe.py"))


@pytest.fixture
def moved(run, folder, tmp_path):
    """A copy of the workdir, while the recipe is not at its place."""
    shutil.copytree(run[0], tmp_path / "run")
    os.rename(folder / "my_recipe.py", folder / "elsewhere.py")
    yield tmp_path / "run"
    os.rename(folder / "elsewhere.py", folder / "my_recipe.py")


def test_the_run_describes_its_parts(run):
    workdir, result = run
    assert result["step"] == 22 and np.isfinite(result["margin"])
    config = json.loads((workdir / "config.json").read_text())
    assert config["optimizer.lion_b2"] == 0.98 and config["poly_epsilon"] == 2.0
    info = json.loads((workdir / "run.json").read_text())
    parts = {"optimizer lion", "schedule inverse_sqrt", "loss poly", "metric margin"}
    parts |= {
        "augmentation noise",
        "key poly_epsilon",
        "key optimizer.lion_b2",
        "data source sklearn",
        "logger best",
    }
    assert set(info["own_parts"]) == parts
    assert list(info["recipe"]["modules"]) == ["own_numbers.py"]
    assert "evaluation margin" in (workdir / "report.html").read_text()
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    top1, step = max((row["eval/top1"], -row["step"]) for row in rows if "eval/top1" in row)
    assert (workdir / "best.txt").read_text() == f"{top1} after step {-step}\n"


def test_killed_and_resumed_run_ends_with_the_same_bits(run, folder, arguments, commands, config):
    workdir = folder / "killed"
    process = commands.start("train.main", *arguments, "--workdir", workdir)
    while process.poll() is None and not any(workdir.glob("checkpoints/[1-9]*[0-9]")):
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = commands.run("train.main", *arguments, "--workdir", workdir)
    assert done.returncode == 0, done.stderr
    jax.tree.map(np.testing.assert_array_equal, final_state(workdir), final_state(run[0]))


def test_a_changed_recipe_is_named_when_a_run_resumes(run, folder, commands, arguments, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    shutil.copytree(folder, tmp_path / "new", ignore=lambda *_: ["run", "killed", "state"])
    with open(tmp_path / "new/own_numbers.py", "a") as file:
        file.write("# another\n")
    arguments = ["--config", tmp_path / "new/my_recipe.py", *arguments[2:]]
    done = commands.run("train.main", *arguments, "--workdir", tmp_path / "run")
    assert done.returncode == 0 and done.stderr.count("has changed since") == 1
    copies = [path.read_text() for path in tmp_path.glob("run/recipe/*/own_numbers.py")]
    assert sorted(copies) == ["EPOCHS = 2\n", "EPOCHS = 2\n# another\n"]


def test_commands_find_the_recipe_where_it_lies(run, commands, tmp_path):
    workdir, result = run
    done = commands.run("train.evaluate", "--workdir", workdir)
    evaluated = json.loads(done.stdout.splitlines()[-1])
    assert evaluated["margin"] == pytest.approx(result["margin"], rel=1e-5)
    file = tmp_path / "own.stablehlo"
    export = ("--workdir", workdir, "--format", "stablehlo", "--output", file)
    assert commands.call("train.export", *export).returncode == 0
    exported = jax.export.deserialize(bytearray(file.read_bytes()))
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    expected = load_run(workdir).predict(images, prepared=True)
    np.testing.assert_allclose(exported.call(images), expected, atol=1e-5)


def test_without_its_recipe_a_run_needs_the_users_word(moved, commands, tmp_path):
    image = tmp_path / "image.png"
    image.write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    stablehlo = ("--format", "stablehlo", "--output", tmp_path / "x.stablehlo")
    uses = [
        ("train.evaluate", "--workdir", moved),
        ("train.predict", "--workdir", moved, image),
        ("train.export", "--workdir", moved, *stablehlo),
        ("train.compare", moved, "--output", tmp_path / "compare.html"),
    ]
    for module, *arguments in uses:
        done = commands.call(module, *arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "my_recipe.py': No such file" in done.stderr and "--trust_recipe" in done.stderr
    with pytest.raises(WeightsError, match="trust_recipe=True"):
        load_run(moved)
    for module, *arguments in uses:
        done = commands.call(module, *arguments, "--trust_recipe")
        assert done.returncode == 0, done.stderr
    run = load_run(moved, trust_recipe=True)
    assert run.config["optimizer.name"] == "lion" and run.step == 22


@pytest.mark.parametrize("trust", [False, True])
def test_a_changed_copy_is_refused(moved, commands, trust):
    [copy] = moved.glob("recipe/*/own_numbers.py")
    copy.write_text("EPOCHS = 3\n")
    flag = ["--trust_recipe"] * trust
    done = commands.call("train.evaluate", "--workdir", moved, *flag)
    assert done.returncode == 1 and "own_numbers.py' has changed" in done.stderr
    with pytest.raises(WeightsError, match="has changed"):
        load_run(moved, trust_recipe=trust)


def test_a_recipe_that_the_user_never_trained_with_does_not_run(run, monkeypatch, tmp_path):
    """A workdir from elsewhere may name any file with its checksum."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="no note says that you trained with it"):
        load_run(run[0])


def test_parts_of_a_session_are_needed_again(moved):
    info = json.loads((moved / "run.json").read_text())
    (moved / "run.json").write_text(json.dumps(info | {"recipe": None}))
    with pytest.raises(WeightsError, match=r"registered in a Python session: .*optimizer lion"):
        load_run(moved, trust_recipe=True)


def test_the_help_lists_own_keys_and_names(folder, commands):
    done = commands.call("train.main", "--config", folder / "my_recipe.py", "--help")
    assert re.search(r"--config.poly_epsilon=2 +'poly': weight", done.stdout)
    registered = re.search(r"optimizer.name='sgd'.* One of (.*)", done.stdout)[1]
    assert registered == "'sgd', 'adam', 'adamw', 'lars', 'lamb', 'lion'."


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("poly_epsilon", "-1", "poly_epsilon must be at least 0"),
        ("optimizer.lion_b3", "1", "did you mean config.optimizer.lion_b2"),
        ("optimizer.name", "lyon", "or 'lamb' or 'lion'"),
        ("augment.policy", "noise+blur", "'trivial' or 'rand' or 'noise', .*: 'blur' is unknown"),
        ("augment.policy", "trivial+niose", "'niose' is unknown; did you mean 'noise'"),
        ("augment.policy", "noise+", r"separated by '\+', not 'noise\+': one name is empty"),
        ("loss", "ploy", "not 'ploy'; did you mean 'poly'"),
        ("eval.metrics", "margin,f1", "'top1' or 'top5' or 'margin'.*: 'f1' is unknown"),
        ("eval.metrics", "margin,margin", "'margin' is repeated"),
        ("log.to", "best,,tensorboard", "one name is empty"),
    ],
)
def test_own_keys_and_names_are_checked(folder, key, value, message):
    with pytest.raises(UsageError, match=message):
        load_config(str(folder / "my_recipe.py"), [(key, value)])


def test_parts_compute_what_the_page_says(config):
    random = np.random.default_rng(0)
    logits, labels = np.float32(random.normal(size=(5, 4))), np.array([0, 3, 1, 1, 2])
    p = scipy.special.softmax(logits, axis=1)[np.arange(5), labels]
    loss = LOSSES["poly"](config)(jnp.asarray(logits), Targets(jnp.asarray(labels)))
    np.testing.assert_allclose(loss, -np.log(p) + 2 * (1 - p), rtol=1e-5)
    others = np.where(np.eye(4)[labels] == 1, -np.inf, logits).max(1)
    margin = METRICS["margin"](jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(margin, logits[np.arange(5), labels] - others, rtol=1e-5)
    rate = SCHEDULES["inverse_sqrt"](config.schedule, Span(0.1, 100, 4, 10))
    assert [float(rate(step)) for step in (0, 3, 4, 34)] == pytest.approx([0.025, 0.1, 0.1, 0.05])
    config.task = "ordinal"
    task = make_task(config, 4)
    target = Targets(jnp.asarray(labels))
    distance = (scipy.special.softmax(logits, 1) * (np.arange(4) - labels[:, None]) ** 2).sum(1)
    np.testing.assert_allclose(task.loss(jnp.asarray(logits), target), distance, rtol=1e-5)


def test_lion_steps_by_the_sign_of_its_momentum(config):
    """Chen et al. 2023, algorithm 2, with b1 0.9, b2 0.98 and decay 1e-4."""
    params, gradients = np.float32([1, -2, 3]), np.float32([[0.5, -1, 0], [-6, 2, 1]])
    optimizer = make_optimizer(config.optimizer, lambda step: 0.1)
    state, momentum, expected = optimizer.init(params), np.zeros(3), params.copy()
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = params + updates
        direction = np.sign(0.9 * momentum + 0.1 * gradient)
        expected = expected - 0.1 * (direction + 1e-4 * expected)
        momentum = 0.98 * momentum + 0.02 * gradient
    np.testing.assert_allclose(params, expected, rtol=1e-5)


def test_augmentations_apply_in_order_with_a_key_per_image(config):
    images = np.full((2, 8, 8, 3), 128, np.uint8)
    keys = jax.random.split(jax.random.key(0), 2)
    config.augment.policy = "noise"
    noisy = np.asarray(make_augment(config)(images, keys), float) - 128
    assert noisy.std() == pytest.approx(8, rel=0.15) and abs(noisy.mean()) < 1.5
    assert not np.array_equal(noisy[0], noisy[1])
    np.testing.assert_array_equal(noisy[:1] + 128, make_augment(config)(images[:1], keys[:1]))
    results = {}
    for policy in ("noise+trivial", "trivial+noise"):
        config.augment.policy = policy
        results[policy] = np.asarray(make_augment(config)(images, keys))
    assert not np.array_equal(*results.values())


@pytest.mark.parametrize(
    ("register", "key", "make"),
    [
        (register_optimizer, "optimizer.name", lambda c: make_optimizer(c.optimizer, lambda s: 1)),
        (register_schedule, "schedule.name", lambda c: make_schedule(c.schedule, 10, 20, 8)),
        (register_loss, "loss", lambda c: make_task(c, 4)),
        (register_task, "task", lambda c: make_task(c, 4)),
        (register_augmentation, "augment.policy", make_augment),
        (register_source, "dataset.name", lambda c: open_source(c.dataset, "train")),
    ],
)
def test_a_part_that_fails_or_returns_nonsense_is_an_error_of_one_line(config, register, key, make):
    def fail(*_):
        raise ZeroDivisionError("by\nzero")

    def exit(*_):
        sys.exit(3)

    register("failing", fail)
    register("exiting", exit)
    register("nonsense", lambda *_: 7)
    register("forgetful", lambda *_: None)
    for name, message in (
        ("failing", r"fails: ZeroDivisionError: by zero \(test_own_parts.py, line \d+\)"),
        ("exiting", "fails: SystemExit: 3"),
        ("nonsense", "7|int"),
        ("forgetful", "'forgetful' returned None; its function may lack a return"),
    ):
        config.update_from_flattened_dict({key: name})
        with pytest.raises(UsageError, match=message):
            make(config)


def test_parts_that_return_other_shapes_are_errors_at_the_start(config):
    register_augmentation("half", lambda augment: lambda image, key: image[::2])
    register_metric("mean", lambda logits, labels: logits.mean())
    config.augment.policy = "half"
    with pytest.raises(
        UsageError, match=r"policy='half' cannot be used: it returns .*\(8, 16, 3\)"
    ):
        make_augment(config)
    config.eval.metrics = ("mean",)
    with pytest.raises(UsageError, match=r"metric 'mean' .* it returned float32 \(\)"):
        make_task(config, 10)


def raising(*_):
    raise ValueError("no dice")


def with_probabilities(part, probabilities):
    part.probabilities = probabilities
    return part


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: raising, r"loss 'own' cannot be computed: ValueError: no dice \(test_own_parts"),
        (lambda c: lambda x, t: x[:, :1], r"one number per image.* returned float32 \(4, 1\)"),
        (lambda c: lambda x, t: x.argmax(1), "loss 'own' must be floating-point .* not int32"),
        (
            with_probabilities(lambda c: lambda x, t: x[:, 0], "softplus"),
            "loss 'own' has probabilities='softplus'; valid are 'softmax' and 'sigmoid'",
        ),
    ],
)
def test_a_wrong_loss_is_an_error_at_the_start(config, make, message):
    register_loss("own", make)
    config.loss = "own"
    with pytest.raises(UsageError, match=message) as caught:
        make_task(config, 10)
    assert "ShapeDtypeStruct" not in str(caught.value)


def test_a_wrong_task_is_described_without_its_functions(config):
    loss = LOSSES["cross_entropy"](config)
    config.task = "own"
    for task, message in (
        (Task(loss, loss, {"acc": top1}), "no metric 'top1', which .*; its metrics are acc$"),
        (Task(loss, loss, {"top1": top1}, probabilities="none"), "'own' has probabilities='none'"),
        ({}, "must return a train.tasks.task.Task, not an object of the type dict$"),
    ):
        register_task("own", lambda config, task=task: task)
        with pytest.raises(UsageError, match=message):
            make_task(config, 10)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (0.1, "the schedule 'own' must return a function of the step .*, not 0.1"),
        (lambda step: None, "must return a function .* that returns one number, not None"),
        (lambda step: jnp.ones(3), r"one number, not float32 \(3,\)"),
        (lambda step: 0.1 if step < 2 else 0, "cannot be computed for a step that is an array"),
        (lambda step: -0.1, "the learning rate -0.1 for step 0; it must be finite and 0 or more"),
        (lambda step: jnp.log(19.0 - step) + 1, "the learning rate -inf for step 19"),
    ],
)
def test_a_wrong_schedule_is_an_error_at_the_start(config, schedule, message):
    register_schedule("own", lambda *_: schedule)
    config.schedule.name = "own"
    with pytest.raises(UsageError, match=message):
        make_schedule(config.schedule, 10, 20, 8)


PARAMS = {"head": {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32)}}


@pytest.mark.parametrize(
    ("init", "update", "message"),
    [
        (lambda p: {"s": "text"}, None, "state of the optimizer 'own' must .* arrays, not 'text'"),
        (lambda p: {"n": 0}, None, "state of the optimizer 'own' must .* arrays, not 0"),
        (lambda p: (), raising, "'own' cannot be computed: ValueError: no dice"),
        (lambda p: (), lambda u, s, p: (jax.tree.leaves(u), s), "updates .* structure differs"),
        (lambda p: (), lambda u, s, p: (jax.tree.map(jnp.sum, u), s), r"float32 \(\) instead of"),
        (
            lambda p: {"n": jnp.zeros((), int)},
            lambda u, s, p: (u, {"n": s["n"] + 1.0}),
            r"returned state .*\['n'\] is float32 \(\) instead of int32 \(\)",
        ),
    ],
)
def test_a_wrong_optimizer_is_an_error_at_the_start(init, update, message):
    with pytest.raises(UsageError, match=message):
        check_optimizer("own", optax.GradientTransformation(init, update), PARAMS)


def test_right_optimizers_pass():
    for optimizer in (
        optax.contrib.prodigy(),
        optax.adamw(1e-3),
        optax.contrib.schedule_free_sgd(),
    ):
        check_optimizer("own", optimizer, PARAMS)


def test_a_wrong_key_in_an_own_part_is_one_clean_line(config):
    register_optimizer("own", lambda optimizer, schedule: optimizer.my_momentum)
    config.optimizer.name = "own"
    with pytest.raises(UsageError, match="AttributeError: 'my_momentum' Did you mean") as caught:
        make_optimizer(config.optimizer, lambda step: 1)
    assert "\\n" not in str(caught.value)


def write_recipe(folder, body, **modules):
    """Write a recipe that registers own parts, and modules beside it; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    (folder / "recipe.py").write_text(
        "from train import declare_key, default_config, register_loss\n"
        f"{body}\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.loss = 'own'\n"
        "    return config\n"
    )
    return str(folder / "recipe.py")


def loss_of(factor):
    return (
        f"from helpers import ZERO\ndeclare_key('factor', {factor}, 'Factor.', minimum={factor})\n"
        "@register_loss('own')\n"
        "def own(config):\n"
        "    from helpers import one\n"  # when the recipe has long ended
        "    return lambda logits, targets: config.factor * one(logits)\n"
    )


HELPERS = "ZERO = 0\ndef one(logits):\n    return {} + logits[:, 0] * ZERO\n"


def test_recipes_of_one_process_keep_their_parts_keys_and_modules(tmp_path):
    """Both register a loss and declare a key of the same names, and import a module ``helpers``."""
    before = set(sys.modules)
    first = write_recipe(tmp_path / "a", loss_of(2), helpers=HELPERS.format(1))
    second = write_recipe(tmp_path / "b", loss_of(30), helpers=HELPERS.format(10))
    configs = [load_config(first), load_config(second)]
    assert "helpers" not in set(sys.modules) - before
    logits, targets = jnp.zeros((3, 4)), Targets(jnp.zeros(3, int))
    for config, expected in zip(configs * 2, (2, 300) * 2, strict=True):
        assert own_parts.recipe_of(config).path == (first if expected == 2 else second)
        loss = make_task(config, 4).loss(logits, targets)
        np.testing.assert_array_equal(loss, [expected] * 3)
        check_config(config)


def test_local_modules_are_found_and_others_are_not(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "inner.py").write_text("from . import other\nVALUE = other.VALUE\n")
    (package / "other.py").write_text("VALUE = 7\n")
    (tmp_path / "time.py").write_text("raise AssertionError('hides the standard library')\n")
    (tmp_path / "numpy.py").write_text("raise AssertionError('hides an installed module')\n")
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "installed_one.py").write_text("VALUE = 8\n")
    monkeypatch.syspath_prepend(str(installed))
    (tmp_path / "recipe.py").write_text(
        "from __future__ import annotations\n"
        "import dataclasses, time, numpy, installed_one\n"
        "import package.inner\n"
        "import package.inner as inner\n"
        "def make():\n"
        "    from package import other\n"
        "    @dataclasses.dataclass\n"
        "    class Own:\n"
        "        value: int = other.VALUE\n"
        "    return Own()\n"
    )
    recipe = read_recipe(str(tmp_path / "recipe.py"))
    assert sorted(recipe.modules) == ["package/inner.py", "package/other.py"]
    with running(recipe) as module:
        pass
    assert module.package.inner.VALUE == module.inner.VALUE == module.make().value == 7


def test_a_run_with_an_own_key_only_needs_its_recipe(run, folder, tmp_path, commands):
    shutil.copytree(run[0], tmp_path / "run")
    info = json.loads((tmp_path / "run/run.json").read_text())
    info["own_parts"] = ["key poly_epsilon", "key optimizer.lion_b2"]
    (tmp_path / "run/run.json").write_text(json.dumps(info))
    assert load_run(tmp_path / "run").step == 22
    assert "poly_epsilon" in KEYS


def test_a_missing_copy_is_an_error_only_where_it_is_needed(moved):
    shutil.rmtree(moved / "recipe")
    with pytest.raises(WeightsError, match=r"copy of the recipe .* is missing"):
        load_run(moved, trust_recipe=True)


def test_the_original_is_enough(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run", ignore=lambda *_: ["recipe"])
    assert load_run(tmp_path / "run").step == 22


def test_the_place_of_a_recipe_is_trusted_not_its_content(run, folder, tmp_path):
    """It may read files beside it, which a workdir from elsewhere may bring along."""
    shutil.copytree(run[0], tmp_path / "run")
    shutil.copytree(folder, tmp_path / "evil", ignore=lambda *_: ["run", "killed", "state"])
    text = (tmp_path / "run/run.json").read_text()
    (tmp_path / "run/run.json").write_text(text.replace(str(folder), str(tmp_path / "evil")))
    with pytest.raises(WeightsError, match="no note says that you trained with it"):
        load_run(tmp_path / "run")


def test_a_note_that_cannot_be_written_is_a_warning(config, monkeypatch, tmp_path, capsys):
    (tmp_path / "state").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run_files.create(str(tmp_path / "run"), config)
    assert re.search(
        r"warning: cannot note .*my_recipe.py.*--trust_recipe$", capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", r"has config.scale, which its recipe no longer declares; use the recipe as it was"),
        ("declare_key('scale', 1, '.', maximum=1)", r"no longer permits: .* at most 1, not 2"),
    ],
)
def test_a_key_that_the_recipe_changed_is_named(run, tmp_path, line, message):
    recipe = write_recipe(tmp_path, f"{line}\nregister_loss('own')(lambda config: None)")
    load_config(recipe)
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text('{"scale": 2}')
    info = json.loads((run[0] / "run.json").read_text())
    (workdir / "run.json").write_text(json.dumps(info | {"own_parts": ["key scale"]}))
    with pytest.raises(RunError, match=message):
        run_files.read_config(str(workdir))


def test_a_relative_state_folder_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = read_recipe(__file__)
    assert recipe_store._trust_file(recipe).is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ownKey", 1, "x"), "of lower-case letters, digits and '_', not 'ownKey'"),
        (("own.deep.key", 1, "x"), "at most one group"),
        (("own.class", 1, "x"), "'class' is a keyword"),
        (("seed", 1, "x"), "is a key of the project"),
        (("optimizer", 1, "x"), "a key and a group"),
        (("seed.more", 1, "x"), "a key and a group"),
        (("items", 1, "x"), "is a method"),
        (("own", None, "x"), "is not a bool, number"),
        (("own", 1.0, "x", {"minimum": 2}), "default of config.own must be at least 2"),
        (("own", "text", "x", {"minimum": 2}), "own: minimum=2 needs numbers, .* 'text'"),
        (("own", "text", "x", {"minimum": 0}), "own: minimum=0 needs numbers, .* 'text'"),
        (("own", ("a",), "x", {"below": 2}), r"own: below=2 needs numbers, .* \('a',\)"),
        (("own", 1, "x", {"maximum": "2"}), "own: maximum must be a number, not '2'"),
        (("own", 1, "x", {"values": (1,)}), "there is no values=.*; valid are choices, .*minimum"),
        (("own", "a", "x", {"choices": "abc"}), "choices must be a tuple, not 'abc'"),
        (("own", 1, "x", {"separator": "+"}), "needs a text, and the default is 1"),
    ],
)
def test_wrong_keys_are_refused(arguments, message):
    *arguments, limits = arguments if len(arguments) == 4 else (*arguments, {})
    with pytest.raises(ValueError, match=message):
        declare_key(*arguments, **limits)
    assert arguments[0] in ("seed", "optimizer") or arguments[0] not in KEYS


def test_a_recipe_declares_a_key_once(tmp_path):
    line = "declare_key('own', 1, 'x')\n"
    with pytest.raises(UsageError, match=r"line 3: ValueError: config.own is declared twice"):
        load_config(write_recipe(tmp_path, line + line))


@pytest.mark.parametrize("kind", ["loss", "source", "block"])
def test_decorators_without_a_name_are_refused(kind):
    register = {"loss": register_loss, "source": register_source, "block": register_block}[kind]
    with pytest.raises(ValueError, match=rf'write @register_{kind}\("NAME"\)'):

        @register
        def part(config):
            pass

    with pytest.raises(ValueError, match="'own' must be a function or class, not None"):
        register("own", None)


def test_keys_may_be_tuples_of_text():
    declare_key("own_names", ("a", "b"), "Names.")
    check_value("own_names", ("c",))
    with pytest.raises(UsageError, match="must be names such as a,b"):
        check_value("own_names", (1.0,))


@pytest.mark.parametrize("late", ["register_loss('late')(make)", "declare_key('late', 1, 'Late.')"])
def test_parts_registered_in_get_config_are_refused_at_the_start(tmp_path, late):
    body = "def make(config): ...\nregister_loss('own')(make)\n"
    path = write_recipe(tmp_path, body)
    with open(path) as file:
        recipe = file.read()
    load_config(path)
    with open(path, "w") as file:
        file.write(recipe.replace("    return", f"    {late}\n    return"))
    with pytest.raises(UsageError, match=r"does not register (loss|key) late when it is imported"):
        load_config(path)
