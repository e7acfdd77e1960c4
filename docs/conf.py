"""The documentation site: `make docs` builds it, without a network."""

import hashlib
import os
import shutil
import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE / "_ext"), str(ROOT)]
# The kernels of the tutorials compile into the cache of the tests.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))

project = "jaxqring"
author = "The jaxqring developers"
release = version_of("jaxqring")
extensions = [
    "benchmark_tables",
    "mathml",
    "myst_nb",
    "namespaces",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_ext"]

# Docstrings and pages. Code that is a name of the package becomes a link (_ext/namespaces.py).
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_custom_sections = [("Reference", "notes_style")]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|flax|jax|jaxlib|numpy|optax|pathlib|tensorcircuit|typing)\..*"),
    (r"py:.*", r"Axes|Console|Figure|MissingExtraError|xarray\..*|jaxqring\..*\.T"),
    # Parts of public classes that a user need not make: fields of TOML files, inner state.
    (r"py:class", r"jaxqring\.jobs\..*\.(Attack|Config|Curve|Inner|\w+Config)"),
    (r"py:class", r"jaxqring\..*\.(Masking|Masks|Message|Overrides|Period|Update)"),
]

# Tutorials run when their text, the library or JAX has changed; an error in one fails the build.
sources = [path.read_bytes() for path in sorted(ROOT.glob("jaxqring/**/*.py"))]
state = hashlib.sha256(b"".join([version_of("jax").encode(), *sources])).hexdigest()[:16]
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / ".cache" / "notebooks" / state)
for path in ROOT.glob(".cache/notebooks/*"):
    if path.name != state:
        shutil.rmtree(path)
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

html_copy_source = False
html_theme = "sphinx_book_theme"
html_title = "jaxqring"
html_baseurl = "https://jaxqring.github.io/jaxqring/"
html_context = {"default_mode": "auto"}  # light or dark as the reader prefers
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_theme_options = {
    "repository_url": "https://github.com/jaxqring/jaxqring",
    "use_repository_button": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 1,
    "navbar_persistent": [],
}
