"""The quadratic problem Q of four nodes, and outer loops on it in plain numpy.

Node i minimises (x - c_i)^T diag(1, 2) (x - c_i) / 2 by H = 5 steps of 0.1. The references share
nothing with the package.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CURVATURE = np.array([1.0, 2.0])
CENTRES = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0], [3.0, -2.0]])
START = np.array([5.0, -3.0])
RATE, EVERY, NODES = 0.1, 5, 4


def gradients(x):
    """(N, 2) of the loss of every node at its own parameters; numpy or JAX."""
    return CURVATURE * (x - CENTRES)


def displaced(theta, every=EVERY):
    """(N, 2) Delta_i after H inner steps from theta, in closed form."""
    return (1 - (1 - RATE * CURVATURE) ** every) * (theta - CENTRES)


def nesterov(rounds, eta, mu, kind="sync"):
    """(N, 2) the slow parameters of every node after some rounds."""
    theta = np.tile(START, (NODES, 1))
    m, last = np.zeros_like(theta), np.zeros_like(theta)
    for _ in range(rounds):
        now = displaced(theta)
        if kind == "sync":
            g = np.tile(now.mean(axis=0), (NODES, 1))
        elif kind == "delayed":
            g = np.tile(last.mean(axis=0), (NODES, 1))
        else:
            g = last.mean(axis=0) + (now - last) / NODES
        m = mu * m + g
        theta = theta - eta * (g + mu * m)
        last = now
    return theta


def co2(rounds, beta=0.5, gap=1.0, clip=np.inf):
    """(2,) the slow parameters; the first round only starts an average."""
    x, m, bar = START, np.zeros(2), None
    nodes = np.tile(x, (NODES, 1))
    for _ in range(rounds):
        nodes = CENTRES + (nodes - CENTRES) * (1 - RATE * CURVATURE) ** EVERY
        fresh = nodes.mean(axis=0)
        if bar is not None:
            m = np.clip(beta * m + (x - bar) / gap, -clip, clip)
            x = x - m
            nodes = np.tile(x, (NODES, 1))
        bar = fresh
    return x


def noloco(start, schedule, alpha=0.5, beta=0.7, gamma=0.7):
    """(N, 2) the slow parameters after a round for each row of partners."""
    phi, delta = np.array(start), np.zeros_like(start)
    for partners in schedule:
        found = -displaced(phi)  # theta - phi
        found = (found + found[partners]) / 2
        centre = (phi + phi[partners]) / 2
        delta = alpha * delta + beta * found + gamma * (centre - phi)
        phi = phi + delta
    return phi


def diloco_round(kind, share, eta, mu, nodes=None):
    """A round on (theta, m, theta of the round before), distances from a common optimum."""
    part = 0 if nodes is None else 1 / nodes

    def step(state):
        theta, m, old = state
        if kind == "co2":
            bar = (1 - share) * old  # the parameters that nodes had a round ago
            m = mu * m + (theta - bar)
            return np.array([theta - eta * m, m, theta])
        g = {
            "sync": share * theta,
            "delayed": share * old,
            "eager": share * old + part * (share * theta - share * old),
        }[kind]
        m = mu * m + g
        return np.array([theta - eta * (g + mu * m), m, theta])

    return step


# --- Loops of the package on it -------------------------------------------------------------------


def trained(loop, mapping, steps, start=None):
    """Parameters after every inner step (N, steps, 2), states and replicas, in one program."""
    start = np.tile(START, (NODES, 1)) if start is None else start
    kind = jnp.zeros(()).dtype  # float64 under x64
    params = jnp.asarray(start, kind)
    state = jax.vmap(loop.init)(params)
    run = mapping(_scanned(loop), NODES, shared=1)
    return run(params, state, jnp.asarray(CENTRES, kind), jnp.arange(steps))


@functools.cache
def _scanned(loop):
    def node(params, state, centre, steps):
        def step(carry, at):
            params, state = carry
            grads = jnp.asarray(CURVATURE, params.dtype) * (params - centre)
            after = loop.update(grads, state, params, step=at)
            return after, after[0]

        (params, state), history = lax.scan(step, (params, state), steps)
        return history, state, loop.replica(params, state)

    return node
