"""The closed forms of costs against published byte tables and numbers worked out beforehand."""

import itertools

import compress_costs as costs
import numpy as np
import pytest
from compress_costs import CNN_SHAPES, resnet18_shapes

IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "mnist": 60_000}
NETWORKS = {
    "cifar10": resnet18_shapes(),
    "cifar100": resnet18_shapes(100),
    "mnist": resnet18_shapes(channels=1),
}
#: Megabytes of an epoch as published, in the order of NETWORKS.
PUBLISHED = {"sgd": (3325, 3339, 3964), "powersgd": (14, 14, 16), "lqsgd": (3, 3, 4)}


def sent(shapes, rank=1):
    """Bits of a step: float32; rank and vectors in float32; both at 8 bits."""
    values = costs.num_values(shapes)
    factors = sum(costs.factor_sizes(shapes, rank))
    return {"sgd": 32 * values, "powersgd": 32 * factors, "lqsgd": 8 * factors}


def shown(numbers, texts):
    """Numbers with as many decimals as the texts have."""
    decimals = [len(text.partition(".")[2]) for text in texts]
    return tuple(f"{x:.{d}f}" for x, d in zip(numbers, decimals, strict=True))


# Shapes


@pytest.mark.parametrize(
    "shapes, values, vectors, factors",
    [
        (NETWORKS["cifar10"], 11_173_962, 9_610, 36_325),
        (NETWORKS["cifar100"], 11_220_132, 9_700, 36_415),
        (NETWORKS["mnist"], 11_172_810, 9_610, 36_307),
        (CNN_SHAPES, 20_746, 58, 1_795),
    ],
)
def test_sizes_of_networks(shapes, values, vectors, factors):
    assert costs.num_values(shapes) == values
    first, second, rest = costs.factor_sizes(shapes, 1)
    assert (first + second, rest) == (factors, vectors)


def test_shapes_of_networks():
    shapes = NETWORKS["cifar10"]
    assert (len(costs.matrices(shapes)), len(shapes)) == (21, 62)
    assert sum(len(shape) == 4 for shape in shapes) == 20
    assert costs.factor_sizes(CNN_SHAPES, 1) == (1_737, 58, 58)


@pytest.mark.parametrize("min_rate, most", [(1, 9), (2, 4)])
def test_small_matrices_are_exempt_from_high_ranks(min_rate, most):
    shapes = NETWORKS["cifar10"]
    assert costs.factor_sizes(shapes, 1, min_rate=min_rate) == costs.factor_sizes(shapes, 1)
    kernel = [(25, 16)]
    found = costs.factor_sizes(kernel, most, min_rate=min_rate)
    assert found == (25 * most, 16 * most, 0)
    assert costs.factor_sizes(kernel, most + 1, min_rate=min_rate) == (0, 0, 400)


# A parameter server


@pytest.mark.parametrize(
    "name, steps, wanted",
    [
        ("cifar10", 78, ("3324.772", "13.668", "3.4169")),
        ("cifar100", 78, ("3338.510", "13.721", "3.4303")),
        ("mnist", 93, ("3963.743", "16.290", "4.0725")),
    ],
)
def test_an_epoch_of_rank_one(name, steps, wanted):
    images, bits = IMAGES[name], sent(NETWORKS[name])
    assert images // 640 == steps
    found = [costs.epoch_mib(bits[method], images) for method in PUBLISHED]
    assert shown(found, wanted) == wanted
    column = list(IMAGES).index(name)
    assert [round(x) for x in found] == [sizes[column] for sizes in PUBLISHED.values()]


def test_an_epoch_of_images_of_three_channels():
    found = [costs.epoch_mib(bits, 60_000) for bits in sent(resnet18_shapes()).values()]
    assert [f"{x:.3f}" for x in found] == ["3964.151", "16.296", "4.074"]


