"""Ten images that stand for a whole data set, by implicit and by unrolled derivatives of a classifier's training (C5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import xarray as xr

from gradatim.datasets import load
from gradatim.implicit import RelativeTolerance, custom_root, iterate, stationary
from gradatim.lab import Findings, Measure, Session

from .config import Distillation

WAYS = ("implicit", "unrolled")
SOLVER = RelativeTolerance(lx.CG(rtol=1e-6, atol=1e-6, stabilise_every=None))
"Of the adjoint: further below the tolerance of the training than the derivative can tell."


def run_distillation(config: Distillation, session: Session) -> Findings:
    """C5: results at the same rates and seeds, then the time of one outer gradient."""
    train, test = load("digits", split="train"), load("digits", split="test")
    session.uses(train.provenance)
    sets = [(jnp.asarray(part.images.reshape(len(part), -1), float), jnp.asarray(part.labels)) for part in (train, test)]
    problem = _Problem(config.l2, config.inner_steps, config.tolerance)
    n_rates, n_seeds, pixels = len(config.rates), config.seeds, sets[0][0].shape[1]
    draws = jax.random.normal(session.key, (n_seeds * 10 * pixels,)).reshape(n_seeds, 10, pixels) / pixels
    first = jnp.tile(draws[None], (n_rates, 1, 1, 1))

    images, losses, accuracies = {}, {}, {}
    for way in WAYS:
        images[way], losses[way] = _train(config, session, problem, way, first, sets[0])
        accuracies[way] = np.asarray(session.once(f"accuracy, {way}", _accuracy(problem), images[way], *sets[1]))
    best = {way: int(np.nanargmin(losses[way][-1].mean(1))) for way in WAYS}
    if any(best[way] in (0, n_rates - 1) for way in WAYS):
        chosen = ", ".join(f"{config.rates[best[way]]:g} ({way})" for way in WAYS)
        session.note(f"distillation: the best of Adam's rates {config.rates} lies on the edge of the grid: {chosen}")
    by_seed = {way: accuracies[way][best[way]] for way in WAYS}
    measures = {
        "C5.accuracy": Measure.over_seeds(by_seed["implicit"]),
        "C5.accuracy_difference": Measure.paired(by_seed["implicit"], by_seed["unrolled"]),
    }
    speedup, times = _times(config, session, problem, images["implicit"][best["implicit"]], sets[0])
    data = xr.Dataset(
        {
            "loss": (("way", "step", "rate", "seed"), np.stack([losses[way] for way in WAYS]), {"units": "nat"}),
            "accuracy": (("way", "rate", "seed"), np.stack([accuracies[way] for way in WAYS]), {"units": "of test digits"}),
            "images": (("way", "label", "pixel"), np.stack([np.asarray(images[way][best[way], 0]) for way in WAYS]), {"units": "ink"}),
        },
        {"way": list(WAYS), "rate": list(config.rates), "step": np.arange(config.outer_steps)},
    )
    tree = xr.DataTree.from_dict({"distillation": data, "distillation_times": times})
    return Findings(measures | {"C5.speedup": speedup}, tree)


class _Problem:
    """Training a linear softmax classifier on ten images, one of each class."""

    def __init__(self, l2: float, max_steps: int, tolerance: float) -> None:
        self.l2, self.max_steps, self.tolerance = l2, max_steps, tolerance

    def objective(self, W: Any, images: Any) -> Any:
        """Mean cross-entropy and l2/2 ‖W‖²."""
        losses = optax.softmax_cross_entropy_with_integer_labels(images @ W, jnp.arange(10))
        return losses.mean() + self.l2 / 2 * jnp.sum(W**2)

    def step(self, W: Any, images: Any) -> Any:
        """Gradient descent at 1/L; the softmax's curvature is at most ½."""
        bound = jnp.linalg.eigvalsh(images @ images.T)[-1] / (2 * len(images)) + self.l2
        return W - jax.grad(self.objective)(W, images) / jax.lax.stop_gradient(bound)

    def to_tolerance(self, init: Any, images: Any) -> tuple[Any, Any]:
        """The classifier, and the steps it took."""

        def unfinished(state: Any) -> Any:
            W, i = state
            return (i < self.max_steps) & (jnp.linalg.norm(jax.grad(self.objective)(W, images)) > self.tolerance)

        return jax.lax.while_loop(unfinished, lambda state: (self.step(state[0], images), state[1] + 1), (init, 0))

    def implicitly(self, solver: Callable) -> Callable:
        """A solver with the derivative of its solution."""
        return custom_root(stationary(self.objective), linear_solver=SOLVER, tags=lx.positive_semidefinite_tag)(solver)

    def solve(self, way: str) -> Callable:
        """The classifier as a differentiable function of the images."""
        if way == "implicit":
            return self.implicitly(lambda init, images: self.to_tolerance(init, images)[0])
        return iterate(self.step, n_steps=self.max_steps)

    def outer(self, solve: Callable, images: Any, x: Any, labels: Any) -> Any:
        """The loss of all training digits under the classifier of ten images."""
        W = solve(jnp.zeros((x.shape[1], 10), x.dtype), images)
        return optax.softmax_cross_entropy_with_integer_labels(x @ W, labels).mean()


