"""Networks, all injected into the models from outside. They take plain data and remember it (``Described``)."""

from lit_generative.nn.adapters import LowRankAdapters
from lit_generative.nn.code_prior import CodeTransformer
from lit_generative.nn.conditions import AttributeCondition, ClassCondition, Condition, VectorCondition
from lit_generative.nn.conv import ConvDecoder, ConvEncoder, SpatialDecoder, SpatialEncoder, SpatialGaussianEncoder
from lit_generative.nn.dcgan import DCGANDiscriminator, DCGANGenerator
from lit_generative.nn.diffusers_weights import from_diffusers, to_diffusers
from lit_generative.nn.dit import DiT
from lit_generative.nn.image_conditions import GrayCondition, ImageCondition, LowResolutionCondition, MaskedCondition
from lit_generative.nn.ladder import LadderNetwork
from lit_generative.nn.mlp import MLPDecoder, MLPDiscriminator, MLPEncoder, MLPGenerator
from lit_generative.nn.patch import PatchDiscriminator
from lit_generative.nn.residual import ResidualDiscriminator, ResidualGenerator
from lit_generative.nn.unet import ADMConventions, DDPMPlusPlusConventions, UNet, UNetConventions
