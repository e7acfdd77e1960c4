"""Pieces that several files of tests of the audits share."""

import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxqring.audit._tie_audit import _offset
from jaxqring.audit._tie_plans import TieNoise, hit_moments

NOISES = {
    "none": TieNoise(),
    "global": TieNoise(global_mix=0.3),
    "local": TieNoise(local_survival=0.8),
}


def unit(rng, size):
    vector = rng.normal(size=size)
    return vector / np.linalg.norm(vector)


def projective_error(tau, copies):
    """More than a quarter of the copies found is agreement: the larger of the two errors."""
    few, many = ((1 - tau) / 2) ** 2, ((1 + tau) / 2) ** 2
    quarter = np.asarray(copies) // 4
    return np.maximum(stats.binom.cdf(quarter, copies, many), stats.binom.sf(quarter, copies, few))


def neighbours(size, pairs=None):
    return np.arange(size).reshape(-1, 2)[:pairs]


def contrast_and_offset(signs, survival):
    _, contrast = hit_moments(len(signs), 1.0, "message", "local", survival)
    return contrast, float(_offset(jnp.asarray(signs) < 0, survival))
