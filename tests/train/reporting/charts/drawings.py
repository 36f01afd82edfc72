"""Reading of drawn charts in tests."""

import re
import xml.etree.ElementTree as ElementTree

SVG = "{http://www.w3.org/2000/svg}"


def parse(text):
    """Return the root of an SVG file, and all its texts."""
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg" and "var(" not in text
    return root, ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def with_class(root, name):
    return [element for element in root.iter() if element.get("class") == name]


def places(path):
    """Return the points of the ``d`` of a line."""
    return [tuple(map(float, pair)) for pair in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]
