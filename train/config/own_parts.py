"""The own parts that a configuration uses, and their recipe."""

from collections.abc import Hashable

from flax_resnet import recipes
from flax_resnet.recipes import Recipe
from flax_resnet.registry import SESSION
from train.config.access import flatten
from train.config.keys import KEYS
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError


def recipe_of(config: ConfigDict) -> Recipe | None:
    """Return the recipe that registered the own parts of a configuration; None without one.

    Its parts are registered again if others of their names were since.

    Raises:
      UsageError: the recipe did not run in this process, or does not register the parts.
    """
    if not config.recipe:
        return None
    recipe = recipes.known.get(config.recipe)
    if recipe is None:
        raise UsageError(
            f"the recipe with the checksum {config.recipe[:16]}… has not run in this process; make"
            " the configuration with load_config(RECIPE)"
        )
    if set(own_parts(config).values()) - {config.recipe, SESSION}:
        with recipes.running(recipe):
            pass
    return recipe


def own_parts(config: ConfigDict) -> dict[str, Hashable]:
    """Return the own parts that a configuration uses and its own keys, with their owners."""
    parts = {}
    for name, value in flatten(config).items():
        key = KEYS.get(name)
        if key is None:
            continue
        for part in key.chosen(value) if key.registry is not None else ():
            if (owner := key.registry.owner(part)) is not None:
                parts[f"{key.registry.kind} {part}"] = owner
        if key.owner is not None:
            parts[f"key {name}"] = key.owner
    return parts
