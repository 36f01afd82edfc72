"""Text from files and libraries, made safe to print."""

import sys
import unicodedata

from flax_resnet.text import one_line, truncate


def test_one_line_escapes_every_character_that_could_change_other_text():
    assert one_line("a\nb\r\x1b[2J\x9b\u2028\u202e") == r"a\nb\r\x1b[2J\x9b\u2028\u202e"
    printable = "é ü 狗 👩 e\u0301 \\n"
    assert one_line(printable) == printable
    # The general categories of Unicode: controls, formats, surrogates, private use, unassigned,
    # and all separators but the space.
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        harmless = char == " " or unicodedata.category(char)[0] not in "CZ"
        assert (one_line(char) == char) == harmless, hex(code)


def test_one_line_result_is_its_own_source_text():
    text = "a\x00\ud800\ue000\U0010ffff\u200b\u3000é"
    assert one_line(text) == r"a\x00\ud800\ue000\U0010ffff\u200b\u3000é"
    assert one_line(one_line(text)) == one_line(text)


def test_one_line_takes_names_of_files_that_are_not_utf8():
    assert one_line(b"caf\xe9".decode("utf-8", "surrogateescape")) == r"caf\udce9"


def test_truncate_marks_the_cut_with_an_ellipsis():
    assert truncate("a dog", 5) == "a dog" and truncate("a big dog", 6) == "a big…"
    assert truncate("a\nbc", 5) == r"a\nbc"
