"""Earlier home of `jaxqring.jobs` and `jaxqring.sweeps`; gone with release 0.3."""

from typing import TYPE_CHECKING

from jaxqring._moved import moved

if not TYPE_CHECKING:  # so that type checkers know no name here
    __getattr__ = moved(
        __name__,
        {
            "jaxqring.jobs": (
                "BudgetConfig LinkConfig SensitivityConfig SweepConfig run_budget run_sensitivity"
                " run_sweep"
            ),
            "jaxqring.sweeps": "sensitivity sweep",
            "jaxqring.train": "TaskConfig training",
        },
    )
