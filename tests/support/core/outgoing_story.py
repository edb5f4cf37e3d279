"""Plays a story of a producer and a server to `Outgoing`, and says what must have come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from riverdelta.broker.producer.resend_buffer import Resends
from riverdelta.core.errors import (
    BackpressureError,
    BrokerUnavailable,
    MessageEnded,
    MessageLost,
    RiverdeltaError,
    Stopped,
)
from riverdelta.core.outgoing import (
    Adopt,
    ChatFellBack,
    NewEntry,
    Open,
    Outgoing,
    Output,
    Push,
    Raise,
    Resend,
    Wait,
)
from tests.support.core.forgetful_server import ForgetfulServer, Sending

FAULTS = ("lose", "repeat", "no answer", "late", "refuse")
"""What may happen to one thing that is sent."""

STEPS = (
    "push",
    "push two",
    *(f"push, {fault}" for fault in FAULTS),
    *(f"push, {fault} twice" for fault in ("no answer", "late")),
    "check",
    "check, no answer",
    "finish",
    "finish, no answer",
    "arrive",
    "process",
    "full",
    "stop",
    "foreign end",
    "forget one",
    "forget all but one",
    "forget the message",
    "cancel",
)
"""
What stories are made of; those of turns also have `FORGET_ADOPTION`.

