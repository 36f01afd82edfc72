"""Lines of at most 80 columns with a hanging indent."""

import textwrap

import numpy as np

from train.runtime.columns import cut, hanging, text_columns


def test_plain_text_is_broken_as_by_textwrap():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice([*"abcdefg"], rng.integers(1, 12))) for _ in range(300)]
    text = " ".join(words)
    for columns in (30, 47, 80):
        indent = " " * 11
        expected = textwrap.wrap(
            f"classes:   {text}", columns, subsequent_indent=indent, drop_whitespace=True
        )
        assert hanging("classes:   ", text, columns).split("\n") == expected
    assert hanging("a: ", "b") == "a: b" and hanging("a: ", "") == "a:"


def test_lines_fit_with_wide_letters_marks_and_paths():
    accents = "e\u0301" * 100
    text = f"{'狗' * 60} {accents} /data/{'folder/' * 30}x.png {'z' * 200} 98 % 12 MB"
    lines = hanging("data:      ", text).split("\n")
    assert all(text_columns(line) <= 80 for line in lines)
    assert all(line.startswith(" " * 11) and line[11] != " " for line in lines[1:])
    assert "".join(line[11:] for line in lines).replace(" ", "") == text.replace(" ", "")
    assert not any(line[11:].startswith(("\u0301", "%", "MB")) for line in lines)
    paths = [line for line in lines if "folder/" in line]
    assert all(line.endswith("/") for line in paths[:-1]) and len(paths) == 4


def test_lists_are_broken_after_commas():
    text = ", ".join(f"class {i} {i * 1000:,} ({i}.5 %)" for i in range(40))
    lines = hanging("classes:   ", text, items=True).split("\n")
    assert all(text_columns(line) <= 80 for line in lines) and len(lines) > 5
    assert all(line.endswith(" %),") for line in lines[:-1])


def test_hostile_text_stays_below_its_head():
    assert hanging("a: ", "b\n\x1b[2Jc") == r"a: b\n\x1b[2Jc"


def test_names_are_cut_by_columns():
    assert cut("dog", 3) == "dog" and cut("dogs", 3) == "do…"
    assert cut("狗狗", 4) == "狗狗" and cut("狗狗狗", 4) == "狗…"
    assert text_columns(cut("狗" * 10**6, 24)) <= 24
    assert cut("a\nb", 10) == r"a\nb"
