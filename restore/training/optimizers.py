"""The optimisers a run can choose from: Muon for the matrices of a network and AdamW for the rest, or AdamW alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

BETAS = (0.9, 0.99)
WEIGHT_DECAY = 1e-4
MOMENTUM = 0.95
SMALLEST = 32  # rows and columns of a matrix from which on Muon turns it; thinner ones are first and last layers
# By which a turned update is as long as AdamW's usually are (Liu et al. 2025), so that one learning rate fits both.
ALIKE = 0.2
EPSILON = 1e-8
# A quintic whose iteration takes singular values from near 0 to near 1 (0.7 to 1.2) in few steps (Jordan et al. 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def optimizer(
    name: str, network: nn.Module, lr: float, *, fused: bool, half: bool, encoder_lr: float = 1.0
) -> torch.optim.Optimizer:
    """`muon` or `adamw` for `network`. fused: AdamW by one kernel; half: Muon turns its matrices in bfloat16.

    encoder_lr: the `share` of the learning rate that the part `encoder` of the network is to have.
    """
    parameters: list[dict[str, Any]] = [{"params": [], "share": 1.0}, {"params": [], "share": encoder_lr}]
    for known, parameter in network.named_parameters():
        parameters[known.startswith("encoder.") and encoder_lr != 1]["params"].append(parameter)
    parameters = [group for group in parameters if group["params"]]
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=fused)
    return Muon(parameters, lr, half=half)


class Muon(torch.optim.Optimizer):
    """Momentum, of which each matrix is replaced by the nearest orthogonal one (Jordan et al. 2024).

    So all directions of a layer learn alike. A convolution (out,in,h,w) is the matrix (out,in*h*w). Biases and thin
    matrices get AdamW.

    half: the matrices are turned in bfloat16, which is precise enough and quicker.
    """

    def __init__(self, parameters: Any, lr: float, *, half: bool) -> None:
        self.half = half
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients; parameters that have none stay."""
        assert closure is None
        for group in self.param_groups:
            matrices: dict[torch.Size, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * WEIGHT_DECAY)
                if min(_matrix(parameter).shape) >= SMALLEST:
                    matrices.setdefault(parameter.shape, []).append(parameter)
                else:
                    self._adam(parameter, group["lr"])
            for alike in matrices.values():  # of one shape: turned together, which is quicker
                self._turn(alike, group["lr"])

    def _turn(self, parameters: list[torch.Tensor], lr: float) -> None:
        updates = []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
            updates.append(_matrix(parameter.grad.lerp(momentum, MOMENTUM)))  # Nesterov's
        turned = orthogonal(torch.stack(updates), torch.bfloat16 if self.half else torch.float32)
        length = ALIKE * max(turned.shape[-2:]) ** 0.5
        for parameter, update in zip(parameters, turned, strict=True):
            parameter.add_(update.view(parameter.shape), alpha=-lr * length)

    def _adam(self, parameter: torch.Tensor, lr: float) -> None:
        """Kingma and Ba 2015."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state.update(step=torch.zeros(()), mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        state["mean"].lerp_(parameter.grad, 1 - BETAS[0])
        state["square"].lerp_(parameter.grad.square(), 1 - BETAS[1])
        step = state["step"].item()
        root = (state["square"] / (1 - BETAS[1] ** step)).sqrt_().add_(EPSILON)
        parameter.addcdiv_(state["mean"], root, value=-lr / (1 - BETAS[0] ** step))


def orthogonal(matrices: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(N,r,c) -> float32 of that shape: U V^T of each matrix U S V^T, nearly, by Newton-Schulz in `dtype`."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    turned = (matrices if wide else matrices.mT).to(dtype)
    turned = turned / (turned.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = turned @ turned.mT
        turned = a * turned + (b * gram + c * gram @ gram) @ turned
    result: torch.Tensor = (turned if wide else turned.mT).float()
    return result


def _matrix(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.reshape(len(parameter), -1) if parameter.ndim > 1 else parameter.reshape(-1, 1)
