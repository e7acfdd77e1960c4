"""Packages that come with an extra of this one, and the sentence that asks for a missing one."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ModuleNotFoundError):
    """A package is missing that an extra of jaxqring would bring."""


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Turns a failed import inside the context into one sentence that names the missing extra.

    Args:
      extra: name of the extra that brings the packages imported inside.
      what: subject of the sentence: the thing that needs them.

    Raises:
      MissingExtraError: if one of these packages is missing.

    >>> with needs("train", "This example"):
    ...     import a_missing_package
    Traceback (most recent call last):
    ...
    jaxqring._extras.MissingExtraError: This example needs the package `a_missing_package`:
    pip install "jaxqring[train]".
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name == "jaxqring":
            raise
        sentence = f'{what} needs the package `{name}`: pip install "jaxqring[{extra}]".'
        raise MissingExtraError(sentence, name=error.name) from None
