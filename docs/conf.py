"""The site of the documentation: `make docs` builds it into build/docs.

Links to the pages of Python, PyTorch and NumPy need their inventories from the network. What cannot be reached is left
out, and these names are then plain text; with DIFFICULTY_PRUNE_DOCS_OFFLINE=1, as in the tests, nobody asks.
"""

from __future__ import annotations

import os
import sys
from itertools import takewhile
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from sphinx.ext.autodoc.mock import MockFinder

from difficulty_prune.version import __version__

INVENTORIES = {
    "python": "https://docs.python.org/3/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "numpy": "https://numpy.org/doc/stable/",
}
SECONDS = 5.0  # to wait for one of them


def reachable(url: str) -> bool:
    """Whether the inventory of that site can be read now."""
    try:
        with urlopen(f"{url}objects.inv", timeout=SECONDS) as answer:
            return bool(answer.read(1))
    except (URLError, TimeoutError, ConnectionError) as error:
        print(f"no links to {url}: {error}")
        return False


project = "difficulty_prune"
copyright = "the authors of difficulty_prune"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
html_theme = "furo"
html_title = f"{project} {release}"
pygments_style = "default"

# Links to the headings of a page, as on a repository's page.
myst_heading_anchors = 4

# Docstrings write `code` like this, and types stand in the signature.
default_role = "code"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
# Read without these libraries, which take longer to import than the site to build. Not as `autodoc_mock_imports`, which
# ends after each module, whereupon sphinx imports the real ones to look for their sources.
sys.meta_path.insert(0, MockFinder(["lightning", "transformers", "trl", "accelerate", "datasets"]))
napoleon_numpy_docstring = False
napoleon_use_rtype = False

online = not os.environ.get("DIFFICULTY_PRUNE_DOCS_OFFLINE")
intersphinx_mapping = {name: (url, None) for name, url in INVENTORIES.items() if online and reachable(url)}

# Names of this package must have a page. Those of others have one only where their inventory was reached.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!difficulty_prune).*"),
    (
        r"py:class",
        r"difficulty_prune\..*\.(Classifier|Computes|Everyone|Keeping|Row|T|Url|VectorFile)",
    ),  # not for users
]


def cells(row: str) -> list[str]:
    """Those of a row of a Markdown table."""
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def convert_tables(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings have tables as Markdown does, which are easier to read and write than those of reStructuredText."""
    done, rest = [], list(lines)
    while rest:
        table = list(takewhile(lambda line: line.startswith("|"), rest))
        if len(table) > 2 and set(table[1]) <= set("|- "):
            done += [".. list-table::", "   :header-rows: 1", ""]
            for row in (table[0], *table[2:]):
                done += [f"   {'*' if k == 0 else ' '} - {cell}" for k, cell in enumerate(cells(row))]
            done.append("")
        else:
            table = rest[:1]
            done += table
        del rest[: len(table)]
    lines[:] = done


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", convert_tables, priority=100)  # before napoleon, at 500
