"""The parts of a traced program."""

from jax.extend.core import jaxprs_in_params


def primitives(jaxpr):
    """The names of all primitives in a jaxpr, and in those inside it."""
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for inner in jaxprs_in_params(equation.params):
            found |= primitives(getattr(inner, "jaxpr", inner))
    return found
