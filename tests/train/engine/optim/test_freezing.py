"""Modules selected by the patterns of config.freeze."""

import pytest

from train.engine.optim.freezing import frozen_modules
from train.runtime.errors import UsageError

MODULES = [
    "stem_conv",
    "stem_norm",
    "stage1_block1",
    "stage1_block2",
    "stage2_block1",
    "end_norm",
    "head",
]


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        ("", []),
        ("stem*", ["stem_conv", "stem_norm"]),
        ("stem_norm, stage[12]_block1", ["stage1_block1", "stage2_block1", "stem_norm"]),
        ("backbone", sorted(MODULES[:-1])),
        ("head", ["head"]),
    ],
)
def test_patterns_select_modules(patterns, frozen):
    assert frozen_modules(patterns, MODULES) == tuple(frozen)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("stem*,stage5*", r"'stage5\*' matches no module; there are end_norm, head, stage1_block1"),
        ("stage1", r"'stage1' matches no module; 'stage1\*' matches stage1_block1, stage1_block2$"),
        ("*", r"config.freeze='\*' leaves nothing to train"),
        ("backbone,head", "leaves nothing to train"),
    ],
)
def test_impossible_patterns_are_usage_errors(patterns, message):
    with pytest.raises(UsageError, match=message):
        frozen_modules(patterns, MODULES)
