"""The sizes of the experiments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between, OneOf

Sizes = Annotated[tuple[int, ...], Between(1, 1_000_000)]


@dataclass(frozen=True)
class Gaussian:
    """Regression on normal features with a power-law spectrum."""

    exponent: Annotated[float, Between(0.1, 4)] = 1.0
    "α of the spectrum i^-(1+α)."
    features: Annotated[int, Between(20, 100_000)] = 1000
    "Teacher features where resolution limits."
    sizes: Sizes = (20, 50, 100, 200)
    "Samples, or student features, where resolution limits; the largest draws all smaller ones."
    draws: Annotated[int, Between(3, 10_000)] = 150
    "Draws of samples and of projections."
    few: Annotated[int, Between(2, 1000)] = 20
    "Student features, or samples, where variance limits."
    few_features: Annotated[int, Between(10, 10_000)] = 200
    "Teacher features there."
    long_sizes: Sizes = (320, 640, 1280, 2560)
    "Samples, or student features, there: from sixteen times the few, away from the peak; four or more."
    long_draws: Annotated[int, Between(3, 10_000)] = 32
    "Draws there."


@dataclass(frozen=True)
class Images:
    """Random ReLU features of images, all images together as the population."""

    data: Annotated[str, OneOf("mnist-5k", "digits")] = "mnist-5k"
    "Images; training and test parts together are the population, of which the samples are a part."
    resolutions: Sizes = (4, 7, 14, 28)
    "Pixels a side, to which images are averaged down."
    features: Annotated[int, Between(50, 20_000)] = 2000
    "Teacher features: units of the random layer."
    sizes: Sizes = (16, 23, 32, 45, 64, 91, 128, 181, 256)
    "Samples, or student features; those up to `last` are fitted."
    last: Annotated[int, Between(4, 10_000)] = 100
    "The last size and the last rank of the fits: a twentieth of the features, beyond which their finite number bends the spectrum."
    grid: Sizes = (16, 32, 64, 128)
    "Samples and student features of the exchange, at the last resolution."
    draws: Annotated[int, Between(1, 1000)] = 4
    "Draws of samples and of projections for each seed."
    grid_layers: Annotated[int, Between(3, 1000)] = 12
    "Draws of the random layer for the exchange."
    grid_draws: Annotated[int, Between(1, 1000)] = 12
    "Draws of samples and of projections for each of them."
    seeds: Annotated[int, Between(3, 100)] = 3
    "Draws of the random layer for the exponents."


@dataclass(frozen=True)
class Students:
    """Students of random networks on cubes."""

    dimensions: Sizes = (2, 4)
    "Of the cubes [-1, 1]ᵈ."
    teacher_width: Annotated[int, Between(2, 1024)] = 32
    "Units of the teacher's two hidden layers."
    width: Annotated[int, Between(2, 1024)] = 64
    "Units of the student's."
    sizes: Sizes = (64, 128, 256, 512, 1024, 2048)
    "Training samples."
    steps: Annotated[int, Between(10, 1_000_000)] = 12_000
    "Adam steps, the rate falling to zero as a cosine."
    batch_size: Annotated[int, Between(1, 4096)] = 64
    "Samples a step, drawn with replacement."
    learning_rate: Annotated[float, Between(1e-6, 1)] = 3e-3
    "At the start."
    n_test: Annotated[int, Between(10, 100_000)] = 1000
    "Test samples; the lowest test loss along training counts."
    seeds: Annotated[int, Between(3, 100)] = 20
    "Teachers, students and samples."


@dataclass(frozen=True)
class Widths:
    """Networks of two hidden layers beside their linearisations, on whether a digit is odd."""

    widths: Sizes = (32, 64, 128, 256, 512, 1024)
    "Units of both hidden layers; four or more."
    n_train: Annotated[int, Between(2, 1437)] = 64
    "Training images."
    n_test: Annotated[int, Between(10, 360)] = 300
    "Test images."
    steps: Annotated[int, Between(1, 10_000)] = 30
    "Of full-batch gradient descent."
    learning_rate: Annotated[float, Between(1e-6, 10)] = 0.3
    "In the NTK parametrisation, for inputs of unit mean square."
    pairs: Annotated[int, Between(3, 1000)] = 50
    "Pairs of initialisations, twice the 50 networks of the paper: the second has the first one's last layer with its sign changed."


@dataclass(frozen=True)
class Samples:
    """Small networks trained on samples of a finite population, drawn with replacement: all of it is the infinite sample."""

    population: Annotated[int, Between(50, 1437)] = 512
    "Digits, 4 × 4 pixels."
    width: Annotated[int, Between(2, 256)] = 8
    "Units of both hidden layers."
    sizes: Sizes = (2048, 4096, 8192, 16_384)
    "Samples, drawn with replacement at no cost, and far more than the 300 parameters; four or more."
    draws: Annotated[int, Between(2, 1000)] = 8
    "Draws of each size for each seed."
    steps: Annotated[int, Between(1, 100_000)] = 300
    "Of full-batch gradient descent with momentum 0.9."
    learning_rate: Annotated[float, Between(1e-6, 10)] = 0.1
    "Constant."
    seeds: Annotated[int, Between(3, 1000)] = 96
    "Initialisations, many: with squared loss some end better for the noise of their samples, and only the mean is worse."


@dataclass(frozen=True)
class Labels:
    """Regression of classes with the tangent kernel of one wide hidden layer."""

    data: Annotated[str, OneOf("mnist-5k", "digits")] = "mnist-5k"
    "Images, with their own test part."
    sizes: Sizes = (64, 128, 256, 512, 1024, 2048)
    "Training images."
    noise: Annotated[tuple[float, ...], Between(0, 100)] = (0.0, 0.5, 1.0)
    "Standard deviations of the normal noise on every pixel, whose range is 1, of training and of test images."
    seeds: Annotated[int, Between(3, 100)] = 5
    "Orders of the training images, and noises."


@dataclass(frozen=True)
class Config:
    """Six experiments."""

    gaussian: Gaussian = Gaussian()
    "All four regimes, exactly."
    images: Images = Images()
    "Exponents and spectra of images, and the exchange of samples and features."
    students: Students = Students()
    "Exponents and dimensions."
    widths: Widths = Widths()
    "Variance of finite widths."
    samples: Samples = Samples()
    "Variance of finite samples."
    labels: Labels = Labels()
    "What changes an exponent."
