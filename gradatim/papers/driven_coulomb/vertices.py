"""C5: the two nonlinear terms of the critical theory on random fields."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Measure, Session
from gradatim.numerics import PeriodicGrid, fit_power_law
from gradatim.physics import electrolyte as el

from .config import Vertices

_TERMS = ("keller_segel", "polarity")


def run_vertices(config: Vertices, session: Session) -> Findings:
    """How both terms scale when a signal is stretched, and whether the first is a double divergence."""
    key = jax.random.fold_in(session.key, 4)
    n = config.cells

    def terms(box: float) -> tuple[Array, Array]:
        """The sizes of both terms of one signal in a box, and how far the first is from a double divergence."""
        grid = PeriodicGrid((n, n), box)
        signal = grid.backward(grid.white_noise(key, jnp.float64) * grid.dealiased())
        direct = [el.keller_segel_term(grid, signal), el.polarity_term(grid, signal)]
        sizes = jnp.stack([jnp.sqrt(jnp.mean(term**2)) for term in direct])
        source = -grid.laplacian() * grid.forward(signal)
        double = el.PolarChemotaxis(grid, mu_ks=1.0).nonlinear_terms(source)
        whole = grid.forward(direct[0]) * grid.dealiased()
        return sizes, jnp.abs(double - whole).max() / jnp.abs(whole).max()

    found = jax.jit(lambda: [terms(stretch * n) for stretch in config.stretches])()
    sizes = np.stack([np.asarray(size) for size, _ in found], 1)
    law = fit_power_law(jnp.asarray(config.stretches), jnp.asarray(sizes))
    error = max(float(distance) for _, distance in found)
    difference = float(law.exponent[0] - law.exponent[1])
    measures = {
        "C5.dimension_difference": Measure.exact(difference, 2 * float(law.standard_error.sum())),
        "C5.vertex_identity_error": Measure.exact(error),
    }
    data = xr.Dataset(
        {"size": (("term", "stretch"), sizes, {"units": "1"}), "exponent": ("term", np.asarray(law.exponent), {"units": "1"})},
        {"term": list(_TERMS), "stretch": list(config.stretches)},
    )
    return Findings(measures, xr.DataTree.from_dict({"vertices": data}))
