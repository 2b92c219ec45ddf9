"""Networks, all injected into the models from outside. They take plain data and remember it (``Described``)."""

from lit_generative.nn.conv import ConvDecoder, ConvEncoder
from lit_generative.nn.mlp import MLPDecoder, MLPEncoder

__all__ = ["ConvDecoder", "ConvEncoder", "MLPDecoder", "MLPEncoder"]
