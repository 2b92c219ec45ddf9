"""Diffusion models: :class:`DDPM` and what it is put together from."""

from lit_generative.diffusion.denoising_pictures import DenoisingPictures
from lit_generative.diffusion.editing import inpaint, sdedit
from lit_generative.diffusion.flow_likelihood import FlowLikelihood
from lit_generative.diffusion.guidance import Guided
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
from lit_generative.diffusion.samplers import DDIM, AncestralSampler, Sampler
from lit_generative.diffusion.schedules import (
    CosineSchedule,
    EDMSchedule,
    LinearBetaSchedule,
    RectifiedFlowSchedule,
    Schedule,
    ShiftedSchedule,
    SigmoidSchedule,
)
from lit_generative.diffusion.solvers import DPMSolverPP2M, EulerSampler, HeunSampler
from lit_generative.diffusion.spacings import (
    ChurnedSpacing,
    KarrasSpacing,
    LeadingSpacing,
    LogSNRSpacing,
    ResampledSpacing,
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

__all__ = [
    "DDIM",
    "DDPM",
    "AncestralSampler",
    "BoundTerms",
    "ChurnedSpacing",
    "CosineSchedule",
    "DPMSolverPP2M",
    "DenoisingPictures",
    "DiscreteBoundWeight",
    "DynamicThresholding",
    "EDMPrediction",
    "EDMSchedule",
    "EDMWeight",
    "EulerSampler",
    "FlowLikelihood",
    "FlowVelocityPrediction",
    "GridTimes",
    "Guided",
    "HeunSampler",
    "KarrasSpacing",
    "LeadingSpacing",
    "LearnedVariance",
    "LinearBetaSchedule",
    "LogNormalTimes",
    "LogSNRSpacing",
    "LogitNormalTimes",
    "LossAwareTimes",
    "MinSNRWeight",
    "NoisePrediction",
    "Prediction",
    "RectifiedFlowSchedule",
    "ResampledSpacing",
    "SamplePrediction",
    "Sampler",
    "Schedule",
    "ShiftedSchedule",
    "SigmoidSchedule",
    "SimpleWeight",
    "SoftMinSNRWeight",
    "StaticThresholding",
    "StratifiedTimes",
    "Thresholding",
    "TimeSampler",
    "TrailingSpacing",
    "UniformSpacing",
    "UniformTimes",
    "VariationalBound",
    "VariationalBoundWeight",
    "VelocityPrediction",
    "Weight",
    "inpaint",
    "sdedit",
]
