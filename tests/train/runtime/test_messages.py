"""Messages are one line of printable text, whatever the names and values that they quote."""

import logging
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from flax_resnet import decoding, load_weights
from flax_resnet.decoding import ImageDecodeError, read_image
from flax_resnet.text import error_reason
from flax_resnet.weights import WeightsError
from flax_resnet.weights import __main__ as weights_command
from tests.conftest import ROOT
from tests.flax_resnet.weights.weight_files import SMALL, write_safetensors
from tests.train.pictures import encode
from train.reporting.console import Console
from train.runtime import cli
from train.runtime.errors import RunError, UsageError, warn

EVIL = "\x1b[2J\nevil\u202e\u2028\udce9"
SPELLED = r"\x1b[2J\nevil\u202e\u2028\udce9"


def test_errors_of_the_library_are_one_line():
    for kind in (WeightsError, ImageDecodeError):
        assert str(kind(f"a {EVIL} b")) == f"a {SPELLED} b"
    assert len(str(WeightsError("a" * 10**6))) < 5000


@pytest.mark.parametrize(("kind", "status"), [(RunError, 1), (UsageError, 2)])
def test_commands_print_errors_in_one_line(kind, status, capsys):
    def command():
        raise kind(f"no {EVIL}")

    with pytest.raises(SystemExit) as end:
        cli.run_command(command)
    assert end.value.code == status
    assert capsys.readouterr().err == f"error: no {SPELLED}\n"


def test_warnings_and_lines_of_the_console_are_one_line(capsys):
    warn(EVIL)
    assert capsys.readouterr().err == f"warning: {SPELLED}\n"
    console = Console(1)
    console.info(EVIL)
    console.fact("a", EVIL)
    console.warn(EVIL)
    console.note(EVIL)
    console.warn(EVIL, wraps=True)
    output = capsys.readouterr()
    assert output.out == f"{SPELLED}\na:         {SPELLED}\n"
    assert output.err == f"warning: {SPELLED}\nnote: {SPELLED}\nwarning: {SPELLED}\n"


def test_commands_print_warnings_of_images_in_one_line(tmp_path, monkeypatch, capsys):
    """Python's own form has a second line with the code that warned."""
    monkeypatch.setattr(decoding, "_warned", set())
    path = tmp_path / "evil\x1b[2J\u202e\n.png"
    path.write_bytes(encode(Image.fromarray(np.full((4, 4), 999, np.uint16)), "PNG"))
    with pytest.raises(SystemExit):
        cli.run_command(lambda: read_image(path) is None)
    [line] = capsys.readouterr().err.splitlines()
    assert re.match(r"warning: .*evil\\x1b\[2J\\u202e\\n\.png: 16-bit values reach only 999 ", line)


def test_library_errors_are_joined_and_do_not_advise_to_run_code():
    error = ValueError(
        "Header is large.\nTo load it, trust the `.npy` file using `allow_pickle=True`.\n  Or not."
    )
    assert error_reason(error) == "Header is large. Or not."
    assert error_reason(ValueError("use weights_only=False")) == "ValueError"
    assert error_reason(ValueError("a" * 10**6)) == "a" * 199 + "…"


def test_names_of_tensors_are_spelled_in_logs_and_tables(tmp_path, caplog, capsys):
    path = tmp_path / "evil\n.safetensors"
    names = ["layer1.0.conv1.weight", "\x1b[2Jevil\n"]
    write_safetensors(path, {name: ("F32", (1,), bytes(4)) for name in names})
    with caplog.at_level(logging.INFO, "flax_resnet"):
        load_weights(SMALL, path, strict=False)
    assert r"\x1b[2Jevil\n" in caplog.text and r"evil\n.safetensors" in caplog.text
    weights_command.main(["inspect", "--tensors", str(path)])
    printed = capsys.readouterr().out
    assert r"  \x1b[2Jevil\n  1  float32" in printed
    for text in (caplog.records[-1].getMessage(), printed):
        assert all(line.isprintable() for line in text.split("\n"))


def test_arguments_that_are_not_utf8_are_spelled():
    command = [sys.executable, "-m", "flax_resnet.weights", "inspect", b"\xff\x1b[2J\n.pth"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, env={"LC_ALL": "C"})
    assert process.returncode == 1
    assert process.stderr == rb"error: \udcff\x1b[2J\n.pth does not exist" + b"\n"
    process = subprocess.run([*command, "\x1b"], cwd=ROOT, capture_output=True)
    assert process.returncode == 2 and process.stderr.count(b"\n") == 1
    assert rb"unrecognized arguments: \x1b" in process.stderr


def test_compression_is_no_way_around_the_limits(tmp_path):
    np.savez_compressed(tmp_path / "w.npz", **{"layer1.0.conv1.weight": np.zeros(10**8, np.int8)})
    with pytest.raises(WeightsError, match="its tensors claim 100,000,000"):
        load_weights(SMALL, tmp_path / "w.npz")
