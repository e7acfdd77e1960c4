"""A walk over every public name: it exists, has types, and is documented as all others are."""

import ast
import dataclasses
import doctest
import importlib
import inspect
import re
import textwrap
import types
import warnings
from pathlib import Path

import pytest
from flax import linen as nn

import jaxqring

ROOT = Path(__file__).parent.parent
ROOMS = {
    name: getattr(jaxqring, name)
    for name in jaxqring.__all__
    if isinstance(getattr(jaxqring, name), types.ModuleType)
}


def exported(module):
    """The names of a facade; of a module that does not say which, all that it defines."""
    return getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if name[0] != "_" and getattr(value, "__module__", None) == module.__name__
    ]


def is_function(value):
    """Functions, and what wraps one: compiled, cached, or with a derivative of its own."""
    return callable(value) and not inspect.isclass(value)


def public():
    """Every object that a facade exports, under the shortest of its names."""
    found = {}
    for room, module in {"": jaxqring, **ROOMS}.items():
        for name in exported(module):
            value = getattr(module, name)
            if not isinstance(value, types.ModuleType):
                found.setdefault(id(value), (f"{room}.{name}".lstrip("."), value))
    return dict(sorted(found.values()))


PUBLIC = public()
FUNCTIONS = {name: value for name, value in PUBLIC.items() if is_function(value)}

#: Functions without an example, and why.
NO_EXAMPLE = {
    "jobs.run_budget": "writes a folder; `jaxqring budget` is its example, which test_cli runs",
    "jobs.run_inversion": "writes a folder, after minutes; test_inversion_job runs it",
    "jobs.run_sensitivity": "writes a folder, after minutes; test_sensitivities runs it",
    "jobs.run_sweep": "writes a folder, after minutes; test_sweeps runs it",
    "jobs.run_outer": "writes a folder; `jaxqring outer` is its example, which test_outer_job runs",
    "jobs.run_robust": "writes a folder, after minutes; test_robust_job runs it",
    "jobs.run_compression": "writes a folder; `jaxqring compression` is its example",
    "jobs.train": "writes a folder; `jaxqring train` is its example, which test_cli runs",
    "train.load": "reads data sets of other packages",
}

#: Facades without `__all__`: all that the module defines without an underscore is public.
NO_LIST = {"channels", "ghz", "information"}

SECTION = re.compile(
    r"^(Args|Attributes|Returns|Yields|Raises|Reference):(.*\n(?:(?: .*)?\n)*)", re.MULTILINE
)


def sections(text):
    """The text of every section of a docstring, by its heading; it ends with its indentation."""
    return {found[1]: found[2] for found in SECTION.finditer(text + "\n")}


def described(section):
    """The names that a section of arguments describes: `a:`, or `a, b:`, on lines of its own."""
    lines = textwrap.dedent(section.strip("\n")).splitlines()
    heads = [re.match(r"([\w*`]+(?:, [\w*`]+)*)(?: \([^)]*\))?:", line) for line in lines]
    return {name.strip("*`") for head in heads if head for name in head[1].split(", ")}


def refuses(value):
    """True if the body of a function, or the constructor of a class, calls `checks`."""
    makers = (
        [value]
        if is_function(value)
        else [
            vars(value)[name]
            for name in ("__init__", "__new__", "__post_init__")
            if name in vars(value)
        ]
    )
    for maker in makers:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(maker))))
        except OSError:  # made by `dataclass`
            continue
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        if any(ast.unparse(call).startswith("checks.") for call in calls):
            return True
    return False


def missing(name, value):
    """The parts of its documentation that a public object lacks."""
    lacks = set()
    text = inspect.getdoc(value) or ""
    parts = sections(text)
    if not text or SECTION.match(text):
        lacks.add("summary")
    if is_function(value):
        signature = inspect.signature(value)
        arguments = list(signature.parameters.values())
        if any(argument.annotation is inspect.Parameter.empty for argument in arguments):
            lacks.add("types of arguments")
        if signature.return_annotation is inspect.Signature.empty:
            lacks.add("type of result")
        if len(arguments) > 1:
            left = {argument.name for argument in arguments} - described(parts.get("Args", ""))
            lacks |= {f"Args: {argument}" for argument in left}
        if signature.return_annotation not in (None, "None") and not {"Returns", "Yields"} & {
            *parts
        }:
            lacks.add("Returns")
        examples = doctest.DocTestParser().get_examples(text)
        if name not in NO_EXAMPLE and not any(
            not example.options.get(doctest.SKIP) for example in examples
        ):
            lacks.add("example")
    elif dataclasses.is_dataclass(value):
        # Those that a caller may give; a name with an underscore is none of the caller's, and those
        # of every Flax module are Flax's.
        fields = {
            field.name for field in dataclasses.fields(value) if field.init and field.name[0] != "_"
        }
        if issubclass(value, nn.Module):
            fields -= {"name", "parent"}
        if len(fields) > 1:
            left = fields - described(parts.get("Attributes", parts.get("Args", "")))
            lacks |= {f"Attributes: {field}" for field in left}
    if "Raises" not in parts and callable(value):
        lacks |= {"Raises"} if refuses(value) else set()
    return lacks


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_every_name_of_a_facade_exists_once(room):
    module = ROOMS[room] if room else jaxqring
    assert module.__doc__
    assert hasattr(module, "__all__") == (room not in NO_LIST)
    names = exported(module)
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(module, name) is not None, name
        assert not name.startswith("_")
    assert {*names} <= {*dir(module)}


