"""The README shows what its example prints."""

import contextlib
import io
import re
import runpy
from pathlib import Path

import numpy as np

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


def test_every_image_is_a_file_of_the_repository_by_its_absolute_address():
    # Package indexes show the README, and know no relative address.
    images = re.findall(r"!\[[^\]]+\]\(([^)]*)\)", (ROOT / "README.md").read_text())
    assert len(images) >= 8
    for address in images:
        path = address.removeprefix("https://raw.githubusercontent.com/jaxqring/jaxqring/main/")
        assert path != address
        assert (ROOT / path).is_file(), address


def test_the_derivative_of_the_readme_is_one_of_less_loss():
    shown = [text for language, text in BLOCKS if language == "python"]
    names: dict = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec("import jax, jax.numpy as jnp\nimport jaxqring as jq\n" + shown[1], names)
    slopes = np.array(re.findall(r"-?[0-9.]+", printed.getvalue()), float)
    # Better links, less loss: each slope is about -1.3, with a spread of 0.1.
    assert slopes.shape == (8,)
    assert (slopes < 0).all()
