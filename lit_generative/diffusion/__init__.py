"""Diffusion models: :class:`DDPM` and what it is put together from."""

from lit_generative.diffusion.editing import inpaint, remake
from lit_generative.diffusion.flow_likelihood import FlowLikelihood
from lit_generative.diffusion.guidance import Guided
from lit_generative.diffusion.likelihood import Bound, BoundTerms
from lit_generative.diffusion.limits import Clip, DynamicThreshold, Limit
from lit_generative.diffusion.module import DDPM
from lit_generative.diffusion.predictions import EDMPrediction, FlowVelocity, Noise, Prediction, Sample, Velocity
from lit_generative.diffusion.samplers import DDIM, Ancestral, Sampler
from lit_generative.diffusion.schedules import EDM, Cosine, LinearBetas, RectifiedFlow, Schedule, Shifted, Sigmoid
from lit_generative.diffusion.solvers import DPMSolverPP2M, Euler, Heun
from lit_generative.diffusion.spacings import (
    Churned,
    Karras,
    LeadingGrid,
    LogSNR,
    Resampled,
    TrailingGrid,
    UniformTime,
)
from lit_generative.diffusion.times import (
    GridTimes,
    LogitNormal,
    LogNormalNoise,
    LossAware,
    Stratified,
    TimeSampler,
    Uniform,
)
from lit_generative.diffusion.variance import LearnedVariance
from lit_generative.diffusion.weights import (
    DiscreteBound,
    EDMWeight,
    MinSNR,
    Simple,
    SoftMinSNR,
    VariationalBound,
    Weight,
)

__all__ = [
    "DDIM",
    "DDPM",
    "EDM",
    "Ancestral",
    "Bound",
    "BoundTerms",
    "Churned",
    "Clip",
    "Cosine",
    "DPMSolverPP2M",
    "DiscreteBound",
    "DynamicThreshold",
    "EDMPrediction",
    "EDMWeight",
    "Euler",
    "FlowLikelihood",
    "FlowVelocity",
    "GridTimes",
    "Guided",
    "Heun",
    "Karras",
    "LeadingGrid",
    "LearnedVariance",
    "Limit",
    "LinearBetas",
    "LogNormalNoise",
    "LogSNR",
    "LogitNormal",
    "LossAware",
    "MinSNR",
    "Noise",
    "Prediction",
    "RectifiedFlow",
    "Resampled",
    "Sample",
    "Sampler",
    "Schedule",
    "Shifted",
    "Sigmoid",
    "Simple",
    "SoftMinSNR",
    "Stratified",
    "TimeSampler",
    "TrailingGrid",
    "Uniform",
    "UniformTime",
    "VariationalBound",
    "Velocity",
    "Weight",
    "inpaint",
    "remake",
]
