"""Windows over the page that open by a click or a key: HTML's popovers, which need no script."""

import hashlib

from train.reporting.html_page import escape


def make_key(*names: object) -> str:
    """Return an identifier for elements of a page that is different for other names."""
    text = "\n".join(map(str, names)).encode("utf-8", "surrogateescape")
    return f"x{hashlib.sha256(text).hexdigest()[:10]}"


def window(key: str, title: str, inside: str) -> str:
    """Return a window that is closed at first; Escape, its button and a click outside close it.

    Args:
      key: its identifier.
      title: plain text.
      inside: HTML, which scrolls.
    """
    title = escape(title)
    return (
        f'<div popover="auto" id="{key}" class="window" role="dialog" aria-label="{title}"><header>'
        f'<span>{title}</span><button type="button" popovertarget="{key}"'
        ' popovertargetaction="hide">Close</button></header><div class="inside" tabindex="0"'
        f' role="region" aria-label="{title}, enlarged">{inside}</div></div>'
    )


def opener(key: str, label: str) -> str:
    """Return a button with the text ``label`` that opens a window."""
    return (
        f'<p class="opens"><button type="button" popovertarget="{key}">{escape(label)}</button></p>'
    )


def picture_opener(key: str, label: str, drawing: str) -> str:
    """Return a button that looks like ``drawing``, HTML, and opens a window."""
    return (
        f'<button type="button" class="picture" popovertarget="{key}"'
        f' aria-label="{escape(label)}">{drawing}</button>'
    )
