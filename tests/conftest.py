"""Shared by all tests: four virtual devices, a compilation cache, the prepared digits, fixtures."""

import atexit
import os
import shutil
import sys
import tempfile

from tests.flags import xla_flags

# This must precede the import of JAX. The caches are shared by pytest's workers and the processes
# that tests start, and are separate from the developer's own.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
os.environ["XLA_FLAGS"] = xla_flags(4)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["FLAX_RESNET_ONEDNN"] = "0"  # test_onednn.py has the tests of that library
os.environ["HF_HUB_OFFLINE"] = "1"  # without a network a request would take 20 s
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.environ["XDG_CACHE_HOME"] + "/compiled")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import contextlib
import gc
import importlib.util
import io
import logging
import signal
import socket
import subprocess
from pathlib import Path

import pytest

# A shell ignores it in background jobs, and the processes that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
gc.set_threshold(50_000)  # tracing makes many objects but few cycles; saves 10 % of its time

ROOT = Path(__file__).parent.parent
DIGITS = "configs/resnet20_digits.py"

# The slowest test files, slowest first, so that two workers finish at about the same time.
SLOWEST = (
    "distributed_runs",
    "distributed",
    "recipes",
    "ops",
    "main",
    "torture",
    "step",
    "step_options",
    "keras",
    "export",
    "timm",
    "docs",
)


def pytest_configure():
    existing = {
        path.stem.removeprefix("test_") for path in Path(__file__).parent.rglob("test_*.py")
    }
    if not existing.issuperset(SLOWEST):
        stale = ", ".join(sorted({*SLOWEST} - existing))
        raise pytest.UsageError(f"SLOWEST in tests/conftest.py names missing files: {stale}")


def pytest_collection_modifyitems(items):
    names = [f"test_{name}" for name in SLOWEST]

    def position(item):
        return names.index(item.path.stem) if item.path.stem in names else len(names)

    items.sort(key=position)  # stable: otherwise the order does not change


def free_port():
    """Return a free port of localhost."""
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """The folder in which the digits are prepared on first use."""
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture
def digits_config(data_dir):
    """The digits recipe with images of 8×8 pixels and three steps."""
    from train.config.loading import load_config

    config = load_config(str(ROOT / DIGITS))
    config.dataset.data_dir = data_dir
    config.dataset.image_size = 8
    config.num_steps = 3
    return config


@contextlib.contextmanager
def as_a_process():
    """Restore whatever a command changes in its process."""
    import absl.logging

    argv, hook, environ = sys.argv, sys.unraisablehook, os.environ.copy()
    verbosity = absl.logging.get_verbosity()
    names = ("asyncio", "flax_resnet", "flax_resnet.calibration")
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    try:
        yield
    finally:
        sys.argv, sys.unraisablehook = argv, hook
        absl.logging.set_verbosity(verbosity)
        for logger, level in levels.items():
            logger.setLevel(level)
        for name in os.environ.keys() - environ.keys():
            del os.environ[name]
        os.environ.update(environ)


def command_main(module):
    """Return the ``main`` of a command's module or package."""
    package = importlib.util.find_spec(module).submodule_search_locations is not None
    return importlib.import_module(f"{module}.__main__" if package else module).main


class Commands:
    """Runner of the project's commands, as users run them."""

    root = ROOT

    def __init__(self, data_dir):
        self.data_dir = data_dir

    def start(self, module, *arguments, devices=1, cwd=ROOT, **kwargs):
        env = os.environ | {"XLA_FLAGS": xla_flags(devices), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", module, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kwargs
        return subprocess.Popen(command, env=env, cwd=cwd, text=True, **pipes)

    def run(self, module, *arguments, **kwargs):
        """Run to the end; return the process with ``returncode``, ``stdout``, ``stderr``."""
        process = self.start(module, *arguments, **kwargs)
        stdout, stderr = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def call(self, module, *arguments):
        """Like :meth:`run`, but in this process with its four devices, which saves imports.

        For commands that do not train. Signals and the exit status of a process need :meth:`run`.
        """
        from train.runtime.cli import run_command

        stdout, stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        with as_a_process(), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            sys.argv = [module, *map(str, arguments)]
            try:
                run_command(command_main(module))
            except SystemExit as ended:
                status = ended.code
        texts = []
        for stream in (stdout, stderr):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())
        return subprocess.CompletedProcess([module, *arguments], status, *texts)

    def digits(self, workdir, *overrides):
        """Return the arguments for training on the digits in ``workdir``."""
        return (
            *("--config", DIGITS, "--workdir", workdir),
            f"--config.dataset.data_dir={self.data_dir}",
            *overrides,
        )


@pytest.fixture(autouse=True)
def own_parts_of_a_test():
    """Forget the parts and keys that a test registers."""
    from flax_resnet import recipes, registry
    from train.config import own_keys  # noqa: F401 (it creates the registry of keys)
    from train.config.keys import KEYS

    parts = [(each, dict(each._entries)) for each in registry._registries.values()]
    keys, known = dict(KEYS), dict(recipes.known)
    yield
    for each, before in parts:
        # The project's modules are imported only once.
        project = {name: e for name, e in each._entries.items() if e.owner is None}
        each._entries.clear()
        each._entries.update(project | before)
    for mapping, before in ((KEYS, keys), (recipes.known, known)):
        mapping.clear()
        mapping.update(before)


@pytest.fixture(scope="session")
def commands(data_dir):
    return Commands(data_dir)


@pytest.fixture(scope="session")
def digits_run(data_dir, tmp_path_factory):
    """A read-only workdir: two epochs of a small network on the digits, with EMA."""
    from train.config.loading import load_config
    from train.loop import train
    from train.runtime.signals import StopRequest

    config = load_config(str(ROOT / DIGITS))
    config.dataset.data_dir = data_dir
    config.dataset.image_size = 8
    config.model.stage_sizes = (1, 1, 1)
    config.num_epochs = 2.0
    config.ema.decay = 0.9
    config.eval.every_epochs = 1.0
    config.checkpoint.every_epochs = 1.0
    path = str(tmp_path_factory.mktemp("runs") / "digits")
    train(config, path, StopRequest())
    return path


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """A folder of pictures of several shapes, with the table ``labels.csv``."""
    from tests.train.shapes import draw_shapes

    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(folder, 160)
    return folder


@pytest.fixture(scope="session")
def shapes_run(shapes, tmp_path_factory):
    """A read-only workdir: a small network for several classes per image, on the first fold."""
    path = tmp_path_factory.mktemp("runs") / "shapes"
    return train_on_shapes(shapes, path, "1/2")


def train_on_shapes(shapes, path, fold, task="multi_label", epochs=3.0):
    """Train a small network for several classes per image on a fold; return its workdir."""
    from train.config.loading import load_config
    from train.loop import train
    from train.runtime.signals import StopRequest

    config = load_config(str(ROOT / DIGITS))
    config.task = task
    config.eval.metrics = ("top2",)
    config.dataset.update(name="table", labels=str(shapes / "labels.csv"), image_size=16, fold=fold)
    config.model.stage_sizes = (1, 1, 1)
    config.batch_size = 16
    config.num_epochs = epochs
    train(config, str(path), StopRequest())
    return str(path)
