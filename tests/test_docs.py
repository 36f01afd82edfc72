"""Every snippet and command of the README and docs runs, taken from their text.

Shell blocks are run by bash, with functions in place of ``python`` and the like that note what
they are called with; then each call is made, in this process, as :class:`Calls` says. Blocks of
Python run as they are, but for ``SUBSTITUTES``. The places that texts name stand for small things
made here, see :func:`walk`.
"""

import ast
import glob
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import command_of

ROOT = Path(__file__).parent.parent

DOCS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

# Commands whose effect another test shows, by their exact text in the docs.
COVERED = {
    "python -m train.plan --config configs/resnet20_digits.py": "train/test_plan.py",
    "python -m train.evaluate --workdir runs/resnet20_digits": "train/test_evaluation.py",
    "python -m train.predict --workdir runs/resnet20_digits IMAGE_OR_FOLDER --topk 3"
    " --explain explained": "train/test_predict.py",
    "python -m train.export --workdir runs/resnet20_digits --format stablehlo"
    " --output digits.stablehlo": "train/test_export.py",
    "python -m train.export --workdir runs/finetuned --format torchvision"
    " --output finetuned.safetensors": "train/test_export.py",
    "python -m train.export --workdir runs/pictures --format stablehlo"
    " --output exported/pictures.stablehlo": "train/test_export.py",
    "python -m train.prepare --dataset cifar10 --data_dir ~/data": "train/test_prepare.py",
    "python -m train.prepare --dataset imagenet2012 --data_dir ~/data"
    " --manual_dir ~/downloads --resize 400": "train/test_prepare.py",
    "python -m train.main --config configs/resnet50_imagenet_a1.py"
    " --config.smoke=True": "train/test_recipes.py",
    "python -m train.main --config configs/resnet50_imagenet_fast.py"
    " --config.smoke=True": "train/test_recipes.py",
    "python -m pytest": "conftest.py",  # this is it
}

# Training that is done, for two steps of a small net. Of all other training the command line is
# read as train.main reads it, recipe and keys, and a run on the digits takes the place.
SMALL = ("--config.smoke=True", "--config.model.stage_sizes=1,1", "--config.model.width=8")
TRAINED = ("runs/pictures", "runs/finetuned")

# Blocks that show what a program prints, by how they begin.
PRINTED = ("data:    digits", "digits test: 360 images")

# Smaller networks and images, which compile in a moment, in blocks of Python.
SUBSTITUTES = {
    'create_model("resnet50", num_classes=10, dtype=jnp.bfloat16)': 'create_model("resnet50",'
    " num_classes=10, dtype=jnp.bfloat16, stage_sizes=(1,), width=8)",
    "jnp.zeros((4, 224, 224, 3))": "jnp.zeros((4, 32, 32, 3))",
    '"runs/resnet18_folder"': '"resnet18.safetensors"',
    'create_model("resnet18", num_classes=0), "resnet18.safetensors"': "backbone,"
    ' "small18.safetensors"',
    'create_model("resnet18", num_classes=0': 'create_model("resnet18", num_classes=0,'
    " stage_sizes=(1, 1, 1, 1), width=16",
    "(1, 16, 12, 512)": "(1, 16, 12, 128)",
}

NOTING = """
note() {  # in one piece, as commands in the background note at the same time
    local own=calls.$BASHPID
    { printf '%s\\0' "$@"; printf '\\n'; } > "$own"
    cat "$own" >> calls
    rm "$own"
}
python() { note python "$@"; }
pip() { note pip "$@"; }
srun() { shift; "$@"; }
scontrol() { note scontrol "$@"; }
"""


def blocks(name):
    """``(language, text)`` of each fenced block of a file."""
    text = (ROOT / name).read_text()
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.M | re.S)
    assert 2 * len(found) == len(re.findall(r"^ *```", text, re.M)), "a block that is not closed"
    return [(language, textwrap.dedent(inside)) for _, language, inside in found]


def calls(script, folder):
    """What a shell script calls, as lists of arguments; the script has to end well."""
    noted = folder / "calls"
    noted.unlink(missing_ok=True)
    process = subprocess.run(
        ["bash", "-c", NOTING + script],
        cwd=folder,
        env=os.environ | {"HOME": "~"},  # as the text has it
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (process.returncode, process.stderr) == (0, ""), script
    lines = noted.read_text().split("\0\n") if noted.exists() else []
    return [line.split("\0") for line in lines if line]


@pytest.fixture(scope="module")
def walk(digits_run, tmp_path_factory):
    """A folder with what the texts name: pictures, weights, a run on the digits, the recipes."""
    from flax_resnet import create_model, init_variables, save_weights

    folder = tmp_path_factory.mktemp("docs")
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        for number in range(20):
            place = folder / "DIR" / label / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place), random.integers(0, 256, (40, 40, 3), np.uint8))
    for name in ("a.png", "b.jpg", "PICTURE.png"):
        cv2.imwrite(str(folder / name), random.integers(0, 256, (40, 50, 3), np.uint8))
    os.rename(folder / "PICTURE.png", folder / "PICTURE")
    shutil.copytree(digits_run, folder / "runs" / "resnet20_digits")
    os.symlink(ROOT / "configs", folder / "configs")

    def weights(name, file, **fields):
        model = create_model(name, num_classes=1000, **fields)
        variables = init_variables(model, 0, (32, 32, 3))
        save_weights(variables, folder / "new.safetensors", model=model, layout="torchvision")
        os.rename(folder / "new.safetensors", folder / file)

    weights("resnet18", "resnet18.safetensors")
    weights("resnet18", "small18.safetensors", stage_sizes=(1, 1, 1, 1), width=16)
    weights("resnet50", "resnet50-11ad3fa6.pth", stage_sizes=(1, 1), width=8)
    save = folder / "resnet20.safetensors"
    model = create_model("resnet20")
    save_weights(init_variables(model, 0, (32, 32, 3)), save, model=model, layout="torchvision")
    return folder


