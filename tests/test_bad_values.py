"""A value that makes no sense is refused in one sentence that names the argument, the value and what would do."""

import functools
from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_generative import DDPM, GAN, VAE, ImageDataModule
from lit_generative.callbacks import EMA, EstimateLikelihood, Evaluate, ImagesProgressBar, LastCheckpoint, SampleGrid
from lit_generative.data import GaussianGrid, GaussianRing
from lit_generative.diffusion import (
    DDIM,
    AncestralSampler,
    AutoGuidance,
    ChurnedSpacing,
    ClassifierFree,
    CosineSchedule,
    DenoisingPictures,
    DPMSolverPP2M,
    DynamicThresholding,
    EDMPrediction,
    EDMSchedule,
    FlowLikelihood,
    GridTimes,
    KarrasSpacing,
    LearnedVariance,
    LinearBetaSchedule,
    LogitNormalTimes,
    LossAwareTimes,
    MinSNRWeight,
    ProjectedCombination,
    ResampledSpacing,
    RescaledCombination,
    ShiftedSchedule,
    SigmoidSchedule,
    StaticThresholding,
    TrailingSpacing,
    UniformSpacing,
    UniPC,
    VariationalBound,
)
from lit_generative.evaluation import Evaluator
from lit_generative.gan import (
    R1,
    AdaptiveAugment,
    DiffAugment,
    GANHealth,
    HingeLoss,
    InstanceNoiseAugment,
    LeastSquaresLoss,
)
from lit_generative.latent_space.selection import LatentRequest
from lit_generative.nn import (
    ADMConventions,
    CodeTransformer,
    ConvDecoder,
    ConvEncoder,
    DCGANDiscriminator,
    DCGANGenerator,
    DiT,
    LadderNetwork,
    MLPDecoder,
    MLPDiscriminator,
    MLPEncoder,
    MLPGenerator,
    ResidualDiscriminator,
    ResidualGenerator,
    SpatialDecoder,
    SpatialEncoder,
    UNet,
    UNetConventions,
)
from lit_generative.optim import Muon, OneCycle
from lit_generative.vae import (
    IWAE,
    AggregatePrior,
    BetaRegulariser,
    CapacityRegulariser,
    Codebook,
    CyclicalRegulariser,
    FreeBitsRegulariser,
    GaussianLikelihood,
    GaussianPerPixelLikelihood,
    InverseMultiquadricKernel,
    MixtureOfGaussiansPrior,
    MMDRegulariser,
    StandardNormalPrior,
    TotalCorrelationRegulariser,
    VampPrior,
    WarmUpRegulariser,
)

SHAPE = (1, 8, 8)
WEIGHTS = [nn.Parameter(torch.zeros(2))]


@functools.cache
def vae(num_classes: int | None = None, **options: Any) -> VAE:
    parts = (MLPEncoder(SHAPE, 4, (8,), num_classes), MLPDecoder(SHAPE, 4, (8,), num_classes), GaussianLikelihood())
    return VAE(*parts, 4, num_classes=num_classes, **options)


def make_vae(**options: Any) -> VAE:
    return VAE(**({"encoder": nn.Identity(), "decoder": nn.Identity(), "likelihood": GaussianLikelihood()} | options))


def make_gan(**options: Any) -> GAN:
    return GAN(
        MLPGenerator(SHAPE, 4, (8,)), MLPDiscriminator(SHAPE, (8,)), HingeLoss(), **({"latent_dim": 4} | options)
    )


@functools.cache
def gan() -> GAN:
    return make_gan()


def make_ddpm(**options: Any) -> DDPM:
    return DDPM(UNet(SHAPE, (8,), 1, (), groups=4), **({"image_shape": SHAPE} | options))


@functools.cache
def ddpm() -> DDPM:
    return make_ddpm(sampler=DDIM(2))


def images(n: int = 2) -> Tensor:
    return torch.zeros(n, *SHAPE)


