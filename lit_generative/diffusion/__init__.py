"""Diffusion models: :class:`DDPM` and what it is put together from."""

from lit_generative.diffusion.augment import ConditionalAugment
from lit_generative.diffusion.checkpoint_guidance import CheckpointGuidance
from lit_generative.diffusion.combinations import Combination, ProjectedCombination, RescaledCombination
from lit_generative.diffusion.conditioning import LogSNRPosition
from lit_generative.diffusion.couplings import Coupling, OptimalTransportCoupling
from lit_generative.diffusion.denoiser import Denoiser, Estimate
from lit_generative.diffusion.denoising_pictures import DenoisingPictures
from lit_generative.diffusion.diffusers_autoencoder import DiffusersAutoencoder
from lit_generative.diffusion.editing import encode, inpaint, sdedit
from lit_generative.diffusion.flow_likelihood import FlowLikelihood
from lit_generative.diffusion.guidance import AutoGuidance, ClassifierFree, Guidance
from lit_generative.diffusion.latents import Latents
from lit_generative.diffusion.likelihood import BoundTerms, VariationalBound
from lit_generative.diffusion.module import DDPM
from lit_generative.diffusion.predictions import (
    EDMPrediction,
    FlowVelocityPrediction,
    NoisePrediction,
    Prediction,
    SamplePrediction,
    VelocityPrediction,
)
from lit_generative.diffusion.samplers import (
    DDIM,
    AncestralSampler,
    DPMSolverPP2M,
    EulerSampler,
    HeunSampler,
    Sampler,
    SamplingState,
)
from lit_generative.diffusion.schedules import (
    CosineSchedule,
    EDMSchedule,
    LinearBetaSchedule,
    NoiseLevel,
    RectifiedFlowSchedule,
    Schedule,
    ShiftedSchedule,
    SigmoidSchedule,
    ZeroTerminalSNRSchedule,
)
from lit_generative.diffusion.spacings import (
    ChurnedSpacing,
    KarrasSpacing,
    LeadingSpacing,
    LogSNRSpacing,
    ResampledSpacing,
    Spacing,
    StraightOrKarrasSpacing,
    TrailingSpacing,
    UniformSpacing,
)
from lit_generative.diffusion.thresholding import DynamicThresholding, StaticThresholding, Thresholding
from lit_generative.diffusion.times import (
    GridTimes,
    LogitNormalTimes,
    LogNormalTimes,
    LossAwareTimes,
    StratifiedTimes,
    TimeSampler,
    UniformTimes,
)
from lit_generative.diffusion.unipc import UniPC
from lit_generative.diffusion.variance import LearnedVariance
from lit_generative.diffusion.weights import (
    DiscreteBoundWeight,
    EDMWeight,
    MinSNRWeight,
    SimpleWeight,
    SoftMinSNRWeight,
    VariationalBoundWeight,
    Weight,
)
