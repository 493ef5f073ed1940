"""Building blocks of networks, as equinox modules."""

from .cnn import Convolution as Convolution
from .cnn import GroupNorm as GroupNorm
from .cnn import ResidualBlock as ResidualBlock
from .cnn import ResNet as ResNet
from .labels import MatrixAxes as MatrixAxes
from .labels import check_labels as check_labels
from .labels import count_layers as count_layers
from .labels import label_by_growth as label_by_growth
from .labels import label_parameters as label_parameters
from .labels import layer_indices as layer_indices
from .labels import matrix_axes as matrix_axes
from .labels import muon_roles as muon_roles
from .labels import norm_groups as norm_groups
