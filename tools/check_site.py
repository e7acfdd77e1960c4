"""Checks the built site: links lead somewhere, public names have entries, no page is an orphan."""

import argparse
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from namespaces import entries, exported, namespaces  # noqa: E402

import jaxqring  # noqa: E402

#: Pages that a reader comes to by the search field or by an address, not by a link.
UNLINKED = {"genindex.html", "py-modindex.html", "search.html"}


class Page(HTMLParser):
    """The anchors and the links of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.files: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value is not None}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif "src" in found:
            self.files.append(found["src"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "icon"):
            self.files.append(found["href"])


def read(site: Path) -> dict[Path, Page]:
    """All pages of a site by their paths."""
    paths = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    return {path: Page(path.read_text()) for path in paths}


def target(path: Path, link: str) -> tuple[Path, str] | None:
    """The file and the anchor that a link of a page leads to; None if it leads elsewhere."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    other = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    return other, unquote(parts.fragment)


def broken(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """The links and files of pages that lead nowhere, and files that come from elsewhere."""
    for path, page in pages.items():
        name = path.relative_to(site)
        for link in (*page.links, *page.files):
            found = target(path, link)
            if found is None:
                if link in page.files and not link.startswith("data:"):
                    yield f"{name}: loads {link}"
                continue
            other, anchor = found
            if not other.exists():
                yield f"{name}: no file for {link}"
            elif anchor and other in pages and anchor not in pages[other].anchors:
                yield f"{name}: no anchor for {link}"


def nameless(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """The public names that have no entry on the page of their namespace."""
    places = entries()
    for room, module in namespaces().items():
        page = pages.get(site / "api" / f"{room}.html")
        for name in exported(module):
            if page is None or f"jaxqring.{room}.{name}" not in page.anchors:
                yield f"jaxqring.{room}.{name} has no entry"
    top = pages[site / "api" / "index.html"]
    for name in jaxqring.__all__:
        place = places.get(id(getattr(jaxqring, name)))
        if place and not any(link.endswith(f"#{place}") for link in top.links):
            yield f"jaxqring.{name} is not on the page of the top level"


def orphans(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """The pages that no links lead to, from the start page on."""
    waiting, known = [site / "index.html"], set()
    while waiting:
        path = waiting.pop()
        if path in known or path not in pages:
            continue
        known.add(path)
        found = (target(path, link) for link in pages[path].links)
        waiting += [other for other, _ in filter(None, found)]
    yield from (
        f"{path.relative_to(site)} is an orphan"
        for path in pages
        if path not in known and path.name not in UNLINKED
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--site", type=Path, default=ROOT / "docs" / "_build" / "html")
    site = options.parse_args().site.resolve()
    pages = read(site)
    wrong = [*broken(site, pages), *nameless(site, pages), *orphans(site, pages)]
    print("\n".join([*wrong, f"{len(pages)} pages, {len(wrong)} faults"]))
    return min(1, len(wrong))


if __name__ == "__main__":
    sys.exit(main())
