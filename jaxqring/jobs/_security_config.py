"""Secure aggregation in a training job: its configuration, and the guarantees of a run."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import scipy  # whose subpackages load when they are first used

from jaxqring import _checks as checks
from jaxqring._fields import check_fields, no_other_keys
from jaxqring.codes import bch
from jaxqring.physics.channels import dephasing, depolarizing
from jaxqring.physics.ghz import GHZSource, fused
from jaxqring.physics.pairs import werner
from jaxqring.secure import Security, plan


@no_other_keys
@dataclasses.dataclass(frozen=True)
class SecurityConfig:
    """GHZ masks on what a run sends, and the verification of their states.

    Attributes:
      noise: of the GHZ states: "depolarizing" or "dephasing" on every party's qubit alike,
        "white" for white noise, "fused" for states made of Werner pairs of the run's fidelity.
      ghz_fidelity: of the states, in (1/2, 1]; for "fused" it comes from the pairs, and must be
        left at one.
      target_epsilon: of the whole run. If given, the cheapest verification that meets it is
        planned, in place of `bucket`, `test_ratio` and `tolerance`.
      amplification: "bucket" or "none".
      bucket: raw masks added up for one.
      tests: "z", "mixed" or "xy".
      test_ratio: copies tested per untested copy.
      tolerance: fraction of the tests that may fail.
      correction: (n, k, t) of the BCH code whose syndromes correct sums; no code by default.
      attempts: verifications in a step before it is skipped.

    Raises:
      TypeError: if a number is not real.
      ValueError: if `ghz_fidelity` is outside (1/2, 1], or not one for "fused"; `target_epsilon`
        is outside (0, 1); a choice is unknown; or `Security` or `codes.bch` refuses a value.
    """

    noise: Literal["depolarizing", "dephasing", "white", "fused"] = "depolarizing"
    ghz_fidelity: float = 1.0
    target_epsilon: float | None = None
    amplification: Literal["bucket", "none"] = "bucket"
    bucket: int = 3
    tests: Literal["z", "mixed", "xy"] = "z"
    test_ratio: float = 1.0
    tolerance: float = 0.0
    correction: tuple[int, int, int] | None = None
    attempts: int = 3

    def __post_init__(self) -> None:
        check_fields(self, "security.")
        if not 0.5 < self.ghz_fidelity <= 1:
            checks.refuse("security.ghz_fidelity", "lie in (0.5, 1]", self.ghz_fidelity)
        if self.noise == "fused" and self.ghz_fidelity != 1:
            rule = 'be left at 1 for "fused", whose fidelity is that of the pairs'
            checks.refuse("security.ghz_fidelity", rule, self.ghz_fidelity)
        if self.target_epsilon is not None:
            checks.open_interval("security.target_epsilon", self.target_epsilon)
        self._configured()

    def _configured(self) -> Security:
        return Security(
            amplification=self.amplification,
            bucket=self.bucket,
            tests=self.tests,
            test_ratio=self.test_ratio,
            tolerance=self.tolerance,
            correction=None if self.correction is None else bch(*self.correction),
            attempts=self.attempts,
        )

    def source(self, num_nodes: int, pair_fidelity: float) -> GHZSource:
        """The GHZ source of a ring of `num_nodes` nodes, whose pairs have this fidelity."""
        if self.noise == "fused":
            return fused(werner(fidelity=pair_fidelity), num_nodes)
        if self.noise == "white":
            # F = 1 - white + white / 2^N
            return GHZSource(num_nodes, white=(1 - self.ghz_fidelity) / (1 - 0.5**num_nodes))
        if self.noise == "dephasing":
            # F = (1 + (1 - 2 p)^N) / 2
            error = -math.expm1(math.log(2 * self.ghz_fidelity - 1) / num_nodes) / 2
            return GHZSource(num_nodes, noise=dephasing(error_prob=error))

        def excess(mix: float) -> float:
            left = 1 - mix
            agree = (1 - mix / 2) ** num_nodes + (mix / 2) ** num_nodes
            return (agree + left**num_nodes) / 2 - self.ghz_fidelity

        mix = 0.0 if self.ghz_fidelity == 1 else scipy.optimize.brentq(excess, 0.0, 1.0, xtol=1e-15)
        return GHZSource(num_nodes, noise=depolarizing(mix=mix))

    def build(self, source: GHZSource, sums: Sequence[tuple[int, int]], steps: int) -> Security:
        """The verification and correction of masks: as configured, or planned for the target.

        Args:
          source: of the states.
          sums: sizes and bits of the collectives of a step, one verified after the other.
          steps: of the run.

        Raises:
          ValueError: if the target cannot be met; the sentence has the smallest epsilon that can.
        """
        if self.target_epsilon is None:
            return self._configured()
        sizes, bits = zip(*sums, strict=True)
        return plan(
            self.target_epsilon,
            sizes,
            steps,
            source,
            bits=bits,
            amplification=self.amplification,
            tests=self.tests,
            correction=self._configured().correction,
            attempts=self.attempts,
        )
