"""Studies: what the network costs and what it is sensitive to, as tables, files and figures."""

from jaxqring.study.budget import BudgetConfig, run_budget

__all__ = ["BudgetConfig", "run_budget"]
