"""The cost of secrecy: epsilon by GHZ copies per mask, and copies by the fidelity of the states."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import scipy  # whose subpackages load when they are first used

from jaxqring.jobs._security_config import SecurityConfig
from jaxqring.secure import Security, epsilon
from jaxqring.secure._bounds import honest_failure

INFIDELITIES = (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
BUCKETS = (3, 5, 7, 9, 13, 19, 27, 39, 57, 81, 121)
TARGETS = (1e-3, 1e-6, 1e-9)
#: Tested copies per untested copy, and the largest probability that an honest attempt fails.
TEST_RATIO, MAX_ABORT = 1 / 8, 0.01


class SecurityCurves(NamedTuple):
    """Curves for one size of all-reduce.

    Attributes:
      size: masks of a step.
      num_nodes: N, the nodes of the ring.
      bits: of a mask.
      copies: by infidelity of the states, (buckets,) GHZ copies per mask.
      epsilons: by infidelity, (buckets,) secrecy distance of a step.
      costs: by target of epsilon, (infidelities,) copies per mask; NaN where it is not met.
    """

    size: int
    num_nodes: int
    bits: int
    copies: dict[float, np.ndarray]
    epsilons: dict[float, np.ndarray]
    costs: dict[float, np.ndarray]


def security_curves(summary: dict[str, Any]) -> SecurityCurves | None:
    """The curves for the all-reduce of a finished job.

    Args:
      summary: contents of its `summary.json`, as `jaxqring.jobs.train` returns them.

    Returns:
      The curves; None if no run was secure.

    >>> security_curves({"runs": [{"name": "plain"}]}) is None
    True
    """
    secure = [run["name"] for run in summary["runs"] if "security" in run]
    if not secure:
        return None
    configs = {run["name"]: run for run in summary["config"]["runs"]}
    size, num_nodes = summary["parameters"], summary["config"]["nodes"]
    bits = configs[secure[0]]["bits"]
    curves = {loss: curve(loss, size, num_nodes, bits) for loss in INFIDELITIES}
    costs = {
        target: np.array([cost_of(target, *curves[loss]) for loss in INFIDELITIES])
        for target in TARGETS
    }
    copies = {loss: found[0] for loss, found in curves.items()}
    epsilons = {loss: found[1] for loss, found in curves.items()}
    return SecurityCurves(size, num_nodes, bits, copies, epsilons, costs)


def curve(loss: float, size: int, num_nodes: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Copies per mask and epsilon of a step, for every bucket, at one infidelity `loss`."""
    source = SecurityConfig(ghz_fidelity=1 - loss).source(num_nodes, pair_fidelity=1.0)
    failure = honest_failure("z", source, bits)
    copies, epsilons = [], []
    for bucket in BUCKETS:
        security = Security(bucket=bucket, test_ratio=TEST_RATIO)
        tested = security.copies_tested(security.masks_needed(size))
        allowed = float(scipy.stats.binom.ppf(1 - MAX_ABORT, tested, failure))
        security = dataclasses.replace(security, tolerance=min(allowed / tested, 0.49))
        bound = epsilon(security, size, source, bits=bits)
        copies.append(bound.overhead)
        epsilons.append(bound.per_step)
    return np.array(copies), np.array(epsilons)


def cost_of(target: float, copies: np.ndarray, epsilons: np.ndarray) -> float:
    """Copies per mask at which a curve falls to the target; NaN if it does not."""
    below = np.flatnonzero(epsilons <= target)
    if not len(below):
        return np.nan
    last = below[0]
    if last == 0:
        return float(copies[0])
    pair = slice(last - 1, last + 1)
    logs = -np.log(epsilons[pair])
    return float(np.exp(np.interp(-np.log(target), logs, np.log(copies[pair]))))
