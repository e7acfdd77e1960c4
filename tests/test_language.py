"""Docstrings, comments and documents in plain words: summaries name a thing, no pointer is dead."""

import ast
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jaxqring"
FILES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [
    path
    for folder in ("tests", "examples", "benchmarks", "tools")
    for path in ROOT.glob(f"{folder}/**/*.py")
]
DOCUMENTS = [
    path
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    if "_build" not in path.parts
]

#: A summary is a sentence or a noun phrase, not a clause without a head.
HEADLESS = re.compile(r"(What|How|Where|Who|Whether)\b")
#: A document: its name as a file, or in capitals at the end of a pointer ("see PROTOCOLS").
DOCUMENT = re.compile(
    r"\b[\w./-]*\w\.(?:md|rst)\b|(?<=[Ss]ee )[A-Z]{5,}\b|\bPROTOCOLS\b|\bREDESIGN\b"
)
#: The heading of a citation is "Reference:".
OTHER_HEADING = re.compile(r"^\s*#?\s*(Sources?|Refs?|Citations?|Literature):", re.MULTILINE)
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(text):
    """Line, name and docstring of a module and of everything that it defines."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DEFINITIONS):
            found = ast.get_docstring(node)
            if found is not None:
                yield node.body[0].lineno, getattr(node, "name", "the module"), found


def comments(text):
    lines = iter(text.splitlines(keepends=True))
    for token in tokenize.generate_tokens(lambda: next(lines, "")):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def words(path):
    """Line and text of every docstring and comment of a module; all of any other file."""
    text = path.read_text()
    if path.suffix != ".py":
        yield 1, text
        return
    for line, _, found in docstrings(text):
        yield line, found
    yield from comments(text)


def headless(text):
    """Line, name and summary of the docstrings whose summary is headless."""
    return [
        (line, name, found.splitlines()[0])
        for line, name, found in docstrings(text)
        if HEADLESS.match(found)
    ]


def is_in_the_repository(name):
    # A name without a folder may be that of a file anywhere in the documents; on the project's
    # public home a path begins with the branch.
    name = name.rpartition("/blob/main/")[2]
    folders = {ROOT, ROOT / ".github", *(path.parent for path in DOCUMENTS)}
    return any((folder / name).is_file() for folder in folders)


def dead_pointers(text):
    return [found[0] for found in DOCUMENT.finditer(text) if not is_in_the_repository(found[0])]


def test_no_summary_is_a_clause_without_a_head():
    offenders = [
        f"{path.relative_to(ROOT)}:{line} {name}: {summary}"
        for path in [*FILES, *SCRIPTS]
        for line, name, summary in headless(path.read_text())
    ]
    assert not offenders, "\n".join([f"{len(offenders)} summaries:", *offenders])


@pytest.mark.parametrize("summary", ["What is held.", "Whether it is", "How many there are.\n\nX"])
def test_a_headless_summary_is_seen_wherever_it_stands(summary):
    text = f'class A:\n    """A thing."""\n    def f(self):\n        r"""{summary}"""\n'
    assert [found[1] for found in headless(text)] == ["f"]
    assert [found[1] for found in headless(f'"""{summary}"""')] == ["the module"]
    assert not headless(text.replace(summary, "Whatever is held. What is not."))


def test_no_text_points_to_a_document_that_is_not_in_the_repository():
    offenders = [
        f"{path.relative_to(ROOT)}, near line {line}: {name}"
        for path in [*FILES, *SCRIPTS, *DOCUMENTS]
        if path != Path(__file__)
        for line, text in words(path)
        for name in dead_pointers(text)
    ]
    assert not offenders, "\n".join([f"{len(offenders)} pointers:", *offenders])


@pytest.mark.parametrize(
    "text, found",
    [
        ("as PROTOCOLS says", ["PROTOCOLS"]),
        ("(DESIGN.md, section 2)", ["DESIGN.md"]),
        ("notes/plan.rst", ["notes/plan.rst"]),
        ("see README.md and CHANGELOG.md", []),
        ("see GHZ states of EPR pairs", []),
    ],
)
def test_a_dead_pointer_is_seen(text, found):
    assert dead_pointers(text) == found


def test_citations_have_the_heading_reference():
    offenders = [
        f"{path.relative_to(ROOT)}, near line {line}: {found[1]}"
        for path in FILES
        for line, text in words(path)
        for found in OTHER_HEADING.finditer(text)
    ]
    assert not offenders, "\n".join([f"{len(offenders)} headings:", *offenders])
    cited = sum(text.count("Reference:") for path in FILES for _, text in words(path))
    assert cited > 20  # or nothing was read
