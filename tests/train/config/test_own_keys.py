"""Keys that recipes declare."""

import pytest

from tests.own_recipe import write_recipe
from train import declare_key
from train.config.checks import check_value
from train.config.keys import KEYS
from train.config.loading import load_config
from train.runtime.errors import UsageError


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


def test_keys_may_be_tuples_of_text():
    declare_key("own_names", ("a", "b"), "Names.")
    check_value("own_names", ("c",))
    with pytest.raises(UsageError, match="must be names such as a,b"):
        check_value("own_names", (1.0,))
