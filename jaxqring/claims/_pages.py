"""The report of a reproduction: one list of sections, written as Markdown and as HTML."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxqring._files import write_whole
from jaxqring.claims._claim import Number

if TYPE_CHECKING:
    from jaxqring.claims._reproduction import Answer, ReproduceConfig

_HEAD = ("claim", "number", "claimed", "ours", "second witness", "verdict")
_NUMBERS = ("number", "claimed", "ours", "second", "witness")

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { text-align: left; padding: .25rem .75rem; border-bottom: 1px solid #8884 }
img { max-width: 100%; background: white }
:root { color-scheme: light dark }
"""


def shown(value: float | None, digits: int = 6) -> str:
    """A number of a report in at most so many digits; a dash for none.

    >>> shown(1234567.0), shown(0.5), shown(None)
    ('1.23457e+06', '0.5', '-')
    """
    if value is None:
        return "-"
    whole = math.isfinite(value) and value == int(value) and abs(value) < 1e6
    return f"{int(value):,}" if whole else f"{value:.{digits}g}"


def row(tested: "Answer", digits: int = 6) -> list[str]:
    """The line of a claim in the table of all claims."""
    number = tested.finding.numbers[0]
    figures = [shown(each, digits) for each in (number.claimed, number.ours, number.second)]
    return [tested.claim.name, number.name, *figures, verdict(tested)]


def verdict(tested: "Answer") -> str:
    """The verdict, or that there is none as the witnesses of a number disagree."""
    return "witnesses disagree" if tested.finding.disputed else tested.finding.verdict


def write_report(config: "ReproduceConfig", tested: Sequence["Answer"]) -> list[Path]:
    """Writes the report in Markdown and in HTML, and a figure for each claim that has one.

    Args:
      config: of the reproduction, with the folder for the files.
      tested: the claims with their findings.

    Returns:
      The paths of the two reports.
    """
    import matplotlib

    from jaxqring.show._style import STYLE, save

    folder = config.folder
    folder.mkdir(parents=True, exist_ok=True)
    figures = set()
    for each in tested:
        if each.claim.draw is not None:
            with matplotlib.rc_context(STYLE):
                save(each.claim.draw(each.results), folder / f"{each.claim.name}.png")
            figures.add(each.claim.name)
    effort = "a quick run: small samples, few points" if config.quick else "a whole run"
    intro = (
        f"Written by `{config.command}`, {effort}. Each number has two witnesses: this library, "
        "and a calculation that shares no code with it. A claim is the source's; its test is our "
        "reading."
    )
    paths = folder / "report.md", folder / "report.html"
    write_whole(paths[0], _markdown(tested, intro, figures).encode())
    write_whole(paths[1], _html(tested, intro, figures).encode())
    return list(paths)


def _cells(number: Number) -> list[str]:
    figures = [shown(each) for each in (number.claimed, number.ours, number.second)]
    return [number.name, *figures, number.witness]


def _markdown(tested: Sequence["Answer"], intro: str, figures: set[str]) -> str:
    def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        lines = [head, ["---"] * len(head), *rows]
        return "".join(f"| {' | '.join(c.replace('|', '/') for c in line)} |\n" for line in lines)

    text = f"# Claims and findings\n\n{intro}\n\n{table(_HEAD, [row(each) for each in tested])}"
    for each in tested:
        claim, finding = each.claim, each.finding
        text += f"\n## {claim.title}\n\n`{claim.name}`. {claim.source}: {claim.says}\n\n"
        text += f"**{verdict(each).capitalize()}:** {finding.because}\n\n"
        text += f"Our reading: {claim.reading}\n\n"
        text += table(_NUMBERS, [_cells(number) for number in finding.numbers])
        if claim.name in figures:
            text += f"\n![{claim.title}]({claim.name}.png)\n"
    return text


def _html(tested: Sequence["Answer"], intro: str, figures: set[str]) -> str:
    def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        lines = [("th", head), *(("td", line) for line in rows)]
        return (
            "<table>"
            + "".join(
                "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in line) + "</tr>\n"
                for tag, line in lines
            )
            + "</table>\n"
        )

    title = "Claims and findings"
    body = f"<h1>{title}</h1>\n<p>{html.escape(intro)}</p>\n"
    body += table(_HEAD, [row(each) for each in tested])
    for each in tested:
        claim, finding = each.claim, each.finding
        says = html.escape(f"{claim.source}: {claim.says}")
        body += f'<h2 id="{claim.name}">{html.escape(claim.title)}</h2>\n'
        body += f"<p><code>{claim.name}</code>. {says}</p>\n"
        body += f"<p><b>{verdict(each).capitalize()}:</b> {html.escape(finding.because)}</p>\n"
        body += f"<p>Our reading: {html.escape(claim.reading)}</p>\n"
        body += table(_NUMBERS, [_cells(number) for number in finding.numbers])
        if claim.name in figures:
            body += f'<img src="{claim.name}.svg" alt="{html.escape(claim.title)}">\n'
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">\n'
    head += f"<title>{title}</title>\n<style>{_STYLE}</style>"
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{body}</body></html>\n'
