"""Tables for the terminal and figures for files; their numbers come from `jaxqring.jobs`.

Every function draws one panel and hands back its axes of matplotlib: on `ax` where it is given,
else on new axes. The commands draw their figures with them.
"""

from jaxqring.show._budget_figure import hardware, net_rate
from jaxqring.show._compression_figures import compression, methods
from jaxqring.show._inversion_figures import similarity
from jaxqring.show._outer_figure import outer_loops, outer_memories
from jaxqring.show._robust_figure import liars
from jaxqring.show._security_figure import copies, epsilon
from jaxqring.show._sensitivity_figure import sensitivity
from jaxqring.show._sweep_figures import heat_map, sweep
from jaxqring.show._training_figures import accuracy, agreement, drift, loss, traffic

__all__ = [
    "accuracy",
    "agreement",
    "compression",
    "copies",
    "drift",
    "epsilon",
    "hardware",
    "heat_map",
    "liars",
    "loss",
    "methods",
    "net_rate",
    "outer_loops",
    "outer_memories",
    "sensitivity",
    "similarity",
    "sweep",
    "traffic",
]
