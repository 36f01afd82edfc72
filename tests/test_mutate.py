"""The mutation testing of ``tests/mutate.py``."""

import ast
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SOURCE = "def add(a: int | None, b: int = 3) -> int | None:\n    return a + b\n"


def test_mutants_are_small_bugs_outside_of_annotations():
    pytest.importorskip("cosmic_ray")
    from tests.mutate import mutants

    found = [*mutants(SOURCE)]
    assert len({text for _, text in found}) == len(found)
    assert {line for line, _ in found} == {1, 2}
    for _, text in found:
        ast.parse(text)
        assert "(a: int | None, b: int = " in text and "-> int | None:" in text
    lines = {text.splitlines()[1].strip() for _, text in found}
    assert {"return a - b", "return a * b"} <= lines
    assert found == [*mutants(SOURCE)]


@pytest.mark.parametrize(
    ("tests", "survivors"),
    [("tests/train/data/test_sampler.py", 0), ("tests/test_structure.py", 2)],
)
def test_survivors_are_listed(tests, survivors):
    """The layers of imports do not depend on what the sampler computes."""
    pytest.importorskip("cosmic_ray")
    arguments = "-m", "tests.mutate", "train/data/sampler.py", tests, "--sample", "2"
    output = subprocess.check_output([sys.executable, *arguments], cwd=ROOT, text=True, timeout=200)
    assert output.endswith(f"train/data/sampler.py: {survivors} of 2 mutants survived\n")
    assert len(re.findall(r"sampler\.py:\d+\n  - .+\n  \+ .+", output)) == survivors
