"""Packages that come with an extra of this one, and the sentence that asks for a missing one."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ModuleNotFoundError):
    """A package is not there that an extra of jaxqring would bring."""


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Says in one sentence which extra is missing, if an import inside fails for want of one.

    Args:
      extra: that has the packages imported inside.
      what: needs them, as the sentence begins.

    Raises:
      MissingExtraError: if one of these packages is not there.

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
