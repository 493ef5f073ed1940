import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import (
    FlowJacobian,
    GaugeField,
    GaussianScore,
    ScoreFlow,
    SphereScore,
    SumOfFields,
    VariancePreserving,
    flow_jacobian,
)

TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])
COVARIANCE = np.array([[1.5, 0.6], [0.6, 0.5]])
LEFT = np.array([1.0, 0.1, 0.01, 0.001])  # 1 - t
PRINTED = 1e-6  # digits known of the oracles


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


class Product(eqx.Module):
    """A sphere in five dimensions beside normal data in a plane, each with fields added: one flow of both, and one program."""

    sphere: SumOfFields
    normal: SumOfFields

    def __call__(self, t, x):
        return jnp.concatenate([self.sphere(t, x[:5]), self.normal(t, x[5:])])


@pytest.fixture(scope="module")
def flows():
    path = VariancePreserving()
    on_sphere = SphereScore(path)
    turn = jnp.zeros((5, 5)).at[:2, :2].set(TURN)

    def of(start, sphere_gauge, shear, covariance, gauge, rotation):
        sphere = SumOfFields(on_sphere, GaugeField(on_sphere, turn), sphere_gauge)
        sphere = SumOfFields(sphere, lambda t, x: x[2] * (turn @ x), shear)
        exact = GaussianScore(path, covariance)
        normal = SumOfFields(exact, GaugeField(exact, jnp.asarray(TURN)), gauge)
        normal = SumOfFields(normal, lambda t, x: jnp.asarray(TURN) @ x, rotation)
        times = jnp.asarray(1 - LEFT)
        flow = flow_jacobian(ScoreFlow(Product(sphere, normal), path), start, times, rtol=1e-9, atol=1e-11)
        plane = FlowJacobian(times, flow.x[:, 5:], flow.jacobian[:, 5:, 5:])
        carried = plane.jacobian @ exact.covariance(jnp.zeros(())) @ jnp.swapaxes(plane.jacobian, 1, 2)
        back = plane.from_the_other_end()
        of_plane = plane.singular_values, carried - jax.vmap(exact.covariance)(times), back.singular_values, back.times
        ball = FlowJacobian(times, flow.x[:, :5], flow.jacobian[:, :5, :5])
        return of_plane, (ball.x, ball.singular_values)

    straight, tilted = [1.5, 0, 0, 0, 0, 1, -0.5], [0.9, 0, 1.2, 0, 0, 1, -0.5]
    cases = (
        np.array([straight, tilted, tilted, straight, straight, straight]),
        np.array([0, 0.5, 0, 0, 0, 0]),
        np.array([0, 0, 0.5, 0, 0, 0]),
        np.stack([COVARIANCE, COVARIANCE, COVARIANCE, COVARIANCE, np.diag([4.0, 0.0]), np.diag([1.0, 0.0])]),
        np.array([0, 0.5, 2, 0, 0, 0]),
        np.array([0, 0, 0, 2.0, 0, 0]),
    )
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(of))(*map(jnp.asarray, cases)))


@pytest.fixture(scope="module")
def normal(flows):
    """Of the plane: singular values, error of the covariance, singular values of the way back, its times."""
    return flows[0]


@pytest.fixture(scope="module")
def sphere(flows):
    """Of the sphere: points and singular values; the score alone, a rotation, a shear."""
    return [part[:3] for part in flows[1]]


def test_o3_every_gauge_part_carries_the_covariance(normal):
    assert np.abs(normal[1][:3]).max() < 1e-8
    assert np.abs(normal[1][3, 1:]).max() > 0.1


def test_o3_singular_values_of_normal_data(normal):
    at_the_end = normal[0][:, -1]
    np.testing.assert_allclose(at_the_end[0], [1.334496, 0.468047], atol=PRINTED)
    np.testing.assert_allclose(at_the_end[2], [1.334520, 0.468039], atol=PRINTED)
    np.testing.assert_allclose(at_the_end[3], [1.0472, 0.5965], atol=1e-4)


def test_o4_directions_of_normal_data_scale_with_their_widths(normal):
    # Data of variances 4, 1 and 0, two at a time.
    first, second = normal[0][4], normal[0][5]
    np.testing.assert_allclose(first[-1], [1.999788, 0.0104856], atol=PRINTED)
    np.testing.assert_allclose(second[-1], [1.0, 0.0104856], atol=PRINTED)
    np.testing.assert_allclose(first[1:3, 1], [0.3220595, 0.0446441], atol=PRINTED)


def test_trap_the_way_back_turns_vanishing_into_growing(normal):
    for found, back in zip(normal[0], normal[2], strict=True):
        np.testing.assert_allclose(back[-1], 1 / found[-1][::-1], rtol=1e-7)
    np.testing.assert_allclose(normal[3][0], (1 - LEFT)[::-1], atol=1e-15)


def test_from_the_other_end_every_derivative_is_with_respect_to_the_last_point():
    first, second = np.random.default_rng(0).normal(size=(2, 2, 2))
    x, times = np.arange(6.0).reshape(3, 2), np.array([0.0, 0.3, 0.9])
    back = FlowJacobian(*map(jnp.asarray, (times, x, np.stack([np.eye(2), first, second @ first])))).from_the_other_end()
    np.testing.assert_array_equal(back.times, times[::-1])
    np.testing.assert_array_equal(back.x, x[::-1])
    expected = [np.eye(2), np.linalg.inv(second), np.linalg.inv(second @ first)]
    np.testing.assert_allclose(back.jacobian, expected, atol=1e-12)


def test_o5_singular_values_of_the_sphere(sphere):
    tangential = [0.6902821, 0.6656791, 0.6663149]
    across = [[0.4468273, 0.3220595], [0.0652570, 0.0446441], [0.0153415, 0.0104856]]
    for found, along, (radial, padded) in zip(sphere[1][0, 1:], tangential, across, strict=True):
        np.testing.assert_allclose(found, [along, along, radial, padded, padded], atol=PRINTED)
    np.testing.assert_allclose(np.linalg.norm(sphere[0][0, -1]), 0.9994724, atol=PRINTED)


@pytest.mark.parametrize("case", [1, 2], ids=["rotation", "shear"])
def test_a_gauge_part_keeps_radii_and_changes_singular_values(sphere, case):
    np.testing.assert_allclose(np.linalg.norm(sphere[0][case], axis=1), np.linalg.norm(sphere[0][0], axis=1), atol=1e-7)
    assert np.abs(sphere[1][case, -1] - sphere[1][0, -1]).max() > 0.01
    # Volumes are the same, for the density at the end is.
    np.testing.assert_allclose(sphere[1][case, -1].prod(), sphere[1][0, -1].prod(), rtol=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="a flow's derivative is for at most 64 dimensions, got 65"):
        flow_jacobian(lambda t, x: x, jnp.ones(65), jnp.array([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"times must ascend or descend, two of them at least, got \[0\.0, 1\.0, 0\.5\]"):
        flow_jacobian(lambda t, x: x, jnp.ones(2), jnp.array([0.0, 1.0, 0.5]))
