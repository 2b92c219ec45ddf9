"""Networks, all injected into the models from outside. They take plain data and remember it (``Described``)."""

from lit_generative.nn.conv import ConvDecoder, ConvEncoder
from lit_generative.nn.dcgan import DCGANDiscriminator, DCGANGenerator
from lit_generative.nn.mlp import MLPDecoder, MLPDiscriminator, MLPEncoder, MLPGenerator
from lit_generative.nn.residual import ResidualDiscriminator, ResidualGenerator

__all__ = [
    "ConvDecoder",
    "ConvEncoder",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "MLPDecoder",
    "MLPDiscriminator",
    "MLPEncoder",
    "MLPGenerator",
    "ResidualDiscriminator",
    "ResidualGenerator",
]
