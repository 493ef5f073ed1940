"""Building blocks of networks, as equinox modules."""

from .cnn import Convolution as Convolution
from .cnn import GroupNorm as GroupNorm
from .cnn import ResidualBlock as ResidualBlock
from .cnn import ResNet as ResNet
