"""Real data sets: arrays with their provenance, offline where a package ships them."""

from .catalogue import CATALOGUE as CATALOGUE
from .catalogue import load as load
from .dataset import Dataset as Dataset
from .dataset import DatasetError as DatasetError
from .dataset import Provenance as Provenance
