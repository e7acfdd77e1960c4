"""The models have the shapes that the account of their gradients takes."""

import jax
import jax.numpy as jnp
import pytest
from compress_costs import CNN_SHAPES, num_values, powersgd_bits, resnet18_shapes

from jaxqring import Ring
from jaxqring.compress import PowerSGD
from jaxqring.train._models import CNN, ResNet18


def shapes_of(model, size, channels):
    image = jnp.zeros((2, size, size, channels))
    return jax.eval_shape(model.init, jax.random.key(0), image)


@pytest.mark.parametrize(
    "classes, channels, parameters",
    [(10, 3, 11_173_962), (100, 3, 11_220_132), (10, 1, 11_172_810)],
)
def test_the_residual_network_has_21_matrices_and_41_vectors(classes, channels, parameters):
    params = shapes_of(ResNet18(classes), 32, channels)["params"]
    shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
    wanted = resnet18_shapes(classes, channels)
    assert sorted(shapes) == sorted(wanted)
    assert num_values(shapes) == parameters
    assert sum(len(shape) > 1 for shape in shapes) == 21
    assert sum(len(shape) == 1 for shape in shapes) == 41
    bits = PowerSGD(rank=1).cost(Ring(noise="off"), params, 5).bits
    assert bits == powersgd_bits(wanted, 5)


def test_the_residual_network_scores_every_class_and_updates_its_statistics():
    model = ResNet18(7)
    variables = shapes_of(model, 32, 3)
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    assert jax.eval_shape(model.apply, variables, image).shape == (2, 7)

    def trained(variables, images):
        return model.apply(variables, images, train=True, mutable="batch_stats")

    scores, updated = jax.eval_shape(trained, variables, image)
    assert scores.shape == (2, 7)
    assert updated["batch_stats"].keys() == variables["batch_stats"].keys()


def test_the_network_of_the_demo_has_the_shapes_of_the_cost_tables():
    params = shapes_of(CNN(), 28, 1)["params"]
    assert sorted(leaf.shape for leaf in jax.tree.leaves(params)) == sorted(CNN_SHAPES)
