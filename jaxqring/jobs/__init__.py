"""Jobs that a TOML file describes: trainings, sweeps, sensitivities, budgets and others."""

from jaxqring._files import read_metrics
from jaxqring.jobs._budget_job import BudgetConfig, run_budget
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._compress_config import CompressConfig
from jaxqring.jobs._compression_job import CompressionConfig, run_compression
from jaxqring.jobs._inversion_job import InversionConfig, run_inversion
from jaxqring.jobs._link_config import LinkConfig
from jaxqring.jobs._load import load_config
from jaxqring.jobs._on_step import tensorboard
from jaxqring.jobs._outer_config import MemoriesConfig, OuterLoopConfig
from jaxqring.jobs._outer_job import OuterConfig, run_outer
from jaxqring.jobs._robust_config import RuleConfig
from jaxqring.jobs._robust_job import RobustConfig, run_robust
from jaxqring.jobs._run_config import RunConfig
from jaxqring.jobs._security_config import SecurityConfig
from jaxqring.jobs._security_curves import SecurityCurves, security_curves
from jaxqring.jobs._sensitivity_job import SensitivityConfig, run_sensitivity
from jaxqring.jobs._sweep_job import SweepConfig, run_sweep
from jaxqring.jobs._training_config import TrainConfig
from jaxqring.jobs._training_job import train

__all__ = [
    "BudgetConfig",
    "CodeConfig",
    "CompressConfig",
    "CompressionConfig",
    "InversionConfig",
    "LinkConfig",
    "MemoriesConfig",
    "OuterConfig",
    "OuterLoopConfig",
    "RobustConfig",
    "RuleConfig",
    "RunConfig",
    "SecurityConfig",
    "SecurityCurves",
    "SensitivityConfig",
    "SweepConfig",
    "TrainConfig",
    "load_config",
    "read_metrics",
    "run_budget",
    "run_compression",
    "run_inversion",
    "run_outer",
    "run_robust",
    "run_sensitivity",
    "run_sweep",
    "security_curves",
    "tensorboard",
    "train",
]