@pytest.mark.parametrize(
    "bits, wanted",
    [
        ((8, 8, 32), ("3.4416", "3.4550", "4.1019")),
        ((8, 32, 0), ("5.562", "5.595", "6.629")),
        ((8, 0, 0), ("2.702", "2.709", "3.220")),
        ((32, 0, 0), ("10.81", "10.84", "12.88")),
    ],
)
def test_other_readings_of_an_epoch(bits, wanted):
    found = []
    for name, shapes in NETWORKS.items():
        first, second, rest = costs.factor_sizes(shapes, 1)
        scales = len(costs.matrices(shapes)) + len(shapes)
        assert scales == 83
        step = np.dot(bits, (first + second, rest, scales))
        found.append(costs.epoch_mib(step, IMAGES[name]))
    assert shown(found, wanted) == wanted


@pytest.mark.parametrize("bits", [(8, 8), (7, 7), (6, 16), (9, 0), (10, 0)])
def test_sizes_do_not_tell_the_number_of_bits(bits):
    found = []
    for name, shapes in NETWORKS.items():
        first, second, rest = costs.factor_sizes(shapes, 1)
        found.append(round(costs.epoch_mib(np.dot(bits, (first + second, rest)), IMAGES[name])))
    assert tuple(found) == PUBLISHED["lqsgd"]


@pytest.mark.parametrize(
    "rank, powersgd, lqsgd", [(2, 24.476, 6.119), (4, 46.093, 11.523), (7, 78.518, 19.630)]
)
def test_an_epoch_of_other_ranks(rank, powersgd, lqsgd):
    bits = sent(NETWORKS["cifar10"], rank)
    found = [round(costs.epoch_mib(bits[method], 50_000), 3) for method in ("powersgd", "lqsgd")]
    assert found == [powersgd, lqsgd]


def test_ratios_of_an_epoch():
    for (name, shapes), wanted in zip(NETWORKS.items(), (973.0, 973.2, 973.3), strict=True):
        bits = sent(shapes)
        assert round(bits["sgd"] / bits["lqsgd"], 1) == wanted, name
        assert bits["powersgd"] == 4 * bits["lqsgd"]
        assert round(100 * (1 - bits["lqsgd"] / bits["sgd"]), 3) == 99.897
    bits = sent(NETWORKS["cifar10"])
    assert round(100 * bits["powersgd"] / bits["sgd"], 4) == 0.4111


def test_sparse_sizes_that_round_to_those_of_rank_one():
    low, high = 0.0, 1.0
    for name, published in zip(NETWORKS, PUBLISHED["powersgd"], strict=True):
        # A value and an index of 32 bits each.
        all_values = 2 * costs.epoch_mib(sent(NETWORKS[name])["sgd"], IMAGES[name])
        low = max(low, (published - 0.5) / all_values)
        high = min(high, (published + 0.5) / all_values)
    assert [f"{100 * x:.4f}" for x in (low, high)] == ["0.2030", "0.2081"]
    assert [f"{200 * x:.4f}" for x in (low, high)] == ["0.4060", "0.4163"]


def batches_that_fit(stem, factor, **counting):
    """Global batches from 32 to 6000 for which all nine published sizes come out."""
    networks = [
        resnet18_shapes(10, 3, stem),
        resnet18_shapes(100, 3, stem),
        resnet18_shapes(10, 1, stem),
    ]
    table = [
        (bits, images, PUBLISHED[method][column])
        for column, (shapes, images) in enumerate(zip(networks, IMAGES.values(), strict=True))
        for method, bits in sent(shapes).items()
    ]
    return [
        batch
        for batch in range(32, 6001)
        if all(
            round(factor * costs.epoch_mib(bits, images, batch, **counting)) == published
            for bits, images, published in table
        )
    ]


def test_global_batches_that_fit_what_is_published():
    # Further: a larger stem, megabytes, the traffic of a ring, both directions, all workers.
    counted = itertools.product((3, 7), (1, 1.6, 2, 5, 10), (2**20, 10**6), (False, True))
    fits = {case: batches_that_fit(*case[:2], unit=case[2], last=case[3]) for case in counted}
    assert {case: found for case, found in fits.items() if found} == {
        (3, 1, 2**20, False): [639, 640, 641],  # 5 workers x 128, the last partial step dropped
        (3, 1, 2**20, True): [646, 647, 648, 649],
    }


# The ring


