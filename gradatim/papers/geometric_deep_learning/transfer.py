"""C13: filters that are fitted on a sphere, and what they do on the same sphere after its vertices were jittered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

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
    "Jittered spheres."
    time: Annotated[float, Between(1e-4, 10.0)] = 0.05
    "Of the heat; the blur is √(2 time) wide."
    signals: Annotated[int, Between(1, 10_000)] = 16
    "Of white noise to fit by, and as many to judge by."
    degree: Annotated[int, Between(1, 100)] = 8
    "Of the Chebyshev polynomial."
    order: Annotated[int, Between(1, 50)] = 4
    "Of the Cayley filter."
    scales: Annotated[tuple[float, ...], Between(1e-5, 100.0)] = (0.003, 0.01, 0.03, 0.1, 0.3)
    "h of the Cayley filter, which takes what fits best on the sphere."


def transfer(config: Transfer, key: PRNGKeyArray, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """Errors on the sphere and on jittered ones, against the blur of that very surface."""
    random = host_generator(key)
    mesh = icosphere(config.level)
    n, edge = len(mesh.vertices), float(edge_lengths(mesh).mean())
    laplacian = cotangent_laplacian(mesh)
    whole = spectrum(laplacian, n)
    fitting, judging = random.normal(size=(2, n, config.signals))
    bound = ROOM * float(laplacian.largest())
    coefficients, scale = _fit(config, laplacian, whole, bound, fitting)
    # No function of the eigenvalue: what only a free filter can be, without a truth elsewhere.
    uneven = random.choice([-1.0, 1.0], n)

    coefficients[DESIGNED] = np.asarray(chebyshev_coefficients(lambda values: jnp.exp(-config.time * values), config.degree, bound))
    top = float(whole.eigenvalues[-1])

    def evaluate(laplacian: Laplacian, whole: Spectrum) -> tuple[list[float], float, np.ndarray]:
        truth, made = _blur(config, whole, judging), _outputs(config, laplacian, whole, bound, scale, coefficients, judging)
        errors = [_norm(whole, part - truth) / _norm(whole, truth) for part in made]
        by_eigenvalue = (whole.coefficients(made[1] - truth) ** 2).sum(axis=1)
        above = float(by_eigenvalue[whole.eigenvalues > top].sum() / by_eigenvalue.sum())
        return errors, above, _through(whole, uneven, judging)

    before, _, uneven_before = evaluate(laplacian, whole)
    after, outside, moved, highest = [], [], [], 0.0
    for _ in range(config.jitters):
        jittered = mesh.moved(mesh.vertices + jnp.asarray(config.jitter * edge * random.normal(size=(n, 3))))
        other = cotangent_laplacian(jittered)
        spectrum_there = spectrum(other, n)
        highest = max(highest, float(spectrum_there.eigenvalues[-1]))
        errors, above, uneven_after = evaluate(other, spectrum_there)
        after.append(errors)
        outside.append(above)
        moved.append(_norm(whole, uneven_after - uneven_before) / _norm(whole, uneven_before))
    found = np.array(after)
    growth = {kind: Measure.paired(found[:, i], np.full(config.jitters, before[i]), kind="log-ratio") for i, kind in enumerate(KINDS)}
    kinds = (*KINDS, DESIGNED)
    session.note(
        f"C13: relative errors of a heat blur on the sphere and after a jitter of {config.jitter:.0%} of an edge: "
        + ", ".join(f"{kind} {before[i]:.1e} and {found[:, i].mean():.1e}" for i, kind in enumerate(kinds))
        + ". It is the growth that is judged, and a free filter fits the sphere to rounding. A blur gives all of an eigenspace nearly one "
        f"coefficient; a free filter of random signs has its output changed by {np.mean(moved):.2f} of itself. "
        f"The jitter raises the largest eigenvalue from {top:.0f} to {highest:.0f}, beyond what a fit can know of: there lie "
        f"{np.mean(outside):.0%} of the fitted polynomial's squared error. The Cayley filter took h = {scale:g}"
        + (", at an edge of the grid" if len(config.scales) > 1 and scale in (min(config.scales), max(config.scales)) else "")
    )
    measures = {f"C13.{kind}_error_growth": growth[kind] for kind in KINDS}
    grid = np.geomspace(0.5, highest, 300)
    transfers = np.stack([np.exp(-config.time * grid), *_responses(config, bound, scale, coefficients, grid)])
    data = xr.Dataset(
        {
            "error_before": ("kind", np.array(before), {"units": "1"}),
            "error_after": (("jitter", "kind"), found, {"units": "1"}),
            "uneven_change": ("jitter", np.array(moved), {"units": "1"}),
            "response": (("filter", "eigenvalue"), transfers, {"units": "1"}),
            "free_response": ("eigenvector", coefficients["free"], {"units": "1"}),
            "sphere_eigenvalues": ("eigenvector", whole.eigenvalues, {"units": "1"}),
        },
        {"kind": list(kinds), "filter": ["heat", "polynomial", "rational", DESIGNED], "eigenvalue": ("eigenvalue", grid, {"units": "1"})},
        {"top": top},
    )
    return measures, data


def _norm(whole: Spectrum, x: np.ndarray) -> float:
    return float(np.sqrt((whole.mass[:, None] * x**2).sum()))


def _through(whole: Spectrum, values: np.ndarray, x: np.ndarray) -> np.ndarray:
    return whole.eigenvectors @ (values[:, None] * whole.coefficients(x))


def _blur(config: Transfer, whole: Spectrum, x: np.ndarray) -> np.ndarray:
    return _through(whole, np.exp(-config.time * whole.eigenvalues), x)


def _features(config: Transfer, laplacian: Laplacian, bound: float, scale: float, x: np.ndarray) -> dict[str, np.ndarray]:
    signal = jnp.asarray(x)
    polynomial = chebyshev_features(laplacian, signal, config.degree, bound)
    return {"polynomial": np.asarray(polynomial), "rational": np.asarray(cayley_features(laplacian, signal, config.order, scale))}


def _fit(config: Transfer, laplacian: Laplacian, whole: Spectrum, bound: float, x: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
    """Coefficients by least squares in the inner product of the mesh, and the best scale of the rational ones."""
    target = _blur(config, whole, x)
    inputs, outputs = whole.coefficients(x), whole.coefficients(target)
    found = {"free": (inputs * outputs).sum(axis=1) / (inputs**2).sum(axis=1)}
    root = np.sqrt(whole.mass)[:, None]
    best = np.inf
    scale = config.scales[0]
    for one in config.scales:
        for kind, features in _features(config, laplacian, bound, one, x).items():
            solution, *_ = np.linalg.lstsq((root * features).reshape(len(features), -1).T, (root * target).ravel())
            left = _norm(whole, np.tensordot(solution, features, 1) - target)
            if kind == "polynomial":
                found[kind] = solution
            elif left < best:
                best, scale, found[kind] = left, one, solution
    return found, scale


def _outputs(
    config: Transfer, laplacian: Laplacian, whole: Spectrum, bound: float, scale: float, coefficients: dict[str, np.ndarray], x: np.ndarray
) -> list[np.ndarray]:
    """Of each kind in order."""
    features = _features(config, laplacian, bound, scale, x)
    features[DESIGNED] = features["polynomial"]
    return [
        _through(whole, coefficients["free"], x),
        *(np.tensordot(coefficients[kind], features[kind], 1) for kind in (*KINDS[1:], DESIGNED)),
    ]


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
