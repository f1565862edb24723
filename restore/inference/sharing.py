"""Several pictures in one batch, where each then gets the very bits that it gets alone."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from restore.inference.engine import Engine, is_out_of_memory

logger = logging.getLogger("restore")

# A probe costs as much as the batch and its pictures alone, which so many batches have to earn: a combination that
# is met less often is not worth one.
PROBED_AT = 3


@dataclass(frozen=True, eq=False)
class Request:
    """What one picture asks of the engine: the arguments of `Engine.run`."""

    planes: torch.Tensor
    device: torch.device
    stage: str


Key = tuple[tuple[int, ...], torch.device, str]  # shape (1,C,h,w), device and stage: what may be computed at once


class Asking:
    """Stands for the engine where somebody else collects what is asked of it."""

    def __init__(self, ask: Callable[[Request], torch.Tensor]) -> None:
        self._ask = ask

    def run(self, planes: torch.Tensor, device: torch.device, stage: str = "") -> torch.Tensor:
        """As `Engine.run`."""
        return self._ask(Request(planes, device, stage))


class Sharing:
    """Answers for several pictures, in batches where that changes no bit.

    Whether it does depends on how the libraries of a device split their sums for a shape, so it is
    found out, for each shape, number of pictures, device and stage: random planes are computed both ways, once.
    What pictures hold plays no part in that, nor does when they come.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._met: Counter[tuple[Key, int]] = Counter()
        self._same: dict[tuple[Key, int], bool] = {}

    def run(self, requests: Sequence[Request]) -> list[torch.Tensor | Exception]:
        """What `Engine.run` gives, or raises, for each of `requests` alone."""
        by_key: dict[Key, list[int]] = {}
        for number, request in enumerate(requests):
            by_key.setdefault((tuple(request.planes.shape), request.device, request.stage), []).append(number)
        answers: dict[int, torch.Tensor | Exception] = {}
        for key, numbers in by_key.items():
            # What is a batch by itself stays as it is.
            groups = _powers_of_two(numbers) if key[0][0] == 1 else ([number] for number in numbers)
            for group in groups:
                answers.update(zip(group, self._group(key, [requests[number] for number in group]), strict=True))
        return [answers[number] for number in range(len(requests))]

    def _group(self, key: Key, requests: list[Request]) -> list[torch.Tensor | Exception]:
        _, device, stage = key
        if len(requests) > 1:
            try:
                if self._may_share(key, len(requests)):
                    planes = torch.cat([request.planes for request in requests])
                    return list(self._engine.run(planes, device, stage).split(1))
            except Exception as error:  # whose picture it comes from, if from any, each of them alone will show
                self._same[key, len(requests)] = False
                if is_out_of_memory(error):
                    logger.warning("out of memory on %s: going on with fewer pictures at a time", device)
                    if device.type == "cuda":
                        torch.cuda.empty_cache()
        return [self._alone(request) for request in requests]

    def _alone(self, request: Request) -> torch.Tensor | Exception:
        try:
            return self._engine.run(request.planes, request.device, request.stage)
        except Exception as error:  # raised where it was asked for: other pictures go on
            return error

    def _may_share(self, key: Key, count: int) -> bool:
        """Whether `count` pictures at once get the same bits as alone."""
        if (key, count) not in self._same:
            self._met[key, count] += 1
            if self._met[key, count] < PROBED_AT:
                return False
            self._same[key, count] = self._probe(key, count)
        return self._same[key, count]

    def _probe(self, key: Key, count: int) -> bool:
        shape, device, stage = key
        planes = torch.rand(count, *shape[1:], generator=torch.Generator().manual_seed(0))
        together = self._engine.run(planes, device, stage)
        alone = torch.cat([self._engine.run(one, device, stage) for one in planes.split(1)])
        same = torch.equal(together, alone)
        logger.debug("%d pictures of %s at once on %s: %s", count, shape, device, "same bits" if same else "other bits")
        return same


def _powers_of_two(numbers: list[int]) -> Iterator[list[int]]:
    """`numbers` in groups, so that there are few sizes to find out about."""
    while numbers:
        count = 1 << (len(numbers).bit_length() - 1)
        yield numbers[:count]
        numbers = numbers[count:]
