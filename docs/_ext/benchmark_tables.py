"""The directive `benchmark`: a table of what a benchmark has written as JSON."""

import json
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = Path(__file__).parent.parent / "benchmarks"


def cell(value: str | float) -> str:
    """The text of a value, with four digits as the benchmark prints it."""
    return value if isinstance(value, str) else f"{value:.4g}"


def row(texts: list[str]) -> nodes.row:
    """A row of a table."""
    cells = [nodes.entry("", nodes.paragraph(text=text)) for text in texts]
    return nodes.row("", *cells)


class Benchmark(SphinxDirective):
    """The rows of `docs/benchmarks/NAME.json` as a table, and the machine below it."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Returns the table and a line about the machine."""
        path = FOLDER / f"{self.arguments[0]}.json"
        self.env.note_dependency(path)
        found = json.loads(path.read_text())
        columns = list(found["rows"][0])
        group = nodes.tgroup("", cols=len(columns))
        group += [nodes.colspec(colwidth=1) for _ in columns]
        group += nodes.thead("", row(columns))
        rows = [row([cell(value) for value in line.values()]) for line in found["rows"]]
        group += nodes.tbody("", *rows)
        machine = found["machine"]
        devices = "1 device" if machine["devices"] == 1 else f"{machine['devices']} devices"
        said = (
            f"{machine['device']} ({machine['processor']}), {devices}, JAX {machine['jax']},"
            f" Python {machine['python']}; medians of {found['repeats']} turns"
        )
        return [nodes.table("", group, classes=["benchmark"]), nodes.paragraph(text=said)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Adds the directive."""
    app.add_directive("benchmark", Benchmark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
