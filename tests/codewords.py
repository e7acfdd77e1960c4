"""The reference of the tests of codes: distributions and decoders, in NumPy.

Nothing of the package is used, so that the two calculations share no line. A link is q (4,), the
probabilities of the XOR patterns of a qubit that arrives (with b in the low bit and a in the
high one), and `lost`, the probability of a flagged loss; together they sum to one.
"""

import itertools
import math

import numpy as np
from scipy.stats import chi2, chi2_contingency

LOST = 4


def werner_link(fidelity, survival=1.0):
    """q and lost of a Werner pair on a link with flagged loss."""
    rest = (1 - fidelity) / 3
    return survival * np.array([fidelity, rest, rest, rest]), 1 - survival


def bell_link(probs, survival=1.0):
    """The same of a Bell-diagonal pair; Phi+, Phi-, Psi+, Psi- are the patterns 0 to 3."""
    return survival * np.asarray(probs, float), 1 - survival


def unit_weights(q, lost, symbol_bits):
    """(3,) probabilities that a code symbol, or a qubit of a binary code, weighs 0, 1 or 2."""
    if symbol_bits == 1:
        return np.array([q[0], q[1] + q[2] + lost, q[3]])
    qubits = symbol_bits // 2
    clean, here = q[0] ** qubits, (1 - lost) ** qubits
    return np.array([clean, 1 - here, here - clean])


