"""Make the notebook of a page: its text as Markdown cells, its Python blocks as code cells.

python docs/notebook.py docs/python.md docs/notebooks/training.ipynb
"""

import json
import re
import sys
from pathlib import Path


def notebook(page: str) -> str:
    """Return the text of the notebook of a page."""
    cells = []
    for position, part in enumerate(re.split(r"^```python\n(.*?)^```\n", page, flags=re.M | re.S)):
        part = re.sub(r"\]\((?=[\w-]+\.md)", "](../", part)  # relative to its folder
        lines = part.strip().splitlines(keepends=True)
        cell = {"cell_type": "markdown", "id": f"cell-{position}", "metadata": {}}
        if position % 2:
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        if lines:
            cells.append(cell | {"source": lines})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}}
    return json.dumps(content | {"nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(notebook(source.read_text()))