``cancel``: the next call is cancelled while it waits for its answer.
"""

FORGET_ADOPTION = "forget the adoption"

_TRIES = 3
_STALE_MS = 10_000


class CancelledCall(Exception):
    """The caller waits no longer."""


class Story:
    """
    One message, from its opening to its end.

    Args:
        resend_bytes: What is kept to be sent again; little of it, and data may be lost.
        adopts: It is a turn that was accepted.
    """

    def __init__(self, resend_bytes: int = 1 << 20, *, adopts: bool = False) -> None:
        self.server = ForgetfulServer(waiting=adopts)
        self.emitted: list[str] = []
        self._kept = Resends(resend_bytes).for_message()
        self._machine = Outgoing(
            "c",
            "m",
            self._kept,
            doubt_bytes=200,
            stale_ms=_STALE_MS,
            keep_ms=1_000,
            adopts=adopts,
        )
        self._faults: list[str] = []
        self._cancel = False
        self._now = 0
        self._count = 0
        self._stored: list[NewEntry] = []
        self._refused: list[NewEntry] = []
        self._pushed: list[NewEntry] = []
        self._forgot = False
        self._foreign = False
        self._over = False
        self._perform(self._machine.open(0))

    def play(self, steps: Iterable[str]) -> None:
        """Play each of *steps*."""
        for step in steps:
            self._now += 1
            self._step(step)

    def finish(self) -> None:
        """Let the server be well, and see that the message has what it must have."""
        self._faults, self._cancel = [], False
        self.server.arrive()
        self.server.full = False
        for _ in range(3):
            self._check()
            self._finish()
        self._verify()

    # -- steps -----------------------------------------------------------------------------------

    def _step(self, step: str) -> None:
        call, _, fault = step.partition(", ")
        twice = fault.endswith(" twice")
        if fault:
            self._faults = [fault.removesuffix(" twice")] * (2 if twice else 1)
        calls: dict[str, Callable[[], None]] = {
            "push": lambda: self._push(1),
            "push two": lambda: self._push(2),
            "check": self._check,
            "finish": self._finish,
            "cancel": self._cancel_next,
            "arrive": self.server.arrive,
            "process": self.server.process,
            "full": self.server.fill,
            "stop": self.server.ask_to_stop,
            "foreign end": self._foreign_end,
            "forget one": lambda: self._forget(len(self.server.log or ()) - 1),
            "forget all but one": lambda: self._forget(1),
            "forget the message": lambda: self._forget(-1),
            FORGET_ADOPTION: self._forget_adoption,
        }
        calls[call]()
        self._faults = []

    def _push(self, count: int) -> None:
        entries = [self._new("chunk") for _ in range(count)]
        self._pushed += entries
        self._call(self._machine.store(entries), entries)

    def _finish(self) -> None:
        end = self._new("end")
        self._call(self._machine.finish(end, MessageEnded("it was ended")), [])

    def _cancel_next(self) -> None:
        self._cancel = True

    def _foreign_end(self) -> None:
        opened = self.server.log is not None
        self._foreign = (
            self._foreign or opened
        )  # a producer that saw it never ends the message again
        self.server.ended = opened

    def _forget(self, most: int) -> None:
        before = self.server.log
        self.server.forget(max(most, -1))
        self._forgot = self._forgot or before is not None

    def _forget_adoption(self) -> None:
        self._forgot = self._forgot or self.server.log is not None
        self.server.forget_adoption()

    def _new(self, type_: str) -> NewEntry:
        self._count += 1
        return NewEntry(type_, self._count, b"%040d" % self._count)

    def _check(self) -> None:
        if self._faults.pop(0) if self._faults else "":
            return  # no answer, nothing to do
        if self._over:
            return  # the caretaker has forgotten it
        last = self._machine.last
        reply = self.server.check()
        self._call(self._machine.checked(reply, last, self._now), [])
        self._over = self._machine.is_over(reply, self._now)

    def _call(self, outputs: list[Output], entries: list[NewEntry]) -> None:
        try:
            self._perform(outputs)
        except (BrokerUnavailable, CancelledCall) as error:
            self.emitted.append(type(error).__name__)
        except RiverdeltaError as error:
            self.emitted.append(type(error).__name__)
            if isinstance(error, BackpressureError):  # the others do not say that it is not stored
                self._refused += entries
        else:
            self.emitted.append("done")
            self._stored += entries

    # -- what a producer does --------------------------------------------------------------------

    def _perform(self, outputs: list[Output]) -> None:
        tries = 0
        while True:
            if any(isinstance(output, ChatFellBack) for output in outputs):
                self._machine.fell_back()
            last = outputs[-1]
            match last:
                case Wait(error):
                    tries += 1
                    if tries == _TRIES:
                        raise self._machine.give_up(error)
                    outputs = self._machine.retry()
                case Raise(error):
                    raise error
                case Open() | Adopt() | Push() | Resend():
                    outputs = self._send(last)
                case _:
                    return

    def _send(self, sending: Sending) -> list[Output]:
        fault = self._faults.pop(0) if self._faults else ""
        lost = BrokerUnavailable("no answer")
        if self._cancel:
            self._cancel = False
            self.server.take(sending)
            raise CancelledCall
        match fault:
            case "lose":
                return self._machine.lost(lost)
            case "no answer":
                self.server.take(sending)
                return self._machine.lost(lost)
            case "late":
                self.server.late.append(sending)
                return self._machine.lost(lost)
            case "refuse":
                return self._machine.refused(BackpressureError("out of memory"))
            case "repeat":
                self.server.take(sending)
        return self._machine.reply(self.server.take(sending), self._now)

    # -- what must have come of it ---------------------------------------------------------------

    def _verify(self) -> None:
        ended, log = self._machine.ended, self.server.log
        assert ended is not None, "after all it has an end"
        if log is None:
            assert isinstance(ended, MessageLost) or self._forgot
            return
        # The first end in stream order wins: workers ignore what a late push leaves behind it.
        at = next((at for at, entry in enumerate(log) if entry.type != "chunk"), len(log))
        chunks, ends = log[:at], log[at : at + 1]
        order = [self._pushed.index(entry) for entry in chunks]
        assert order == sorted(set(order)), "each once, in the order of the calls"
        assert not [entry for entry in chunks if entry in self._refused], (
            "what was refused is not there"
        )
        if isinstance(ended, MessageLost):
            assert self._forgot, "nothing is lost while the server keeps what it said"
        elif not (self._foreign and self._forgot) and not self.server.over:
            assert [e for e in self._stored if e not in chunks] == [], (
                "what was acknowledged is there"
            )
        if not self._foreign and not isinstance(ended, MessageLost):
            assert ends, "it ended"
            assert isinstance(ended, Stopped if ends[0].type == "stop" else MessageEnded)
