"""Building blocks of networks, as equinox modules."""

from .attention import KeyValueCache as KeyValueCache
from .attention import LatentCache as LatentCache
from .attention import MultiHeadAttention as MultiHeadAttention
from .attention import MultiHeadLatentAttention as MultiHeadLatentAttention
from .attention import RotaryEmbedding as RotaryEmbedding
from .attention import cache_bytes as cache_bytes
from .cnn import Convolution as Convolution
from .cnn import GroupNorm as GroupNorm
from .cnn import ResidualBlock as ResidualBlock
from .cnn import ResNet as ResNet
from .experts import MixtureOfExperts as MixtureOfExperts
from .experts import balanced as balanced
from .feed_forward import SwiGLU as SwiGLU
from .labels import check_labels as check_labels
from .labels import count_layers as count_layers
from .labels import label_by_growth as label_by_growth
from .labels import label_parameters as label_parameters
from .labels import layer_indices as layer_indices
from .labels import matrix_axes as matrix_axes
from .labels import muon_roles as muon_roles
from .labels import norm_groups as norm_groups
from .language_model import DecoderBlock as DecoderBlock
from .language_model import DecoderLM as DecoderLM
from .parameters import MatrixAxes as MatrixAxes
from .unet import UNet as UNet
