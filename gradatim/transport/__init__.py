"""From noise to data: probability paths, flows and the transport between distributions."""

from .data_separation import DataSeparation as DataSeparation
from .data_separation import Normalisation as Normalisation
from .data_separation import data_separation as data_separation
from .data_separation import line_separation_gap as line_separation_gap
from .data_separation import normalise as normalise
from .data_separation import separation_angles as separation_angles
from .data_separation import separation_of_data as separation_of_data
from .data_separation import separation_of_gap as separation_of_gap
from .flow_matching import EmpiricalVelocity as EmpiricalVelocity
from .flow_matching import flow_matching_loss as flow_matching_loss
from .flow_sampling import FlowEnd as FlowEnd
from .flow_sampling import sample_flow as sample_flow
from .flow_sampling import sample_flow_adaptively as sample_flow_adaptively
from .kinetic_energy import conditional_kinetic_energy as conditional_kinetic_energy
from .kinetic_energy import empirical_kinetic_energy as empirical_kinetic_energy
from .kinetic_energy import energy_lower_bound as energy_lower_bound
from .kinetic_energy import kinetic_energy as kinetic_energy
from .kinetic_energy import separation_area_bound as separation_area_bound
from .kinetic_optimal import KineticOptimal as KineticOptimal
from .kinetic_optimal import kinetic_optimal_path as kinetic_optimal_path
from .probability_paths import AbstractGaussianPath as AbstractGaussianPath
from .probability_paths import Coefficients as Coefficients
from .probability_paths import CondOT as CondOT
from .probability_paths import TabulatedPath as TabulatedPath
from .probability_paths import Trigonometric as Trigonometric
from .probability_paths import VariancePreserving as VariancePreserving
