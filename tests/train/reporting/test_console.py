"""Console output."""

import io
import os
import sys

import pytest
import tqdm

from train.reporting.console import Console
from train.runtime.errors import RunError


def test_plain_lines_are_rate_limited_except_evaluations(capsys):
    with Console(100) as console:
        console.start_clock(0)
        for step in range(10, 101, 10):
            row = {"step": step, "epoch": step / 50, "train/loss": 1.0, "train/top1": 0.5}
            if step in (50, 100):
                row["eval/top1"] = 0.25
            console.progress(row)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 10/100", "step 50/100", "step 100/100"]
    assert "eval top1 25.00 %" in lines[1] and "left" in lines[1] and "left" not in lines[2]


def test_error_while_compiling_starts_a_new_line(capsys):
    with pytest.raises(RunError), Console(10) as console:
        console.compiling()
        raise RunError
    with Console(10) as console:
        console.compiling()
        console.warn("a bad image")
        console.compiled()
    with Console(10) as console:
        console.compiling()
        console.compiled()
    with pytest.raises(RunError), Console(10).stage("timing steps"):
        raise RunError
    with Console(10).stage("timing steps"):
        pass
    output = capsys.readouterr()
    lines = [line.partition("done in")[0] for line in output.out.splitlines()]
    assert lines == [*["compiling…"] * 2, *["compiling… "] * 2, "timing steps…", "timing steps… "]
    assert output.err == "warning: a bad image\n"


def test_compiling_is_a_complete_line_with_several_processes(capsys, monkeypatch):
    """A thread that ends the process because another one is lost need not finish the line."""
    monkeypatch.setattr("train.runtime.distributed.process_count", lambda: 2)
    with Console(10) as console:
        console.compiling()
        assert capsys.readouterr().out == "compiling…\n"


@pytest.mark.parametrize("has_bar", [False, True])
def test_run_continues_after_a_broken_pipe(has_bar, monkeypatch, capfd):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with Console(num_steps=3) as console:
            if has_bar:
                console.bar = tqdm.tqdm(total=3, file=io.StringIO())
            console.info("one")
            console.compiling()
            console.compiled()
    [warning] = capfd.readouterr().err.splitlines()
    assert "training continues" in warning and "Broken pipe" in warning
