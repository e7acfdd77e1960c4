"""The reference of the compressors: their equations in float64 NumPy, with exact reductions.

Nothing of the package, so that the two calculations share no line. The first axis of `values`,
`gradients`, `errors` and other arrays of a step is that of the nodes. A `send` is a function of
the values of all nodes, (N, ...) -> (the mean that all receive, what each node's own message
says); `exact`, `linear`, `logarithmic` and `hopwise` are or make one.
"""

import itertools

import numpy as np

# --- Codes ----------------------------------------------------------------------------------------


def largest_code(bits):
    """The codes of a mid-tread quantiser are -L, ..., 0, ..., L."""
    return 2 ** (bits - 1) - 1


def log_fraction(x, scale=1.0, alpha=10.0):
    """The value on the logarithmic axis, in [-1, 1]."""
    x = np.asarray(x, dtype=float)
    if scale == 0:
        return np.zeros_like(x)
    return np.sign(x) * np.log(1 + alpha * np.abs(x) / scale) / np.log(1 + alpha)


def log_encode(x, scale=1.0, bits=8, alpha=10.0):
    """The nearest level on the logarithmic axis, ties to even."""
    return np.rint(largest_code(bits) * log_fraction(x, scale, alpha))


def log_decode(codes, scale=1.0, bits=8, alpha=10.0):
    """The value of codes, which may lie between integers."""
    codes = np.asarray(codes, dtype=float)
    size = ((1 + alpha) ** (np.abs(codes) / largest_code(bits)) - 1) / alpha
    return scale * np.sign(codes) * size


def linear_step(scale, bits, *, power_of_two=False):
    """The distance of two levels: scale / L, or the least power of two that is not below it."""
    step = scale / largest_code(bits)
    return 2.0 ** np.ceil(np.log2(step)) if power_of_two and step > 0 else step


def linear_encode(x, scale=1.0, bits=8, *, power_of_two=False):
    step = linear_step(scale, bits, power_of_two=power_of_two)
    x = np.asarray(x, dtype=float)
    return np.rint(x / step) if step > 0 else np.zeros_like(x)


def linear_decode(codes, scale=1.0, bits=8, *, power_of_two=False):
    return np.asarray(codes, dtype=float) * linear_step(scale, bits, power_of_two=power_of_two)


def squared_error(levels, borders, density):
    """The mean squared error of a symmetric density on [-1, 1], integrated cell by cell.

    `levels` are those from zero to one, `borders` the inner ends of their cells.
    """
    nodes, weights = np.polynomial.legendre.leggauss(40)
    total = 0.0
    for level, low, high in zip(levels, [0, *borders], [*borders, 1], strict=True):
        x = (low + high) / 2 + (high - low) / 2 * nodes
        total += 2 * (high - low) / 2 * np.sum(weights * (x - level) ** 2 * density(x))
    return total


def log_squared_error(density, bits=8, alpha=10.0):
    codes = np.arange(largest_code(bits) + 1)
    levels = log_decode(codes, 1.0, bits, alpha)
    return squared_error(levels, log_decode(codes[1:] - 0.5, 1.0, bits, alpha), density)


def linear_squared_error(density, bits=8):
    codes = np.arange(largest_code(bits) + 1)
    return squared_error(codes / codes[-1], (codes[1:] - 0.5) / codes[-1], density)


def extra_linear_bits(alpha):
    """More bits that linear codes need for the smallest logarithmic level."""
    return np.log2(alpha / np.log(1 + alpha))


# --- Sending --------------------------------------------------------------------------------------


def highest(values):
    return np.abs(values).max(initial=0.0)


def exact(values):
    values = np.asarray(values, dtype=float)
    return values.mean(axis=0), values


def linear(bits, *, power_of_two=False):
    """Linear codes with the largest magnitude of all nodes as their scale, summed."""

    def send(values):
        scale = highest(values)
        codes = linear_encode(values, scale, bits, power_of_two=power_of_two)
        own = linear_decode(codes, scale, bits, power_of_two=power_of_two)
        return own.mean(axis=0), own

    return send


def logarithmic(bits=8, alpha=10.0):
    """Logarithmic codes with each node's own scale, gathered, decoded and averaged."""

    def send(values):
        scales = [highest(x) for x in values]
        own = [
            log_decode(log_encode(x, scale, bits, alpha), scale, bits, alpha)
            for x, scale in zip(values, scales, strict=True)
        ]
        return np.mean(own, axis=0), np.array(own)

    return send


def hop_sum(values, scale, bits=8, alpha=10.0):
    """The sum in the order of the nodes, decoded and encoded again at every hop."""
    carried = np.zeros_like(values[0], dtype=float)
    for x in values:
        codes = log_encode(carried + x, scale, bits, alpha)
        carried = log_decode(codes, scale, bits, alpha)
    return carried


