"""Flags that all commands share."""

import pytest

from train.runtime.cli import Parser


@pytest.mark.parametrize("arguments", [["--workdir=~/runs"], ["--workdir", "~/runs"]])
def test_home_is_expanded_in_flags_as_in_configuration_keys(monkeypatch, arguments):
    monkeypatch.setenv("HOME", "/home/ada")
    parser = Parser("train.evaluate")
    parser.add_argument("--workdir")
    assert parser.parse_args(arguments).workdir == "/home/ada/runs"


def test_home_is_expanded_in_files(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    parser = Parser("train.predict")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_intermixed_args(["~/a.png", "--json", "b~.png"])
    assert flags.images == ["/home/ada/a.png", "b~.png"]
