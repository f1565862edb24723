"""The optimisers a run can choose from: Muon for the matrices of a network and AdamW for the rest, or AdamW alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

BETAS = (0.9, 0.99)
WEIGHT_DECAY = 1e-4
MOMENTUM = 0.95
SMALLEST = 32  # rows and columns that a matrix needs at least for Muon; thinner ones are first and last layers
# Scales an orthogonal update to the usual RMS of AdamW's (Liu et al. 2025), so that one learning rate fits both.
UPDATE_RMS = 0.2
EPSILON = 1e-8
# A quintic whose iteration takes singular values from near 0 to near 1 (0.7 to 1.2) in few steps (Jordan et al. 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def optimizer(
    name: str, network: nn.Module, lr: float, *, fused: bool, half: bool, encoder_lr: float = 1.0
) -> torch.optim.Optimizer:
    """`muon` or `adamw` for the parameters of `network`.

    Args:
        name: Which.
        network: What learns.
        lr: The first learning rate.
        fused: AdamW by one kernel, as GPUs have it.
        half: Muon orthogonalises in bfloat16.
        encoder_lr: Share of the learning rate for the part `encoder` of the network; its group's `share`.
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

    So all directions of a layer learn equally fast. A convolution (out,in,h,w) is the matrix (out,in*h*w). With `half`
    it is orthogonalised in bfloat16, which is precise enough and quicker. Biases and thin matrices get AdamW
    (Loshchilov and Hutter 2019).
    """

    def __init__(self, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float, *, half: bool) -> None:
        self.half = half
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients; parameters that have none stay."""
        assert closure is None
        for group in self.param_groups:
            known = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not known:
                continue
            torch._foreach_mul_(known, 1 - group["lr"] * WEIGHT_DECAY)
            matrices: dict[torch.Size, list[torch.Tensor]] = {}
            thin: list[torch.Tensor] = []
            for parameter in known:
                large = min(_matrix(parameter).shape) >= SMALLEST
                (matrices.setdefault(parameter.shape, []) if large else thin).append(parameter)
            for batch in matrices.values():  # of one shape: orthogonalised together, which is quicker
                self._muon(batch, group["lr"])
            if thin:
                self._adam(thin, group["lr"])

    def _muon(self, parameters: list[torch.Tensor], lr: float) -> None:
        gradients = _gradients(parameters)
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        updates = [_matrix(update) for update in torch._foreach_lerp(gradients, momenta, MOMENTUM)]  # Nesterov's
        steps = orthogonal(torch.stack(updates), torch.bfloat16 if self.half else torch.float32)
        scale = UPDATE_RMS * max(steps.shape[-2:]) ** 0.5
        torch._foreach_add_(parameters, list(steps.view(-1, *parameters[0].shape).unbind()), alpha=-lr * scale)

    def _adam(self, parameters: list[torch.Tensor], lr: float) -> None:
        gradients = _gradients(parameters)
        for parameter in parameters:
            if not self.state[parameter]:
                moments = {name: torch.zeros_like(parameter) for name in ("mean", "square")}
                self.state[parameter].update(step=torch.zeros(()), **moments)
        steps, means, squares = (
            [self.state[parameter][name] for parameter in parameters] for name in ("step", "mean", "square")
        )
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(means, gradients, 1 - BETAS[0])
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - BETAS[1])
        taken = [step.item() for step in steps]
        roots = torch._foreach_div(squares, [1 - BETAS[1] ** step for step in taken])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, EPSILON)
        torch._foreach_addcdiv_(parameters, means, roots, [-lr / (1 - BETAS[0] ** step) for step in taken])


def orthogonal(matrices: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The nearest orthogonal matrices, nearly: U V^T of each U S V^T, by Newton-Schulz in `dtype`.

    Shape: (N,r,c) -> (N,r,c), float32.
    """
    wide = matrices.shape[-2] <= matrices.shape[-1]
    iterate = (matrices if wide else matrices.mT).to(dtype)
    iterate = iterate / (iterate.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = iterate @ iterate.mT
        iterate = a * iterate + (b * gram + c * gram @ gram) @ iterate
    return (iterate if wide else iterate.mT).float()


def load_moments(optimizer: torch.optim.Optimizer, moments: Mapping[int, Mapping[str, torch.Tensor]]) -> None:
    """Gives `optimizer` its state back, by the number of the parameter.

    In the memory format of the parameters (a file knows none): vectorised kernels round by where a value lies, and
    fused ones refuse a mixture.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def placed(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value

    state = {
        number: {name: placed(value, parameters[number]) for name, value in named.items()}
        for number, named in moments.items()
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _gradients(parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _matrix(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.reshape(len(parameter), -1) if parameter.ndim > 1 else parameter.reshape(-1, 1)
