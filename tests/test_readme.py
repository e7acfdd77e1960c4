"""The README shows what its example prints."""

import contextlib
import io
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
SITE = "https://jaxqring.github.io/jaxqring/"


def test_the_example_is_the_script():
    shown = next(text for language, text in BLOCKS if language == "python")
    script = (ROOT / "examples" / "readme.py").read_text()
    assert script.split('"""\n', 1)[1].strip() == shown.strip()


def test_the_output_is_what_the_script_prints():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(ROOT / "examples" / "readme.py"))
    shown = [text for language, text in BLOCKS if language == "text"]
    assert printed.getvalue().strip() in [text.strip() for text in shown]


def test_every_image_is_a_file_of_the_repository_by_its_absolute_address():
    # Package indexes show the README, and know no relative address.
    images = re.findall(r"!\[[^\]]+\]\(([^)]*)\)", README)
    assert images
    for address in images:
        path = address.removeprefix("https://raw.githubusercontent.com/jaxqring/jaxqring/main/")
        assert path != address
        assert (ROOT / path).is_file(), address


def test_the_readme_is_a_screen_and_a_half_and_leads_to_the_site():
    assert README.count("\n") <= 85
    pages = re.findall(rf"\]\({SITE}([^)]*)\)", README)
    assert {re.sub(r"\w*\.html$", "", page) for page in pages} >= {
        "",
        "api/",
        "guide/",
        "how_to/",
        "theory/",
        "tutorials/",
    }
