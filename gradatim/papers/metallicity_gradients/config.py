"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between, OneOf


@dataclass(frozen=True)
class Telescope:
    """How the galaxies are seen."""

    pixels: Annotated[int, Between(8, 256)] = 36
    "A side of the map."
    pixel: Annotated[float, Between(0.01, 1.0)] = 0.08
    "Its side, and the step of the slit, arc seconds."
    slit: Annotated[float, Between(0.01, 2.0)] = 0.2
    "Width of the slit, arc seconds."
    beam: Annotated[float, Between(0.01, 2.0)] = 0.15
    "Full width at half maximum, arc seconds."
    resolving_power: Annotated[float, Between(100.0, 1e5)] = 2700.0
    "Wavelength over the full width of a line at half maximum."
    channel: Annotated[float, Between(0.05, 10.0)] = 1.1
    "Width of a channel at rest, Å."
    signal_to_noise: Annotated[float, Between(1.0, 1e6)] = 30.0
    "Of Hα in the brightest pixel."
    oversampling: Annotated[int, Between(1, 20)] = 2
    "Finer pixels in a pixel for the model that is fitted; twice as many make the galaxies."


@dataclass(frozen=True)
class Truth:
    """The population that the galaxies are drawn from: invented, of the size of the article's."""

    intercept: Annotated[float, Between(-1.0, 1.0)] = -0.005
    "Gradient at 10¹⁰ solar masses, dex/kpc."
    slope: Annotated[float, Between(-1.0, 1.0)] = -0.015
    "Its change with log mass, dex/kpc per dex."
    scatter: Annotated[float, Between(0.0, 1.0)] = 0.015
    "About the line, dex/kpc."
    mass_error: Annotated[float, Between(0.0, 1.0)] = 0.1
    "Of the log masses as measured, dex."


@dataclass(frozen=True)
class Config:
    """Surveys of simulated galaxies, analysed from their cubes."""

    galaxies: Annotated[int, Between(5, 30)] = 25
    "The first of the table."
    surveys: Annotated[int, Between(3, 1000)] = 12
    "Repetitions: gradients, orientations, measured masses and noise."
    telescope: Telescope = Telescope()
    "Pixels, slit, beam, channels and noise."
    truth: Truth = Truth()
    "What is to be found again."
    calibration: Annotated[str, OneOf("pp04-n2", "m13-n2", "b18-n2", "c20-n2")] = "pp04-n2"
    "Of [N II]/Hα, of galaxies and analysis alike."
    fitted: Annotated[int, Between(16, 65_536)] = 256
    "Brightest pixels whose lines are fitted for the rotation."
    rings: Annotated[int, Between(3, 100)] = 6
    "Of the naive profile, out to 2.5 effective radii."
    repeats: Annotated[int, Between(30, 100_000)] = 600
    "Of the population step alone, with the errors of the surveys."