NETWORKS: dict[str, Callable[[], Any]] = {
    "image_shape=None": lambda: MLPEncoder(None, 4),  # type: ignore[arg-type]
    "image_shape=(1, 8)": lambda: MLPDecoder((1, 8), 4),  # type: ignore[arg-type]
    "image_shape=[1, 0, 8]": lambda: UNet((1, 0, 8)),
    "image_shape=[1, 8, 8.0]": lambda: ConvEncoder((1, 8, 8.0), 4),  # type: ignore[arg-type]
    "image_shape=28": lambda: DCGANGenerator(28, 4),  # type: ignore[arg-type]
    "latent_dim=0": lambda: MLPEncoder(SHAPE, 0),
    "latent_dim=-2": lambda: ConvDecoder(SHAPE, -2),
    "latent_dim=2.5": lambda: MLPGenerator(SHAPE, 2.5),  # type: ignore[arg-type]
    "latent_dim='8'": lambda: ResidualGenerator(SHAPE, "8"),  # type: ignore[arg-type]
    "hidden=[0]": lambda: MLPDecoder(SHAPE, 4, (0,)),
    "hidden=400": lambda: MLPDiscriminator(SHAPE, 400),  # type: ignore[arg-type]
    "hidden=[64, -1]": lambda: ConvEncoder(SHAPE, 4, hidden=(64, -1)),
    "widths=[0]": lambda: ConvEncoder(SHAPE, 4, (0,)),
    "widths=[64.5]": lambda: ConvDecoder(SHAPE, 4, (64.5,)),  # type: ignore[arg-type]
    "widths=()": lambda: SpatialEncoder(SHAPE, widths=()),
    "widths=[-8]": lambda: SpatialDecoder(SHAPE, widths=(-8,)),
    "widths=64": lambda: ResidualDiscriminator(SHAPE, 64),  # type: ignore[arg-type]
    "widths=(8, 8, 8, 8)": lambda: DCGANDiscriminator(SHAPE, (8, 8, 8, 8)),
    "blocks=0": lambda: ConvDecoder(SHAPE, 4, blocks=0),
    "blocks=-1": lambda: ResidualGenerator(SHAPE, 4, blocks=-1),
    "base_width=0": lambda: ResidualGenerator(SHAPE, 4, base_width=0),
    "base_width=2.5": lambda: ResidualDiscriminator(SHAPE, base_width=2.5),  # type: ignore[arg-type]
    "blocks='8y1'": lambda: LadderNetwork(SHAPE, "8y1", (8,)),
    "blocks=3": lambda: LadderNetwork(SHAPE, 3, (8,)),  # type: ignore[arg-type]
    "num_classes=0": lambda: MLPDecoder(SHAPE, 4, num_classes=0),
    "num_classes=-1": lambda: DiT(SHAPE, dim=8, depth=1, heads=2, num_classes=-1),
    "output_channels=0": lambda: MLPDecoder(SHAPE, 4, output_channels=0),
    "code_dim=0": lambda: SpatialEncoder(SHAPE, code_dim=0),
    "dropout=1.0": lambda: UNet(SHAPE, (8,), groups=4, dropout=1.0),
    "dropout=-0.1": lambda: CodeTransformer(8, 8, 1, 2, dropout=-0.1),
    "groups=0": lambda: UNet(SHAPE, (8,), groups=0),
    "head_dim=0": lambda: UNet(SHAPE, (8,), groups=4, head_dim=0),
    "attention=[3]": lambda: UNet(SHAPE, (8,), groups=4, attention=(3,)),
    "attention=1": lambda: UNet(SHAPE, (8,), groups=4, attention=1),  # type: ignore[arg-type]
    "patch=0": lambda: DiT(SHAPE, patch=0),
    "heads=0": lambda: DiT(SHAPE, heads=0),
    "depth=True": lambda: DiT(SHAPE, depth=True),
    "dim=6": lambda: DiT(SHAPE, dim=6),
    "norm_eps=0": lambda: UNetConventions(norm_eps=0),
    "num_codes=0": lambda: CodeTransformer(0),
}
VAES: dict[str, Callable[[], Any]] = {
    "latent_dim=0": lambda: make_vae(latent_dim=0),
    "latent_dim=-1": lambda: StandardNormalPrior(-1),
    "num_classes=0": lambda: make_vae(latent_dim=4, num_classes=0),
    "num_samples=0": lambda: IWAE(nn.Identity(), nn.Identity(), GaussianLikelihood(), 4, num_samples=0),
    "scale=0": lambda: GaussianLikelihood(0),
    "scale=nan": lambda: GaussianLikelihood(nan),
    "lowest=2": lambda: GaussianPerPixelLikelihood(2, 1),
    "highest=-1": lambda: GaussianPerPixelLikelihood(0.1, -1),
    "components=0": lambda: MixtureOfGaussiansPrior(4, 0),
    "components=1.5": lambda: AggregatePrior(1.5),  # type: ignore[arg-type]
    "image_shape=[0, 8, 8]": lambda: VampPrior((0, 8, 8)),
    "spread=-1": lambda: VampPrior(SHAPE, spread=-1),
    "beta=-1": lambda: BetaRegulariser(-1),
    "beta=inf": lambda: WarmUpRegulariser(100, inf),
    "images=0": lambda: WarmUpRegulariser(0),
    "ramp=2": lambda: CyclicalRegulariser(100, ramp=2),
    "nats=0": lambda: FreeBitsRegulariser(0),
    "gamma=-1": lambda: CapacityRegulariser(-1, 1, 100),
    "alpha=nan": lambda: TotalCorrelationRegulariser(alpha=nan),
    "weight=0": lambda: MMDRegulariser(0),
    "scales=0": lambda: InverseMultiquadricKernel((1.0, 0)),
    "code_dim=0": lambda: Codebook(8, 0),
    "decay=1": lambda: Codebook(8, 4, decay=1),
}
GANS: dict[str, Callable[[], Any]] = {
    "latent_dim=0": lambda: make_gan(latent_dim=0),
    "micro_batches=0": lambda: make_gan(micro_batches=0),
    "discriminator_steps=-1": lambda: make_gan(discriminator_steps=-1),
    "generator_clip=-1": lambda: make_gan(generator_clip=-1),
    "weight=-1": lambda: R1(-1),
    "every=0": lambda: R1(1.0, every=0),
    "a=nan": lambda: LeastSquaresLoss(a=nan),
    "b=-1": lambda: LeastSquaresLoss(b=-1),
    "probability=1.5": lambda: DiffAugment(probability=1.5),
    "target=2": lambda: AdaptiveAugment(DiffAugment(), target=2),
    "scale=-0.1": lambda: InstanceNoiseAugment(-0.1),
    "num_samples=1": lambda: GANHealth(num_samples=1),
}
DIFFUSION: dict[str, Callable[[], Any]] = {
    "image_shape=(8, 8)": lambda: make_ddpm(image_shape=(8, 8)),
    "num_classes=0": lambda: make_ddpm(num_classes=0),
    "steps=0": lambda: DDIM(0),
    "steps=2.5": lambda: DPMSolverPP2M(2.5),  # type: ignore[arg-type]
    "eta=-1": lambda: DDIM(eta=-1),
    "v=2": lambda: AncestralSampler(v=2),
    "scale=-1": lambda: ClassifierFree(-1),
    "interval=0.5": lambda: ClassifierFree(2, 0.5),  # type: ignore[arg-type]
    "interval=(0.9, 0.1)": lambda: AutoGuidance(2, (0.9, 0.1)),
    "label_dropout=0": lambda: ClassifierFree(2, label_dropout=0),
    "keep_at=1.5": lambda: AutoGuidance(2, keep_at=1.5),
    "num_steps=0": lambda: LinearBetaSchedule(num_steps=0),
    "beta_max=2": lambda: LinearBetaSchedule(beta_max=2),
    "beta_min=0": lambda: LinearBetaSchedule(beta_min=0),
    "s=-1": lambda: CosineSchedule(-1),
    "tau=0": lambda: SigmoidSchedule(tau=0),
    "start=nan": lambda: SigmoidSchedule(start=nan),
    "sigma_min=-1": lambda: EDMSchedule(-1),
    "sigma_max=inf": lambda: KarrasSpacing(sigma_max=inf),
    "image_size=0": lambda: ShiftedSchedule(CosineSchedule(), 0),
    "norm_eps=0": lambda: UNetConventions(norm_eps=0),
    "stem_width=-4": lambda: UNetConventions(stem_width=-4),
    "skip_scale=0": lambda: UNetConventions(skip_scale=0),
    "residual_resizing=[7]": lambda: UNet((1, 8, 8), conventions=ADMConventions(residual_resizing=[7])),
    "order=4": lambda: UniPC(order=4),
    "phi=2": lambda: RescaledCombination(2),
    "momentum=1": lambda: ProjectedCombination(momentum=1),
    "sigma_min=90": lambda: FlowLikelihood(sigma_min=90),
    "rho=0": lambda: KarrasSpacing(rho=0),
    "T=0": lambda: TrailingSpacing(0),
    "amount=-1": lambda: ChurnedSpacing(UniformSpacing(), -1),
    "highest=0.01": lambda: ChurnedSpacing(UniformSpacing(), highest=0.01),
    "passes=0": lambda: ResampledSpacing(UniformSpacing(), passes=0),
    "num_steps=-3": lambda: GridTimes(-3),
    "mean=inf": lambda: LogitNormalTimes(mean=inf),
    "std=0": lambda: LogitNormalTimes(std=0),
    "history=0": lambda: LossAwareTimes(history=0),
    "gamma=0": lambda: MinSNRWeight(0),
    "sigma_data=-1": lambda: EDMPrediction(-1),
    "num_steps=1": lambda: LearnedVariance(num_steps=1),
    "bound=0": lambda: StaticThresholding(0),
    "quantile=2": lambda: DynamicThresholding(2),
    "probes=0": lambda: FlowLikelihood(probes=0),
    "evaluations=1": lambda: VariationalBound(evaluations=1),
}
AROUND: dict[str, Callable[[], Any]] = {
    "lr=-1": lambda: Muon(WEIGHTS, lr=-1),
    "lr=nan": lambda: Muon(WEIGHTS, lr=nan),
    "betas=0.9": lambda: Muon(WEIGHTS, betas=0.9),  # type: ignore[arg-type]
    "betas[1]=1": lambda: Muon(WEIGHTS, betas=(0.9, 1)),
    "eps=0": lambda: Muon(WEIGHTS, eps=0),
    "weight_decay=-1": lambda: Muon(WEIGHTS, weight_decay=-1),
    "momentum=2": lambda: Muon(WEIGHTS, momentum=2),
    "total_steps=0": lambda: OneCycle(Muon(WEIGHTS), 0),
    "optimizer.lr=-1": lambda: make_vae(latent_dim=4, optimizer=functools.partial(torch.optim.Adam, lr=-1)),
    "optimizer.lr=inf": lambda: make_ddpm(optimizer=functools.partial(torch.optim.SGD, lr=inf)),
    "optimizer.betas[0]=1.5": lambda: make_ddpm(optimizer=functools.partial(torch.optim.AdamW, betas=(1.5, 0.9))),
    "generator_optimizer.lr=nan": lambda: make_gan(generator_optimizer=functools.partial(torch.optim.Adam, lr=nan)),
    "lr_scheduler.pct_start=2": lambda: make_ddpm(lr_scheduler=functools.partial(OneCycle, pct_start=2)),
    "decay=2": lambda: EMA(2),
    "decay=-0.1": lambda: EMA(-0.1),
    "every_n_epochs=0": lambda: Evaluate(Evaluator(), 0),
    "every_n_images=1.5": lambda: Evaluate(Evaluator(), every_n_images=1.5),  # type: ignore[arg-type]
    "minutes=0": lambda: LastCheckpoint(0),
    "num_images=1": lambda: EstimateLikelihood(1),
    "num_samples=0": lambda: SampleGrid(0),
    "refresh_rate=-1": lambda: ImagesProgressBar(-1),
    "num_frames=1": lambda: DenoisingPictures(num_frames=1),
    "num_samples=2": lambda: Evaluator(num_samples=2),
    "num_real=-5": lambda: Evaluator(num_real=-5),
    "split='train'": lambda: Evaluator(split="train"),  # type: ignore[arg-type]
    "seed=-1": lambda: Evaluator(seed=-1),
    "batch_size=0": lambda: ImageDataModule(batch_size=0),
    "val_fraction=0.7": lambda: ImageDataModule(val_fraction=0.7),
    "num_modes=0": lambda: GaussianRing(num_modes=0),
    "side=1": lambda: GaussianGrid(side=1),
    "num_train=1.5": lambda: GaussianRing(num_train=1.5),  # type: ignore[arg-type]
    "steps=1": lambda: LatentRequest(steps=1),
}
METHODS: dict[str, Callable[[], Any]] = {
    "n=0": lambda: vae().sample(0),
    "n=-3": lambda: gan().sample(-3),
    "n=1.5": lambda: ddpm().sample(1.5),  # type: ignore[arg-type]
    "y has shape None": lambda: vae(10).sample(2),
    "y has shape (3,)": lambda: vae(10).sample(2, torch.zeros(3, dtype=torch.long)),
    "y has labels 0 to 10": lambda: vae(10).sample(2, torch.tensor([0, 10])),
    "y is float32": lambda: vae(10).sample(2, torch.zeros(2)),
    "y=[0, 1]": lambda: vae(10).sample(2, [0, 1]),  # type: ignore[arg-type]
    "y was given": lambda: gan().sample(2, torch.zeros(2, dtype=torch.long)),
    "steps=1": lambda: vae().interpolate(images(), images(), steps=1),
    "steps=0": lambda: gan().interpolate_samples(2, steps=0),
    "steps=-1": lambda: ddpm().interpolate_samples(2, steps=-1),
    "x_1 has shape (3, 1, 8, 8)": lambda: vae().interpolate(images(), images(3)),
    "x has 2 images": lambda: vae().traverse(images()),
    "dimensions=[4]": lambda: vae().traverse(images(1), dimensions=[4]),
    "extent=nan": lambda: vae().traverse(images(1), extent=nan),
    "steps=2.5": lambda: vae().traverse(images(1), steps=2.5),  # type: ignore[arg-type]
    "columns=0": lambda: vae().latent_grid(0),
    "evaluations=0": lambda: vae().likelihoods(images(), evaluations=0),
    "evaluations=-1": lambda: ddpm().likelihoods(images(), evaluations=-1),
    "x has shape (2, 3, 8, 8)": lambda: vae().reconstruct(torch.zeros(2, 3, 8, 8)),
    "image has shape (2, 1, 9, 8)": lambda: ddpm().sdedit(torch.zeros(2, 1, 9, 8), 0.5),
    "x_T has shape (1, 8, 8)": lambda: ddpm().decode(torch.zeros(1, 8, 8)),
    "start=0": lambda: ddpm().sdedit(images(), 0),
    "start=nan": lambda: ddpm().sdedit(images(), nan),
    "known has shape (3, 1, 8, 8)": lambda: ddpm().inpaint(images(), torch.ones(3, *SHAPE, dtype=torch.bool)),
    "num_levels=0": lambda: ddpm().loss_by_noise(images(), num_levels=0),
    "image_shape=(1, 8, 8)": lambda: ddpm().losses(torch.zeros(2, 3, 8, 8)),
}
CASES = [
    pytest.param(call, message, id=f"{name} {message}")
    for name, table in [
        ("network", NETWORKS),
        ("VAE", VAES),
        ("GAN", GANS),
        ("diffusion", DIFFUSION),
        ("around", AROUND),
        ("method", METHODS),
    ]
    for message, call in table.items()
]


@pytest.mark.parametrize(("call", "message"), CASES)
def test_one_sentence_names_argument_value_and_remedy(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        call()
    text = str(refused.value)
    assert message in text
    assert "\n" not in text
    assert len(text) > len(message) + 10  # what would do
