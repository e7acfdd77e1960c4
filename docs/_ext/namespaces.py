"""The pages of the API, one for each namespace, and links from code to them.

The pages are written when a build begins, from the docstring and the public names of each
namespace, so that a new room appears by itself. Every name has one entry, in its room; the page of
the top level lists its names and links to them. In all pages, code that is a name of the package,
as `jq.psum` or `jaxqring.codes.bch`, becomes a link to its entry.
"""

import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform

import jaxqring

HERE = Path(__file__).parent.parent / "api"


def namespaces() -> dict[str, types.ModuleType]:
    """The namespaces of the package by their names, in the order of the alphabet."""
    found = {name: getattr(jaxqring, name) for name in sorted(jaxqring.__all__)}
    return {name: value for name, value in found.items() if isinstance(value, types.ModuleType)}


def exported(module: types.ModuleType) -> list[str]:
    """The public names of a namespace: its list, or all that it defines."""
    return getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if name[0] != "_" and getattr(value, "__module__", None) == module.__name__
    ]


def plain(lines: list[str]) -> list[str]:
    """Lines of a docstring, in which only backticks and examples mean something to Sphinx.

    All else is plain text, so that kets as |0> and products as 2 * n stay what they are.
    """
    found: list[str] = []
    in_code = in_example = False
    for line in lines:
        in_example = bool(line.strip()) and (in_example or line.lstrip().startswith(">>>"))
        if not in_example:
            parts = line.split("`")
            for at, part in enumerate(parts):
                if not in_code:
                    part = re.sub(r"[\\|]|\*(?=\S)|_(?!\w)", r"\\\g<0>", part)
                    parts[at] = re.sub(r"^\w", r"\\ \g<0>", part) if at else part
                in_code = in_code != (at < len(parts) - 1)
            line = "`".join(parts)
        found.append(line)
    return found


def summary(value: Any) -> str:
    """The first paragraph of a docstring, as one line."""
    if kind(value) == "data":
        return ""
    text = (inspect.getdoc(value) or "").split("\n\n")[0]
    return " ".join(plain(text.splitlines())).strip()


