"""What the README shows is what its example prints."""

import contextlib
import io
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


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
