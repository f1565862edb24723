"""Calls that go on in step, so that what they ask for in the middle can be answered for all of them at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Result = TypeVar("Result")

Ask = Callable[[Question], Answer]


def lockstep(
    calls: Sequence[Callable[[Ask[Question, Answer]], Result]],
    answer: Callable[[list[Question]], list[Answer | Exception]],
) -> list[Result | BaseException]:
    """What each of `calls` gives, or raises.

    Each is told whom to `ask`. answer: called in this thread when every call has asked or ended, with what they
    ask for; an exception in place of an answer is raised in the call that asked. Only one of them runs at any
    time, and in the order of `calls`, so they may share what is not made for threads. Raises what `answer` raises.
    """
    turns: list[_Turn[Question, Answer, Result]] = [_Turn(call) for call in calls]
    try:
        for turn in turns:
            turn.begin()
        while asking := [turn for turn in turns if turn.asks]:
            for turn, found in zip(asking, answer([turn.question for turn in asking]), strict=True):
                turn.go_on(found)
    except BaseException:
        for turn in turns:
            turn.give_up()
        raise
    return [turn.result for turn in turns]


class _Turn(Generic[Question, Answer, Result]):
    """A call in a thread of its own, which stands still whenever the thread that made it runs."""

    question: Question
    result: Result | BaseException

    def __init__(self, call: Callable[[Ask[Question, Answer]], Result]) -> None:
        self.asks = False
        self._call = call
        self._answers: SimpleQueue[Answer | Exception] = SimpleQueue()
        self._stops: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="in step", daemon=True)

    def begin(self) -> None:
        """Until it asks or ends."""
        self._thread.start()
        self.asks = self._stops.get()

    def go_on(self, found: Answer | Exception) -> None:
        """With what it asked for, until it asks again or ends."""
        self._answers.put(found)
        self.asks = self._stops.get()

    def give_up(self) -> None:
        """Ends a call that waits for an answer."""
        if self.asks:
            self.go_on(RuntimeError("given up"))

    def _run(self) -> None:
        try:
            self.result = self._call(self._ask)
        except BaseException as error:  # of the call, to whoever asked for it
            self.result = error
        self._stops.put(False)

    def _ask(self, question: Question) -> Answer:
        self.question = question
        self._stops.put(True)
        found = self._answers.get()
        if isinstance(found, Exception):
            raise found
        return found
