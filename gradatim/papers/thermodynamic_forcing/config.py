"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Gas:
    """A homogeneous gas without fields, under one force at a time."""

    theta: Annotated[float, Between(1e-6, 1.0)] = 1e-4
    "Temperature, in m c²: low, for the coefficient of Chapman and Enskog."
    particles: Annotated[int, Between(100, 100_000_000)] = 1_000_000
    "Particles, an even number."
    steps: Annotated[int, Between(5, 10_000)] = 40
    "Time steps."
    eta: Annotated[float, Between(1e-3, 1.0)] = 0.03
    "v_th t / L at the end: small, for the linear growth."
    strain: Annotated[float, Between(1e-3, 3.0)] = 0.5
    "Rate of strain times time, at the end."
    seeds: Annotated[int, Between(3, 1000)] = 5
    "Repetitions with new particles."


@dataclass(frozen=True)
class Motion:
    """Single particles under the temperature gradient's force, along a magnetic field."""

    theta: Annotated[float, Between(1e-6, 1.0)] = 0.1
    "Temperature, in m c²."
    particles: Annotated[int, Between(10, 1_000_000)] = 1000
    "Particles, thermal."
    time: Annotated[float, Between(0.01, 10.0)] = 1.2
    "End time, L / c."
    steps: Annotated[tuple[int, ...], Between(2, 10_000)] = (6, 12, 24, 48)
    "Numbers of steps, ascending, whose errors give the order."
    speeds: Annotated[int, Between(11, 100_000)] = 601
    "Speeds tried around that from which a particle runs away."
    patience: Annotated[float, Between(10.0, 10_000.0)] = 120.0
    "How long one may take to run away, L / c."


@dataclass(frozen=True)
class Boxes:
    """Particle-in-cell simulations; lengths in gyroradii, times in inverse gyrofrequencies of the electrons."""

    shape: Annotated[tuple[int, ...], Between(8, 100_000)] = (213,)
    "Cells; two numbers for two dimensions."
    theta: Annotated[float, Between(1e-4, 1.0)] = 0.1
    "Electron temperature, in m c²."
    beta: Annotated[float, Between(0.1, 1000.0)] = 40.0
    "Electron pressure over magnetic pressure."
    low_beta: Annotated[float, Between(0.1, 1000.0)] = 1.0
    "The same where the forcing should not be trusted."
    dx: Annotated[float, Between(0.01, 10.0)] = 0.6
    "Cell, in c/ωₚ."
    courant: Annotated[float, Between(0.01, 0.99)] = 0.94
    "Time step over the largest stable one."
    gradient_length: Annotated[float, Between(1.0, 100_000.0)] = 40.0
    "Length of the temperature gradient; the paper's regime is some hundreds, where a run takes as many times as long."
    shear: Annotated[float, Between(0.0, 1.0)] = 0.004
    "Rate of strain of the velocity gradient."
    angle: Annotated[float, Between(1.0, 89.0)] = 70.0
    "Between the box and the magnetic field, degrees, where the firehose is to grow: it is an oblique mode."
    time: Annotated[float, Between(1.0, 100_000.0)] = 60.0
    "End time."
    per_cell: Annotated[int, Between(2, 1_000_000)] = 300
    "Particles a cell, with the field along the box."
    oblique_per_cell: Annotated[int, Between(2, 1_000_000)] = 200
    "Particles a cell, with the field across it."
    cap: Annotated[float, Between(2.0, 100.0)] = 4.0
    "Speed, in units of √(2θ), beyond which a particle is drawn anew."
    ion_mass: Annotated[float, Between(0.0, 10_000.0)] = 0.0
    "Mass of mobile ions, electrons' masses; 0 for a uniform background at rest."
    looks: Annotated[int, Between(10, 10_000)] = 150
    "How often the plasma is looked at."
    seeds: Annotated[int, Between(3, 1000)] = 20
    "Repetitions with new particles, the same for every box."


@dataclass(frozen=True)
class Config:
    """Everything that changes the outcome."""

    gas: Gas = field(default_factory=Gas)
    motion: Motion = field(default_factory=Motion)
    boxes: Boxes = field(default_factory=Boxes)
