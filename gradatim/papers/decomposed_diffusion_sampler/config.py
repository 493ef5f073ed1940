"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between, OneOf


@dataclass(frozen=True)
class Exact:
    """What needs no network: variances, the recursion of a normal number, tangent spaces."""

    samples: Annotated[int, Between(1000, 10_000_000)] = 200_000
    "Of noise, behind a variance."
    side: Annotated[int, Between(8, 64)] = 16
    "Pixels a side of the images whose denoiser is differentiated."
    images: Annotated[int, Between(3, 1000)] = 8
    "Of these."
    tangent_dimension: Annotated[int, Between(1, 1000)] = 12
    "Directions that the denoiser lets through best."
    levels: Annotated[tuple[int, ...], Between(0, 999)] = (20, 200, 500)
    "Training steps of the noise at which that is looked at."


@dataclass(frozen=True)
class Prior:
    """A network, and the mixture beside it."""

    images: Annotated[int, Between(8, 1_000_000)] = 3072
    "For training, of each network."
    with_network: bool = True
    "Whether a network is trained; the mixture is the prior otherwise."
    widths: Annotated[tuple[int, ...], Between(4, 1024)] = (24, 48)
    "Channels of its stages, multiples of four, the first at half of the images' resolution."
    steps: Annotated[int, Between(1, 10_000_000)] = 900
    "Of Adam, the rate along a cosine to zero."
    batch_size: Annotated[int, Between(1, 10_000)] = 16
    "Images a step."
    rate: Annotated[float, Between(1e-6, 1.0)] = 2e-3
    "The first learning rate."
    components: Annotated[int, Between(1, 10_000)] = 64
    "Of the mixture."
    rank: Annotated[int, Between(0, 1000)] = 12
    "Directions of each."


@dataclass(frozen=True)
class Config:
    """Images of heads, measured by resonance and by projections, reconstructed by every sampler."""

    exact: Exact = Exact()
    "What is known in closed form."
    prior: Prior = Prior()
    "What is known of clean images."
    tasks: Annotated[tuple[str, ...], OneOf("one coil", "coils", "projections", "volumes")] = (
        "one coil",
        "coils",
        "projections",
        "volumes",
    )
    "What is measured."
    resonance_images: Annotated[str, OneOf("mni152", "phantoms")] = "mni152"
    "Slices of a template, turned, shrunk and shifted, or ellipses."
    side: Annotated[int, Between(8, 512)] = 32
    "Pixels a side; data are also made on a grid twice as fine."
    networks: Annotated[int, Between(3, 100)] = 5
    "Of each kind of image, each with its own first weights, training images, measured columns and sets."
    seeds: Annotated[int, Between(3, 100)] = 10
    "Sets of images and of noise, as many for each network."
    images: Annotated[int, Between(1, 1000)] = 6
    "Of each set."
    validation_images: Annotated[int, Between(1, 1000)] = 2
    "Of each network, by which all of them together tune everything; and one volume."
    slices: Annotated[int, Between(2, 1000)] = 12
    "Of a volume, one volume a set."
    few_times: Annotated[int, Between(2, 1000)] = 20
    "Levels of noise, a divisor of 1000."
    times: Annotated[int, Between(2, 1000)] = 50
    "The same, where it is judged."
    many_times: Annotated[int, Between(2, 1000)] = 100
    "The same, of the sampler by back-propagation too."
    inner_steps: Annotated[tuple[int, ...], Between(1, 1000)] = (1, 3, 5, 10)
    "Of conjugate gradients, 5 among them."
    eta: Annotated[float, Between(0.0, 1.0)] = 0.85
    "Share of fresh noise."
    acceleration: Annotated[int, Between(1, 100)] = 4
    "One column of k-space in so many is measured."
    coils: Annotated[int, Between(1, 100)] = 4
    "Receivers."
    noise: Annotated[float, Between(0.0, 1.0)] = 0.01
    "Standard deviation in k-space with several coils, over the range of an image's values."
    views: Annotated[int, Between(1, 1000)] = 8
    "Projection angles, evenly over half a turn."
    limited_views: Annotated[int, Between(1, 1000)] = 24
    "Angles over a quarter turn, of volumes."
    gammas: Annotated[tuple[float, ...], Between(1e-3, 1e6)] = (10.0, 30.0, 1e2, 3e2, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5)
    "Weights of the data with several coils, the best of which is taken."
    dps_steps: Annotated[tuple[float, ...], Between(0.0, 1e3)] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
    "Step sizes of the sampler by back-propagation."
    tv_weights: Annotated[tuple[float, ...], Between(0.0, 10.0)] = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
    "Weights of total variation."
    cutoffs: Annotated[tuple[float, ...], Between(1e-7, 0.9)] = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 0.9)
    "Singular values of the pseudo-inverse, over the largest."
    least_squares_steps: Annotated[tuple[int, ...], Between(1, 10_000)] = (1, 2, 5, 10, 20, 80, 320, 640)
    "Of conjugate gradients without a prior, any number of them."
    rhos: Annotated[tuple[float, ...], Between(1e-6, 1e6)] = (0.001, 0.01, 0.1)
    "Penalties of the splitting across slices."
    thresholds: Annotated[tuple[float, ...], Between(0.0, 100.0)] = (0.03, 0.1, 0.3)
    "Of the differences between slices, λ/ρ, tried with each of them."
    tv_steps: Annotated[int, Between(1, 1_000_000)] = 400
    "Of the primal-dual iteration."
    sigma_max: Annotated[float, Between(1.0, 1e4)] = 100.0
    "Noise that the exploding diffusion begins with."
    with_speed: bool = True
    "Whether samplers are timed."
    pairs: Annotated[int, Between(1, 1_000_000)] = 2000
    "Of predictor and corrector steps."
    timed_pairs: Annotated[int, Between(1, 1_000_000)] = 40
    "Of them that are timed, for all take alike."
    repeats: Annotated[int, Between(3, 100)] = 5
    "Of every timing."
