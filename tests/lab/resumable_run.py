"""A run for test_resume.py to kill: `python resumable_run.py DIRECTORY RESUME`."""

import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gradatim.lab import Session


class Walker(eqx.Module):
    position: jax.Array
    count: jax.Array
    key: jax.Array
    name: str = eqx.field(static=True)
    scale: float = 0.5


def walk(walker, i, args):
    key, noise = jax.random.split(walker.key)
    position = walker.position * args + walker.scale * jax.random.normal(noise, walker.position.shape)
    return Walker(position, walker.count + jnp.ones((), jnp.bfloat16), key, walker.name, walker.scale)


def blur(image, i, args):
    blurred = jax.lax.conv_general_dilated(image, args, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return blurred + jnp.sin(i.astype(jnp.float32))


def run(session):
    """Two loops in one program, a convolution in steps that go one by one, and a result without a loop between them."""
    start, noise, image = jax.random.split(session.key, 3)
    walker = Walker(jnp.zeros(7), jnp.zeros((2,), jnp.bfloat16), noise, "walker")
    watch = {"watch": lambda w, _: {"mean": w.position.mean(), "position": w.position}, "every": 7, "args": jnp.asarray(0.9)}
    first = session.loop(walk, walker, steps=500, label="walk", **watch)
    kept = session.once("middle", lambda: {"start": jax.random.normal(start, (3,)), "pair": (1, "two", None, [0.1])})
    kernel = jnp.full((3, 3, 1, 1), 1 / 9.0)
    second = session.loop(
        blur,
        jax.random.normal(image, (1, 6, 6, 1)),
        steps=300,
        args=kernel,
        every=4,
        watch=lambda x, _: {"mean": x.mean()},
        label="blur",
    )
    third = session.loop(walk, first.state, steps=400, label="walk on", **watch)
    leaves = jax.tree.leaves(eqx.filter((third.state.position, third.state.count.astype(jnp.float32), kept, second.state), eqx.is_array))
    arrays = [*leaves, jax.random.key_data(third.state.key), *(h for loop in (first, second, third) for h in loop.history.values())]
    return [np.asarray(array) for array in arrays]


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    session = Session(jax.random.key(0), directory=directory, resume=sys.argv[2] == "resume", checkpoint_seconds=0.0)
    np.savez(directory / "end.npz", *run(session))
