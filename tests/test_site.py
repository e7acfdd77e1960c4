"""The parts of the site that are ours: pages of the API, equations, tables, and its checks."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

import jaxqring

pytest.importorskip("sphinx")

ROOT = Path(__file__).parent.parent


def load(path):
    """A module of the site or of the tools, which are no packages."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


namespaces = load(ROOT / "docs" / "_ext" / "namespaces.py")
mathml = load(ROOT / "docs" / "_ext" / "mathml.py")
check_site = load(ROOT / "tools" / "check_site.py")
look = load(ROOT / "tools" / "look.py")


def test_every_namespace_has_a_page_with_an_entry_for_each_of_its_names():
    rooms = namespaces.namespaces()
    assert {"channels", "codes", "ring", "show"} <= {*rooms}
    text = namespaces.room_page("codes", rooms["codes"])
    for name in jaxqring.codes.__all__:
        assert re.search(rf"auto(class|function):: jaxqring\.codes\.{name}$", text, re.MULTILINE)
    top = namespaces.top_page()
    assert ":py:obj:`jq.werner <jaxqring.pairs.werner>`" in top
    assert all(f"\n   {room}\n" in top + "\n" for room in rooms)


def test_short_and_private_names_lead_to_the_entry():
    others = dict(namespaces.other_names())
    assert others["jaxqring.werner"] == "jaxqring.pairs.werner"
    assert others["jaxqring.codes._bch.bch"] == "jaxqring.codes.bch"


@pytest.mark.parametrize(
    "line, found",
    [
        ("|0> and 2 * n", r"\|0> and 2 * n"),
        ("x_ of *args, `a|b` and `Report`s", r"x\_ of \*args, `a|b` and `Report`\ s"),
        ("* an item of `a", "* an item of `a"),
        (">>> 2 ** abs(x)", ">>> 2 ** abs(x)"),
    ],
)
def test_docstrings_are_plain_text_but_for_code(line, found):
    assert namespaces.plain([line]) == [found]


def test_results_are_no_types_and_properties_no_attributes_with_a_type():
    lines = ["Summary.", "", "Returns:", "  A table: of two."]
    namespaces.read_docstring(None, "function", "", None, None, lines)
    assert lines[2:] == [":returns:", "  A table: of two."]
    lines = ["The use: of it."]
    namespaces.read_docstring(None, "property", "", None, None, lines)
    assert lines == ["\\ ", "The use: of it."]


@pytest.mark.parametrize(
    "short, long",
    [
        (r"\tfrac12x", r"\tfrac{1}{2}x"),
        (r"\frac1N", r"\frac{1}{N}"),
        (r"\tfrac n2", r"\tfrac{n}{2}"),
        (r"\sqrt2x", r"\sqrt{2}x"),
        (r"x^12", r"x^{1}2"),
        (r"1,\dots,n", r"1,\ldots,n"),
    ],
)
def test_commands_without_braces_take_one_digit(short, long):
    found = [mathml.mathml(mathml.nodes.math(text=text), as_block=False) for text in (short, long)]
    assert found[0] == found[1]


def test_every_table_of_a_benchmark_is_shown():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    shown = re.findall(r"^```\{benchmark\} (\w+)$", page, re.MULTILINE)
    files = sorted((ROOT / "docs" / "benchmarks").glob("*.json"))
    assert sorted(shown) == [path.stem for path in files]
    for path in files:
        found = json.loads(path.read_text())
        assert found["rows"]
        assert {"device", "devices", "processor", "jax", "python"} <= {*found["machine"]}


def test_the_check_of_the_site_sees_what_is_wrong(tmp_path):
    (tmp_path / "index.html").write_text(
        '<a href="a.html#here">a</a> <a href="a.html#there">a</a> <a href="https://x.org">x</a>'
        '<img src="none.png"><script src="https://x.org/x.js"></script>'
    )
    (tmp_path / "a.html").write_text('<p id="here">a</p>')
    (tmp_path / "b.html").write_text("")
    pages = check_site.read(tmp_path)
    assert sorted(check_site.broken(tmp_path, pages)) == [
        "index.html: loads https://x.org/x.js",
        "index.html: no anchor for a.html#there",
        "index.html: no file for none.png",
    ]
    assert [*check_site.orphans(tmp_path, pages)] == ["b.html is an orphan"]


def test_the_look_at_the_site_sees_what_is_wrong():
    def event(method, **values):
        return look.complaints({"method": method, "params": values})

    assert event("Runtime.consoleAPICalled", type="log", args=[{"value": "fine"}]) == []
    assert event("Runtime.consoleAPICalled", type="error", args=[{"value": "bad"}]) == ["bad"]
    assert event("Network.requestWillBeSent", request={"url": "file:///x.png"}) == []
    assert event("Network.requestWillBeSent", request={"url": "https://x.org/"}) == [
        "loads https://x.org/"
    ]
    assert event("Network.loadingFailed", type="Image", errorText="gone") == [
        "Image not loaded: gone"
    ]
