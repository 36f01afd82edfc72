"""Recipes with own parts, each with its own keys and modules."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnet import recipe_store, register_block
from flax_resnet.recipes import read_recipe, running
from tests.own_recipe import write_recipe
from train import register_loss, register_source
from train.config import own_parts
from train.config.loading import check_config, load_config
from train.data.augment.mixup import Targets
from train.runtime.errors import UsageError
from train.tasks.configured import make_task


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


def test_a_relative_state_folder_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = read_recipe(__file__)
    assert recipe_store._trust_file(recipe).is_relative_to(tmp_path)


@pytest.mark.parametrize("kind", ["loss", "source", "block"])
def test_decorators_without_a_name_are_refused(kind):
    register = {"loss": register_loss, "source": register_source, "block": register_block}[kind]
    with pytest.raises(ValueError, match=rf'write @register_{kind}\("NAME"\)'):

        @register
        def part(config):
            pass

    with pytest.raises(ValueError, match="'own' must be a function or class, not None"):
        register("own", None)


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
