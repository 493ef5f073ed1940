"""What needs no training: that weights may be mixed in place of outputs, and what that saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim.lab import Session, host_generator
from gradatim.nets import (
    EntangledConv,
    EntangledLayerNorm,
    EntangledLinear,
    EntangledTransformer,
    MacroSupernet,
    nested_mask,
    outer_probabilities,
)

from .config import Config

LARGE = -1
"The position of the largest option."


def run_mixtures(config: Config, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Differences between the two mixtures by layer, and what the two kinds of supernet weigh."""
    differences = session.once("mixtures compared", _differences, key)
    names, values = list(differences), np.array(list(differences.values()))
    compared = xr.Dataset({"difference": ("layer", values, {"units": "1"})}, {"layer": names})
    return {"mixtures": compared, "costs": _costs(config, session, key)}


def _differences(key: jax.Array) -> dict[str, float]:
    """Largest difference of the mixtures over the largest output, by layer."""
    keys = jax.random.split(key, 4)
    random = host_generator(keys[3])

    def simplex(n: int) -> jax.Array:
        return jnp.asarray(random.dirichlet(np.ones(n)), jnp.float32)

    image = jnp.asarray(random.normal(size=(4, 9, 9)), jnp.float32)
    vectors = jnp.asarray(random.normal(size=(5, 8)), jnp.float32)
    conv = EntangledConv((2, 4, 8), (1, 2, 4), (3, 5, 7), key=keys[0])
    rise = EntangledLinear([(e * r, e) for e in (2, 4, 8) for r in (1, 2, 4)], key=keys[1])
    fall = EntangledLinear([(e, e * r) for e in (2, 4, 8) for r in (1, 2, 4)], key=keys[2])
    norm = EntangledLayerNorm((2, 4, 8))
    norm = eqx.tree_at(lambda one: (one.scale, one.shift), norm, tuple(jnp.asarray(random.normal(size=(2, 8)), jnp.float32)))
    kernel, out, n_in, width, ratio = (simplex(3) for _ in range(5))
    both = outer_probabilities(width, ratio)

    def of_norm(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Scale and shift are what is mixed: statistics are those of the mixed width in both.
        mixed = norm(x, width)
        mask = nested_mask(width, norm.widths)
        unit = eqx.tree_at(lambda one: (one.scale, one.shift), norm, (jnp.ones(8), jnp.zeros(8)))(x, width) / mask
        parts = [p * (jnp.arange(8) < w) * (unit * norm.scale + norm.shift) for p, w in zip(width, norm.widths, strict=True)]
        return mixed, sum(parts, start=jnp.zeros(()))

    @eqx.filter_jit
    def pairs(layers: Any) -> dict[str, tuple[jax.Array, jax.Array]]:
        conv, rise, fall = layers
        hidden = rise(vectors, both)
        return {
            "convolution": (conv(image, out, n_in, kernel), conv.mixed_outputs(image, out, n_in, kernel)),
            "first of a linear pair": (hidden, rise.mixed_outputs(vectors, both)),
            "second of a linear pair": (fall(hidden, both), fall.mixed_outputs(hidden, both)),
            "normalisation": jax.vmap(of_norm)(vectors),
        }

    found = jax.device_get(pairs((conv, rise, fall)))
    return {name: float(np.abs(a - b).max() / np.abs(b).max()) for name, (a, b) in found.items()}


def _costs(config: Config, session: Session, key: jax.Array) -> xr.Dataset:
    """Parameters, and temporary memory and seconds of a compiled step, of the supernets that mix weights and of those that mix outputs."""
    sizes, language = config.mixtures, config.language
    spaces: dict[str, Callable[[Any], Any]] = {
        "macro": lambda mixing: MacroSupernet(
            1, sizes.side, 10, widths=(sizes.macro_widths,) * 2, kernels=(sizes.macro_kernels,) * 2, mixing=mixing, key=key
        ),
    }
    images = jnp.zeros((sizes.batch_size, 1, sizes.side, sizes.side))
    labels = jnp.zeros(sizes.batch_size, jnp.int32)
    memory, seconds = np.zeros((len(spaces), 2)), np.zeros((len(spaces), 2, sizes.repeats))
    for i, (name, make) in enumerate(spaces.items()):
        steps: dict[str, Any] = {}
        for j, mixing in enumerate(("weights", "outputs")):
            net = eqx.filter_jit(make)(mixing)
            uniform = {choice.name: jnp.full(len(choice), 1 / len(choice)) for choice in net.space.choices}
            arrays, rest = eqx.partition(net, eqx.is_inexact_array)

            def loss(arrays: Any, p: Any, images: Any, labels: Any, rest: Any = rest) -> Any:
                logits = jax.vmap(eqx.combine(arrays, rest), (0, None))(images, p)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

            compiled = jax.jit(jax.grad(loss, (0, 1))).lower(arrays, uniform, images, labels).compile()
            # A backend that cannot tell gives None.
            memory[i, j] = getattr(compiled.memory_analysis(), "temp_size_in_bytes", np.nan)
            steps[mixing] = lambda compiled=compiled, arrays=arrays, p=uniform: compiled(arrays, p, images, labels)
        timed = session.timed(f"a step in the {name} space", steps, repeats=sizes.repeats)
        seconds[i] = [timed[mixing] for mixing in ("weights", "outputs")]
    macro = eqx.filter_jit(spaces["macro"])("weights")
    language_net = eqx.filter_eval_shape(
        lambda key: EntangledTransformer(
            84,
            language.context,
            widths=language.widths,
            heads=language.heads,
            ratios=language.ratios,
            depths=language.depths,
            key=key,
        ),
        key,
    )
    largest = [macro.n_parameters((LARGE % len(sizes.macro_widths), LARGE % len(sizes.macro_kernels)) * 2)]
    largest.append(language_net.n_parameters(tuple(n - 1 for n in language_net.space.sizes)))
    total = [_size(macro), _size(language_net)]
    separate = sum(
        _conv_size(out, n_in, side)
        for widths_in in ((1,), sizes.macro_widths)
        for out in sizes.macro_widths
        for n_in in widths_in
        for side in sizes.macro_kernels
    )
    entangled = sum(_conv_size(sizes.macro_widths[-1], n_in, sizes.macro_kernels[-1]) for n_in in (1, sizes.macro_widths[-1]))
    session.note(
        f"C2: convolutions of the macro space have {entangled:,} parameters entangled and {separate:,} with weights of their own for each "
        f"combination of options, {separate / entangled:.2f} times as many; the cell space has two sets of kernels an edge, separable and "
        "dilated, which share nothing, so that there the supernet is larger than any of its networks"
    )
    return xr.Dataset(
        {
            "parameters": (("supernet",), np.array(total), {"units": "1"}),
            "largest": (("supernet",), np.array(largest), {"units": "1"}),
            "memory": (("space", "mixing"), memory, {"units": "byte"}),
            "seconds": (("space", "mixing", "repeat"), seconds, {"units": "s"}),
        },
        {"supernet": ["macro", "language"], "space": list(spaces), "mixing": ["weights", "outputs"]},
    )


def _size(net: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(net) if hasattr(leaf, "shape"))


def _conv_size(out: int, n_in: int, side: int) -> int:
    return out * n_in * side * side + out
