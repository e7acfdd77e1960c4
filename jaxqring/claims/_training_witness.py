"""A second witness for trainings: softmax regression over a noisy ring, in numpy alone.

Many trainings at once: the first axis of every array is that of the trainings, the second one that
of the nodes. Links have Werner pairs, so that each wrong symbol is one of the three others.
"""

from collections.abc import Callable, Sequence

import numpy as np

NODES, BITS = 8, 16
#: Levels of a value, which leave room for a sum of eight.
_LARGEST = 2 ** (BITS - 3 - 1) - 1

Average = Callable[[np.ndarray], np.ndarray]


class Errors:
    """Symbol errors on links, the same sites for every error rate below `highest`.

    Args:
      rates: (K, N) probability that a symbol on a link is wrong.
      seeds: (K,) trainings with one seed draw from the same sites.
      highest: rate at which sites are drawn.
    """

    def __init__(self, rates: np.ndarray, seeds: Sequence[int], highest: float) -> None:
        self.rates, self.highest = rates, highest
        self.groups: dict[int, list[int]] = {}
        for row, seed in enumerate(seeds):
            self.groups.setdefault(int(seed), []).append(row)
        self.rngs = {seed: np.random.default_rng([7, seed]) for seed in self.groups}

    def add(self, codes: np.ndarray, bits: int) -> None:
        """XORs errors into (K, N, m) codes of `bits` bits, on link i those that node i sends."""
        _, nodes, width = codes.shape
        symbols = bits // 2
        for seed, rows in self.groups.items():
            rng = self.rngs[seed]
            count = rng.binomial(nodes * width * symbols, self.highest)
            link, place, symbol = (rng.integers(0, n, count) for n in (nodes, width, symbols))
            flip, height = rng.integers(1, 4, count), rng.random(count) * self.highest
            for row in rows:
                hit = height < self.rates[row, link]
                where = (np.full(hit.sum(), row), link[hit], place[hit])
                np.bitwise_xor.at(codes, where, flip[hit] << (2 * symbol[hit]))


def ring_sum(codes: np.ndarray, bits: int, errors: Errors) -> np.ndarray:
    """(K, N, P) the sum that each node holds, mod 2^bits and signed, of (K, N, P) codes."""
    trainings, nodes, size = codes.shape
    width = -(-size // nodes)
    chunks = np.zeros((trainings, nodes, nodes, width), np.int64)
    chunks.reshape(trainings, nodes, -1)[:, :, :size] = codes
    chunks %= 2**bits
    each = np.arange(nodes)
    for hop in range(2 * (nodes - 1)):
        reduces = hop < nodes - 1
        sent = (each - hop if reduces else each + 1 - (hop - (nodes - 1))) % nodes
        message = chunks[:, each, sent]
        errors.add(message, bits)
        to = (each + 1) % nodes
        old = chunks[:, to, sent] if reduces else 0
        chunks[:, to, sent] = (old + message) % 2**bits
    flat = chunks.reshape(trainings, nodes, -1)[:, :, :size]
    return np.where(flat >= 2 ** (bits - 1), flat - 2**bits, flat)


def linear_mean(errors: Errors) -> Average:
    """Averages (K, N, P) values as 16-bit levels of a power of two that all nodes agree on."""

    def average(values: np.ndarray) -> np.ndarray:
        peak = np.maximum(np.abs(values).max((1, 2), keepdims=True), 1e-30)
        step = 2.0 ** np.ceil(np.log2(peak / _LARGEST))
        codes = np.rint(values / step).astype(np.int64)
        return ring_sum(codes, BITS, errors) * step / NODES

    return average


def majority(errors: Errors) -> Average:
    """Votes (K, N, P) values by their signs, in counts of four bits.

    Every second node counts one less, so that the sum is zero at a tie; a zero abstains.
    """

    def average(values: np.ndarray) -> np.ndarray:
        places = np.add.outer(np.arange(NODES), np.arange(values.shape[-1])) % 2
        votes = np.where(values == 0, 0, (values > 0) - places)
        return np.sign(ring_sum(votes.astype(np.int64), 4, errors)).astype(float)

    return average


def train_softmax(
    images: np.ndarray,
    labels: np.ndarray,
    batches: np.ndarray,
    rate: float,
    average: Average,
    momentum: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax regression from zero weights, averaged over the nodes in every step.

    Args:
      images: (count, features).
      labels: (count,) in 0, ..., 9.
      batches: (steps, K, N, B) places of the images of a step.
      rate: of learning.
      average: from (K, N, P) gradients to what each node receives; weights and biases apart.
      momentum: of each node, ahead of the average: m <- momentum m + (1 - momentum) g.

    Returns:
      (K, N, features, 10) weights and (K, N, 10) biases of each node.
    """
    _, trainings, nodes, batch = batches.shape
    weights = np.zeros((trainings, nodes, images.shape[1], 10))
    biases = np.zeros((trainings, nodes, 10))
    memory = [np.zeros((trainings, nodes, images.shape[1] * 10)), np.zeros_like(biases)]
    for places in batches:
        x, y = images[places], labels[places]
        scores = x @ weights + biases[:, :, None]
        probs = np.exp(scores - scores.max(-1, keepdims=True))
        probs /= probs.sum(-1, keepdims=True)
        wrong = (probs - np.eye(10)[y]) / batch
        slopes = [
            np.einsum("knbf,knbc->knfc", x, wrong).reshape(trainings, nodes, -1),
            wrong.sum(2),
        ]
        memory = [momentum * m + (1 - momentum) * s for m, s in zip(memory, slopes, strict=True)]
        means = [average(m) for m in memory]
        weights -= rate * means[0].reshape(weights.shape)
        biases -= rate * means[1]
    return weights, biases


def outcomes(
    weights: np.ndarray, biases: np.ndarray, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(K,) accuracy and (K,) mean probability of the right class on a test set, over all nodes."""
    scores = np.einsum("if,knfc->knic", images, weights) + biases[:, :, None]
    right = (scores.argmax(-1) == labels).mean((1, 2))
    scores = scores - scores.max(-1, keepdims=True)
    chosen = np.take_along_axis(scores, labels[None, None, :, None], -1)[..., 0]
    probability = np.exp(chosen) / np.exp(scores).sum(-1)
    return right, probability.mean((1, 2))
