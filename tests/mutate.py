"""Put bugs into a module, one at a time, and show those that its tests do not notice.

    python -m tests.mutate train/data/sampler.py tests/train/data/test_sampler.py

cosmic-ray makes the mutants. Each is tested by a fork of this process, which has imported JAX but
has not started it: that saves most of the time of a process of its own. All of it happens in a
copy of the clone.
"""

import argparse
import ast
import contextlib
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tests.conftest  # noqa: F401 (sets JAX's environment)

# What most tests import, except for our packages.
IMPORTS = "jax.numpy", "flax.linen", "optax", "scipy.stats", "cv2", "PIL.Image", "sklearn", "pytest"


def mutants(source):
    """Yield ``(line, mutated source)``, in an order that depends on the source only."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    names = [name for name in operator_names() if not get_operator(name).arguments()]
    hints = annotations(ast.parse(source))
    tree = get_ast(source)
    found = []
    for name in names:
        operator = get_operator(name)()
        places = (at for node in ast_nodes(tree) for at in operator.mutation_positions(node))
        for number, (start, _) in enumerate(places):
            if not any(low <= start < high for low, high in hints):
                found.append((start, operator, number))
    # One of the mutants of each place, then another one.
    random.Random(0).shuffle(found)
    turns, rounds = {}, []
    for item in found:
        turns[item[0]] = turn = turns.get(item[0], 0) + 1
        rounds.append((turn, item))
    for _, ((line, _), operator, number) in sorted(rounds, key=lambda pair: pair[0]):
        mutated = mutate_code(source, operator, number)
        with contextlib.suppress(SyntaxError):  # "not" before an assignment expression
            if mutated and ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source)):
                yield line, mutated


def annotations(tree):
    """Return the ``(line, column)`` ranges of all type annotations."""
    nodes = list(ast.walk(tree))
    hints = [node.annotation for node in nodes if isinstance(node, ast.arg | ast.AnnAssign)]
    hints += [node.returns for node in nodes if isinstance(node, ast.FunctionDef)]
    return [
        ((hint.lineno, hint.col_offset), (hint.end_lineno, hint.end_col_offset))
        for hint in hints
        if hint
    ]


def passes(tests, timeout):
    """Return whether the tests pass, in a fork of this process."""
    child = os.fork()
    if not child:
        os.setsid()
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
        import pytest

        options = ["-x", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
        os._exit(pytest.main([*options, "--assert=plain", *tests]))
    end = time.monotonic() + timeout
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            done = os.waitpid(child, 0)
            break
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):  # of processes that tests started
        os.killpg(child, signal.SIGKILL)
    return done[1] == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("module", help="file to mutate")
    parser.add_argument("tests", nargs="+", help="files of its tests")
    parser.add_argument("--sample", type=int, default=40, help="number of mutants (default: 40)")
    arguments = parser.parse_args()

    root = Path(tempfile.mkdtemp(prefix="mutants-"))
    listed = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"])
    for name in filter(None, listed.decode().split("\0")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, root / name)
    os.chdir(root)
    sys.path[0] = str(root)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in IMPORTS:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]

    module = Path(arguments.module)
    source = module.read_text()
    try:
        began = time.monotonic()
        if not passes(arguments.tests, 600):
            sys.exit("the tests fail without a mutation")
        timeout = 20 + 5 * (time.monotonic() - began)
        # Two mutants may have the same size and second, so that Python would mistake the bytecode.
        os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "1", True
        for cached in module.parent.glob(f"__pycache__/{module.stem}.*"):
            cached.unlink()
        count = survived = 0
        for line, mutated in mutants(source):
            if count == arguments.sample:
                break
            count += 1
            module.write_text(mutated)
            if passes(arguments.tests, timeout):
                survived += 1
                changed = zip(source.split("\n"), mutated.split("\n"), strict=True)
                old, new = next(pair for pair in changed if pair[0] != pair[1])
                print(
                    f"{arguments.module}:{line}\n  - {old.strip()}\n  + {new.strip()}", flush=True
                )
        print(f"{arguments.module}: {survived} of {count} mutants survived")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
