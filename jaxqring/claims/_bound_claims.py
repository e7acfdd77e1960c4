"""Claims that a simulation cannot decide: lower bounds, and trainings on data not at hand."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxqring.audit import crossover, plan_subset_audit
from jaxqring.claims._claim import Claim, Effort, Finding, Number
from jaxqring.claims._compression_witnesses import resnet18_tensors
from jaxqring.claims._gap_witnesses import error_by_fourier, fewest_signs
from jaxqring.claims._tie_witnesses import fewest_hits, fewest_subset
from jaxqring.train._models import ResNet18

SIZE, GAP, ERROR, DELTA = 1_000_000, 0.1, 0.1, 0.05


def _rivals(effort: Effort) -> dict[str, Any]:
    return {
        "subset": plan_subset_audit(ERROR, DELTA, SIZE).bits,
        "subset_second": fewest_subset(fewest_hits(ERROR, DELTA), SIZE),
        "signs": crossover(GAP, SIZE).simhash_bits,
        "signs_second": fewest_signs(GAP, error_by_fourier(GAP)),
    }


def _bounds(found: dict[str, Any]) -> Finding:
    rivals = found["rivals"]
    roots, gaps = math.sqrt(SIZE), min(GAP**-2, SIZE)
    numbers = (
        Number(
            f"bits of a random subset for TieAudit, P = {SIZE:,}, error {ERROR:g}",
            rivals["subset"],
            rivals["subset_second"],
            "fewest signs by integers",
            claimed=roots,
        ),
        Number(
            f"bits of SimHash for GapIP, P = {SIZE:,}, gap {GAP:g}",
            rivals["signs"],
            rivals["signs_second"],
            "incomplete beta functions at the error of Fourier transforms",
            claimed=gaps,
        ),
    )
    because = (
        "A lower bound speaks of all protocols, and a simulation of some. The rivals here send "
        f"{rivals['subset'] / roots:.1f} and {rivals['signs'] / gaps:.1f} times the bounds with "
        "the constant one: they do not contradict them, and do not come near enough to say more."
    )
    above = rivals["subset"] >= roots and rivals["signs"] >= gaps
    return Finding("cannot be tested here" if above else "fails", because, numbers)


#: Error rates of the source in per cent, by SGD and by LQ-SGD, on CIFAR-10.
PUBLISHED = (5.5, 7.1)


def _network(effort: Effort) -> dict[str, Any]:
    image = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(ResNet18(10).init, jax.random.key(0), image)["params"]
    return {
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)),
        "parameters_second": sum(math.prod(shape) for shape in resnet18_tensors(10, 3)),
    }


def _cifar(found: dict[str, Any]) -> Finding:
    network = found["network"]
    number = Number(
        "parameters of the network",
        network["parameters"],
        network["parameters_second"],
        "arithmetic of the layers",
    )
    because = (
        f"The source has error rates of {PUBLISHED[0]} % by SGD and {PUBLISHED[1]} % by LQ-SGD, of "
        f"single runs. Its network of {network['parameters']:,} parameters is here; CIFAR-10, and "
        "the accelerator that trains it, are not. See lqsgd-accuracy for digits."
    )
    return Finding("cannot be tested here", because, (number,))


CLAIMS = (
    Claim(
        "lower-bounds",
        "Lower bounds on classical messages",
        "Gragera Garces and Pira, arXiv:2606.20344, abstract",
        "audits take at least of the order of sqrt P and of min(tau^-2, P) classical bits.",
        "the constants of the bounds set to one, beside classical protocols that exist.",
        {"rivals": _rivals},
        _bounds,
    ),
    Claim(
        "lqsgd-cifar",
        "The error rates of LQ-SGD on CIFAR-10",
        "LQ-SGD, arXiv:2506.17974, tables",
        "a ResNet-18 on CIFAR-10 loses little accuracy under LQ-SGD.",
        "the network that reproduces its sizes.",
        {"network": _network},
        _cifar,
    ),
)
