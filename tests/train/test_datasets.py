"""The images are the ones asked for, and every epoch shows each of them once."""

import io

import numpy as np
import pytest

from jaxqring.train import _datasets as datasets
from jaxqring.train._datasets import DataConfig


def arrays(**other):
    random = np.random.default_rng(0)
    return {
        "x_train": random.integers(0, 256, (6, 4, 5), np.uint8),
        "y_train": np.arange(6),
        "x_test": random.integers(0, 256, (3, 4, 5), np.uint8),
        "y_test": np.arange(3),
        **other,
    }


@pytest.fixture
def npz(tmp_path):
    """Loads what is written, bytes or arrays, as an .npz file."""

    def load(content):
        path = tmp_path / "images.npz"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.savez(path, **content)
        datasets.load.cache_clear()
        return datasets.load(DataConfig("npz", str(path)))

    yield load
    datasets.load.cache_clear()


def saved(**content):
    file = io.BytesIO()
    np.savez(file, **content)
    return file.getvalue()


def numbered(count):
    """A data set whose images are their own numbers."""
    images = np.arange(count, dtype=np.float32).reshape(count, 1, 1, 1)
    return datasets.Dataset(images, np.arange(count, dtype=np.int32), images[:1], np.zeros(1, int))


def chosen(data, step, seed=0, nodes=2, per_node=3):
    images, labels = datasets.batches(data, step, seed, nodes, per_node)
    assert images.shape == (nodes, per_node, 1, 1, 1)
    assert labels.shape == (nodes, per_node)
    np.testing.assert_array_equal(images.reshape(labels.shape), labels)
    return labels.ravel().tolist()


def dealt(data, epoch, steps):
    """The images of an epoch, step by step."""
    return [image for i in range(steps) for image in chosen(data, epoch * steps + i)]


@pytest.mark.parametrize(
    "name, train, test, side", [("mnist", 4000, 1000, 28), ("digits", 1437, 360, 8)]
)
def test_real_digits_come_split_and_scaled(name, train, test, side):
    data = datasets.load(DataConfig(name))
    assert data.train_images.shape == (train, side, side, 1)
    assert data.test_images.shape == (test, side, side, 1)
    assert data.train_labels.shape == (train,)
    assert data.test_labels.shape == (test,)
    assert data.num_classes == 10
    for images in (data.train_images, data.test_images):
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (0, 1)
    assert data.train_labels.dtype == data.test_labels.dtype == np.int32
    counts = [np.bincount(y, minlength=10) for y in (data.train_labels, data.test_labels)]
    if name == "mnist":
        assert counts[0].tolist() == [400] * 10
        assert counts[1].tolist() == [100] * 10
    else:
        np.testing.assert_allclose(counts[1] / (counts[0] + counts[1]), 0.2, atol=0.01)


def test_no_image_of_a_class_is_on_both_sides_of_the_split():
    from sklearn.datasets import load_digits

    data = datasets.load(DataConfig("digits"))
    both = np.concatenate([data.train_images, data.test_images]).reshape(-1, 64)
    everything = (load_digits().images / 16).astype(np.float32).reshape(-1, 64)
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, everything.tolist()))


def test_the_split_is_a_function_of_the_configuration():
    first = datasets.load(DataConfig("digits"))
    datasets.load.cache_clear()
    again = datasets.load(DataConfig("digits"))
    other = datasets.load(DataConfig("digits", seed=1))
    smaller = datasets.load(DataConfig("digits", test_fraction=0.5))
    for a, b in zip(first, again, strict=True):
        assert a is not b
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.test_images, other.test_images)
    assert len(smaller.test_labels) == 899


def test_bytes_of_a_file_are_scaled(npz):
    wanted = arrays()
    data = npz(wanted)
    assert data.train_images.dtype == np.float32
    assert data.train_images.shape == (6, 4, 5, 1)
    np.testing.assert_array_equal(
        data.train_images[..., 0], wanted["x_train"].astype(np.float32) / np.float32(255)
    )
    np.testing.assert_array_equal(
        data.test_images[..., 0], wanted["x_test"].astype(np.float32) / np.float32(255)
    )
    np.testing.assert_array_equal(data.train_labels, wanted["y_train"])
    np.testing.assert_array_equal(data.test_labels, wanted["y_test"])
    assert data.test_labels.dtype == np.int32
    assert data.num_classes == 6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_of_a_file_are_kept(npz, dtype):
    x = np.random.default_rng(0).random((6, 4, 5, 1)).astype(dtype)
    data = npz(arrays(x_train=x))
    assert data.train_images.dtype == np.float32
    np.testing.assert_array_equal(data.train_images, x.astype(np.float32))


ONES = np.ones((6, 4, 5), np.float32)
NPY = io.BytesIO()
np.save(NPY, ONES)
ONE_MISSING = {name: array for name, array in arrays().items() if name != "y_test"}

