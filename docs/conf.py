"""Sphinx configuration: Markdown pages, the API reference and the table of configuration keys."""

import math
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from flax_resnet import __version__  # noqa: E402
from train.config.key import Key  # noqa: E402
from train.config.keys import KEYS  # noqa: E402
from train.config.loading import abbreviate  # noqa: E402

project = "flax-resnet"
author = "The flax-resnet authors"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "notebooks"]
myst_heading_anchors = 3
highlight_language = "none"

html_theme = "furo"
html_title = f"flax-resnet {version}"
html_show_sourcelink = False
html_show_copyright = False
html_use_index = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
autodoc_preserve_defaults = True
napoleon_use_ivar = True


def config_sections() -> dict[str, list[str]]:
    """Return the names of all keys under the section titles of train/config/keys.py."""
    sections: dict[str, list[str]] = {}
    for line in (ROOT / "train/config/keys.py").read_text().splitlines():
        if title := re.fullmatch(r"    # (\w.*?) -{5,}", line):
            names = sections.setdefault(title[1], [])
        elif key := re.match(r'    "([\w.]+)": Key\(', line):
            names.append(key[1])
    return sections


def number(limit: float) -> str:
    """Return a limit as text, with powers of two above a million as powers."""
    if limit <= 1e6:
        return f"{limit:g}"
    return "2" + f"{math.log2(limit):g}".translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def valid_values(key: Key) -> str:
    """Return the valid values of a key, such as ``0 … 1`` or ``≥ 1``, as Markdown."""
    if key.valid:
        return ", ".join(f"`{choice!r}`" for choice in key.valid)
    if isinstance(key.default, bool):
        return "`True`, `False`"
    lower = "" if key.minimum is None else f"≥ {number(key.minimum)}"
    if key.automatic:
        lower = "≥ 0, or -1"
    upper = ""
    if key.maximum is not None:
        upper = f"≤ {number(key.maximum)}"
    elif key.below is not None:
        upper = f"< {number(key.below)}"
    text = " and ".join(limit for limit in (lower, upper) if limit)
    if key.example:
        text += f"; such as `{','.join(map(str, key.example))}`"
    elif isinstance(key.default, tuple):
        text = f"{len(key.default)} numbers {text}".strip()
    return text + ("; ascending" if key.ascending else "")


def config_tables() -> str:
    """Return the reference of all configuration keys as Markdown, a table per section."""
    lines = []
    for title, names in config_sections().items():
        lines += [f"### {title}", "", "| key | default | meaning | values |", "|---|---|---|---|"]
        for name in names:
            key = KEYS[name]
            mark = " °" if key.neutral else ""
            # Quoted values of the plain text become code: 'cosine' → `cosine`.
            meaning = re.sub(r"(?<!\w)'([\w:.*,\[\]]*)'(?!\w)", r"`'\1'`", key.meaning)
            meaning = meaning.replace("|", r"\|").replace("~", r"\~")
            lines.append(
                f"| `{name}`{mark} | `{abbreviate(key.default)}` | {meaning}"
                f" | {valid_values(key)} |"
            )
        lines.append("")
    return "\n".join(lines)


def insert_config_tables(app, docname: str, source: list[str]) -> None:
    """Replace the placeholder of the configuration page by the tables."""
    if docname == "configuration":
        source[0] = source[0].replace("<!-- config tables -->", config_tables())


def link_files_outside(app, docname: str, source: list[str]) -> None:
    """Turn links to Markdown files outside of the site, which MyST rejects, into downloads."""
    source[0] = re.sub(r"\[([^]]+)\]\((\.\./[^)#]+)\)", r"{download}`\1 <\2>`", source[0])


def shorten_signature(app, what, name, obj, options, signature, return_annotation):
    """Leave out the fields that Flax adds to every module, and the modules of types."""
    if what != "class" or not signature or ", parent: " not in signature:
        return None
    signature = signature.partition(", parent: ")[0] + ")"
    signature = re.sub(r"<class '[\w.]*?(\w+)'>", r"\1", signature)
    return re.sub(r"~[\w.]*?(\w+)\b(?!\.)", r"\1", signature), return_annotation


def setup(app) -> None:
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("source-read", insert_config_tables)
    app.connect("source-read", link_files_outside)
