"""The costs of compressors: shapes of two networks, and bits from the closed forms.

Integers of Python and nothing of the package. Kernels have the axes of Flax, (height, width, in,
out), and are seen as matrices of all axes but the last against the last.
"""

import math

from compress_reference import block_length

CNN_SHAPES = [(5, 5, 1, 16), (16,), (3, 3, 16, 32), (32,), (7 * 7 * 32, 10), (10,)]


def resnet18_shapes(classes=10, channels=3, stem=3):
    """20 convolutions without bias, each with scale and bias of its norm, and a dense layer."""
    shapes = []

    def convolution(size, ins, outs):
        shapes.extend([(size, size, ins, outs), (outs,), (outs,)])

    convolution(stem, channels, 64)
    width = 64
    for outs in (64, 128, 256, 512):
        for ins in (width, outs):
            convolution(3, ins, outs)
            convolution(3, outs, outs)
            if ins != outs:
                convolution(1, ins, outs)
        width = outs
    return [*shapes, (width, classes), (classes,)]


def num_values(shapes):
    return sum(math.prod(shape) for shape in shapes)


def matrices(shapes):
    return [(math.prod(shape[:-1]), shape[-1]) for shape in shapes if len(shape) > 1]


def factor_sizes(shapes, rank, *, min_rate=0):
    """Values of all P, of all Q, and of what goes uncompressed.

    A matrix does where (n + m) r min_rate >= n m; never at a rate of zero.
    """
    first = second = 0
    rest = sum(shape[0] for shape in shapes if len(shape) == 1)
    for n, m in matrices(shapes):
        r = min(rank, n, m)
        if (n + m) * r * min_rate >= n * m:
            rest += n * m
        else:
            first, second = first + r * n, second + r * m
    return first, second, rest


# --- Collectives ----------------------------------------------------------------------------------


def even(bits):
    """The next width that qubits of two bits each can carry."""
    return bits + bits % 2


def guard(nodes):
    return math.ceil(math.log2(nodes))


def sum_bits(size, width, nodes):
    """Bits a link of a ring sum of `size` values: 2 (N - 1) ceil(size / N) w."""
    return 2 * (nodes - 1) * -(-size // nodes) * width


def gather_bits(size, width, nodes):
    """Bits a link of an all-gather of `size` values of every node: (N - 1) size w."""
    return (nodes - 1) * size * width


def sum_width(most, nodes):
    """Of a sum of codes in -most, ..., most."""
    return even(math.ceil(math.log2(2 * nodes * most + 1)))


def count_width(nodes):
    """Of a count of votes in 0, ..., N."""
    return even(math.ceil(math.log2(nodes + 1)))


# --- A step on the ring ---------------------------------------------------------------------------


def sgd_bits(shapes, nodes, width=16):
    return sum_bits(num_values(shapes), width, nodes)


def powersgd_bits(shapes, nodes, rank=1, width=16, *, min_rate=0):
    """Two sums; uncompressed values ride along in the first."""
    first, second, rest = factor_sizes(shapes, rank, min_rate=min_rate)
    return sum_bits(first + rest, width, nodes) + sum_bits(second, width, nodes)


def lqsgd_bits(shapes, nodes, rank=1, bits=8, *, min_rate=0):
    """Two all-gathers of codes, without the scales."""
    return gather_bits(sum(factor_sizes(shapes, rank, min_rate=min_rate)), bits, nodes)


def scale_bits(shapes, nodes):
    """The float32 scales of an all-gather: two for every matrix, one for every vector."""
    return gather_bits(len(matrices(shapes)) + len(shapes), 32, nodes)


def topk_counts(shapes, fraction):
    return [max(1, math.floor(fraction * math.prod(shape))) for shape in shapes]


def topk_bits(shapes, nodes, fraction=0.01, bits=16):
    """Values with indices into the whole tree, the pair made even."""
    width = even(bits + math.ceil(math.log2(num_values(shapes))))
    return gather_bits(sum(topk_counts(shapes, fraction)), width, nodes)


def terngrad_bits(shapes, nodes):
    return sum_bits(num_values(shapes), sum_width(1, nodes), nodes)


def vote_gather_bits(shapes, nodes):
    return gather_bits(num_values(shapes), 1, nodes)


def vote_count_bits(shapes, nodes):
    return sum_bits(num_values(shapes), count_width(nodes), nodes)


def demo_blocks(shapes):
    """(number, size) of the blocks of every leaf; a vector is a matrix of one row."""
    for shape in shapes:
        n, m = math.prod(shape[:-1]), shape[-1]
        size = block_length(n) * block_length(m)
        yield n * m // size, size


def demo_counts(shapes, k=32):
    return sum(number * min(k, size) for number, size in demo_blocks(shapes))


def demo_bits(shapes, nodes, k=32, bits=16):
    """Values with indices into their block."""
    return sum(
        gather_bits(number * min(k, size), bits + math.ceil(math.log2(size)), nodes)
        for number, size in demo_blocks(shapes)
    )


# --- A parameter server, as papers count it -------------------------------------------------------


def epoch_mib(bits, images, batch=640, *, last=False, unit=2**20):
    """An epoch of one worker in one direction, in MiB; `last` counts the partial step, too."""
    steps = -(-images // batch) if last else images // batch
    return steps * bits / 8 / unit