def weight_distribution(q, lost, n, symbol_bits):
    """The distribution of the summed weights of a word, by convolution."""
    unit = unit_weights(q, lost, symbol_bits)
    total = np.ones(1)
    for _ in range(-(-n // 2) if symbol_bits == 1 else n):
        total = np.convolve(total, unit)
    return total


def failure_prob(q, lost, n, symbol_bits, erasures):
    """The probability that 2 e + f exceeds `erasures`."""
    limit = erasures // 2 if symbol_bits == 1 else erasures
    return weight_distribution(q, lost, n, symbol_bits)[limit + 1 :].sum()


def word_lengths(symbols, n, k, symbol_bits, checksum=0):
    """Code symbols of each word of a message: n, and of the last what its payload needs."""
    room, lengths = (k * symbol_bits - checksum) // 2, []
    while symbols > 0:
        held = min(symbols, room)
        sent = n - k + math.ceil((2 * held + checksum) / symbol_bits)
        lengths.append(n if held == room else sent)
        symbols -= held
    return lengths


def word_qubits(n, symbol_bits):
    """Online qubits of a word of n code symbols."""
    return math.ceil(n / 2) if symbol_bits == 1 else n * symbol_bits // 2


def enumerate_words(q, lost, qubits):
    """(words, qubits) every pattern of kinds 0 to 3 and LOST, and its probability (words,)."""
    kinds = [*range(4), LOST] if lost else [*range(4)]
    words = np.array(list(itertools.product(kinds, repeat=qubits)))
    return words, np.prod(np.append(q, lost)[words], axis=1)


def fails(words, symbol_bits, erasures):
    """(words,) bool whether bounded-distance decoding fails, counted on code symbols or on bits."""
    if symbol_bits == 1:
        lost = np.repeat(words == LOST, 2, axis=1)
        bits = np.stack([words >> 1, words & 1], axis=2).reshape(len(words), -1)
        wrong = (bits == 1) & ~lost
    else:
        by_symbol = words.reshape(len(words), -1, symbol_bits // 2)
        lost = (by_symbol == LOST).any(axis=2)
        wrong = (by_symbol != 0).any(axis=2) & ~lost
    return 2 * wrong.sum(axis=1) + lost.sum(axis=1) > erasures


def marginal(words, probs, failed, qubit):
    """(4,) XOR patterns of one qubit of the payload after decoding; a lost one is a guess."""
    seen = np.zeros(4)
    kinds = words[:, qubit]
    seen[0] = probs[~failed].sum()
    for pattern in range(4):
        seen[pattern] += probs[failed & (kinds == pattern)].sum()
        seen[pattern] += probs[failed & (kinds == LOST)].sum() / 4
    return seen


def attempts_tree(fails_once, missed, attempts):
    """Follows a word through its attempts: mean number of them, and how often it stays wrong."""
    here, mean, wrong = 1.0, 0.0, 0.0
    for attempt in range(1, attempts + 1):
        mean += here
        if attempt == attempts:
            wrong += here * fails_once
        else:
            wrong += here * fails_once * missed
            here *= fails_once * (1 - missed)
    return mean, wrong


def binomial_band(count, prob, sigmas=6.0):
    """The largest distance of a binomial count of trials from its mean."""
    return sigmas * math.sqrt(count * prob * (1 - prob)) + sigmas


def seen_given_weight(q, lost, symbol_bits):
    """(3, 2) joint probabilities of the weight of a unit and of whether an error of it is seen.

    What is seen of a lost qubit is a uniform guess, which may be right.
    """
    guess = 0.25 * lost
    if symbol_bits == 1:
        return np.array([[q[0], 0], [guess, q[1] + q[2] + 3 * guess], [0, q[3]]])
    qubits = symbol_bits // 2
    clean, right, here = q[0] ** qubits, (q[0] + guess) ** qubits, (1 - lost) ** qubits
    hidden = right - clean  # lost somewhere, and every guess and every other qubit is right
    return np.array([[clean, 0], [hidden, 1 - here - hidden], [0, here - clean]])


def seen_of_failures(q, lost, n, symbol_bits, erasures, shown):
    """P(the word fails and an error is seen in so many of its first `shown` units), (shown + 1,).

    By adding unit after unit to the joint distribution of the weight, cut beyond the limit, and of
    the number seen.
    """
    unit = seen_given_weight(q, lost, symbol_bits)
    units, limit = (-(-n // 2), erasures // 2) if symbol_bits == 1 else (n, erasures)
    table = np.zeros((limit + 2, shown + 1))
    table[0, 0] = 1
    for place in range(units):
        new = np.zeros_like(table)
        for weight in range(3):
            for seen in range(2):
                step = seen if place < shown else 0
                moved = np.zeros_like(table)
                moved[:, step:] = table[:, : shown + 1 - step]
                for had in range(limit + 2):
                    new[min(had + weight, limit + 1)] += unit[weight, seen] * moved[had]
        table = new
    return table[limit + 1]


def repetitions_and_end(fails_once, missed, attempts):
    """(attempts, 2) P(sent again so many times, stays wrong)."""
    table, here = np.zeros((attempts, 2)), 1.0
    for again in range(attempts):
        ends = 1.0 if again == attempts - 1 else missed
        table[again] = here * (1 - fails_once), here * fails_once * ends
        here *= fails_once * (1 - ends)
    return table


def chi_square(counts, probs, least=25.0):
    """The p-value of counts under probabilities; cells that expect too few are merged."""
    counts, expected = np.asarray(counts, float), np.sum(counts) * np.asarray(probs)
    order = np.argsort(expected)
    cells = [[0.0, 0.0]]
    for at in order:
        cells[-1][0] += counts[at]
        cells[-1][1] += expected[at]
        if cells[-1][1] >= least:
            cells.append([0.0, 0.0])
    rest = cells.pop()
    assert len(cells) > 1, "too few counts for a test"
    cells[-1][0] += rest[0]
    cells[-1][1] += rest[1]
    seen, expected = np.array(cells).T
    return float(chi2.sf(((seen - expected) ** 2 / expected).sum(), len(cells) - 1))


def same_distribution(left, right, least=25.0):
    """The p-value of two samples of integers having the same distribution."""
    top = int(max(left.max(), right.max())) + 1
    tables = np.array([np.bincount(part, minlength=top) for part in (left, right)], float)
    order = np.argsort(tables.sum(axis=0))
    cells = [np.zeros(2)]
    for at in order:
        cells[-1] = cells[-1] + tables[:, at]
        if cells[-1].sum() >= 2 * least:
            cells.append(np.zeros(2))
    rest = cells.pop()
    assert len(cells) > 1, "too few counts for a test"
    cells[-1] = cells[-1] + rest
    return float(chi2_contingency(np.array(cells).T, correction=False).pvalue)