def test_the_rooms_are_all_packages_and_the_namespaces_of_physics():
    packages = {path.parent.name for path in (ROOT / "jaxqring").glob("*/__init__.py")}
    physics = {*importlib.import_module("jaxqring.physics").__all__}
    assert {*ROOMS} == (packages - {"physics"}) | physics | {"interop"}
    assert len(PUBLIC) > 100


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_types_and_is_documented(name):
    lacks = missing(name, PUBLIC[name])
    assert not lacks, f"`{name}` lacks: {', '.join(sorted(lacks))}"


def test_lists_of_exceptions_name_what_there_is():
    assert {*ROOMS} >= NO_LIST
    assert {*NO_EXAMPLE} <= {*FUNCTIONS}
    assert not [name for name in NO_EXAMPLE if ">>>" in FUNCTIONS[name].__doc__]


def test_what_is_missing_is_seen():
    def bare(x, y: int, **z: int):
        checks.integer("y", y)  # noqa: F821

    assert missing("bare", bare) == {
        *("summary", "types of arguments", "type of result", "Returns", "example", "Raises"),
        *("Args: x", "Args: y", "Args: z"),
    }

    def full(x: int, y: int, **z: int) -> int:
        """A sum.

        Args:
          x, y: the terms. Not z:
            z: in a text that is indented.
          **z: more of them.

        Terms of any size.

        Returns:
          It.

        >>> 1 + 1
        2
        """

    assert missing("full", full) == set()
    full.__doc__ = full.__doc__.replace("  **z", "    **z")
    assert missing("full", full) == {"Args: z"}


def test_the_package_says_that_it_has_types():
    assert (ROOT / "jaxqring" / "py.typed").is_file()


# --- Names of earlier versions --------------------------------------------------------------------

MOVED = {name: room for room, names in jaxqring._MOVED.items() for name in names.split()}


@pytest.mark.parametrize("name", MOVED)
def test_an_earlier_name_warns_and_is_the_same_object(name):
    room = MOVED[name]
    with pytest.warns(DeprecationWarning, match=rf"`jaxqring\.{room}\.{name}`"):
        found = getattr(jaxqring, name)
    assert name not in jaxqring.__all__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found is getattr(ROOMS[room], name)
    assert name in exported(ROOMS[room])


@pytest.mark.parametrize(
    "home, name",
    [
        ("quantum", "werner"),
        ("quantum", "GHZSource"),
        ("quantum", "PlantedSource"),
        ("study", "sweep"),
        ("study", "run_budget"),
        ("study", "TaskConfig"),
        ("link", "FixedPoint"),
        ("link", "reed_solomon"),
        ("link", "generate"),
        ("ring", "budget"),
        ("ring", "expected"),
        ("train", "TrainConfig"),
    ],
)
def test_an_earlier_room_warns_and_gives_the_object(home, name):
    module = importlib.import_module(f"jaxqring.{home}")
    with pytest.warns(DeprecationWarning, match=rf"`jaxqring\.{home}\.{name}` is `jaxqring\."):
        found = getattr(module, name)
    assert found.__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_the_earlier_name_of_level_bits_warns():
    with pytest.warns(DeprecationWarning, match="`FixedPoint.level_bits`"):
        assert jaxqring.FixedPoint(16).code_bits(8) == jaxqring.FixedPoint(16).level_bits(8)


def earlier_names(text):
    """Uses of earlier names: `jaxqring.name`, `jq.name`, and imports of them from `jaxqring`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in ("jq", "jaxqring") and node.attr in MOVED:
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == "jaxqring" and not node.level:
            yield from (alias.name for alias in node.names if alias.name in MOVED)


def test_nothing_of_ours_uses_an_earlier_name():
    texts = {
        path: path.read_text()
        for folder in ("jaxqring", "tests", "examples", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    texts |= {ROOT / f"README.md, example {at}": block for at, block in enumerate(blocks)}
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in texts.items()
        for name in earlier_names(text)
    ]
    assert not found
    used = "import jaxqring as jq\nfrom jaxqring import audit, bch\nx = jq.verify(jq.secure.plan)"
    assert [*earlier_names(used)] == ["bch", "verify"]
