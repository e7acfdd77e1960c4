"""Equations as MathML, which browsers draw by themselves: no script, and nothing to fetch."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx


def mathml(node: nodes.Node, as_block: bool) -> str:
    """An equation of LaTeX as MathML."""
    text = node.astext().replace(r"\dots", r"\ldots")  # the one command that is unknown
    # A command without braces takes one digit; the converter would take all that follow.
    text = re.sub(r"(\\[td]?frac) ?(\d)", r"\1{\2}", text)
    text = re.sub(r"(\\[td]?frac(?:\{\d\}| ?[a-z])|\\sqrt|[_^]) ?(\d)", r"\1{\2}", text)
    text = re.sub(r"\\text\{[^}]*\}", lambda words: words[0].replace(r"\_", "_"), text)
    found = tex2mathml(text, as_block=as_block)
    # Kets keep the height of a line, and their bars stand close to what they hold.
    found = re.sub("<mo>([⟨⟩⌈⌉⌊⌋‖])</mo>", r'<mo stretchy="false">\1</mo>', found)
    return found.replace('<mo stretchy="false">|', '<mo stretchy="false" lspace="0" rspace="0">|')


def inline(self: Any, node: nodes.math) -> None:
    """Writes an equation within a line."""
    self.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def block(self: Any, node: nodes.math_block) -> None:
    """Writes an equation that stands by itself."""
    self.body.append(f'<div class="equation">{mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Adds the writer of equations."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
