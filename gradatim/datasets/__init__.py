"""Real data sets: arrays with their provenance, offline where a package ships them."""

from .breast_cancer import Table as Table
from .breast_cancer import breast_cancer as breast_cancer
from .catalogue import CATALOGUE as CATALOGUE
from .catalogue import load as load
from .catalogue import load_text as load_text
from .corpus import Corpus as Corpus
from .cortex import Cortex as Cortex
from .cortex import cortex as cortex
from .dataset import Dataset as Dataset
from .dataset import DatasetError as DatasetError
from .dataset import Provenance as Provenance
from .mni152 import Volume as Volume
from .mni152 import mni152 as mni152
from .photographs import Photographs as Photographs
from .photographs import photographs as photographs
