"""The ground floor: numerical methods that several rooms share."""

from .curvature import GaussNewtonOperator as GaussNewtonOperator
from .curvature import HessianOperator as HessianOperator
from .curvature import ResidualOperator as ResidualOperator
from .curvature import dense_matrix as dense_matrix
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
from .spectra import Estimate as Estimate
from .spectra import Krylov as Krylov
from .spectra import Ritz as Ritz
from .spectra import gaussian_density as gaussian_density
from .spectra import lanczos as lanczos
from .spectra import marchenko_pastur_edges as marchenko_pastur_edges
from .spectra import marchenko_pastur_median as marchenko_pastur_median
from .spectra import random_probe as random_probe
from .spectra import trace_estimate as trace_estimate
