"""
What the producer of one message does next: numbers, doubt, resends, end. Pure: sends nothing itself.

`Outgoing` gets the calls of its user and the replies of Redis, and answers with outputs, in order. The last
one says how to go on: send (`Open`, `Adopt`, `Push`, `Resend`), wait and `Outgoing.retry` (`Wait`), or
the call is over (`Done`, `Raise`). One call at a time; its caller keeps the order.

Rule 1: what a reply means is in `Outgoing.TRANSITIONS`, by what was sent and how it was answered. A pair
that is not in it cannot happen: a `KeyError` is a bug.
Rule 2: an entry that was sent and not answered is *in doubt*. Until an answer settles it, it keeps its
number, and goes first in whatever is sent next: stored before or only now, once.
Rule 3: of a message's end only the first counts. From the moment it is wanted, nothing else is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import ClassVar, NamedTuple, Protocol

import orjson

from riverdelta.core.errors import (
    BackpressureError,
    BrokerUnavailable,
    MessageEnded,
    MessageExists,
    MessageLost,
    NotChatOwner,
    RiverdeltaError,
    Stopped,
)


class NewEntry(NamedTuple):
    """An entry to push; see `riverdelta.core.state.Entry`."""

    type: str
    at_ms: int
    data: bytes


class PushReply(NamedTuple):
    """
    What the server answers when a message is opened, pushed or checked.

    Attributes:
        status: open: stored, repeat, exists, foreign.
            adopt: stored, repeat, taken, stopped, ended, unknown.
            push: stored, repeat, hole, unknown, ended, stopped, full.
            check: open, completed, failed, stopped, unknown.
        last: message_seq of the last entry stored for this producer and message.
        pushed, processed: Entries of the chat so far, and how many of them workers are done with.
        owner: Worker id; "" when the chat has no owner.
        term: Fencing number of the last owner.
        stop: "" or the reason a reader gave for stopping the message.
    """

    status: str
    last: int
    pushed: int
    processed: int
    owner: str
    term: int
    stop: str


class Keep(Protocol):
    """The last stored entries of the message, as far as they are kept to be sent again."""

    def add(self, entries: Sequence[NewEntry]) -> None:
        """Keep what was just stored, under the next message_seqs."""

    def since(self, message_seq: int) -> list[NewEntry] | None:
        """Return the entries from *message_seq* on; None: some of them are no longer kept."""

    def release(self) -> None:
        """Drop everything."""


# -- outputs -------------------------------------------------------------------------------------


class Open(NamedTuple):
    """Open the message; repeating it is safe. *again*: the server lost it, list it once more before."""

    again: bool


class Adopt(NamedTuple):
    """Become the producer of a turn that was accepted; repeating it is safe. *again*: as `Open`."""

    again: bool


class Push(NamedTuple):
    """Store *entries*, the first under *message_seq*, within the limits of the backlog."""

    message_seq: int
    entries: list[NewEntry]


class Resend(NamedTuple):
    """As `Push`, past the limits: the server has lost some of *entries*, and what it takes makes room."""

    message_seq: int
    entries: list[NewEntry]


class RequestOwner(NamedTuple):
    """The chat has no owner since *term*: ask for one, once per term."""

    term: int


class ChatFellBack(NamedTuple):
    """The server lost some of the chat: call `Outgoing.fell_back` of each message of it."""


class Wait(NamedTuple):
    """Not stored, or in doubt; `Outgoing.retry` may help, `Outgoing.give_up` says what to raise."""

    error: RiverdeltaError


class Raise(NamedTuple):
    """The call has failed."""

    error: RiverdeltaError


class Done(NamedTuple):
    """The call is over; nothing to send."""


Output = Open | Adopt | Push | Resend | RequestOwner | ChatFellBack | Wait | Raise | Done


class Sent(Enum):
    """What an answer is awaited to."""

    OPEN = "open"
    ADOPT = "adopt"
    PUSH = "push"
    REOPEN = "open again"
    READOPT = "adopt again"
    RESEND = "resend"


class _End(NamedTuple):
    """The end that is wanted, and what later calls raise."""

    entry: NewEntry
    error: RiverdeltaError


class Outgoing:
    """
    One message on its way out.

    Args:
        chat_id, message_id: Named in errors.
        kept: What is kept to be sent again.
        doubt_bytes: While so much is in doubt, nothing more is taken: memory is bounded.
        stale_ms: Age at which a reply can no longer tell loss from expiry.
        keep_ms: How long after its end the message is looked after.
        adopts: The message is a turn that was accepted: `open` makes this its producer.

    Attributes:
        last: Number of the last entry that is known to be stored; the start is 1.
        doubt: Entries that may be stored, under the numbers behind *last*.
        goal: Raised whenever something else is to be stored: waiting for it begins afresh.
        opened: Whether its start is known to be stored.
        ended: What calls raise: its end is stored, or it cannot have one any more. None: it is open.
    """

    def __init__(
        self,
        chat_id: str,
        message_id: str,
        kept: Keep,
        *,
        doubt_bytes: int,
        stale_ms: int,
        keep_ms: int,
        adopts: bool = False,
    ) -> None:
        self.last = 1
        self.doubt: list[NewEntry] = []
        self.goal = 0
        self.ended: RiverdeltaError | None = None
        self._name = f"message {message_id} of chat {chat_id}"
        self._chat_id = chat_id
        self._message_id = message_id
        self._kept = kept
        self._doubt_bytes = doubt_bytes
        self._stale_ms = stale_ms
        self._keep_ms = min(keep_ms, stale_ms)
        self.opened = False
        self._adopts = adopts
        self._sent = Sent.OPEN
        self._only_open = False
        self._flight: list[NewEntry] = []
        self._then: list[NewEntry] | None = None
        self._before: list[NewEntry] = []
        self._result: Done | Raise = Done()
        self._end: _End | None = None
        self._opened_at = 0
        self._ended_at: int | None = None
        self._end_is_kept = False
        self._chat_fell_back = False
        self._check_at = 0
        self._pushed = 0
        self._answered_at = 0
        self._now = 0

    # -- inputs: what is wanted ------------------------------------------------------------------

    def open(self, now_ms: int) -> list[Output]:
        """Open the message, or adopt it."""
        self._opened_at = self._now = now_ms
        self._only_open = True
        return self._aim([], Done())

    def at_ms(self, now_ms: int) -> int:
        """Milliseconds since the message was opened, which entries carry."""
        return now_ms - self._opened_at

    def store(self, entries: list[NewEntry]) -> list[Output]:
        """Store entries, all or none of them."""
        if self.ended is not None:
            return [Raise(self.ended)]
        if self._end is not None:
            return [Raise(self._end.error)]
        if sum(len(entry.data) for entry in self.doubt) >= self._doubt_bytes:
            outputs = self._aim(self.doubt, Done())
            self._then = entries
            return outputs
        return self._aim([*self.doubt, *entries], Done())

    def release(self, error: RiverdeltaError) -> None:
        """The turn waits for another producer; later calls raise *error*."""
        self.ended = error

    def finish(self, entry: NewEntry, error: RiverdeltaError) -> list[Output]:
        """Store the end, unless it has one; later calls raise *error*."""
        self.want_end(entry, error)
        return self._store_end(Done())

    def want_end(self, entry: NewEntry, error: RiverdeltaError) -> None:
        """Take no entry but this end from now on; `checked` stores it."""
        if self._end is None and self.ended is None:
            self._end = _End(entry, error)

    # -- inputs: what came back ------------------------------------------------------------------

    def reply(self, reply: PushReply, now_ms: int) -> list[Output]:
        """Take the answer to what was sent."""
        self._now = now_ms
        return self.TRANSITIONS[self._sent, reply.status](self, reply)

    def lost(self, error: BrokerUnavailable) -> list[Output]:
        """No answer came: what was sent stays in doubt."""
        return [Wait(error)]

    def refused(self, error: RiverdeltaError) -> list[Output]:
        """The server answered with an error: nothing of this try was stored."""
        self.doubt = self._before
        return [Wait(error)]

    def retry(self) -> list[Output]:
        """Try the same again, after `Wait`."""
        if not self.opened:
            self._sent = Sent.ADOPT if self._adopts else Sent.OPEN
            return [Adopt(again=False) if self._adopts else Open(again=False)]
        # From here on all of them are in doubt: nothing else may ever take their numbers, because
        # this very push may arrive, whether its caller waits for that or not.
        self._before, self.doubt = self.doubt, self._flight
        self._sent = Sent.PUSH
        return [Push(self.last + 1, self._flight)]

    def give_up(self, error: RiverdeltaError) -> RiverdeltaError:
        """Say what the call raises that waited long enough; *error* is that of the last `Wait`."""
        if self._then is not None:
            waiting = len(self.doubt)
            return BackpressureError(
                f"not stored: {waiting} chunks before it wait for an answer: {error}"
            )
        if isinstance(error, BackpressureError) and self._flight and self.doubt is self._flight:
            # Never say "not stored" of what an earlier try, without an answer, may have stored.
            return BrokerUnavailable(f"Redis gave no answer, then: {error}")
        return error

    def fell_back(self) -> None:
        """Learn that the server lost some of the chat: look soon."""
        self._chat_fell_back = True
        self._check_at = 0

    # -- inputs: time ----------------------------------------------------------------------------

    def is_due(self, now_ms: int) -> bool:
        """Whether to ask how the message stands: ever more rarely once its end was processed."""
        return now_ms >= self._check_at

    def checked(self, reply: PushReply, last: int, now_ms: int) -> list[Output]:
        """
        Do what is due by a check's *reply*.

        Args:
            reply: The answer.
            last: Number of the last entry when the check was sent; meanwhile more may be stored.
            now_ms: Now.
        """
        self._now = now_ms
        if self.ended is None and self._end is not None:
            return self._store_end(Done())
        if not self.opened:
            return [Done()]
        if reply.status == "open" and reply.last < last:
            return self._aim(self.doubt, Done())  # it finds out what is missing
        if reply.status != "unknown":
            self._note(reply)
            if self.ended is None and reply.stop and reply.status == "open":
                self._want_stop(reply.stop)
                return self._store_end(Done())
        elif self.ended is None or self._is_forgotten(reply):
            return self._aim(self.doubt, Done())
        return [Done()]

    def is_over(self, reply: PushReply, now_ms: int) -> bool:
        """Whether the message needs no more checks, by the reply to the last one; plans the next."""
        if self._ended_at is None:
            return self.ended is not None or (
                self.opened and reply.status not in ("open", "unknown")
            )
        if reply.status == "open":
            return False
        # Processed; but a server that comes back with less may have lost it. Then it is sent again, or
        # fails if it is no longer kept: nobody waits for ever for an end that nobody has.
        keep_until = self._ended_at + self._keep_ms
        self._check_at = min(2 * now_ms - self._ended_at, keep_until)
        return now_ms >= keep_until

    # -- transitions -----------------------------------------------------------------------------

    def _open_stored(self, reply: PushReply) -> list[Output]:
        self.opened = True
        self._note(reply)
        outputs = self._owner(reply)
        if self._only_open:
            self._only_open = False
            return [*outputs, Done()]
        self.goal += 1
        return [*outputs, *self.retry()]

    def _exists(self, _: PushReply) -> list[Output]:
        message = f"message {self._message_id} exists in chat {self._chat_id}: it was opened before"
        return self._close(MessageExists(message))

    def _taken(self, _: PushReply) -> list[Output]:
        message = f"another producer writes {self._name}: its reply is under way"
        return self._close(MessageExists(message))

    def _stopped_before(self, reply: PushReply) -> list[Output]:
        """It was stopped while it waited, and has its end."""
        return self._close(Stopped(reply.stop))

    def _not_owner(self, _: PushReply) -> list[Output]:
        self.doubt = self._before
        message = (
            f"chat {self._chat_id} is not the user's whom message {self._message_id} is for: "
            "nothing was stored; use another chat id"
        )
        return self._close(NotChatOwner(message))

    def _stored(self, reply: PushReply) -> list[Output]:
        flight = self._flight
        self.last += len(flight)
        self._kept.add(flight)
        self.doubt = []
        self._note(reply)
        outputs = self._owner(reply)
        if self._end is not None and flight and flight[-1] is self._end.entry:
            self.ended, self._ended_at, self._end_is_kept = self._end.error, self._now, True
        elif self._then is not None:
            return [*outputs, *self._aim(self._then, Done())]
        return [*outputs, self._result]

    def _full(self, reply: PushReply) -> list[Output]:
        self.doubt = self._before
        unread = reply.pushed - reply.processed
        owner = f"worker {reply.owner}" if reply.owner else "no worker"
        message = f"chat {self._chat_id} has {unread} unread chunks ({owner} has it)"
        return [Wait(BackpressureError(message))]

    def _stop(self, reply: PushReply) -> list[Output]:
        self.doubt = self._before
        self._want_stop(reply.stop)
        return self._store_end(Raise(Stopped(reply.stop)))

    def _foreign_end(self, _: PushReply) -> list[Output]:
        self.doubt = self._before
        return self._close(MessageEnded(f"{self._name} has ended"))

    def _gone(self, _: PushReply) -> list[Output]:
        self.doubt = self._before
        return self._close(MessageLost(f"Redis does not know {self._name} any more"))

    def _unknown(self, reply: PushReply) -> list[Output]:
        if not self._is_forgotten(reply):
            return self._gone(reply)
        self._sent = Sent.REOPEN
        return [ChatFellBack(), Open(again=True)]

    def _hole(self, reply: PushReply) -> list[Output]:
        if self._adopts and reply.last == 0:  # the server knows the turn, and lost who adopted it
            self._sent = Sent.READOPT
            return [ChatFellBack(), Adopt(again=True)]
        return [ChatFellBack(), *self._resend(reply)]

    def _resend(self, reply: PushReply) -> list[Output]:
        """Send again what is missing behind the last entry that the server has."""
        missing = self._kept.since(reply.last + 1)
        if missing is None:
            return self._data_lost(reply.last)
        self._sent = Sent.RESEND
        return [Resend(reply.last + 1, [*missing, *self._flight])]

    def _data_lost(self, last: int) -> list[Output]:
        """Fail the message: the server lost entries that are not kept here either."""
        self.last, self.doubt = last, []
        self._kept.release()
        self.ended, self._ended_at, self._end_is_kept = None, None, False
        lost = {"code": "data_lost", "detail": "Redis lost part of the reply"}
        error = MessageLost(f"Redis lost more of {self._name} than could be sent again")
        self._end = _End(NewEntry("fail", self.at_ms(self._now), orjson.dumps(lost)), error)
        return self._store_end(Raise(error))

    # -- what they have in common ----------------------------------------------------------------

    def _aim(self, entries: list[NewEntry], result: Done | Raise) -> list[Output]:
        """Have *entries* stored, in doubt or new; the call ends with *result*."""
        self.goal += 1
        self._flight, self._then, self._result = entries, None, result
        return self.retry()

    def _store_end(self, result: Done | Raise) -> list[Output]:
        if self._end is None or self.ended is not None:
            return [result]
        self._only_open = False
        end, doubt = self._end.entry, self.doubt
        has_it = bool(doubt) and doubt[-1] is end
        return self._aim(doubt if has_it else [*doubt, end], result)

    def _want_stop(self, reason: str) -> None:
        data = orjson.dumps({"reason": reason})
        self.want_end(NewEntry("stop", self.at_ms(self._now), data), Stopped(reason))

    def _close(self, error: RiverdeltaError) -> list[Output]:
        """Raise *error* for every later call, too."""
        self.ended = error
        return [Raise(error)]

    def _owner(self, reply: PushReply) -> list[Output]:
        return [] if reply.owner else [RequestOwner(reply.term)]

    def _note(self, reply: PushReply) -> None:
        """Note an answer of a server that knows the message."""
        self._pushed, self._answered_at = reply.pushed, self._now
        self._chat_fell_back = False

    def _is_forgotten(self, reply: PushReply) -> bool:
        """Whether a message that the server does not know was lost: not expired, or dropped as old."""
        if self._now - self._answered_at > self._stale_ms:
            return False
        # An open message is never dropped. Of one that ended, a chat keeps 50 later ones at most.
        return not self._end_is_kept or self._chat_fell_back or reply.pushed < self._pushed

    # -- the table -------------------------------------------------------------------------------

    TRANSITIONS: ClassVar[dict[tuple[Sent, str], Callable[[Outgoing, PushReply], list[Output]]]] = {
        (Sent.OPEN, "stored"): _open_stored,
        (Sent.OPEN, "repeat"): _open_stored,
        (Sent.OPEN, "exists"): _exists,
        (Sent.OPEN, "foreign"): _not_owner,
        (Sent.ADOPT, "stored"): _open_stored,
        (Sent.ADOPT, "repeat"): _open_stored,
        (Sent.ADOPT, "taken"): _taken,
        (Sent.ADOPT, "stopped"): _stopped_before,
        (Sent.ADOPT, "ended"): _foreign_end,
        (Sent.ADOPT, "unknown"): _gone,
        (Sent.PUSH, "stored"): _stored,
        (Sent.PUSH, "repeat"): _stored,
        (Sent.PUSH, "full"): _full,
        (Sent.PUSH, "stopped"): _stop,
        (Sent.PUSH, "ended"): _foreign_end,
        (Sent.PUSH, "hole"): _hole,
        (Sent.PUSH, "unknown"): _unknown,
        (Sent.REOPEN, "stored"): _resend,
        (Sent.REOPEN, "repeat"): _resend,
        (Sent.REOPEN, "exists"): _gone,
        (Sent.REOPEN, "foreign"): _not_owner,
        (Sent.READOPT, "stored"): _resend,
        (Sent.READOPT, "repeat"): _resend,
        (Sent.READOPT, "taken"): _foreign_end,
        (Sent.READOPT, "stopped"): _stopped_before,
        (Sent.READOPT, "ended"): _foreign_end,
        (Sent.READOPT, "unknown"): _unknown,
        (Sent.RESEND, "stored"): _stored,
        (Sent.RESEND, "repeat"): _stored,
        (Sent.RESEND, "full"): _full,
        (Sent.RESEND, "stopped"): _stop,
        (Sent.RESEND, "ended"): _foreign_end,
        (Sent.RESEND, "hole"): _hole,
        (Sent.RESEND, "unknown"): _unknown,
    }
    """What a reply means, by what it answers."""
