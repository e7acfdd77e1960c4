"""The pages of the documentation: links lead somewhere, names exist, code prints what is shown."""

import ast
import contextlib
import dataclasses
import importlib
import inspect
import io
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for page in ROOT.glob("docs/**/*.md")
    # Tutorials and how-tos are notebooks, with tests of their own.
    if page.parent.name not in ("tutorials", "how_to") or page.name == "index.md"
    if "_build" not in page.parts
)
LINKED = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
#: The README is shown by package indexes too, which know no relative address: it leads to the
#: site, and to files of the repository.
SITE = "https://jaxqring.github.io/jaxqring/"
FILES = "https://github.com/jaxqring/jaxqring/blob/main/"
DOTTED = re.compile(r"(jq|jaxqring)(\.\w+)+")
FENCE = re.compile(r"^```([\w{}]*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def names_of(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)
    bare = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    assert len(set(bare)) == len(bare), f"{page.name} has a heading twice"
    return {heading.replace(" ", "-") for heading in bare}


def found(name: str) -> Any:
    """The object of the package that a dotted name stands for; a field of a class is its name."""
    first, *rest = name.split(".")
    assert first in ("jq", "jaxqring")
    place: Any = importlib.import_module("jaxqring")
    for part in rest:
        fields = getattr(place, "_fields", ()) if isinstance(place, type) else ()
        if dataclasses.is_dataclass(place):
            fields = [field.name for field in dataclasses.fields(place)]
        place = part if part in fields else getattr(place, part)
    return place


def check_code(text: str) -> None:
    """Resolves the names of the package in a piece of code, and the keywords of its calls.

    A keyword may stand without a value, as in `jq.depolarizing(mix=)`.
    """
    for node in ast.walk(ast.parse(re.sub(r"=(?=[,)])", "=None", text))):
        if isinstance(node, ast.Attribute) and DOTTED.fullmatch(ast.unparse(node)):
            found(ast.unparse(node))
        if isinstance(node, ast.Call):
            known = inspect.signature(found(ast.unparse(node.func))).parameters
            unknown = {keyword.arg for keyword in node.keywords} - set(known)
            assert not unknown, f"{text} has no {unknown}"


def test_the_checks_see_what_is_wrong():
    check_code('jq.Ring(derivative="mean")')
    assert found("jq.Report.undelivered") == "undelivered"
    assert found("jq.audit.TiePlan.copies") is not None
    with pytest.raises(AttributeError):
        check_code("jq.Ringg")
    with pytest.raises(AttributeError):
        check_code("jq.Report.delivered")
    with pytest.raises(AssertionError):
        check_code("jq.Ring(derivatives=None)")
    assert "erasures" in anchors(ROOT / "docs" / "theory" / "superdense.md")
    assert "nowhere" not in anchors(ROOT / "docs" / "theory" / "superdense.md")


def test_all_pages_are_there():
    theory = ["audits", "coding", "economics", "estimators", "ring", "security", "superdense"]
    wanted = [f"docs/theory/{name}.md" for name in [*theory, "supply"]]
    wanted += [f"docs/{name}.md" for name in ("conventions", "glossary", "sharp_bits")]
    assert set(wanted) <= set(names_of(PAGES))
    # The site has each page in one table of contents.
    listed = [
        (index.parent / f"{name}.md")
        for index in PAGES
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", index.read_text(), re.DOTALL | re.M)
        for name in block.split()
        if name[0] != ":" and not name.startswith("api/")
    ]
    assert len(set(listed)) == len(listed)
    assert {*PAGES} - {*listed} == {ROOT / "docs" / "index.md"}


def test_the_page_of_commands_has_all_commands_configurations_and_extras(tmp_path):
    cli = pytest.importorskip("jaxqring.cli")
    jobs = importlib.import_module("jaxqring.jobs")
    page = (ROOT / "docs" / "commands.md").read_text()
    named = set(re.findall(r"`(?:jaxqring )?(\w+)`", page))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    wanted = {*cli.COMMANDS, *extras} | {path.stem for path in ROOT.glob("configs/*.toml")}
    assert wanted - named == {"bench", "docs", "test"}  # for those who work on the library
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "small.toml").write_text(shown)
    assert [run.name for run in jobs.load_config(tmp_path / "small.toml").runs] == [
        "ideal",
        "protected",
    ]


@pytest.mark.parametrize("page", names_of(LINKED))
def test_links_lead_somewhere(page):
    here = ROOT / page
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", prose(here)):
        path, _, anchor = target.partition("#")
        if path.startswith(FILES):
            other = ROOT / path.removeprefix(FILES)
        elif path.startswith(SITE):
            page = path.removeprefix(SITE) or "index.html"
            if page.startswith("api/"):  # made from docstrings when the site is built
                continue
            other = ROOT / "docs" / page.replace(".html", ".md")
        elif re.match(r"[a-z]+:", target):  # elsewhere
            continue
        else:
            other = (here.parent / path).resolve() if path else here
        assert other.exists(), f"{page} links to {target}"
        assert other.is_relative_to(ROOT), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors(other), f"{page} links to {target}"


@pytest.mark.parametrize("page", names_of(LINKED))
def test_names_exist(page):
    for text in re.findall(r"`([^`\n]+)`", prose(ROOT / page)):
        if DOTTED.match(text):
            check_code(text)


@pytest.mark.parametrize("page", names_of(PAGES))
def test_code_prints_what_is_shown(page):
    # Blocks of a page share their names; a text block right after one shows what it prints.
    blocks = FENCE.findall((ROOT / page).read_text())
    names: dict[str, Any] = {}
    for number, (language, text) in enumerate(blocks):
        if language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, f"{page}, block {number + 1}", "exec"), names)
        follows = blocks[number + 1] if number + 1 < len(blocks) else ("", "")
        shown = follows[1] if follows[0] == "text" else ""
        assert printed.getvalue() == shown, f"{page}, block {number + 1}"


def test_pages_are_short_and_whole():
    for page in PAGES:
        text = page.read_text()
        if page.parent.name != "findings":  # which a command writes
            assert text.count("\n") <= 250, page.name
        assert text.startswith("# "), page.name
        assert text.count("```") == 2 * len(FENCE.findall(text)), page.name
        assert prose(page).count("$$") % 2 == 0, page.name


def test_the_glossary_is_in_order():
    text = prose(ROOT / "docs" / "glossary.md")
    terms = re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE)
    assert len(terms) >= 40
    assert terms == sorted(set(terms), key=str.lower)
