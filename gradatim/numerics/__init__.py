"""The ground floor: numerical methods that several rooms share."""

from .fourier import FoldedResponse as FoldedResponse
from .fourier import cosine_eigenvalues as cosine_eigenvalues
from .fourier import cosine_fourier_transform as cosine_fourier_transform
from .fourier import cosine_transform as cosine_transform
from .fourier import cosine_transform_2d as cosine_transform_2d
from .fourier import cosine_wavenumbers as cosine_wavenumbers
from .fourier import fold_spectrum as fold_spectrum
from .fourier import fourier_eigenvalues as fourier_eigenvalues
from .fourier import inverse_cosine_fourier_transform as inverse_cosine_fourier_transform
from .fourier import inverse_cosine_transform as inverse_cosine_transform
from .fourier import inverse_cosine_transform_2d as inverse_cosine_transform_2d
from .fourier import unfold_spectrum as unfold_spectrum
from .rollout import rollout as rollout
