"""Text from files and libraries, made safe to print."""

import re

MAX_MESSAGE = 4000  # characters of an error or a warning

# Advice of libraries to run what a file holds, such as numpy.load's about allow_pickle=True.
_UNSAFE_ADVICE = re.compile(
    "allow_pickle|weights_only|trust_remote_code|safe_mode|unsafe|set_int_max_str_digits"
)


class OneLineError(ValueError):
    """An error for people: its message is one line of bounded length, whatever text it quotes."""

    def __init__(self, message: object):
        super().__init__(truncate(message, MAX_MESSAGE))


def one_line(text: object) -> str:
    r"""Return ``str(text)`` with every character that is not printable escaped, such as ``\n``.

    Names of tensors, classes and files may contain any character: line breaks, escape sequences
    of a terminal, marks that reverse the text after them, or bytes that are not UTF-8.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def truncate(text: object, max_length: int = 80) -> str:
    """Return the text on one line, cut with an ellipsis after ``max_length`` characters."""
    text = str(text)
    line = one_line(text[: max_length + 1])  # text from a file may be of any length
    return line if len(line) <= max_length else line[: max_length - 1].rstrip() + "…"


def error_reason(error: BaseException, max_length: int = 200) -> str:
    """Return a library's message on one line, without advice to lift limits or run code."""
    sentences = re.split(r"(?<=[.!?;])\s+|\n", str(error)[: 10 * max_length])
    safe = (" ".join(s.split()) for s in sentences if not _UNSAFE_ADVICE.search(s))
    return truncate(" ".join(filter(None, safe)), max_length) or type(error).__name__