class Calls:
    """Makes the calls of shell blocks in ``folder``."""

    def __init__(self, folder, digits_run, monkeypatch):
        self.folder, self.digits_run, self.monkeypatch = folder, digits_run, monkeypatch
        self.covered = set()

    def make(self, call):
        text = " ".join(call)
        if text in COVERED:
            assert (ROOT / "tests" / COVERED[text]).exists()
            return
        if call[0] == "pip":
            self.pip(*call[1:])
        elif call[0] == "scontrol":
            pass  # SLURM's, and there is none here
        else:
            assert call[:2] == ["python", "-m"], text
            module, arguments = call[2], call[3:]
            arguments = [one for given in arguments for one in sorted(glob.glob(given)) or [given]]
            getattr(self, module.replace(".", "_"))(arguments)

    def command(self, module, arguments):
        """Runs a command's ``main`` as if it had been typed."""
        main = command_of(module)
        self.monkeypatch.setattr("sys.argv", [module, *arguments])
        assert main() in (0, None), (module, arguments)

    def pip(self, verb, *arguments):
        """Extras exist; CI's script installs them, in a fresh environment."""
        assert verb == "install"
        extras = re.findall(r"\.\[(.*)\]", " ".join(arguments))
        for extra in extras:
            assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.M)
        assert extras or arguments[-1] in (".", "-e"), arguments

    def train_main(self, arguments):
        from train import main

        _, config, workdir = main.parse(arguments)
        if workdir in TRAINED:
            self.command("train.main", [*arguments, *SMALL])
        elif not os.path.isabs(workdir) and not os.path.exists(workdir):
            shutil.copytree(self.digits_run, workdir)
            path = os.path.join(workdir, "config.json")
            text = open(path).read().replace('"seed": 0', f'"seed": {config.seed}')
            open(path, "w").write(text)

    def train_plan(self, arguments):
        from train import main

        main.parse(arguments)  # tests/train/plan has what it does

    def train_evaluate(self, arguments):
        self.command("train.evaluate", arguments)

    def train_predict(self, arguments):
        self.command("train.predict", arguments)

    def train_export(self, arguments):
        self.command("train.export", arguments)

    def train_compare(self, arguments):
        assert len([one for one in arguments if one.startswith("runs/")]) > 1
        self.command("train.compare", arguments)

    def flax_resnet_summary(self, arguments):
        self.command("flax_resnet.summary", arguments)

    def flax_resnet_weights(self, arguments):
        # The run's net here is narrower than any that has a name.
        file = {"runs/resnet20_digits": "resnet20.safetensors"}
        arguments = [file.get(argument, argument) for argument in arguments]
        self.command("flax_resnet.weights", arguments)


@pytest.mark.parametrize("name", DOCS)
def test_the_snippets_and_commands_of(name, walk, digits_run, monkeypatch):
    monkeypatch.chdir(walk)
    # What commands set for their process is undone here.
    monkeypatch.setattr("os.environ", os.environ.copy())
    made, namespace = Calls(walk, digits_run, monkeypatch), {}
    for language, text in blocks(name):
        if language == "python":
            run_python(text, namespace, walk)
        elif not text.startswith(PRINTED):
            assert language == "", f"a block of {language}"
            found = calls(text, walk)
            assert found, f"nothing is called by\n{text}"
            for call in found:
                made.make(call)


def run_python(text, namespace, folder):
    """Runs a block after the ones before it; a recipe is loaded as one."""
    from train.config.loading import load_config

    for old, new in SUBSTITUTES.items():
        text = text.replace(old, new)
    if "def get_config" in text:
        (folder / "recipe.py").write_text(text)
        load_config(str(folder / "recipe.py"))
    else:
        exec(compile(ast.parse(text), "<docs>", "exec"), namespace)


def everything():
    return "\n".join((ROOT / name).read_text() for name in DOCS)


def test_the_tables_of_this_test_name_what_is_there():
    text = re.sub(r" *\\\n\s*", " ", everything())
    for known in (*COVERED, *SUBSTITUTES, *PRINTED):
        assert known in text, f"{known!r} is in no text any more"


def test_what_is_named_in_running_text_exists():
    """Modules, recipes, files and keys, in tables and between the blocks, too."""
    from train.config.loading import KEYS

    text = everything()
    for module in re.findall(r"python -m ((?:train|flax_resnet)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    for recipe in re.findall(r"\bconfigs/\w+\.py", text):
        assert (ROOT / recipe).exists(), recipe
    for key in re.findall(r"--config\.([a-z_.]+[a-z])", text):
        assert key in KEYS, key
    for name in DOCS:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text()):
            assert (ROOT / name).parent.joinpath(link).exists(), (name, link)
    readme = (ROOT / "README.md").read_text()
    for name in DOCS[1:]:
        assert f"({name})" in readme, f"the README does not mention {name}"