def test_bits_of_a_value_and_link():
    # N: gather of 8 bits, 8 bits hop by hop, and sums of linear codes of 8 and of 11 bits.
    table = {
        2: (8, 8, 10, 12),
        4: (24, 12, 15, 21),
        5: (32, 12.8, 19.2, 22.4),
        8: (56, 14, 21, 24.5),
        16: (120, 15, 22.5, 30),
        64: (504, 15.8, 27.6, 35.4),
    }
    size = 64 * 5 * 10
    for nodes, wanted in table.items():
        widths = [8, *(costs.even(bits + costs.guard(nodes)) for bits in (8, 11))]
        bits = [costs.gather_bits(size, 8, nodes)]
        bits += [costs.sum_bits(size, width, nodes) for width in widths]
        assert [round(x / size, 1) for x in bits] == [*wanted]
    assert costs.sum_bits(size, 16, 8) / size == 28


def test_widths_of_sums():
    assert [costs.sum_width(1, nodes) for nodes in (5, 8, 16)] == [4, 6, 6]
    assert [costs.sum_width(most, 8) for most in (7, 127)] == [8, 12]
    assert [costs.count_width(nodes) for nodes in (3, 5, 8, 15, 16)] == [2, 4, 4, 4, 6]
    # Of votes at N = 8 and 16: all gathered, or summed.
    assert [costs.gather_bits(80, 1, nodes) / 80 for nodes in (8, 16)] == [7, 15]
    assert [costs.sum_bits(80, costs.even(width), 8) / 80 for width in (4, 6)] == [7, 10.5]
    assert costs.sum_bits(80, 6, 16) / 80 == 11.25


def on_the_ring(shapes, nodes):
    """Bits a link of one step at rank 1, in the order of the table below."""
    return [
        costs.sgd_bits(shapes, nodes, 32),
        costs.sgd_bits(shapes, nodes),
        costs.powersgd_bits(shapes, nodes),
        costs.powersgd_bits(shapes, nodes, width=12),  # linear codes of 8 bits
        costs.lqsgd_bits(shapes, nodes),
        costs.powersgd_bits(shapes, nodes, width=8),  # hop by hop
        costs.powersgd_bits(shapes, nodes, width=14),  # on linear levels
        costs.topk_bits(shapes, nodes),
        costs.terngrad_bits(shapes, nodes),
        costs.vote_gather_bits(shapes, nodes),
        costs.vote_count_bits(shapes, nodes),
        costs.demo_bits(shapes, nodes),
    ]


@pytest.mark.parametrize(
    "shapes, nodes, unit, wanted",
    [
        (
            NETWORKS["cifar10"],
            5,
            1e6,
            "572.1 286.1 1.176 0.882 1.470 0.588 1.029 17.9 71.5 44.7 71.5 10.2",
        ),
        (
            NETWORKS["cifar10"],
            8,
            1e6,
            "625.7 312.9 1.286 0.965 2.572 0.643 1.126 31.3 117.3 78.2 78.2 17.9",
        ),
        (
            CNN_SHAPES,
            8,
            1e3,
            "1162.1 581.1 52.2 39.1 103.8 26.1 45.7 46.8 217.9 145.2 145.3 195.2",
        ),
    ],
)
def test_a_step_on_the_ring(shapes, nodes, unit, wanted):
    found = [bits / unit for bits in on_the_ring(shapes, nodes)]
    assert shown(found, wanted.split()) == tuple(wanted.split())


def test_a_step_of_the_small_network():
    found = [costs.powersgd_bits(CNN_SHAPES, 8, rank) for rank in (1, 2, 4)]
    assert found == [52_192, 102_368, 202_720]
    first, second, rest = costs.factor_sizes(CNN_SHAPES, 1)
    assert (first + rest, second) == (1_795, 58)
    # Kernels as (out, in height width): the roles of the factors are swapped.
    assert (second + rest, first) == (116, 1_737)
    swapped = costs.sum_bits(116, 16, 8) + costs.sum_bits(1_737, 16, 8)
    assert swapped == 52_192
    assert costs.demo_counts(CNN_SHAPES) == 1_082


def test_a_step_of_the_large_network():
    shapes = NETWORKS["cifar10"]
    assert costs.powersgd_bits(shapes, 5) == 1_175_936
    assert round(costs.scale_bits(shapes, 5) / 1e6, 3) == 0.011
