"""Muon for image networks: orthogonalised momentum for what multiplies features, Adam for the rest.

timm's ``Muon`` takes convolutions too, one matrix after the other. On the U-Net of ``diffusion/fashion`` its steps take
2.4 times as long, 31.5 ms in place of 13.3, and after 10,240 images the loss is 0.0562 in place of 0.0556; as it comes,
2.6 times as long, and 0.0606 (measured by benchmarks/muon.py on 1 thread of an x86-64 CPU, torch 2.14.1, timm 1.0.31,
2026-11-28).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_generative.checks import check_range

__all__ = ["Muon", "hidden_and_others", "orthogonalise"]

COEFFICIENTS = 3.4445, -4.7750, 2.0315
STEPS = 5


class Muon(Optimizer):
    """Momentum whose update of a matrix is replaced by the nearest orthogonal one (Jordan et al. 2024).

    Weights of two dimensions and more are taken for matrices (outputs by all else): linear layers, embeddings, and
    convolutions, for which ``torch.optim.Muon`` has no rule. The update is scaled to the size that Adam's usually has,
    0.2 sqrt(max(rows, columns)) (Liu et al. 2025, "Muon is scalable for LLM training", eq. 4), so that learning rates
    of Adam fit. Biases, gains and other vectors are left to Adam with the same learning rate.

    Jordan et al. leave embeddings and the last layer to Adam as well. Here they are matrices like any other, unless
    they are in a group with ``orthogonal=False``, as :func:`hidden_and_others` makes one.

    Matrices are orthogonalised together, which is what makes it cheap; see :func:`orthogonalise`.

    Args:
        params: Parameters or groups of them.
        lr: The learning rate of both.
        momentum: That of the matrices, applied as Nesterov's.
        betas: Adam's.
        eps: Adam's.
        weight_decay: Decoupled, of the matrices only.
        orthogonal: Whether the updates of matrices are orthogonalised; otherwise they, too, are left to Adam. It may
            be given for each group.

    Raises:
        ValueError: If ``lr`` or ``weight_decay`` is negative, or ``momentum`` or a beta is not in [0, 1).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        orthogonal: bool = True,
    ) -> None:
        for name, value in {"lr": lr, "weight_decay": weight_decay}.items():
            check_range(name, value, at_least=0)
        check_range("eps", eps, above=0)
        if not isinstance(betas, Sequence) or len(betas) != 2:
            raise ValueError(f"betas={betas}: it must be two numbers, such as 0.9, 0.99")
        for name, value in {"momentum": momentum, "betas[0]": betas[0], "betas[1]": betas[1]}.items():
            check_range(name, value, at_least=0, below=1)
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"orthogonal": orthogonal})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take a step; ``closure``, if given, computes the gradients first and its value is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            is_matrix = [p.ndim > 1 and group["orthogonal"] for p in parameters]
            self._adam([p for p, is_one in zip(parameters, is_matrix, strict=True) if not is_one], group)
            self._muon([p for p, is_one in zip(parameters, is_matrix, strict=True) if is_one], group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update matrices."""
        if not parameters:
            return
        gradients = _gradients(parameters)
        momenta = self._state("momentum", parameters)
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, momenta, group["momentum"])
        updates = orthogonalise([u.flatten(1) for u in nesterov])
        torch._foreach_mul_(updates, [0.2 * max(u.shape) ** 0.5 for u in updates])
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        shaped = [u.view_as(p).to(p.dtype) for u, p in zip(updates, parameters, strict=True)]
        torch._foreach_add_(parameters, shaped, alpha=-group["lr"])

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update vectors, and matrices that are not orthogonalised (Kingma & Ba 2015, algorithm 1)."""
        if not parameters:
            return
        if group["weight_decay"] and (matrices := [p for p in parameters if p.ndim > 1]):
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        gradients, (beta_1, beta_2) = _gradients(parameters), group["betas"]
        means, squares = self._state("mean", parameters), self._state("square", parameters)
        group["adam_steps"] = steps = group.get("adam_steps", 0) + 1
        torch._foreach_lerp_(means, gradients, 1 - beta_1)
        torch._foreach_mul_(squares, beta_2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta_2)
        scales = torch._foreach_sqrt(torch._foreach_div(squares, 1 - beta_2**steps))
        torch._foreach_add_(scales, group["eps"])
        torch._foreach_addcdiv_(parameters, means, scales, -group["lr"] / (1 - beta_1**steps))

    def _state(self, name: str, parameters: list[Tensor]) -> list[Tensor]:
        for p in parameters:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in parameters]


def hidden_and_others(module: nn.Module, others: Sequence[str]) -> list[dict[str, Any]]:
    """Return two groups for :class:`Muon`: hidden layers, and what Jordan et al. leave to Adam.

    The second has the weights of all ``nn.Embedding`` and those of ``others``: for one, the first and the last layer.

    Args:
        module: What is trained.
        others: Names of submodules, such as ``("network.stem", "network.head")`` of a DDPM with our U-Net.

    Raises:
        ValueError: If there is no such submodule.
    """
    names = dict(module.named_modules())
    if missing := [name for name in others if name not in names]:
        raise ValueError(
            f"others={list(others)}: there is no submodule {missing[0]!r}; it has {', '.join(names)[:200]}"
        )
    embeddings = [part for part in module.modules() if isinstance(part, nn.Embedding)]
    left = {id(p) for part in (*embeddings, *map(names.__getitem__, others)) for p in part.parameters()}
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) not in left]},
        {"params": [p for p in parameters if id(p) in left], "orthogonal": False},
    ]


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def orthogonalise(matrices: list[Tensor]) -> list[Tensor]:
    """Bring singular values near 1 and leave the singular vectors.

    Those of 0.0015 and more of the matrix's norm, the root of the sum of their squares, become 0.68 to 1.21; smaller
    ones grow 485-fold at most, and stay small. A random matrix that is not square has none of these, a random square
    one a few (1 % of those of 256 x 256).

    These are the five Newton-Schulz steps X <- P X, P = a I + b A + c A^2, A = X X^T, of Jordan et al. 2024 ("Muon").
    Each P is a polynomial in the first A, so their product can be had from small square matrices alone, A <- P A P, and
    meets X once. That is done in float32, since A holds squares of singular values, and for all matrices with as many
    rows (or columns, if those are fewer) together, however long they are.

    Args:
        matrices: Each (rows, columns).

    Returns:
        Matrices of the same shapes, float32.
    """
    a, b, c = COEFFICIENTS
    wide = [X.float() if X.shape[0] <= X.shape[1] else X.float().mT for X in matrices]
    by_rows = defaultdict(list)
    for i, X in enumerate(wide):
        by_rows[X.shape[0]].append(i)
    for rows, places in by_rows.items():
        scale = torch.stack(torch._foreach_norm([wide[i] for i in places])).add(1e-7).reciprocal()[:, None, None]
        A = torch.stack([wide[i] @ wide[i].mT for i in places]) * scale.square()
        identity = a * torch.eye(rows, device=A.device).expand_as(A)
        product = scale
        for step in range(STEPS):
            P = torch.baddbmm(identity, A, A, alpha=c).add_(A, alpha=b)
            product = P * product if product is scale else P @ product
            A = P @ A @ P if step < STEPS - 1 else A
        for i, factor in zip(places, product, strict=True):
            wide[i] = factor @ wide[i]
    return [U if U.shape == X.shape else U.mT for U, X in zip(wide, matrices, strict=True)]