# name: (content of the file, words of the message)
REFUSED = {
    "text": (b"these are no images", ["data.path", ".npz", "images.npz"]),
    "nothing": (b"", ["data.path", ".npz", "images.npz"]),
    "npy": (NPY.getvalue(), ["data.path", ".npz", "images.npz"]),
    "half a file": (saved(**arrays())[:-200], ["data.path", ".npz", "images.npz"]),
    "missing array": (ONE_MISSING, ["data.path", "x_train, y_train, x_test, y_test", "x_test"]),
    "no arrays": ({}, ["data.path", "x_train, y_train, x_test, y_test", "x_train"]),
    "flat images": (arrays(x_train=ONES.reshape(6, 20)), ["x_train", "shape", "(6, 20)"]),
    "three colours": (arrays(x_test=np.ones((3, 4, 5, 3))), ["x_test", "shape", "(3, 4, 5, 3)"]),
    "two sizes": (arrays(x_test=np.ones((3, 8, 8))), ["x_test", "size", "(3, 8, 8)"]),
    "images of words": (arrays(x_train=np.full((6, 4, 5), "a")), ["x_train"]),
    "images of objects": (arrays(x_train=np.full((6, 4, 5), None)), ["images.npz"]),
    "complex images": (arrays(x_train=1j * ONES), ["x_train", "complex"]),
    "images above one": (arrays(x_train=255 * ONES), ["x_train", "[0, 1]"]),
    "images that are no numbers": (arrays(x_train=np.nan * ONES), ["x_train", "nan"]),
    "labels of floats": (arrays(y_train=np.arange(6.0)), ["y_train", "integer", "float64[6]"]),
    "a label short": (arrays(y_train=np.arange(5)), ["y_train", "6 images", "int64[5]"]),
    "labels of two axes": (arrays(y_test=np.eye(3, dtype=int)), ["y_test", "int64[3, 3]"]),
    "negative label": (arrays(y_test=np.arange(3) - 1), ["y_test", "[0, 9999]", "-1"]),
    "no images": (
        arrays(x_train=ONES[:0], y_train=np.arange(0)),
        ["x_train", "shape", "(0, 4, 5)"],
    ),
}


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("content, words", REFUSED.values(), ids=REFUSED)
def test_a_malformed_file_is_refused_in_one_sentence(npz, content, words):
    with pytest.raises(Exception) as refusal:  # noqa: PT011
        npz(content)
    message = str(refusal.value)
    assert refusal.type is ValueError, message
    for word in words:
        assert word in message, message
    assert message.startswith("`"), message
    assert message.endswith("."), message
    assert " must " in message, message
    assert "\n" not in message, message


@pytest.mark.parametrize("name", ["missing.npz", ""], ids=["missing", "folder"])
def test_a_file_that_is_not_there_is_refused_by_name(tmp_path, name):
    with pytest.raises(ValueError, match=r"`data.path` must be an existing .npz file.*\.$"):
        datasets.load(DataConfig("npz", str(tmp_path / name)))


def test_every_epoch_is_a_permutation():
    data = numbered(24)
    epochs = [dealt(data, epoch, 4) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(24))
    assert len(set(map(tuple, epochs))) == 3


def test_images_that_do_not_fill_a_step_are_left_out_of_an_epoch():
    data = numbered(20)
    epochs = [dealt(data, epoch, 3) for epoch in range(20)]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == 18
    # Which two are left out changes: of twenty epochs, some show any given image.
    # An image is left out of all with probability (1/10)^20.
    assert set().union(*epochs) == set(range(20))


def test_the_images_of_a_step_are_a_function_of_the_seed_and_the_step_alone():
    data = numbered(24)
    forwards = [chosen(data, step, seed=3) for step in range(12)]
    backwards = [chosen(data, step, seed=3) for step in reversed(range(12))]
    assert forwards == backwards[::-1]
    assert chosen(data, 0, seed=4) != forwards[0]


def test_the_same_images_are_dealt_to_any_number_of_nodes():
    data = numbered(24)
    for step in range(8):
        assert chosen(data, step) == chosen(data, step, nodes=3, per_node=2)


def test_a_step_may_take_all_images_and_no_more():
    data = numbered(24)
    assert sorted(chosen(data, 1, nodes=8, per_node=3)) == list(range(24))
    with pytest.raises(ValueError, match="must") as refusal:
        datasets.batches(data, 0, 0, 5, 5)
    message = str(refusal.value)
    for word in ("`batch_per_node`", "24 training images", "5 nodes", "5."):
        assert word in message


def test_sorted_images_stay_with_the_node_whose_labels_they_have():
    labels = np.array([2, 0, 1, 0, 2, 1, 1, 0, 2, 0, 1, 2, 2], np.int32)
    data = numbered(13)._replace(train_labels=labels)
    # By hand: zeros 1 3 7 9, ones 2 5 6 10, twos 0 4 8 11, and 12, which fills no shard.
    shards = [{1, 3, 7, 9}, {2, 5, 6, 10}, {0, 4, 8, 11}]
    for epoch in range(2):
        seen = [set(), set(), set()]
        for step in (2 * epoch, 2 * epoch + 1):
            images, own = datasets.batches(data, step, 0, 3, 2, split="sorted")
            second, _ = datasets.batches(data, step, 0, 3, 2, slice(1, 2), split="sorted")
            np.testing.assert_array_equal(second, images[1:2])
            for node in range(3):
                assert set(own[node]) == {node}
                seen[node] |= set(images[node].reshape(-1).astype(int))
        assert seen == shards  # an epoch of four images of each node is two steps of two