def _train(config: Distillation, session: Session, problem: _Problem, way: str, images: Any, data: Any) -> tuple[Any, np.ndarray]:
    """Adam on the images, all rates and seeds together."""
    adam = optax.scale_by_adam()
    solve = problem.solve(way)

    def value_and_grad(images: Any, data: Any) -> Any:
        one = jax.value_and_grad(lambda images: problem.outer(solve, images, *data))
        return jax.vmap(jax.vmap(one))(images)

    def step(state: Any, i: Any, args: Any) -> Any:
        images, memory, _ = state
        rates, data = args
        values, gradients = value_and_grad(images, data)
        updates, memory = adam.update(gradients, memory)
        return images - rates[:, None, None, None] * updates, memory, values

    state = (images, adam.init(images), jnp.zeros(images.shape[:2]))
    loop = session.loop(
        step,
        state,
        steps=config.outer_steps,
        args=(jnp.asarray(config.rates), data),
        every=1,
        watch=lambda state, _: {"loss": state[2]},
        label=f"distillation, {way}",
    )
    # A step tells the loss of the images it was given, before it moved them.
    return loop.state[0], np.asarray(loop.history["loss"])[1:]


def _accuracy(problem: _Problem) -> Callable:
    def accuracy(images: Any, x: Any, labels: Any) -> Any:
        W, _ = problem.to_tolerance(jnp.zeros((x.shape[1], 10), x.dtype), images)
        return jnp.mean(jnp.argmax(x @ W, axis=1) == labels)

    return jax.jit(jax.vmap(jax.vmap(accuracy, in_axes=(0, None, None)), in_axes=(0, None, None)))


def _times(config: Distillation, session: Session, problem: _Problem, images: Any, data: Any) -> tuple[Measure, xr.Dataset]:
    """Seconds of one outer gradient over inner steps, and at as many as the tolerance asks for, the images of each seed in turn."""
    count = jax.jit(jax.vmap(lambda images, x: problem.to_tolerance(jnp.zeros((x.shape[1], 10), x.dtype), images)[1], (0, None)))
    asked = np.maximum(np.asarray(session.once("steps to the tolerance", count, images, data[0])), 1).tolist()
    steps = sorted({*config.timed_steps, asked[0]})
    seconds = np.zeros((len(steps), 2, config.repeats))
    for i, n_steps in enumerate(steps):
        found = session.timed(f"outer gradient, {n_steps} steps", _calls(problem, n_steps, images[0], data), repeats=config.repeats)
        seconds[i] = [found[way] for way in WAYS]
    # Compiled anew each time, for where a program's arrays come to lie moves its time more than its calls differ.
    built = np.zeros((config.builds, 2))
    for k in range(config.builds):
        seed = k % len(asked)
        found = session.timed(f"outer gradient, build {k}", _calls(problem, asked[seed], images[seed], data), repeats=config.repeats)
        built[k] = [np.exp(np.log(found[way]).mean()) for way in WAYS]
    ratio = np.median(seconds[:, 1], axis=1) / np.median(seconds[:, 0], axis=1)
    ahead = [n for n, r in zip(steps, ratio, strict=True) if r >= 1]
    where = f"from {ahead[0]} inner steps on" if ahead else f"at none of {', '.join(map(str, steps))} inner steps"
    wanted = " or ".join(map(str, sorted(set(asked))))
    session.note(f"distillation: the tolerance asks for {wanted} inner steps; the implicit gradient is faster {where}")
    times = xr.Dataset(
        {
            "seconds": (("inner_steps", "way", "repeat"), seconds, {"units": "s"}),
            "built_seconds": (("build", "way"), built, {"units": "s"}),
            "asked": ("seed", asked, {"units": "steps"}),
        },
        {"inner_steps": steps, "way": list(WAYS)},
    )
    return Measure.paired(built[:, 1], built[:, 0], "log-ratio"), times


def _calls(problem: _Problem, n_steps: int, images: Any, data: Any) -> dict[str, Callable]:
    """One outer gradient either way, in programs of their own."""
    plain = iterate(problem.step, n_steps=n_steps)
    calls = {}
    for way, solve in (("implicit", problem.implicitly(plain)), ("unrolled", plain)):
        gradient = jax.jit(jax.grad(lambda images, data, solve=solve: problem.outer(solve, images, *data)))
        calls[way] = lambda gradient=gradient: gradient(images, data)
    return calls