def read_docstring(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Prepares a docstring for Napoleon, which takes text before a colon for a type."""
    if what == "data" and type(value).__doc__ == value.__doc__:
        lines[:] = []
    lines[:] = plain(lines)
    if what in ("attribute", "property"):
        lines.insert(0, "\\ ")
    for at, line in enumerate(lines):
        if line.strip() in ("Returns:", "Yields:"):
            lines[at] = line.replace("Returns:", ":returns:").replace("Yields:", ":yields:")


def kind(value: Any) -> str:
    """The kind of entry that Sphinx writes for an object."""
    if inspect.isclass(value):
        return "class"
    return "function" if callable(value) else "data"


def entries() -> dict[int, str]:
    """The name under which an object has its entry, by the identity of the object."""
    return {
        id(getattr(module, name)): f"jaxqring.{room}.{name}"
        for room, module in namespaces().items()
        for name in exported(module)
    }


def table(rows: list[tuple[str, str]]) -> list[str]:
    """A table of two columns without a head."""
    lines = [".. list-table::", "   :class: names", "   :widths: 30 70", ""]
    for name, text in rows:
        lines += [f"   * - {name}", f"     - {text}"]
    return lines


def page(title: str, module: types.ModuleType, body: list[str]) -> str:
    """The text of a page: its title, the docstring of its namespace, and a body."""
    head = [title, "=" * len(title), "", *plain((inspect.getdoc(module) or "").splitlines()), ""]
    return "\n".join([*head, *body]) + "\n"


def room_page(room: str, module: types.ModuleType) -> str:
    """The page of a room: an overview, and an entry for each of its names."""
    names = sorted(exported(module))
    body = [f".. py:module:: jaxqring.{room}", ""]
    if names:
        body += table([(f"`{name}`", summary(getattr(module, name))) for name in names])
    for name in names:
        value = getattr(module, name)
        body += ["", f".. auto{kind(value)}:: jaxqring.{room}.{name}"]
        if kind(value) == "class":
            body += ["   :members:"]
    return page(f"jq.{room}", module, body)


def top_page() -> str:
    """The page of the top level: its names with links to their entries, and the namespaces."""
    rooms, places = namespaces(), entries()
    names = [name for name in sorted(jaxqring.__all__) if name not in rooms]
    rows = [(name, getattr(jaxqring, name)) for name in names]
    body = ["At the top", "----------", ""]
    body += table(
        [(f":py:obj:`jq.{n} <{places[id(value)]}>`", summary(value)) for n, value in rows]
    )
    body += ["", "Namespaces", "----------", ""]
    body += table([(f":doc:`jq.{room} <{room}>`", summary(m)) for room, m in rooms.items()])
    body += ["", ".. toctree::", "   :hidden:", "", *(f"   {room}" for room in rooms)]
    return page("API", jaxqring, body)


def write_pages(app: Sphinx) -> None:
    """Writes the pages whose text has changed, and removes those of rooms that are gone."""
    HERE.mkdir(exist_ok=True)
    pages = {room: room_page(room, module) for room, module in namespaces().items()}
    pages["index"] = top_page()
    for name, text in pages.items():
        path = HERE / f"{name}.rst"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in HERE.glob("*.rst"):
        if path.stem not in pages:
            path.unlink()


def other_names() -> Iterator[tuple[str, str]]:
    """Pairs of a further name of an object, its private or its short one, and that of its entry."""
    places = entries()
    for room, module in namespaces().items():
        for name in exported(module):
            value, place = getattr(module, name), f"jaxqring.{room}.{name}"
            if hasattr(value, "__qualname__") and value.__module__.startswith("jaxqring."):
                yield f"{value.__module__}.{value.__qualname__}", place
    for name in jaxqring.__all__:
        value = getattr(jaxqring, name)
        if id(value) in places:
            yield f"jaxqring.{name}", places[id(value)]


def note_other_names(app: Sphinx, env: BuildEnvironment) -> None:
    """Makes further names lead to the entry of an object; so for the members of a class."""
    domain = env.domains.python_domain
    for other, place in other_names():
        for full, entry in list(domain.objects.items()):
            if full == place or full.startswith(place + "."):
                name = other + full.removeprefix(place)
                if name not in domain.objects:
                    domain.objects[name] = entry._replace(aliased=True)


def read_signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, text: str | None, returned: Any
) -> tuple[str | None, Any]:
    """Writes a default that is made anew for each object in a way that Python can parse."""
    return text and text.replace("<factory>", "..."), returned


def skip_fields(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool:
    """Leaves out the fields of a named tuple as members: `Attributes:` describes them."""
    return skip or type(value).__name__ == "_tuplegetter"


class LinkedCode(SphinxPostTransform):
    """Makes code that is a name of the package a link to its entry."""

    default_priority = 5

    def run(self, **options: Any) -> None:
        """Replaces the code by a link to the entry that its name leads to."""
        for node in list(self.document.findall(nodes.literal)):
            if isinstance(node.parent, nodes.reference | addnodes.pending_xref):
                continue
            found = self.entry(node)
            if found is not None:
                uri = self.app.builder.get_relative_uri(self.env.docname, found.docname)
                link = nodes.reference("", "", refuri=f"{uri}#{found.node_id}", internal=True)
                node.replace_self(link)
                link += node

    def entry(self, node: nodes.literal) -> Any:
        """The entry of a name: one of the package, or on a page of the API one of its room."""
        name = node.astext().partition("(")[0]
        objects = self.env.domains.python_domain.objects
        if name.startswith(("jq.", "jaxqring.")):
            return objects.get("jaxqring." + name.partition(".")[2])
        if not name.replace(".", "").replace("_", "").isalnum() or name in self.arguments(node):
            return None
        folder, _, room = self.env.docname.rpartition("/")
        places = [f"jaxqring.{room}.{name}"] if folder == "api" else []
        found = [objects.get(place) for place in [*places, f"jaxqring.{name}"]]
        modules = room == "index"  # elsewhere a word as `ring` is an argument
        return next((e for e in found if e and (modules or e.objtype != "module")), None)

    def arguments(self, node: nodes.Node) -> set[str]:
        """The names of the arguments of the function that a docstring belongs to."""
        while node is not None and not isinstance(node, addnodes.desc):
            node = node.parent
        found = node.findall(addnodes.desc_parameter) if node is not None else ()
        return {name.astext() for part in found for name in part.findall(addnodes.desc_sig_name)}


def setup(app: Sphinx) -> dict[str, Any]:
    """Adds the pages, the further names and the links to a build."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", read_docstring, priority=400)  # before Napoleon
    app.connect("autodoc-process-signature", read_signature)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("env-updated", note_other_names)
    app.add_post_transform(LinkedCode)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
