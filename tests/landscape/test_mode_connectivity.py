import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.landscape import barrier, interpolate, line_loss

ROUND_OFF = 1e-6  # single precision, losses of order one


def bump(w):
    """A narrow bump of height 1.3 off the middle, on a slope; its top lies between the points of the grid."""
    return 0.4 * w + 1.3 * jnp.exp(-(((w - 0.32) / 0.1) ** 2))


@pytest.fixture(scope="module")
def heights():
    @jax.jit
    def measure(a, b):
        found = {name: barrier(bump, a, b, baseline=name) for name in ("line", "mean", "max")}
        return found, barrier(bump, a, b, n_points=3, n_refinements=0), barrier(bump, a, b, n_refinements=0)

    zero, one = jnp.array(0.0), jnp.array(1.0)
    return {way: measure(*ends) for way, ends in (("there", (zero, one)), ("back", (one, zero)), ("same", (one, one)))}


def test_double_well_has_its_known_barrier_and_crest():
    line = line_loss(lambda w: (w**2 - 1) ** 2, jnp.array(-1.0), jnp.array(1.0))
    assert line.t.shape == (21,) and np.allclose(line.loss, ((2 * line.t - 1) ** 2 - 1) ** 2, atol=1e-6)
    assert np.allclose(line.barrier, 1) and np.allclose(line.crest, 1)


def test_a_convex_loss_has_no_barrier():
    line = line_loss(lambda w: jnp.sum(w["a"] ** 2), {"a": jnp.array([3.0, 1.0])}, {"a": jnp.array([-1.0, 2.0])}, n_points=7)
    assert line.barrier == 0 and line.crest == 0


def test_barrier_is_measured_from_the_chord_and_crest_from_the_higher_end():
    # l = t/5 + 0.3 sin²(πt) rises 0.3 over the chord, 0.2 over the higher end.
    line = line_loss(lambda w: w / 5 + 0.3 * jnp.sin(jnp.pi * w) ** 2, jnp.array(0.0), jnp.array(1.0))
    assert np.allclose(line.barrier, 0.3, atol=1e-6) and np.allclose(line.crest, 0.2, atol=0.01)


def test_jit_vmap_and_gradient():
    def loss(w):
        return (w**2 - 1) ** 2

    ends = np.array([1.0, 0.5], np.float32)
    of_one = jax.value_and_grad(lambda end: line_loss(loss, -end, end).barrier)
    batched, _ = jax.jit(jax.vmap(of_one))(ends)
    alone, slopes = zip(*map(jax.jit(of_one), ends), strict=True)
    assert np.allclose(batched, alone) and np.isfinite(slopes).all()


def test_bad_input():
    with pytest.raises(ValueError, match="n_points must be at least 3, got 2"):
        line_loss(jnp.sum, jnp.ones(2), jnp.ones(2), n_points=2)
    with pytest.raises(ValueError, match="one structure"):
        line_loss(jnp.sum, jnp.ones(2), (jnp.ones(2),))
    with pytest.raises(ValueError, match="same shapes"):
        line_loss(jnp.sum, jnp.ones(2), jnp.ones(3))


def test_barrier_of_a_point_with_itself_is_zero(heights):
    assert abs(heights["same"][0]["line"].height) <= ROUND_OFF


def test_barrier_is_symmetric_in_its_ends(heights):
    there, back = (heights[way][0]["line"] for way in ("there", "back"))
    assert np.allclose(there.height, back.height, atol=ROUND_OFF) and np.allclose(there.at, 1 - back.at, atol=1e-3)


def test_the_search_finds_the_top_between_the_points(heights):
    t = np.linspace(0, 1, 200_001)
    line = 0.4 * t + 1.3 * np.exp(-(((t - 0.32) / 0.1) ** 2))
    exact = line - (1 - t) * line[0] - t * line[-1]
    refined, coarse = heights["there"][0]["line"], heights["there"][2]
    assert abs(refined.height - exact.max()) <= 1e-5 and abs(refined.at - t[exact.argmax()]) <= 2e-3
    assert exact.max() - coarse.height > 1e-2 and np.allclose(coarse.line.barrier, coarse.height)


def test_t2_the_three_baselines_differ_where_the_ends_do(heights):
    found = {name: float(b.height) for name, b in heights["there"][0].items()}
    assert found["mean"] < found["line"] - 0.01 and found["max"] < found["mean"] - 0.1
    line = heights["there"][0]["max"].line
    assert found["max"] >= line.crest - ROUND_OFF


def test_t3_three_points_are_not_the_barrier(heights):
    assert heights["there"][1].height < 0.1 * heights["there"][0]["line"].height


class Net(eqx.Module):
    weight: jax.Array
    steps: int
    name: str = eqx.field(static=True)


def test_models_move_in_their_floating_point_arrays_alone():
    a, b = Net(jnp.zeros(3, jnp.bfloat16), 4, "net"), Net(jnp.ones(3, jnp.bfloat16), 4, "net")
    middle = interpolate(a, b, jnp.array(0.5))
    assert middle.weight.dtype == jnp.bfloat16 and (middle.weight == 0.5).all() and middle.steps == 4
    with pytest.raises(ValueError, match=r"only floating-point arrays may differ.*got 4 and 5 at \.steps"):
        interpolate(a, Net(b.weight, 5, "net"), 0.5)
    with pytest.raises(ValueError, match="one structure"):
        interpolate(a, Net(b.weight, 4, "other"), 0.5)


def test_running_statistics_are_refused():
    _, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(2, "batch", mode="batch")
    with pytest.raises(ValueError, match=r"running statistics.*compute them anew"):
        interpolate((jnp.ones(2), state), (jnp.ones(2), state), 0.5)


def test_t6_a_model_left_in_training_mode_is_not_measured_by_mistake():
    net = eqx.nn.Sequential([eqx.nn.Dropout(0.5)]), jnp.ones(4)

    def loss(net):
        return jnp.sum(net[0](net[1]) ** 2)

    with pytest.raises(RuntimeError, match="Dropout requires a key"):
        line_loss(loss, net, net)
    calm = eqx.nn.inference_mode(net)
    assert np.allclose(line_loss(loss, calm, calm).loss, 4)


def test_gradient_of_a_barrier_is_that_of_its_top():
    # l(t) = 4 h t (1 - t), whose height is h.
    height = lambda h: barrier(lambda w: 4 * h * w * (1 - w), jnp.array(0.0), jnp.array(1.0)).height  # noqa: E731
    value, slope = jax.jit(jax.value_and_grad(height))(2.0)
    assert np.allclose(value, 2) and np.allclose(slope, 1)


def test_bad_input_of_a_barrier():
    ends = jnp.zeros(2), jnp.ones(2)
    with pytest.raises(ValueError, match="n_refinements must be at least 0, got -1"):
        barrier(jnp.sum, *ends, n_refinements=-1)
    with pytest.raises(ValueError, match="n_points must be at least 3, got 2"):
        barrier(jnp.sum, *ends, n_points=2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_points_have_the_precision_of_the_parameters(double, dtype):
    line = line_loss(lambda w: w**2, jnp.array(0.0, dtype), jnp.array(1.0, dtype))
    assert line.t.dtype == line.loss.dtype == dtype
    assert np.allclose(line.loss, np.linspace(0, 1, 21) ** 2, rtol=0, atol=4 * jnp.finfo(dtype).eps)
