"""C12: what small stretches of a signal do to its Fourier modulus, and to averages of its wavelet moduli."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Between, Measure, Session
from gradatim.nets.geometric import fourier_modulus, wavelet_modulus_averages

HALF_WIDTH = 32.0
"Of the interval that the samples cover, in units in which the signal is exp(-u²/8) wide."
HIGHEST = 120.0
"Centre of the first wavelet, radians a unit."
JUDGED = 0.05
"The stretch at which the Fourier modulus is judged."


@dataclass(frozen=True)
class DeformationsConfig:
    """A short oscillation exp(-u²/8) cos(ξ u), and the same stretched."""

    samples: Annotated[int, Between(4096, 1_000_000)] = 4096
    "On [-32, 32)."
    frequencies: Annotated[tuple[float, ...], Between(1.0, 100.0)] = (5.0, 10.0, 20.0, 40.0)
    "ξ, ascending: the last is the fast one that is judged."
    stretches: Annotated[tuple[float, ...], Between(1e-4, 0.2)] = (0.005, 0.01, 0.02, 0.05, 0.1)
    "ε of u → (1 - ε) u, at least two."
    octaves: Annotated[int, Between(1, 20)] = 8
    "Of wavelets."


def deformations(config: DeformationsConfig, session: Session) -> tuple[Mapping[str, Measure], xr.Dataset]:
    """Relative changes over stretches, for each frequency."""
    spacing = 2 * HALF_WIDTH / config.samples
    stretches = np.unique([0.0, JUDGED, *config.stretches])
    u = -HALF_WIDTH + spacing * np.arange(config.samples)
    inner = (1 - stretches)[None, :, None] * u
    signals = np.exp(-(inner**2) / 8) * np.cos(np.asarray(config.frequencies)[:, None, None] * inner)
    # Waves that cancel to a thousandth of themselves.
    with jax.enable_x64(True):
        one = lambda x: wavelet_modulus_averages(x, spacing=spacing, highest=HIGHEST, octaves=config.octaves)  # noqa: E731
        both = jax.jit(lambda x: (jax.vmap(jax.vmap(fourier_modulus))(x), jax.vmap(jax.vmap(one))(x)))
        moduli, averages = (np.asarray(part) for part in both(jnp.asarray(signals)))
    changes = {
        name: np.linalg.norm(part[:, 1:] - part[:, :1], axis=-1) / np.linalg.norm(part[:, :1], axis=-1)
        for name, part in (("fourier", moduli), ("wavelet", averages))
    }
    stretches = stretches[1:]
    judged = changes["fourier"][:, stretches == JUDGED][:, 0]
    slopes = [float(np.polyfit(np.log(stretches), np.log(row), 1)[0]) for row in changes["wavelet"]]
    measures = {
        "C12.fourier_change": Measure.exact(float(judged[-1])),
        "C12.wavelet_slope": Measure(slopes[-1], min(slopes), max(slopes), "of the fast oscillation, and the range over all of them"),
    }
    session.note(
        f"C12: at a stretch of {JUDGED:g} the Fourier modulus changes by "
        + ", ".join(f"{change:.2f} (ξ = {xi:g})" for xi, change in zip(config.frequencies, judged, strict=True))
        + ", averages of wavelet moduli by "
        + ", ".join(f"{change:.3f}" for change in changes["wavelet"][:, stretches == JUDGED][:, 0])
        + "; √2 is the most that two spectra can differ which nowhere overlap"
    )
    frequencies = 2 * np.pi * np.fft.fftfreq(config.samples, spacing)
    kept = (frequencies >= 0) & (frequencies <= 1.5 * config.frequencies[-1])
    place = 1 + int(np.flatnonzero(stretches == JUDGED)[0])
    data = xr.Dataset(
        {
            "fourier_change": (("frequency", "stretch"), changes["fourier"], {"units": "1"}),
            "wavelet_change": (("frequency", "stretch"), changes["wavelet"], {"units": "1"}),
            "modulus": (("frequency", "state", "wavenumber"), moduli[:, [0, place]][..., kept], {"units": "1"}),
            "averages": (("frequency", "state", "octave"), averages[:, [0, place]], {"units": "1"}),
        },
        {
            "frequency": ("frequency", list(config.frequencies), {"units": "rad"}),
            "stretch": ("stretch", stretches, {"units": "1"}),
            "state": ["as it was", "stretched"],
            "wavenumber": ("wavenumber", frequencies[kept], {"units": "rad"}),
            "octave": ("octave", HIGHEST / 2.0 ** np.arange(config.octaves), {"units": "rad"}),
        },
        {"judged": JUDGED},
    )
    return measures, data
