"""Text from files and libraries, made safe to print."""


def one_line(text: object) -> str:
    r"""Return ``str(text)`` with every character that is not printable escaped, such as ``\n``.

    Names of tensors, classes and files may contain any character: line breaks, escape sequences
    of a terminal, marks that reverse the text after them, or bytes that are not UTF-8.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
