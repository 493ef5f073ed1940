"""C13: filters that are fitted on a sphere, and what they do on the same sphere after its vertices were jittered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, PRNGKeyArray

from gradatim.lab import Between, Measure, Session, host_generator
from gradatim.nets.geometric import (
    Laplacian,
    Mesh,
    Spectrum,
    cayley_features,
    chebyshev_coefficients,
    chebyshev_features,
    cotangent_laplacian,
    edge_lengths,
    icosphere,
    spectrum,
)

KINDS = ("free", "polynomial", "rational")
DESIGNED = "polynomial by design"
"Through the blur's response all over the range, instead of fitted: what the fit may cost elsewhere."
ROOM = 1.5
"Bound on the eigenvalues over that of the sphere, so that it holds after the jitter too."


@dataclass(frozen=True)
class Transfer:
    """A blur by heat, fitted on a sphere."""

    level: Annotated[int, Between(1, 5)] = 3
    "Refinements of the icosahedron."
    jitter: Annotated[float, Between(0.0, 0.3)] = 0.05
    "Standard deviation of each coordinate's change, over the mean length of edges."
    jitters: Annotated[int, Between(3, 1000)] = 8
    "Jittered spheres, each with signals of its own."
    time: Annotated[float, Between(1e-4, 10.0)] = 0.05
    "Of the heat; the blur is √(2 time) wide."
    signals: Annotated[int, Between(1, 10_000)] = 16
    "Of white noise to fit by, and as many to judge by, for each jitter."
    degree: Annotated[int, Between(1, 100)] = 8
    "Of the Chebyshev polynomial."
    order: Annotated[int, Between(1, 50)] = 4
    "Of the Cayley filter."
    scales: Annotated[tuple[float, ...], Between(1e-5, 100.0)] = (0.003, 0.01, 0.03, 0.1, 0.3)
    "h of the Cayley filter, which takes what fits best on the sphere."


class _Surface(NamedTuple):
    laplacian: Laplacian
    whole: Spectrum


class _Repeat(NamedTuple):
    """Filters that were fitted to signals of their own, and what a jitter of their own does to them."""

    coefficients: dict[str, np.ndarray]
    scale: float
    before: list[float]
    after: list[float]
    outside: float
    "Share of the polynomial's squared error beyond the sphere's eigenvalues."
    moved: float
    "How far a free filter of random signs has its output changed, over that output."
    highest: float
    "Eigenvalue after the jitter."


def transfer(config: Transfer, key: PRNGKeyArray, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """Errors on the sphere and on jittered ones, against the blur of that very surface."""
    random = host_generator(key)
    mesh = icosphere(config.level)
    sphere = _surface(mesh)
    bound, top = ROOM * float(sphere.laplacian.largest()), float(sphere.whole.eigenvalues[-1])
    repeats = [_repeat(config, mesh, sphere, bound, random) for _ in range(config.jitters)]
    first, highest = repeats[0], max(one.highest for one in repeats)
    before, after = (np.array(errors) for errors in ([one.before for one in repeats], [one.after for one in repeats]))
    kinds = (*KINDS, DESIGNED)
    scales = sorted({one.scale for one in repeats})
    session.note(
        f"C13: relative errors of a heat blur on the sphere and after a jitter of {config.jitter:.0%} of an edge: "
        + ", ".join(f"{kind} {before[:, i].mean():.1e} and {after[:, i].mean():.1e}" for i, kind in enumerate(kinds))
        + ". It is the growth that is judged, and a free filter fits the sphere to rounding. A blur gives all of an eigenspace nearly one "
        f"coefficient; a free filter of random signs has its output changed by {np.mean([one.moved for one in repeats]):.2f} of itself. "
        f"The jitter raises the largest eigenvalue from {top:.0f} to {highest:.0f}, beyond what a fit can know of: there lie "
        f"{np.mean([one.outside for one in repeats]):.0%} of the fitted polynomial's squared error. The Cayley filter took h = "
        + ", ".join(f"{scale:g}" for scale in scales)
        + (", at an edge of the grid" if len(config.scales) > 1 and {min(config.scales), max(config.scales)} & {*scales} else "")
    )
    measures = {f"C13.{kind}_error_growth": Measure.paired(after[:, i], before[:, i], kind="log-ratio") for i, kind in enumerate(KINDS)}
    grid = np.geomspace(0.5, highest, 300)
    responses = np.stack([np.exp(-config.time * grid), *_responses(config, bound, first.scale, first.coefficients, grid)])
    data = xr.Dataset(
        {
            "error_before": (("jitter", "kind"), before, {"units": "1"}),
            "error_after": (("jitter", "kind"), after, {"units": "1"}),
            "uneven_change": ("jitter", np.array([one.moved for one in repeats]), {"units": "1"}),
            "response": (("filter", "eigenvalue"), responses, {"units": "1", "long_name": "of the first fit"}),
            "free_response": ("eigenvector", first.coefficients["free"], {"units": "1", "long_name": "of the first fit"}),
            "sphere_eigenvalues": ("eigenvector", sphere.whole.eigenvalues, {"units": "1"}),
        },
        {"kind": list(kinds), "filter": ["heat", "polynomial", "rational", DESIGNED], "eigenvalue": ("eigenvalue", grid, {"units": "1"})},
        {"top": top},
    )
    return measures, data


def _surface(mesh: Mesh) -> _Surface:
    laplacian = cotangent_laplacian(mesh)
    return _Surface(laplacian, spectrum(laplacian, len(mesh.vertices)))


def _repeat(config: Transfer, mesh: Mesh, sphere: _Surface, bound: float, random: np.random.Generator) -> _Repeat:
    n, whole = len(mesh.vertices), sphere.whole
    fitting, judging = random.normal(size=(2, n, config.signals))
    coefficients, scale = _fit(config, sphere.laplacian, whole, bound, fitting)
    coefficients[DESIGNED] = np.asarray(chebyshev_coefficients(lambda values: jnp.exp(-config.time * values), config.degree, bound))
    # No function of the eigenvalue: what only a free filter can be, without a truth elsewhere.
    uneven = random.choice([-1.0, 1.0], n)
    places = mesh.vertices + jnp.asarray(config.jitter * float(edge_lengths(mesh).mean()) * random.normal(size=(n, 3)))
    jittered = _surface(mesh.moved(places))
    found = []
    for surface in (sphere, jittered):
        truth = _blur(config, surface.whole, judging)
        made = _outputs(config, surface.laplacian, surface.whole, bound, scale, coefficients, judging)
        found.append(([_norm(surface.whole, part - truth) / _norm(surface.whole, truth) for part in made], made[1] - truth))
    (before, _), (after, off) = found
    by_eigenvalue = (jittered.whole.coefficients(off) ** 2).sum(axis=1)
    eigenvalues = jittered.whole.eigenvalues
    outside = float(by_eigenvalue[eigenvalues > whole.eigenvalues[-1]].sum() / by_eigenvalue.sum())
    plain, changed = (_through(surface.whole, uneven, judging) for surface in (sphere, jittered))
    moved = _norm(whole, changed - plain) / _norm(whole, plain)
    return _Repeat(coefficients, scale, before, after, outside, moved, float(eigenvalues[-1]))


def _norm(whole: Spectrum, x: np.ndarray) -> float:
    return float(np.sqrt((whole.mass[:, None] * x**2).sum()))


def _through(whole: Spectrum, values: np.ndarray, x: np.ndarray) -> np.ndarray:
    return whole.eigenvectors @ (values[:, None] * whole.coefficients(x))


def _blur(config: Transfer, whole: Spectrum, x: np.ndarray) -> np.ndarray:
    return _through(whole, np.exp(-config.time * whole.eigenvalues), x)


def _polynomial(config: Transfer, laplacian: Laplacian, bound: float, x: np.ndarray) -> np.ndarray:
    return np.asarray(chebyshev_features(laplacian, jnp.asarray(x), config.degree, bound))


def _rational(config: Transfer, laplacian: Laplacian, scale: float, x: np.ndarray) -> np.ndarray:
    return np.asarray(cayley_features(laplacian, jnp.asarray(x), config.order, scale))


def _fit(config: Transfer, laplacian: Laplacian, whole: Spectrum, bound: float, x: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
    """Coefficients by least squares in the inner product of the mesh, and the best scale of the rational ones."""
    target = _blur(config, whole, x)
    inputs, outputs = whole.coefficients(x), whole.coefficients(target)
    root = np.sqrt(whole.mass)[:, None]

    def solved(features: np.ndarray) -> tuple[float, np.ndarray]:
        solution, *_ = np.linalg.lstsq((root * features).reshape(len(features), -1).T, (root * target).ravel())
        return _norm(whole, np.tensordot(solution, features, 1) - target), solution

    rational = {scale: solved(_rational(config, laplacian, scale, x)) for scale in config.scales}
    best = min(rational, key=lambda scale: rational[scale][0])
    found = {
        "free": (inputs * outputs).sum(axis=1) / (inputs**2).sum(axis=1),
        "polynomial": solved(_polynomial(config, laplacian, bound, x))[1],
        "rational": rational[best][1],
    }
    return found, best


def _outputs(
    config: Transfer, laplacian: Laplacian, whole: Spectrum, bound: float, scale: float, coefficients: dict[str, np.ndarray], x: np.ndarray
) -> list[np.ndarray]:
    """Of each kind in order."""
    polynomial, rational = _polynomial(config, laplacian, bound, x), _rational(config, laplacian, scale, x)
    features = {"polynomial": polynomial, "rational": rational, DESIGNED: polynomial}
    return [_through(whole, coefficients["free"], x), *(np.tensordot(coefficients[kind], some, 1) for kind, some in features.items())]


def _responses(config: Transfer, bound: float, scale: float, coefficients: dict[str, np.ndarray], values: np.ndarray) -> list[np.ndarray]:
    """The transfer functions, but for the free one."""
    ratio = (scale * values - 1j) / (scale * values + 1j)
    powers = [ratio**k for k in range(1, config.order + 1)]
    terms = np.stack([np.ones_like(values), *(part for power in powers for part in (power.real, power.imag))])
    fitted, designed = (np.polynomial.chebyshev.chebval(2 * values / bound - 1, coefficients[kind]) for kind in ("polynomial", DESIGNED))
    return [fitted, coefficients["rational"] @ terms, designed]


def surface_rows(mesh: Mesh, random: np.random.Generator) -> dict[str, tuple[float, float]]:
    """The Laplacian and two filters under isometries and new names of vertices; broken where places or names count."""
    n, dtype = len(mesh.vertices), mesh.vertices.dtype
    x = random.normal(size=(n, 2)).astype(dtype)
    c = jnp.asarray(random.normal(size=5), dtype)

    @eqx.filter_jit
    def outputs(mesh: Mesh, x: Array) -> dict[str, Array]:
        laplacian = cotangent_laplacian(mesh)
        flattened = cotangent_laplacian(mesh.moved(mesh.vertices * jnp.asarray([1, 1, 0.3], dtype)[None]))
        largest = laplacian.largest()
        named = x * (1 + jnp.arange(n, dtype=dtype) / n)[:, None]
        polynomial = [jnp.tensordot(c, chebyshev_features(laplacian, one, 4, largest), 1) for one in (x, named)]
        rational = [jnp.tensordot(c, cayley_features(one, x, 2, 0.1), 1) for one in (laplacian, flattened)]
        rows: dict[str, Any] = {"Laplacian": (laplacian(x), flattened(x)), "polynomial": polynomial, "rational": rational}
        return {name: jnp.stack(pair) for name, pair in rows.items()}

    def worst(name: str, found: list[dict[str, np.ndarray]], expected: list[np.ndarray]) -> tuple[float, float]:
        pairs = [(one[name], right) for one, right in zip(found, expected, strict=True)]
        off = [np.abs(one - right).max(axis=(1, 2)) / np.abs(right).max(axis=(1, 2)) for one, right in pairs]
        first, second = np.max(off, axis=0).tolist()
        return first, second

    def on_host(mesh: Mesh, x: np.ndarray) -> dict[str, np.ndarray]:
        return jax.device_get(outputs(mesh, jnp.asarray(x)))

    plain = on_host(mesh, x)
    # Turns, with reflections among them, and shifts.
    motions = [np.linalg.qr(random.normal(size=(3, 3)))[0] * sign for sign in (1, -1, 1, -1)]
    places = [np.asarray(mesh.vertices) @ turn + random.normal(size=(1, 3)) for turn in motions]
    moved = [on_host(mesh.moved(jnp.asarray(vertices, dtype)), x) for vertices in places]
    orders = [random.permutation(n) for _ in range(4)]
    renamed = [on_host(mesh.relabelled(order), x[order]) for order in orders]
    return {
        "cotangent Laplacian, isometries": worst("Laplacian", moved, [plain["Laplacian"]] * len(moved)),
        "polynomial filter, names of vertices": worst("polynomial", renamed, [plain["polynomial"][:, order] for order in orders]),
        "rational filter, isometries": worst("rational", moved, [plain["rational"]] * len(moved)),
    }
