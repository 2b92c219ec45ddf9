"""Optimizers, learning-rate schedules, and the check of what both are asked for."""

from lit_generative.optim.muon import Muon, hidden_and_others, orthogonalise
from lit_generative.optim.one_cycle import OneCycle
from lit_generative.optim.options import build, check_optimisation
from lit_generative.optim.plateau import ReduceLROnPlateau
