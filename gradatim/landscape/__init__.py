"""The loss landscape: spectra of curvature, what they consist of, what they mean."""

from .mode_connectivity import Line as Line
from .mode_connectivity import line_loss as line_loss
from .spectrum import Eigenpairs as Eigenpairs
from .spectrum import Spectrum as Spectrum
from .spectrum import bulk_edge as bulk_edge
from .spectrum import count_outliers as count_outliers
from .spectrum import hessian_spectrum as hessian_spectrum
from .spectrum import hessian_trace as hessian_trace
from .spectrum import spectral_density as spectral_density
from .spectrum import top_eigenpairs as top_eigenpairs