def hopwise(bits=8, alpha=10.0, *, first=0):
    """Logarithmic codes hop by hop, with N times the largest magnitude as their scale.

    The values in a row are cut into N chunks; chunk c starts at node c + first and meets the
    nodes in ascending order.
    """

    def send(values):
        nodes, scale = len(values), len(values) * highest(values)
        rows = np.reshape(values, (nodes, -1)).astype(float)
        size, chunk = rows.shape[1], -(-rows.shape[1] // nodes)
        total = np.zeros(size)
        for c in range(nodes):
            part = slice(c * chunk, (c + 1) * chunk)
            order = (c + first + np.arange(nodes)) % nodes
            total[part] = hop_sum(rows[order, part], scale, bits, alpha)
        own = log_decode(log_encode(values, scale, bits, alpha), scale, bits, alpha)
        return np.reshape(total / nodes, np.shape(values)[1:]), own

    return send


def wrong_mean(values, scale=1.0, bits=8, alpha=10.0):
    """Logarithmic codes averaged as if they added: the reading that tests must tell apart."""
    return log_decode(np.mean(log_encode(values, scale, bits, alpha), axis=0), scale, bits, alpha)


# --- Low rank -------------------------------------------------------------------------------------


def orthonormal(P):
    """Gram-Schmidt, twice for the sake of rounding; a column within the span becomes zero."""
    columns = np.zeros(np.shape(P))
    for j, column in enumerate(np.array(P, dtype=float).T):
        left = column.copy()
        for _ in range(2):
            left -= columns @ (columns.T @ left)
        norm = np.linalg.norm(left)
        if norm > 1e-12 * np.linalg.norm(column):
            columns[:, j] = left / norm
    return columns


def powersgd_step(gradients, errors, Q, *, send=exact, feedback="own"):
    """(N, n, m), (N, n, m), (m, r) -> delivered (n, m), the new errors and Q.

    The error is measured from each node's "own" reconstruction or from the "averaged" one; with
    None there is none. `send` carries both factors.
    """
    M = gradients + errors
    P, _ = send(M @ Q)
    basis = orthonormal(P)
    Q, own = send(M.swapaxes(1, 2) @ basis)
    delivered = basis @ Q.T
    if feedback is None:
        return delivered, np.zeros_like(M), Q
    seen = delivered if feedback == "averaged" else basis @ own.swapaxes(1, 2)
    return delivered, M - seen, Q


# --- Sparse ---------------------------------------------------------------------------------------


def top_mask(x, k):
    """True at the k largest magnitudes; of equal ones the first in a row goes first."""
    x = np.asarray(x)
    mask = np.zeros(x.size, dtype=bool)
    mask[np.argsort(-np.abs(x).ravel(), kind="stable")[:k]] = True
    return mask.reshape(x.shape)


def topk_step(gradients, errors, k, *, feedback=True, value=lambda sent: sent):
    """Delivered and new errors; `value` is what the codes of the sent values say."""
    M = gradients + errors
    sent = np.array([np.where(top_mask(x, k), value(x), 0.0) for x in M])
    return sent.mean(axis=0), (M - sent if feedback else np.zeros_like(M))


def random_mean(gradients, mask):
    """The values at the positions that all nodes have drawn, times size / k: unbiased."""
    return np.where(mask, np.mean(gradients, axis=0), 0.0) * mask.size / mask.sum()


def clipped_norm(g, threshold):
    norm = np.linalg.norm(g)
    return g * min(1.0, threshold / norm) if norm > 0 else g


def dgc_step(gradients, velocities, memories, k, *, momentum=0.9):
    """Delivered, the new velocities u and memories v; both are zero where something was sent."""
    u = momentum * velocities + gradients
    v = memories + u
    masks = np.array([top_mask(x, k) for x in v])
    delivered = np.where(masks, v, 0.0).mean(axis=0)
    return delivered, np.where(masks, 0.0, u), np.where(masks, 0.0, v)


# --- Element by element ---------------------------------------------------------------------------


def terngrad_scale(gradients, clip=2.5, *, peak=True):
    """The scaler of a layer, shared by all nodes; sigma is central and that of a population.

    The scaler of a node is the largest magnitude after clipping, or without `peak` the limit
    clip sigma itself.
    """
    if clip is None:
        return highest(gradients)
    limits = [clip * np.std(g) for g in gradients]
    return max(
        min(limit, highest(g)) if peak else limit
        for g, limit in zip(gradients, limits, strict=True)
    )


def terngrad_probabilities(g, scale):
    """Of a non-zero code; one above the scale, which is clipping."""
    return np.minimum(np.abs(g) / scale, 1.0) if scale > 0 else np.zeros(np.shape(g))


def terngrad_codes(g, scale, uniform):
    return np.sign(g) * (uniform < terngrad_probabilities(g, scale))


def terngrad_expected(g, scale):
    """The expected value of what a node sends."""
    return scale * np.sign(g) * terngrad_probabilities(g, scale)


def terngrad_error(g, scale):
    """The expected squared error of one node, clipping included."""
    p = terngrad_probabilities(g, scale)
    return np.sum(p * (scale - np.abs(g)) ** 2 + (1 - p) * np.square(g))


def terngrad_mean_error(gradients, scale):
    """The expected squared error of the mean of nodes that draw independently, unclipped."""
    return sum(terngrad_error(g, scale) for g in gradients) / len(gradients) ** 2


def qsgd_norm(v, norm="l2"):
    return np.sqrt(np.sum(np.square(v))) if norm == "l2" else highest(v)


def qsgd_levels(v, norm, count):
    """The level below, and the probability of the one above it."""
    exactly = count * np.abs(v) / norm if norm > 0 else np.zeros(np.shape(v))
    below = np.floor(exactly)
    return below, exactly - below


def qsgd_codes(v, norm, count, uniform):
    below, up = qsgd_levels(v, norm, count)
    return np.sign(v) * (below + (uniform < up))


def qsgd_expected(v, norm, count):
    below, up = qsgd_levels(v, norm, count)
    return np.sign(v) * norm / count * (below * (1 - up) + (below + 1) * up)


def qsgd_error(v, norm, count):
    """The expected squared error, both outcomes of every value weighed."""
    below, up = qsgd_levels(v, norm, count)
    low, high = norm / count * below, norm / count * (below + 1)
    return np.sum((1 - up) * (np.abs(v) - low) ** 2 + up * (high - np.abs(v)) ** 2)


def qsgd_nonzeros(v, norm, count):
    below, up = qsgd_levels(v, norm, count)
    return np.sum(np.where(below > 0, 1.0, up))


# --- Votes ----------------------------------------------------------------------------------------


def vote_step(gradients, momenta, *, momentum=0.0):
    """The sign of the sum of signs, zero for a tie, and the new momenta."""
    momenta = momentum * momenta + (1 - momentum) * gradients
    return np.sign(np.sign(momenta).sum(axis=0)), momenta


def majority_errors(nodes, error):
    """Probability of a wrong majority and of a tie, all patterns of independent votes tried."""
    wrong = tie = 0.0
    for pattern in itertools.product([1, -1], repeat=nodes):
        probability = np.prod([1 - error if vote == 1 else error for vote in pattern])
        wrong += probability * (sum(pattern) < 0)
        tie += probability * (sum(pattern) == 0)
    return wrong, tie


# --- Cosines --------------------------------------------------------------------------------------


def dct_matrix(size):
    """The orthonormal DCT of type 2: row u holds cos(pi (2 j + 1) u / (2 size))."""
    u, j = np.mgrid[:size, :size]
    rows = np.sqrt(2 / size) * np.cos(np.pi * (2 * j + 1) * u / (2 * size))
    rows[0] /= np.sqrt(2)
    return rows


def block_length(size, most=64):
    """The largest divisor that is at most 64; one for a prime above."""
    return max(d for d in range(1, most + 1) if size % d == 0)


def blocks(shape):
    """The slices of all blocks of a matrix."""
    h, w = map(block_length, shape)
    return [
        np.s_[i : i + h, j : j + w] for i in range(0, shape[0], h) for j in range(0, shape[1], w)
    ]


def block_dct(x, *, inverse=False):
    out = np.zeros_like(x)
    for at in blocks(x.shape):
        rows, columns = map(dct_matrix, x[at].shape)
        out[at] = rows.T @ x[at] @ columns if inverse else rows @ x[at] @ columns.T
    return out


def demo_step(gradients, deltas, *, decay=0.999, rate=1.0, k=32):
    """(N, size) or (N, n, m) -> decoded, whose sign is delivered, and what is left of delta.

    Every coefficient is averaged over the nodes that have sent it.
    """
    shape = np.shape(gradients)[1:]
    deltas = decay * deltas + rate * gradients
    rows = np.reshape(deltas, (len(deltas), -1, shape[-1]))  # a vector is a matrix of one row
    cosines = np.array([block_dct(x) for x in rows])
    kept = np.zeros(rows.shape, dtype=bool)
    for node, at in itertools.product(range(len(rows)), blocks(rows.shape[1:])):
        kept[node][at] = top_mask(cosines[node][at], k)
    sent = np.where(kept, cosines, 0.0)
    left = rows - np.array([block_dct(x, inverse=True) for x in sent])
    mean = sent.sum(axis=0) / np.maximum(kept.sum(axis=0), 1)
    return block_dct(mean, inverse=True).reshape(shape), left.reshape(deltas.shape)


# --- Similarity of images -------------------------------------------------------------------------


def ssim(a, b, *, size=11, sigma=1.5, k1=0.01, k2=0.03):
    """The mean structural similarity of images in [0, 1] under a Gaussian window, no padding."""
    weights = np.exp(-(np.square(np.arange(size) - (size - 1) / 2)) / (2 * sigma**2))
    window = np.outer(weights, weights) / weights.sum() ** 2

    def smooth(x):
        views = np.lib.stride_tricks.sliding_window_view(x, (size, size))
        return np.einsum("ijkl,kl->ij", views, window)

    mean_a, mean_b = smooth(a), smooth(b)
    cross = smooth(a * b) - mean_a * mean_b
    spread = smooth(a * a) - mean_a**2 + smooth(b * b) - mean_b**2
    c1, c2 = k1**2, k2**2
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return np.mean(light * (2 * cross + c2) / (spread + c2))
