"""The gauge condition as a penalty: a field of a gradient and a free part, trained with it and without."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float

from gradatim.lab import Session
from gradatim.transport import FourierBasis, GradientScore, denoising_score_matching, gauge_penalty, weak_gauge_statistic

from .config import Config
from .fields import PATH, flat_normal, one_by_one
from .networks import SURFACES, Denoiser, batch_of, surfaces
from .reading import LEVELS

ARMS = ("with", "without")
DIM = 3
N_TESTS = 100
HELD_OUT = 4096


class TwoPartScore(eqx.Module):
    """∇ψ and a free part r, of the size of noise at the start."""

    conservative: GradientScore
    network: Denoiser

    def remainder(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """r, a network over the noise."""
        return self.network(t, x) / PATH.coefficients(t).m.astype(x.dtype)

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The sum."""
        return self.conservative(t, x) + self.remainder(t, x)


def two_parts(networks: tuple[Denoiser, Denoiser]) -> TwoPartScore:
    """The field of a pair of networks."""
    return TwoPartScore(GradientScore(networks[0], PATH), networks[1])


def run_penalised(config: Config, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Both arms from the same weights along the same batches, then the weak form of the condition on held-out data."""
    learned, settings = config.learned, config.penalised
    key_train, key_test, key_data = jax.random.split(key, 3)
    sphere = SURFACES.index("sphere")
    data, fresh = (
        jnp.stack([jnp.asarray(surfaces(n, DIM, one)[sphere]) for one in jax.random.split(jax.random.fold_in(key_data, n), settings.seeds)])
        for n in (learned.points, HELD_OUT)
    )
    adam = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, settings.steps))

    @jax.jit
    def init(keys: Array) -> Any:
        pairs = [
            jax.vmap(lambda key, i=i: Denoiser(DIM, settings.width, learned.depth, key=jax.random.fold_in(key, i)))(keys) for i in range(2)
        ]
        both = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(ARMS)), tuple(pairs))
        return both, jax.vmap(jax.vmap(adam.init))(both)

    def parts(networks: Any, batch: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        score = two_parts(networks)
        noise, clean, t = batch
        penalty = gauge_penalty(score.remainder, score.conservative, PATH, t, PATH.point(noise, clean, t))
        return denoising_score_matching(score, PATH, *batch), penalty

    def gradient(given: tuple[Any, tuple[Array, Array, Array], Array]) -> Any:
        networks, batch, weight = given

        def fit(networks: Any) -> Array:
            return denoising_score_matching(two_parts(networks), PATH, *batch)

        def penalised(networks: Any) -> Array:
            fit, penalty = parts(networks, batch)
            return fit + weight * penalty

        # One field at a time, so that without the penalty none is computed.
        return jax.lax.cond(weight > 0, jax.grad(penalised), jax.grad(fit), networks)

    def step(state: Any, i: Array, args: Any) -> Any:
        data, keys, weights = args

        def draw(data: Array, key: Array, weight: Array) -> tuple[tuple[Array, Array, Array], Array]:
            return batch_of(jax.random.fold_in(key, i + 2), data, settings.batch_size), weight

        def move(networks: Any, memory: Any, gradient: Any) -> Any:
            updates, memory = adam.update(gradient, memory)
            return optax.apply_updates(networks, updates), memory

        networks, memories = state
        found = one_by_one(gradient, (networks, *jax.vmap(jax.vmap(draw, (0, 0, None)), (None, None, 0))(data, keys, weights)))
        return jax.vmap(jax.vmap(move))(networks, memories, found)

    def watch(state: Any, args: Any) -> dict[str, Array]:
        batches = jax.vmap(lambda data: batch_of(jax.random.key(0), data, 512))(args[0])
        loss, penalty = jax.vmap(jax.vmap(parts), (0, None))(state[0], batches)
        return {"loss": loss, "penalty": penalty}

    keys = jax.random.split(key_train, settings.seeds)
    args = (data, keys, jnp.asarray([settings.weight, 0.0], jnp.float32))
    loop = session.loop(step, init(keys), steps=settings.steps, args=args, watch=watch, label="the gauge penalty")

    @jax.jit
    def read(networks: Any, held_out: Array, keys: Array) -> dict[str, Array]:
        return jax.vmap(jax.vmap(of_seed), (0, None, None))(networks, held_out, keys)

    def of_seed(networks: Any, held_out: Array, key: Array) -> dict[str, Array]:
        key_noise, key_rows, key_tests = jax.random.split(key, 3)
        noise = flat_normal(key_noise, HELD_OUT, DIM, dtype=jnp.float32)
        rows = jax.random.randint(key_rows, (HELD_OUT,), 0, len(held_out))
        basis = FourierBasis(DIM, N_TESTS, scale=0.5, key=key_tests)
        basis = jax.tree.map(lambda leaf: leaf.astype(noise.dtype), basis)

        def at(t: Array) -> dict[str, Array]:
            score = two_parts(networks)
            x = PATH.point(noise, held_out[rows], t)
            rest, conservative = (jax.vmap(lambda x, part=part: part(t, x))(x) for part in (score.remainder, score.conservative))
            statistic = weak_gauge_statistic(rest, jax.vmap(jax.jacfwd(basis))(x))
            return {
                "statistic": jnp.sqrt(jnp.mean(statistic**2)),
                "share": jnp.sum(rest**2) / jnp.sum((rest + conservative) ** 2),
            }

        return jax.lax.map(at, 1 - jnp.asarray(LEVELS, jnp.float32))

    keys_test = jax.random.split(key_test, settings.seeds)
    found = session.once(
        "the weak form of the gauge condition", lambda: {k: np.asarray(v) for k, v in read(loop.state[0], fresh, keys_test).items()}
    )
    units = {"units": "1"}
    penalised = xr.Dataset(
        {name: (("arm", "seed", "level"), value, units) for name, value in found.items()}
        | {name: (("row", "arm", "seed"), loop.history[name], units) for name in ("loss", "penalty")},
        {"arm": list(ARMS), "level": list(LEVELS), "row": loop.history["step"]},
    )
    return {"penalised": penalised}
