"""Second witnesses for LQ-SGD: layer arithmetic, its quantiser and its step, in numpy alone."""

from collections.abc import Callable

import numpy as np
import scipy  # whose subpackages load when they are first used

#: Widths of the four stages of a ResNet-18, two blocks of two convolutions each.
_STAGES = (64, 128, 256, 512)


def resnet18_tensors(classes: int, channels: int) -> list[tuple[int, ...]]:
    """Shapes of the tensors of a ResNet-18 for small images: matrices as (rows, columns)."""
    tensors: list[tuple[int, ...]] = [(9 * channels, 64), (64,), (64,)]
    before = 64
    for width in _STAGES:
        for block in range(2):
            fed = before if block == 0 else width
            for rows in (9 * fed, 9 * width):
                tensors += [(rows, width), (width,), (width,)]
            if fed != width:  # a convolution of 1 x 1 beside the block
                tensors += [(fed, width), (width,), (width,)]
        before = width
    return [*tensors, (512, classes), (classes,)]


def mebibytes(
    tensors: list[tuple[int, ...]], method: str, images: int, workers: int, batch: int
) -> float:
    """MiB that one worker sends in an epoch, whose last partial step is left out."""
    values = sum(int(np.prod(shape)) for shape in tensors)
    # At rank 1 a matrix becomes a column and a row; a vector stays.
    thin = sum(sum(shape) for shape in tensors)
    bits = {"SGD": 32 * values, "PowerSGD": 32 * thin, "LQ-SGD": 8 * thin}[method]
    return bits * (images // (workers * batch)) / 8 / 2**20


def rounded_by_log(x: np.ndarray, bits: int = 8, alpha: float = 10.0) -> np.ndarray:
    """`x` on logarithmic levels of its largest magnitude."""
    scale = np.abs(x).max()
    if scale == 0:
        return x
    most = 2 ** (bits - 1) - 1
    codes = np.rint(most * np.log1p(alpha * np.abs(x) / scale) / np.log1p(alpha))
    return np.sign(x) * scale * np.expm1(codes / most * np.log1p(alpha)) / alpha


def low_rank_average(
    first: np.ndarray, features: int, quantised: bool
) -> Callable[[np.ndarray], np.ndarray]:
    """Averages of PowerSGD or LQ-SGD of rank 1 with error feedback, for `train_softmax`.

    Args:
      first: (10, 1) right factor of the first step.
      features: rows of the matrix.
      quantised: True for 8-bit logarithmic codes of every message, each of its node's own scale.

    Returns:
      A function (K, N, P) -> (K, N, P), which tells the matrix from the biases by their size.
    """
    state: dict[str, np.ndarray] = {}

    def sent(values: np.ndarray) -> np.ndarray:
        if not quantised:
            return values
        return np.array([[rounded_by_log(own) for own in training] for training in values])

    def average(values: np.ndarray) -> np.ndarray:
        trainings, nodes, size = values.shape
        if size != features * 10:
            wanted = values + (state.get("bias", 0.0) if quantised else 0.0)
            own = sent(wanted)
            state["bias"] = wanted - own
            return np.repeat(own.mean(1, keepdims=True), nodes, 1)
        matrix = values.reshape(trainings, nodes, features, 10) + state.get("matrix", 0.0)
        right = state.get("right", np.broadcast_to(first, (trainings, 10, 1)))
        left = sent(matrix @ right[:, None]).mean(1)
        norm = np.linalg.norm(left, axis=1, keepdims=True)
        left = left / np.where(norm > 0, norm, 1)
        own = sent(np.swapaxes(matrix, 2, 3) @ left[:, None])
        state["right"] = own.mean(1)
        state["matrix"] = matrix - left[:, None] @ np.swapaxes(own, 2, 3)
        mean = left @ np.swapaxes(state["right"], 1, 2)
        return np.repeat(mean.reshape(trainings, 1, size), nodes, 1)

    return average


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """SSIM of two images in [0, 1]: Gaussian of 11 pixels and 1.5, k1 0.01, k2 0.03."""

    def blurred(image: np.ndarray) -> np.ndarray:
        smooth = scipy.ndimage.gaussian_filter(image.astype(float), 1.5, radius=5)
        return smooth[5:-5, 5:-5]

    a, b = blurred(one), blurred(other)
    spread_a, spread_b = blurred(one**2) - a**2, blurred(other**2) - b**2
    joint = blurred(one * other) - a * b
    top = (2 * a * b + 1e-4) * (2 * joint + 9e-4)
    return float(np.mean(top / ((a**2 + b**2 + 1e-4) * (spread_a + spread_b + 9e-4))))
