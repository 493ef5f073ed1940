from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from gradatim.implicit import (
    AbstractEquilibriumNetwork,
    ExactAdjoint,
    ExactResponse,
    ForwardResponse,
    GivenResponse,
    LayeredNetwork,
    Nudge,
    NudgedResponse,
    OnlineResponse,
    RecurrentAdjoint,
    activities,
    chain_connections,
    cost_through_time,
    equilibrium_propagation,
    loop_connections,
    online_phase,
    relax,
    set_weight_angle,
    steep_sigmoid,
)

SIZES = {"in": 5, "l1": 6, "l2": 5, "out": 3}
LONG = 400
"Steps after which a relaxation of these networks is at rest to the last bit."
ROUND_OFF = 1e-10
"Of a relative difference between two double-precision ways to the same number."
ANGLES = (0.0, 45.0, 90.0)
RADII = (0.05, 0.1, 0.2)
POINTS = (1, 3, 4)
TRUNCATED = 3


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def inputs():
    return jnp.array([0.9, 0.1, 0.7, 0.3, 0.5]), jnp.array(1)


@pytest.fixture(scope="module")
def network():
    return LayeredNetwork(SIZES, chain_connections(SIZES), classes=3, gain=0.8, key=jax.random.key(0))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def gradient(network, x, target, response):
    def loss(network, x):
        return equilibrium_propagation(network, x, target, response=response, steps=LONG).loss

    arrays, rest = eqx.partition(network, eqx.is_array)
    return jax.grad(lambda arrays, x: loss(eqx.combine(arrays, rest), x), argnums=(0, 1))(arrays, x)


@eqx.filter_jit
def everything(network, angles, radii, x, target):
    def at(angle):
        turned = set_weight_angle(network, angle)
        drive = turned.drive(x)
        free = relax(turned, drive, steps=LONG)
        call = (turned, drive, target, free.state)
        activity = activities(turned, free.state)
        jacobian = jax.jacfwd(lambda r: turned.field(r, drive))(activity)
        slope = jax.tree.map(lambda u: jax.jvp(steep_sigmoid, (u,), (jnp.ones_like(u),))[1], free.state)
        arrays, rest = eqx.partition(turned, eqx.is_array)
        through = {
            steps: jax.grad(lambda a, steps=steps: cost_through_time(eqx.combine(a, rest), x, target, free.state, steps=steps))(arrays)
            for steps in (TRUNCATED, LONG)
        }
        ways = {
            "response": ExactResponse(),
            "adjoint": ExactAdjoint(),
            "short response": ForwardResponse(TRUNCATED),
            "short adjoint": RecurrentAdjoint(TRUNCATED),
        }
        answers = {name: way(*call).value for name, way in ways.items()}
        # One program for all.
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *answers.values())
        gradients = jax.vmap(lambda answer: gradient(turned, x, target, GivenResponse(answer)))(stacked)
        gradients = {name: jax.tree.map(lambda leaf, k=k: leaf[k], gradients) for k, name in enumerate(ways)}
        return {
            "free": free,
            "jacobian": jacobian,
            "slope": slope,
            "cost": jax.grad(lambda r: turned.cost(r, target))(activity),
            "response": answers["response"],
            "adjoint": answers["adjoint"],
            "forward": ForwardResponse(LONG)(*call).value,
            "recurrent": RecurrentAdjoint(LONG, tolerance=1e-14)(*call).value,
            "nudged": {n: jax.vmap(lambda r, n=n: NudgedResponse(r, n, steps=LONG)(*call).value)(radii) for n in POINTS},
            "through": through,
            "gradients": gradients,
        }

    return jax.lax.map(at, angles)


@pytest.fixture(scope="module")
def found(network, inputs):
    results = jax.tree.map(np.asarray, everything(network, jnp.array(ANGLES), jnp.array(RADII), *inputs))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], results) for i in range(len(ANGLES))]


def dense(one):
    """J in activities, and the gradient of the cost."""
    names = sorted(one["slope"])
    blocks = [[one["jacobian"][a][b] for b in names] for a in names]
    return np.block(blocks) - np.diag(1 / flat(one["slope"])), flat(one["cost"])


