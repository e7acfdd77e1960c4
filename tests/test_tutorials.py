"""Tutorials and how-tos are notebooks in Markdown: they are well formed, and they run."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import DOTTED, check_code, found

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    f"{folder}/{page.name}"
    for folder in ("tutorials", "how_to")
    for page in sorted((DOCS / folder).glob("*.md"))
    if page.name != "index.md"  # a table of contents
]
HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# """
FENCE = re.compile(r"^```([\w{}-]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CELL = "{code-cell}"


def cells(page):
    return [text for kind, text in FENCE.findall((DOCS / page).read_text()) if kind == CELL]


def prose(path):
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """The anchors of the headings of a page, as MyST makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def dotted(node):
    """The name of the package that a node stands for, or None."""
    text = ast.unparse(node)
    return text if DOTTED.fullmatch(text) and text.startswith("jq.") else None


def check_names(text):
    """Resolves the names of the package in a cell, and the keywords of calls of them."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and dotted(node):
            found(dotted(node))
        if isinstance(node, ast.Call) and dotted(node.func):
            keywords = [f"{keyword.arg}=" for keyword in node.keywords if keyword.arg]
            check_code(f"{dotted(node.func)}({', '.join(keywords)})")


def test_the_checks_see_what_is_wrong():
    check_names("jq.Ring(noise='off').cost(3, num_nodes=4)\nreport.symbol_errors")
    with pytest.raises(AttributeError):
        check_names("x = [jq.Ringg(1) for _ in y]")
    with pytest.raises(AssertionError, match="noises"):
        check_names("jq.Ring(noises='off')")
    assert len(PAGES) >= 19
    assert "one-copy-of-the-weights" in anchors(DOCS / "tutorials" / "your_own_step.md")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_a_notebook_whose_names_exist(page):
    text = (DOCS / page).read_text()
    assert text.startswith(HEADER)
    opening = text.removeprefix(HEADER).split("\n\n")[1]
    assert opening.startswith("After this page"), "the first paragraph says what it is for"
    assert text.count("\n") <= 180
    assert text.count("```") == 2 * len(FENCE.findall(text))
    assert cells(page)
    for kind, code in FENCE.findall(text):
        assert kind in (CELL, "python")  # the second is shown, and not run
        assert code.count("\n") <= 45
        assert "jaxqring._" not in code
        check_names(code)
    for code in re.findall(r"`([^`\n]+)`", prose(DOCS / page)):
        if DOTTED.match(code):
            check_code(code)


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page):
    here = DOCS / page
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(here)):
        path, _, anchor = target.partition("#")
        other = (here.parent / path).resolve()
        assert other.is_file(), target
        assert other.is_relative_to(DOCS), target
        assert not anchor or anchor in anchors(other), target
    for script in re.findall(r"`(examples/[^`]+)`", prose(here)):
        assert (ROOT / script).is_file()


@pytest.mark.matrix
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page, tmp_path):
    # In a process of its own, as the site does: some ask for devices before JAX starts.
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(cells(page)))
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
