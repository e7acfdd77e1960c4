"""Studies: budgets, sweeps and sensitivities, as tables, files and figures."""

from jaxqring.study.budget import BudgetConfig, run_budget
from jaxqring.study.links import LinkConfig
from jaxqring.study.sensitivities import sensitivity
from jaxqring.study.sensitivity_job import SensitivityConfig, run_sensitivity
from jaxqring.study.sweep_job import SweepConfig, run_sweep
from jaxqring.study.sweeps import sweep
from jaxqring.study.training import TaskConfig, training

__all__ = [
    "BudgetConfig",
    "LinkConfig",
    "SensitivityConfig",
    "SweepConfig",
    "TaskConfig",
    "run_budget",
    "run_sensitivity",
    "run_sweep",
    "sensitivity",
    "sweep",
    "training",
]