def difference(a, b):
    """Relative, of the worst parameter."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in pairs)


def test_the_free_phase_comes_to_rest(found):
    assert all(one["free"].residual < 1e-14 for one in found)


@pytest.mark.parametrize("i", range(len(ANGLES)))
def test_response_and_adjoint_are_solves_with_the_jacobian_and_its_transpose(found, i):
    jacobian, cost = dense(found[i])
    response, adjoint = (flat(found[i][name]) for name in ("response", "adjoint"))
    np.testing.assert_allclose(response, -np.linalg.solve(jacobian, cost), rtol=ROUND_OFF, atol=1e-13)
    np.testing.assert_allclose(adjoint, -np.linalg.solve(jacobian.T, cost), rtol=ROUND_OFF, atol=1e-13)
    np.testing.assert_allclose(flat(found[i]["forward"]), response, rtol=ROUND_OFF, atol=1e-12)
    np.testing.assert_allclose(flat(found[i]["recurrent"]), adjoint, rtol=ROUND_OFF, atol=1e-12)


@pytest.mark.parametrize("i", range(len(ANGLES)))
def test_response_less_adjoint_is_the_antisymmetric_part_between_two_inverses(found, i):
    jacobian, cost = dense(found[i])
    antisymmetric = (jacobian - jacobian.T) / 2
    exact = 2 * np.linalg.solve(jacobian.T, antisymmetric @ np.linalg.solve(jacobian, cost))
    bias = flat(found[i]["response"]) - flat(found[i]["adjoint"])
    np.testing.assert_allclose(bias, exact, atol=1e-12)
    assert (np.abs(bias).max() > 1e-3) == (ANGLES[i] > 0)


def test_without_an_angle_response_recurrent_and_through_time_are_one_gradient_in_every_parameter_and_the_input(found):
    one = found[0]
    gradients = one["gradients"]
    assert difference(gradients["response"], gradients["adjoint"]) < ROUND_OFF
    assert difference(one["through"][LONG], gradients["adjoint"][0]) < ROUND_OFF
    # And after any number of steps, before either has converged.
    assert difference(gradients["short response"], gradients["short adjoint"]) < ROUND_OFF
    assert difference(one["through"][TRUNCATED], gradients["short adjoint"][0]) < ROUND_OFF
    assert difference(gradients["short response"], gradients["response"]) > 1e-3


def test_with_an_angle_the_adjoint_alone_is_the_gradient_through_time(found):
    one = found[2]
    assert difference(one["through"][LONG], one["gradients"]["adjoint"][0]) < ROUND_OFF
    assert difference(one["gradients"]["response"][0], one["through"][LONG]) > 0.1


def test_symmetry_is_of_the_jacobian_in_activities_not_in_states(found):
    jacobian, _ = dense(found[0])
    in_states = jacobian * flat(found[0]["slope"])[None]
    assert np.abs(jacobian - jacobian.T).max() == 0
    assert np.abs(in_states - in_states.T).max() > 1e-2


@pytest.mark.parametrize("points", POINTS)
def test_the_error_of_n_points_falls_as_the_nth_power_of_the_radius(found, points):
    exact = flat(found[1]["response"])
    nudged = found[1]["nudged"][points]
    errors = [np.linalg.norm(flat(jax.tree.map(lambda v, j=j: v[j], nudged)) - exact) / np.linalg.norm(exact) for j in range(len(RADII))]
    assert abs(np.polyfit(np.log(RADII), np.log(errors), 1)[0] - points) < 0.3


class Scalar(AbstractEquilibriumNetwork):
    """u ← w φ(u) + x, ½ (r - y)²: a network that is not made of layers."""

    weight: Array
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def drive(self, x):
        return x

    def field(self, activity, drive):
        return self.weight * activity + drive

    def cost(self, activity, target):
        return (activity - target) ** 2 / 2


def test_one_unit_has_the_response_of_its_formula_and_the_error_of_the_next_coefficient():
    unit, target = Scalar(weight=jnp.array(0.5), activation=steep_sigmoid), jnp.array(0.2)
    radii = jnp.array([0.05, 0.1])

    @jax.jit
    def readings(unit):
        drive = unit.drive(jnp.array(0.4))
        free = relax(unit, drive, steps=LONG).state
        r, slope = steep_sigmoid(free), jax.grad(steep_sigmoid)(free)
        # Coefficients from a circle so small and fine that nothing is aliased.
        turn = jnp.exp(2j * jnp.pi * jnp.arange(32) / 32)
        circle = jax.vmap(lambda b: steep_sigmoid(relax(unit, drive, free, steps=LONG, nudge=Nudge(b, target)).state))(0.2 * turn)
        nudged = {n: jax.vmap(lambda b, n=n: NudgedResponse(b, n, steps=LONG)(unit, drive, target, free).value)(radii) for n in (2, 4)}
        call = (unit, drive, target, free)
        return (r - target) / (1 / slope - unit.weight), ExactResponse()(*call).value, ExactAdjoint()(*call).value, circle, nudged

    formula, response, adjoint, circle, nudged = jax.tree.map(np.asarray, readings(unit))
    np.testing.assert_allclose([response, adjoint], formula, rtol=1e-12)
    # Conjugate nudges have conjugate activities.
    np.testing.assert_allclose(circle[1:], circle[1:][::-1].conj(), rtol=1e-12)
    coefficients = (np.fft.fft(circle) / 32).real / 0.2 ** np.arange(32)
    for n, values in nudged.items():
        np.testing.assert_allclose(values - formula, coefficients[n + 1] * np.asarray(radii) ** n, rtol=0.05)


def test_a_linear_network_is_rational_in_the_nudge_with_its_pole_at_the_radius_of_convergence():
    sizes = {"in": 2, "l1": 3, "out": 2}
    network = LayeredNetwork(sizes, chain_connections(sizes), activation=lambda u: 1.0 * u, gain=0.5, key=jax.random.key(3))
    x, target = jnp.array([1.0, -1.0]), jnp.array([0.3, 0.9])
    weights = {name: np.asarray(w) for name, w in network.weights.items()}
    system = np.block([[np.eye(3), -weights["out->l1"]], [-weights["l1->out"], np.eye(2)]])
    force = np.diag([0.0, 0, 0, 1, 1])
    sent, wanted = np.concatenate([weights["in->l1"] @ x, [0, 0]]), np.concatenate([np.zeros(3), target])
    # (1 - G' - β C) u = x - β C y: singular where 1/β is an eigenvalue of (1 - G')⁻¹ C.
    pole = 1 / np.abs(np.linalg.eigvals(np.linalg.solve(system, force))).max()

    def state(beta):
        return np.linalg.solve(system - beta * force, sent - beta * wanted)

    h = 1e-6
    exact = (state(h) - state(-h)) / (2 * h)

    @jax.jit
    def nudged(radius):
        drive = network.drive(x)
        free = relax(network, drive, steps=LONG).state
        return {n: NudgedResponse(radius, n, steps=2000)(network, drive, target, free).value for n in (4, 8)}

    radius = 0.5 * pole
    errors = {}
    for n, response in nudged(jnp.asarray(radius)).items():
        turns = np.exp(2j * np.pi * np.arange(n) / n)
        np.testing.assert_allclose(flat(response), np.mean([state(radius * t) / (radius * t) for t in turns], axis=0).real, rtol=1e-9)
        errors[n] = np.linalg.norm(flat(response) - exact)
    # Four powers more of radius over pole.
    assert np.isclose(errors[8] / errors[4], 0.5**4, rtol=0.3)


def test_one_rotating_phase_shows_activity_and_response(found, network, inputs):
    x, target = inputs

    @eqx.filter_jit
    def rotate(network):
        turned = set_weight_angle(network, 45.0)
        drive = turned.drive(x)
        numbers = {"points": 4, "segment": 100, "turns": 2, "settling": 1}
        free = relax(turned, drive, steps=LONG).state
        return online_phase(turned, drive, target, radius=0.1, **numbers), OnlineResponse(0.1, **numbers)(turned, drive, target, free)

    phase, answer = rotate(network)
    still = {n: flat(jax.tree.map(lambda v: v[1], found[1]["nudged"][n])) for n in (4,)}
    np.testing.assert_allclose(flat(phase.response), still[4], rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(flat(answer.value), still[4], rtol=1e-8, atol=1e-11)
    assert phase.residual < 1e-10 and answer.residual < 1e-10
    free = flat(jax.jit(lambda state: jax.tree.map(steep_sigmoid, state))(found[1]["free"].state))
    np.testing.assert_allclose(flat(phase.activity), free, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda steps: NudgedResponse(0.05, 2, steps),
        lambda steps: NudgedResponse(0.05, 3, steps),
        lambda steps: OnlineResponse(0.05, 3, steps),
        ForwardResponse,
        RecurrentAdjoint,
        lambda steps: ForwardResponse(steps, 1e-14),
        lambda steps: RecurrentAdjoint(steps, 1e-14),
    ],
)
def test_what_did_not_come_to_rest_is_told_by_the_responses_residual(network, inputs, make):
    x, target = inputs

    @eqx.filter_jit
    def residuals(network):
        found = [equilibrium_propagation(network, x, target, response=make(steps), steps=LONG) for steps in (1, 3, LONG)]
        return [one.response_residual for one in found], found[0].residual

    (first, early, late), free = residuals(network)
    assert free < 1e-12 and late < 1e-12 and 1e-5 < early < first


def test_a_nudge_from_which_a_network_swings_is_told_by_the_residual():
    # At rest at 1/2 with slope -0.95; the nudge makes it steeper, and the unit swings between two states.
    unit = Scalar(weight=jnp.array(-0.95), activation=steep_sigmoid)
    drive = unit.drive(jnp.array(0.975))
    found = jax.jit(lambda r: NudgedResponse(r, 2, steps=2000)(unit, drive, jnp.array(0.2), jnp.array(0.5)).residual)
    assert found(0.01) < 1e-6 and found(1.0) > 1e-2


def test_a_field_is_the_product_with_the_weights_and_the_biases():
    network = LayeredNetwork(SIZES, (*chain_connections(SIZES), "in->out"), classes=3, key=jax.random.key(0))
    random = np.random.default_rng(0)
    biases = {name: jnp.asarray(random.normal(size=SIZES[name])) for name in network.biases}
    network = eqx.tree_at(lambda n: (n.biases, n.readout.bias), network, (biases, jnp.array([1.0, -2.0, 0.5])))
    r = {name: random.normal(size=size) for name, size in SIZES.items()}
    sent = {name: np.asarray(bias) for name, bias in biases.items()}
    for connection, weight in network.weights.items():
        pre, post = connection.split("->")
        sent[post] = sent[post] + np.asarray(weight) @ r[pre]
    activity = {name: jnp.asarray(r[name]) for name in biases}
    found = network.field(activity, network.drive(jnp.asarray(r["in"])))
    for name, exact in sent.items():
        np.testing.assert_allclose(found[name], exact, rtol=1e-12)
    logits = np.asarray(network.readout.weight) @ r["out"] + np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(network.cost(activity, jnp.array(2)), np.log(np.exp(logits).sum()) - logits[2], rtol=1e-12)
    assert all(np.isnan(network.cost(activity, jnp.array(number))) for number in (3, -1))


def test_first_weights_have_their_spread_and_are_drawn_apart():
    sizes = {"in": 400, "l1": 20, "l2": 20, "out": 20}
    network = LayeredNetwork(sizes, chain_connections(sizes), classes=20, gain=3.0, key=jax.random.key(0))
    for connection, weight in network.weights.items():
        assert abs(np.std(weight) * np.sqrt(sizes[connection.split("->")[0]]) / 3 - 1) < 0.2
    square = [np.asarray(weight) for weight in (*network.weights.values(), network.readout.weight) if weight.shape == (20, 20)]
    assert len(square) == 5 and all((a != b).any() for i, a in enumerate(square) for b in square[:i])


def test_a_cost_of_far_logits_is_finite():
    network = LayeredNetwork({"in": 1, "out": 2}, ("in->out",), classes=2, key=jax.random.key(0))
    network = eqx.tree_at(lambda n: n.readout.weight, network, jnp.eye(2))
    value, slope = jax.value_and_grad(lambda r: network.cost({"out": r}, jnp.array(1)))(jnp.array([2000.0, -1000.0]))
    np.testing.assert_allclose([value, *slope], [3000, 1, -1])


@pytest.mark.parametrize("tolerance", [0.0, 1e-30])
def test_a_relaxation_makes_the_steps_it_is_asked_for(tolerance):
    unit = Scalar(weight=jnp.array(0.5), activation=jnp.tanh)
    nudge = Nudge(jnp.array(0.1), jnp.array(0.2))
    before = state = 0.7
    for _ in range(3):
        before, state = state, 0.5 * np.tanh(state) + 0.4 + 0.1 * (np.tanh(state) - 0.2)
    found = relax(unit, unit.drive(jnp.array(0.4)), jnp.array(0.7), steps=3, tolerance=tolerance, nudge=nudge)
    np.testing.assert_allclose([found.state, found.residual, found.steps], [state, abs(state - before), 3], rtol=1e-12)


def test_tolerances_end_free_phase_and_responses_where_they_say(network, inputs):
    x, target = inputs
    responses = {
        "nudged": NudgedResponse(0.1, 2, LONG, 1e-4),
        "forward": ForwardResponse(LONG, 1e-4),
        "adjoint": RecurrentAdjoint(LONG, 1e-4),
    }

    @eqx.filter_jit
    def residuals(network):
        found = {
            name: equilibrium_propagation(network, x, target, response=one, steps=LONG, tolerance=1e-3) for name, one in responses.items()
        }
        return {name: (one.residual, one.response_residual) for name, one in found.items()}

    for free, last in residuals(network).values():
        assert 1e-5 < free <= 1e-3 and 1e-7 < last <= 1e-4


@pytest.mark.parametrize("make", [ForwardResponse, RecurrentAdjoint])
def test_the_tolerance_of_a_linear_response_is_relative(make):
    unit = Scalar(weight=jnp.array(0.5), activation=steep_sigmoid)
    drive = unit.drive(jnp.array(0.25))
    # At rest at 1/2 with slope 1, and a millionth away from its target: c / (1 - w).
    found = make(LONG, 1e-4)(unit, drive, jnp.array(0.5 - 1e-6), jnp.array(0.5))
    np.testing.assert_allclose(found.value, 2e-6, rtol=1e-3)


@pytest.mark.parametrize("response", [
    NudgedResponse(0.1, 4, tolerance=1e-5), OnlineResponse(0.1, 3, 5), ExactResponse(), RecurrentAdjoint(), ExactAdjoint(),
])  # fmt: skip
def test_single_precision_stays_single_in_a_batch(response):
    def losses(key, xs, targets):
        network = LayeredNetwork(SIZES, loop_connections(SIZES), classes=3, key=key, dtype=jnp.float32)
        return jax.vmap(lambda x, y: equilibrium_propagation(network, x, y, response=response, tolerance=1e-4))(xs, targets)

    batch = jax.ShapeDtypeStruct((2, 5), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    found = jax.eval_shape(losses, jax.random.key(1), *batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    assert found.loss.shape == found.response_residual.shape == (2,) and found.response["l1"].shape == (2, 6)


def test_a_network_that_amplifies_too_much_is_told_by_its_residual():
    unit = Scalar(weight=jnp.array(-8.0), activation=steep_sigmoid)
    # At rest at 1/2, from where every step leads eight times as far to the other side.
    found = jax.jit(lambda x: relax(unit, unit.drive(x), steps=100, tolerance=1e-6))(jnp.array(4.5))
    assert found.residual > 0.1 and found.steps == 100


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NudgedResponse(0.0, 2), "radius must be positive and finite, got 0.0"),
        (lambda: NudgedResponse(0.1, 0), "points must be at least 1, got 0"),
        (lambda: NudgedResponse(0.1, 2, steps=0), "steps must be at least 1, got 0"),
        (lambda: ForwardResponse(5, tolerance=-1.0), "tolerance must be at least 0, got -1.0"),
        (lambda: OnlineResponse(0.1, 3, segment=0), "points must be at least 3, segment 1, turns 1 and settling 0, got 3, 0, 1 and 0"),
        (lambda: RecurrentAdjoint(0), "steps must be at least 1, got 0"),
        (lambda: LayeredNetwork({"in": 2}, (), key=jax.random.key(0)), "sizes must hold an input and at least one layer"),
        (lambda: LayeredNetwork({"in": 2, "out": 0}, ("in->out",), key=jax.random.key(0)), "at least 1, got 0 for out"),
        (lambda: LayeredNetwork({"in": 2, "out": 2}, ("in->l1",), key=jax.random.key(0)), "must join layers among in, out as in in->out"),
        (
            lambda: LayeredNetwork({"in": 2, "out": 2}, ("out->in",), key=jax.random.key(0)),
            "must not lead into the input in, got 'out->in'",
        ),
        (lambda: LayeredNetwork({"in": 2, "out": 2}, ("in->out",) * 2, key=jax.random.key(0)), "must not be there twice, got 'in->out'"),
        (lambda: LayeredNetwork({"in": 2, "l1": 2, "out": 2}, ("in->l1",), key=jax.random.key(0)), "into every layer, none leads into out"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_complex_nudges_of_a_kinked_activation_are_refused_and_real_ones_are_not(inputs):
    network = LayeredNetwork(SIZES, chain_connections(SIZES), classes=3, activation=jax.nn.relu, key=jax.random.key(0))
    x, target = inputs
    shape = jax.eval_shape(lambda: equilibrium_propagation(network, x, target, response=NudgedResponse(0.1, 2)).loss)
    assert shape.shape == ()
    with pytest.raises(ValueError, match="activation must be holomorphic around the real line for complex nudges, relu is not"):
        jax.eval_shape(lambda: equilibrium_propagation(network, x, target, response=NudgedResponse(0.1, 4)).loss)
    message = "points must be at least 3, segment 1, turns 1 and settling 0, got"
    with pytest.raises(ValueError, match=f"{message} 2, 5, 1 and 0"):
        online_phase(network, network.drive(x), target, radius=0.1, points=2, segment=5)
    with pytest.raises(ValueError, match=f"{message} 3, 0, 1 and 0"):
        online_phase(network, network.drive(x), target, radius=0.1, points=3, segment=0)
