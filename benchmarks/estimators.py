"""Bias and spread of the estimators, over whole trainings.

Gradient descent for 50 steps on eight nodes whose gradients are averaged over the ring: of a
quadratic, and of a logistic regression. The derivative of the final loss with respect to the
symbol error of the links is held against a central difference with common random numbers, over an
interval of half the error.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from timing import parser, report

import jaxqring as jq

NODES, SIZE, STEPS = 8, 8, 50


def quadratic(rng):
    """Learning rate, gradients (N, P) of replicas (N, P), and the loss of one replica."""
    curvature = jnp.asarray(rng.uniform(0.5, 1.5, (NODES, SIZE)), jnp.float32)
    centre = jnp.asarray(rng.normal(size=(NODES, SIZE)) + 1, jnp.float32)
    best = jnp.sum(curvature * centre, axis=0) / jnp.sum(curvature, axis=0)

    def loss(w):
        return jnp.sum(jnp.mean(curvature, axis=0) * (w - best) ** 2) / 2

    return 0.1, lambda w: curvature * (w - centre), loss


def logistic(rng):
    """As `quadratic`."""
    data = rng.normal(size=(NODES, 32, SIZE))
    odds = 1 / (1 + np.exp(-data @ rng.normal(size=SIZE) * 1.5))
    labels = jnp.asarray(odds > rng.uniform(size=odds.shape), jnp.float32)
    data = jnp.asarray(data, jnp.float32)

    def loss_of(w, data, labels):
        return jnp.mean(jnp.logaddexp(0, data @ w) - labels * (data @ w))

    def loss(w):
        return loss_of(w, data.reshape(-1, SIZE), labels.reshape(-1))

    return 1.0, lambda w: jax.vmap(jax.grad(loss_of))(w, data, labels), loss


def ring_of(error):
    link = jq.superdense(jq.werner(fidelity=1 - error))
    return jq.Ring(link, jq.FixedPoint(16, clip=4.0), nodes_per_device=NODES)


def training(problem):
    """(ring, keys) -> the loss at the end, in the mean over the nodes."""
    rate, slopes, loss = problem(np.random.default_rng(0))

    def train(ring, keys):
        def step(w, key):
            mean = functools.partial(jq.pmean, axis_name="nodes", ring=ring, key=key)
            return w - rate * jax.vmap(mean, axis_name="nodes")(slopes(w)[None])[0], None

        w, _ = lax.scan(step, jnp.zeros((NODES, SIZE)), keys)
        return jnp.mean(jax.vmap(loss)(w))

    return train


def estimates(train, estimator, error, runs):
    """Estimates of the derivative, and how many runs are behind each."""
    if estimator == "difference":
        ends = ring_of(0.75 * error), ring_of(1.25 * error)
        options = {"samples": runs, "calls": STEPS, "batch": 100}
        run = functools.partial(jq.gradients.finite_difference, train, *ends, error / 2, **options)
        return jax.jit(run)(jax.random.key(1)), 1
    group = 4 if estimator == "score" else 1
    cost = ring_of(error).cost(SIZE, NODES)

    def derivative(key):
        def expected(error):
            options = {"samples": group, "calls": STEPS, "cost": cost}
            return jq.expected(train, ring_of(error), key, estimator=estimator, **options)

        return jax.grad(expected)(error)

    keys = jax.random.split(jax.random.key(2), runs // group)
    return jax.jit(lambda keys: lax.map(derivative, keys, batch_size=100))(keys), group


def main():
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=400, help="trainings for each number")
    options.add_argument("--errors", type=float, nargs="*", default=[1e-4, 1e-3, 1e-2])
    options = options.parse_args()
    rows = []
    for problem in (quadratic, logistic):
        train = training(problem)
        for error in options.errors:
            truth = None
            for estimator in ("difference", "mean", "gaussian", "score", "russo"):
                each, group = estimates(train, estimator, error, options.runs)
                each = np.asarray(each, np.float64)
                mean, bar = each.mean(), each.std(ddof=1) / np.sqrt(each.size)
                truth = truth or (mean, bar)
                gap = (mean - truth[0]) / abs(truth[0]), np.hypot(bar, truth[1]) / abs(truth[0])
                rows.append(
                    [
                        f"{problem.__name__}, {error:g}, {estimator}",
                        f"{mean:.4g} ± {bar:.2g}",
                        each.std(ddof=1) * np.sqrt(group),
                        "-" if estimator == "difference" else f"{gap[0]:+.1%} ± {gap[1]:.1%}",
                    ]
                )
    columns = ["problem, symbol error, estimator", "derivative", "std of a run", "bias"]
    report("estimators", columns, rows, options)


if __name__ == "__main__":
    main()
