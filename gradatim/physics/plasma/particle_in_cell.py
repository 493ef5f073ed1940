"""An electromagnetic particle-in-cell simulation of a periodic plasma with thermodynamic forces, in one or two dimensions.

The method of P. Pal Choudhury and A. F. A. Bott, arXiv:2504.14000 (2025): a standard code (C. K. Birdsall and A. B. Langdon, Plasma Physics
via Computer Simulation, 1985) whose pusher also feels the force.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.numerics.checks import is_known

from . import weights, yee
from .pushers import SPLITTINGS, Pusher, vay
from .species import Particles, Species
from .vectors import Scalar, Vector, add, velocity

_STRIDE = 1607
"How far the pool of fresh momenta is turned each step: a prime, so that it comes round to the same particles late."


class PlasmaState(NamedTuple):
    """Fields without the uniform background field: E and positions at step n, B and momenta half a step before."""

    electric: Vector
    magnetic: Vector
    particles: tuple[Particles, ...]
    steps: Int[Array, ""]


class ParticleInCell(eqx.Module):
    """A periodic plasma: Maxwell's equations on Yee's grid, linear weights, currents that conserve charge; `state = model(state)`.

        ∂B/∂t = -∇ × E,   ∂E/∂t = ∇ × B - J,   du/dt = (q/m)(E + v × (B + B₀)) + F(u)

    in one dimension (all components of fields and velocities, nothing depends on y and z) or two. Units: c = ωₚ = mₑ = e = 1 for the
    electrons' density of one, so lengths are in c/ωₚ. The mean current is kept: it drives the uniform field that holds a drift back,
    without which a temperature gradient's heat flux is another.

    **Arguments:** `shape`: cells, `(nx,)` or `(nx, ny)`; `species`: those that move; `dx`: the side of a cell; `dt` below
    dx / √dimensions; `magnetic` B₀: the uniform field, three components; `pusher`: `vay`, `boris` or `higuera_cary`; `splitting`: how a
    force goes in; `filter_passes`: of the binomial filter on the current, two as usual; `mesh`: devices over all of whose axes the
    particles are spread, while the fields are on each of them and currents are summed over all. None: no spreading.

    Which fresh momenta a capped particle gets depends on the spreading; all else does not, but for the order of sums.
    Compiles once for each `shape` and number of particles; all else that is an array may change, be differentiated or batched. In single
    precision Gauss's law holds to 1e-5 of the density over thousands of steps.

    **Raises:** `ValueError` for a step beyond the stability bound, cells or species that cannot be. **Warns** where dx > 3 λ_D, a Debye
    length that the grid does not resolve: it heats the plasma until it does.

    >>> electrons = Species(0.1, 50)
    >>> model = ParticleInCell((32,), [electrons], dx=0.6, dt=0.5)
    >>> state = eqx.filter_jit(model)(eqx.filter_jit(model.start)(jax.random.key(0)))
    >>> float(abs(model.gauss_error(state)).max()) < 1e-5
    True
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    species: tuple[Species, ...]
    dx: Scalar
    dt: Scalar
    magnetic: Vector
    pusher: Pusher = eqx.field(static=True)
    splitting: str = eqx.field(static=True)
    filter_passes: int = eqx.field(static=True)
    mesh: Mesh | None = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        species: Sequence[Species],
        *,
        dx: Scalar,
        dt: Scalar,
        magnetic: tuple[Scalar, ...] = (0.0, 0.0, 0.0),
        pusher: Pusher = vay,
        splitting: str = "strang",
        filter_passes: int = 2,
        mesh: Mesh | None = None,
    ):
        if len(shape) not in (1, 2) or min(shape) < 2:
            raise ValueError(f"shape must be (nx,) or (nx, ny) of at least 2 cells each, got {shape}")
        if not species:
            raise ValueError("species must be at least one, got none")
        if len(magnetic) != 3:
            raise ValueError(f"magnetic must have three components, got {len(magnetic)}")
        if splitting not in SPLITTINGS:
            raise ValueError(f"splitting must be one of {SPLITTINGS}, got {splitting!r}")
        if filter_passes < 0:
            raise ValueError(f"filter_passes must be at least 0, got {filter_passes}")
        if is_known(dx) and not float(dx) > 0:
            raise ValueError(f"dx must be positive, got {float(dx)}")
        if is_known(dx, dt):
            bound = float(dx) / math.sqrt(len(shape))
            if not 0 < float(dt) < bound:
                raise ValueError(f"dt must lie between 0 and {bound:g} = dx / √{len(shape)}, or light outruns the grid; got {float(dt):g}")
        for one in species:
            _warn_of_heating(one, dx)
            if mesh is not None and (math.prod(shape) * one.per_cell) % mesh.size:
                raise ValueError(
                    f"per_cell times cells must be a multiple of the {mesh.size} devices of the mesh, "
                    f"got {one.per_cell} x {math.prod(shape)} = {one.per_cell * math.prod(shape)} particles"
                )
        self.shape, self.species, self.dx, self.dt = shape, tuple(species), dx, dt
        self.magnetic, self.pusher, self.splitting = Vector(*magnetic), pusher, splitting
        self.filter_passes, self.mesh = filter_passes, mesh

    def start(
        self,
        key: PRNGKeyArray,
        *,
        momenta: Sequence[Vector] | None = None,
        positions: Sequence[weights.Position] | None = None,
    ) -> PlasmaState:
        """Thermal particles, evenly spaced in random order, and the field of their charge; or as given, species by species.

        Even spacing makes the first density smooth, not the velocities random in space: the seed of an instability is their noise.
        """
        n_cells = math.prod(self.shape)
        dtype = jnp.result_type(float)
        particles = []
        for i, species in enumerate(self.species):
            keys = jax.random.split(jax.random.fold_in(key, i), 3)
            n = n_cells * species.per_cell
            u = species.draw(keys[0], n) if momenta is None else momenta[i]
            where = self._lattice(keys[1], species.per_cell, dtype) if positions is None else positions[i]
            for name, parts, wanted in (("momenta", u, 3), ("positions", where, len(self.shape))):
                if len(parts) != wanted or any(part.shape != (n,) for part in parts):
                    raise ValueError(f"{name}[{i}] must be {wanted} arrays of shape ({n},), got {[part.shape for part in parts]}")
            fresh = Vector(*(jnp.zeros(0, dtype),) * 3) if species.cap is None else species.draw(keys[2], n + n % 2)
            fresh = Vector(*(part[:n] for part in fresh))
            particles.append(Particles(tuple(where), u, fresh, jnp.zeros((), jnp.int32)))
        none = Vector(*(jnp.zeros(self.shape, dtype) for _ in range(3)))
        state = PlasmaState(none, none, tuple(particles), jnp.zeros((), jnp.int32))
        state = state._replace(electric=yee.field_of_charge(yee.smooth(self.charge_density(state), self.filter_passes), self.dx))
        return self.spread(state)

    def spread(self, state: PlasmaState) -> PlasmaState:
        """The state with its particles laid out over the devices of the mesh, as a step leaves them; unchanged without a mesh."""
        if self.mesh is None:
            return state
        whole, parts = (NamedSharding(self.mesh, spec) for spec in (PartitionSpec(), PartitionSpec(self.mesh.axis_names)))
        particles = jax.tree.map(lambda leaf: parts if leaf.ndim else whole, state.particles)
        return jax.device_put(state, jax.tree.map(lambda _: whole, state)._replace(particles=particles))

    def __call__(self, state: PlasmaState) -> PlasmaState:
        """One step."""
        faraday = yee.curl_of_electric(state.electric, self.dx)
        magnetic = add(state.magnetic, faraday, -0.5 * self.dt)
        nodes = yee.at_nodes(state.electric, magnetic)
        advance = self._advance if self.mesh is None else self._on_all_devices(self.mesh, state)
        particles, total = advance(nodes, state.particles, state.steps)
        smoothed = Vector(*(yee.smooth(part, self.filter_passes) for part in total))
        magnetic = add(magnetic, faraday, -0.5 * self.dt)
        electric = add(add(state.electric, yee.curl_of_magnetic(magnetic, self.dx), self.dt), smoothed, -self.dt)
        return PlasmaState(electric, magnetic, particles, state.steps + 1)

    def charge_density(self, state: PlasmaState) -> Float[Array, "*cells"]:
        """ρ at the nodes, of the species that move."""
        total = jnp.zeros(self.shape, state.electric.x.dtype)
        for species, particles in zip(self.species, state.particles, strict=True):
            total = total + species.charge / species.per_cell * weights.density(particles.position, self.shape)
        return total

    def gauss_error(self, state: PlasmaState) -> Float[Array, "*cells"]:
        """∇·E minus the (filtered) charge density and its background: zero at the start, and kept so."""
        rho = yee.smooth(self.charge_density(state), self.filter_passes)
        return yee.divergence_of_electric(state.electric, self.dx) - (rho - rho.mean())

    def _advance(
        self, nodes: list[Array], particles: tuple[Particles, ...], steps: Int[Array, ""], axes: tuple[str, ...] = ()
    ) -> tuple[tuple[Particles, ...], Vector]:
        """Pushes and moves what particles this device has; their current, of all devices."""
        moved, total = [], Vector(*(jnp.zeros(self.shape, nodes[0].dtype) for _ in range(3)))
        for species, mine in zip(self.species, particles, strict=True):
            u = self._pushed(species, mine, nodes)
            count = jnp.zeros((), jnp.int32)
            if species.cap is not None:
                u, count = species.cap(u, mine.fresh, steps * _STRIDE)
            v = velocity(u)
            position, unwrapped = zip(*map(self._wrapped, mine.position, v, self.shape), strict=True)
            travelled = weights.current(mine.position, unwrapped, v, self.shape)
            share = species.charge / species.per_cell
            cells = Vector(*(share * (self.dx / self.dt if axis < len(self.shape) else 1.0) for axis in range(3)))
            total = Vector(*(sum_ + scale * part for sum_, scale, part in zip(total, cells, travelled, strict=True)))
            if axes:
                count = jax.lax.psum(count, axes)
            moved.append(Particles(position, u, mine.fresh, mine.redrawn + count))
        return tuple(moved), jax.lax.psum(total, axes) if axes else total

    def _pushed(self, species: Species, particles: Particles, nodes: list[Array]) -> Vector:
        # In one dimension ∇·B = 0 leaves no Bₓ but the background's.
        which = [0, 1, 2, 4, 5] if len(self.shape) == 1 else range(6)
        found = weights.gather([nodes[i] for i in which], particles.position)
        at = dict(zip(which, found, strict=True))
        electric = Vector(at[0], at[1], at[2])
        magnetic = Vector(at.get(3, 0.0) + self.magnetic.x, at[4] + self.magnetic.y, at[5] + self.magnetic.z)
        ratio = species.charge / species.mass
        return self.pusher(particles.momentum, electric, magnetic, self.dt, ratio, force=species.force, splitting=self.splitting)

    def _wrapped(self, position: Array, speed: Array, n: int) -> tuple[Array, Array]:
        """The new position, and the same without the jump at the edge: exactly as far from the old one as what is stored."""
        free = position + self.dt / self.dx * speed
        turns = jnp.floor(free / n) * n
        wrapped = free - turns
        return wrapped, wrapped + turns

    def _lattice(self, key: PRNGKeyArray, per_cell: int, dtype) -> weights.Position:
        n_inside = [per_cell]
        if len(self.shape) == 2:
            first = max(d for d in range(1, math.isqrt(per_cell) + 1) if per_cell % d == 0)
            n_inside = [first, per_cell // first]
        axes = [(jnp.arange(n * m, dtype=dtype) + 0.5) / m for n, m in zip(self.shape, n_inside, strict=True)]
        order = jax.random.permutation(key, math.prod(self.shape) * per_cell)
        return tuple(part.ravel()[order] for part in jnp.meshgrid(*axes, indexing="ij"))

    def _on_all_devices(self, mesh: Mesh, state: PlasmaState):
        axes = mesh.axis_names
        whole = PartitionSpec()
        particles = jax.tree.map(lambda leaf: PartitionSpec(axes) if leaf.ndim else whole, state.particles)
        arrays, others = eqx.partition(self, eqx.is_array)

        def advance(arrays, nodes, particles, steps):
            return ParticleInCell._advance(eqx.combine(arrays, others), nodes, particles, steps, axes)

        everywhere = jax.shard_map(advance, mesh=mesh, in_specs=(whole, whole, particles, whole), out_specs=(particles, whole))
        return partial(everywhere, arrays)


def _warn_of_heating(species: Species, dx: Scalar) -> None:
    known = (dx, species.theta, species.charge, species.mass)
    if not is_known(*known) or float(species.charge) == 0:
        return
    debye = math.sqrt(float(species.theta) * float(species.mass)) / abs(float(species.charge))
    if float(dx) > 3 * debye:
        warnings.warn(
            f"dx should be at most 3 Debye lengths of every species, 3 x {debye:.3g} = {3 * debye:.3g}, got {float(dx):g}: "
            "the grid will heat the plasma; take smaller cells or a higher theta",
            stacklevel=3,
        )
