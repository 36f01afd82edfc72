"""Own parts of docs/extend.md: a run with them is a whole run, and needs its recipe."""

import json
import os
import re
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from flax_resnet import load_run
from flax_resnet.weights import WeightsError
from tests.conftest import ROOT
from tests.own_recipe import write_recipe
from tests.train.test_main import final_state
from train.config.keys import KEYS
from train.config.loading import load_config
from train.config.registries import LOSSES, METRICS, SCHEDULES
from train.data.augment.configured import make_augment
from train.data.augment.mixup import Targets
from train.data.images import encode_png
from train.engine.optim.optimizers import make_optimizer
from train.engine.optim.schedules import Span
from train.runtime.errors import RunError, UsageError
from train.tasks.configured import make_task
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
    assert re.search(r"<th[^>]*>margin</th>", (workdir / "report.html").read_text())
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
