"""
One socket's session: its subscriptions, its send queue, and what is sent next.

Pure: no socket, no clock, no Redis. Each input is a method that returns the actions to take, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from riverdelta.core.cursor import ReaderCursor, Verdict
from riverdelta.core.positions import NO_EPOCH, Position
from riverdelta_gateway.close_codes import CloseCode
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.send_queue import Delivery, SendQueue
from riverdelta_gateway.transitions import TRANSITIONS, Input, State


class Subscription:
    """
    One chat on one socket.

    Attributes:
        chat_id: The chat.
        state: See `transitions`.
        cursor: Position of the last event that was sent or queued.
        needs_snapshot: The next catch-up begins with one, whatever the cursor says.
        attempt: Number of its catch-up. A catch-up that finds another number here is outdated, and ends.
    """

    def __init__(self, chat_id: str, after: Position | None) -> None:
        self.chat_id = chat_id
        self.state = State.STARTING
        self.cursor = ReaderCursor(after or Position(NO_EPOCH, 0))
        self.needs_snapshot = after is None
        self.attempt = 0

    def move(self, what: Input) -> None:
        """Change the state as `TRANSITIONS` says."""
        self.state = TRANSITIONS[self.state, what]


@dataclass(frozen=True, slots=True)
class Write:
    """Write these bytes to the socket."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Read the events that the subscription lacks into `Session.read`; end with `Session.caught_up`."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class Leave:
    """Remove the subscription from the hub."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket."""

    code: CloseCode


Output = Write | CatchUp | Leave | Close


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """See `GatewaySettings`; *deadline_s*: when the token expires, on the clock of `Session.tick`."""

    max_chats: int
    max_queued_bytes: int
    stall_timeout_s: float
    deadline_s: float | None = None


class Session:
    """
    Decides what one socket sends. Inputs are its methods; see the module.

    Attributes:
        ready: Whether the socket takes bytes, and the send queue is empty.
        closed: Whether the session is over.
        queued_bytes: Size of the send queue; `SessionLimits.max_queued_bytes` bounds it.
    """

    def __init__(self, limits: SessionLimits) -> None:
        self.closed = False
        self._limits = limits
        self._deadline_s = limits.deadline_s
        self._writable = True
        self._send_queue: SendQueue[Subscription] = SendQueue()
        self._subscriptions: dict[str, Subscription] = {}
        self._stalled: tuple[float, int] | None = None

    @property
    def ready(self) -> bool:
        """Whether the socket takes bytes, and the send queue is empty."""
        return self._writable and not self._send_queue

    @property
    def queued_bytes(self) -> int:
        """Bytes in the send queue, not counting one snapshot."""
        return self._send_queue.size

    # -- what the client wants -------------------------------------------------------------------

    def subscribe(self, chat_id: str, after: Position | None) -> Sequence[Output]:
        """
        Subscribe to a chat; a second time replaces the first subscription.

        Raises:
            RequestError: RATE_LIMITED: this socket has too many chats.
        """
        if self.closed:
            return ()
        left = self.unsubscribe(chat_id)
        if len(self._subscriptions) >= self._limits.max_chats:
            raise RequestError(
                "RATE_LIMITED",
                f"This socket has {self._limits.max_chats} chats: unsubscribe from one first.",
            )
        subscription = self._subscriptions[chat_id] = Subscription(chat_id, after)
        return (*left, CatchUp(subscription))

    def unsubscribe(self, chat_id: str) -> Sequence[Output]:
        """Unsubscribe from a chat; without a subscription, do nothing."""
        subscription = self._subscriptions.pop(chat_id, None)
        if subscription is None:
            return ()
        self._send_queue.drop(subscription)
        subscription.move(Input.CLOSE)
        subscription.attempt += 1
        return (Leave(subscription),)

    # -- what goes out ---------------------------------------------------------------------------

    def send(self, frame: bytes) -> Sequence[Output]:
        """Send a response. Responses are never dropped: a client that leaves too many unread is closed."""
        if self.closed:
            return ()
        if self.ready:
            return (Write(frame),)
        self._enforce_limit()
        if self._send_queue.size > self._limits.max_queued_bytes:
            return self.close(CloseCode.TOO_SLOW)
        self._send_queue.add_frame(frame)
        return ()

    def event(self, subscription: Subscription, delivery: Delivery) -> Sequence[Output]:
        """Take a live event."""
        if subscription.state is not State.LIVE and subscription.state is not State.LAGGING:
            return ()  # a catch-up, or the snapshot that is due, will deliver it
        verdict = subscription.cursor.judge(delivery.event)
        if verdict is Verdict.SKIP:
            return ()
        if delivery.event.type == "snapshot":
            subscription.cursor.restart(delivery.event)
        elif verdict is not Verdict.DELIVER:
            subscription.move(Input.GAP)
            return (CatchUp(subscription),)
        return self._offer(subscription, delivery)

    def read(self, subscription: Subscription, delivery: Delivery) -> Sequence[Output]:
        """Take an event that a catch-up read; it has moved the cursor already."""
        if subscription.state is not State.STARTING:
            return ()
        subscription.needs_snapshot = False
        return self._offer(subscription, delivery)

    def caught_up(self, subscription: Subscription) -> Sequence[Output]:
        """Go live: the catch-up has reached the last live event."""
        if subscription.state is State.STARTING:
            subscription.move(Input.CAUGHT_UP)
            if self._send_queue.holds(subscription):
                subscription.move(Input.QUEUED)
        return ()

    # -- the socket's state ----------------------------------------------------------------------

    def blocked(self) -> None:
        """Note that the socket takes no bytes for now."""
        self._writable = False

    def drained(self) -> Sequence[Output]:
        """Note that the socket takes bytes again. Call it until it returns nothing, or `blocked` comes."""
        self._writable = True
        self._stalled = None
        if self.closed:
            return ()
        if self._send_queue:
            frame, emptied = self._send_queue.pop()
            if emptied is not None:
                emptied.move(Input.EMPTIED)
            return (Write(frame),)
        due = [s for s in self._subscriptions.values() if s.state is State.DUE]
        for subscription in due:
            subscription.move(Input.DRAINED)
        return tuple(CatchUp(subscription) for subscription in due)

    def tick(self, now_s: float, unsent_bytes: int) -> Sequence[Output]:
        """
        Check the token's end and the stall limit.

        Args:
            now_s: Any clock that only goes forward.
            unsent_bytes: Bytes in the socket's own buffer.
        """
        if self._deadline_s is not None and now_s >= self._deadline_s:
            return self.close(CloseCode.TOKEN_EXPIRED)
        if self._writable:
            return ()
        if self._stalled is None or unsent_bytes < self._stalled[1]:
            self._stalled = (now_s, unsent_bytes)
        elif now_s - self._stalled[0] > self._limits.stall_timeout_s:
            return self.close(CloseCode.TOO_SLOW)
        return ()

    def renew(self, deadline_s: float | None) -> None:
        """Replace the deadline of the token, on the clock of `tick`; None: there is none any more."""
        self._deadline_s = deadline_s

    def close(self, code: CloseCode | None = None) -> Sequence[Output]:
        """End the session; *code*: close the socket with it; None: the socket is gone already."""
        if self.closed:
            return ()
        self.closed = True
        outputs: list[Output] = []
        for chat_id in list(self._subscriptions):
            outputs += self.unsubscribe(chat_id)
        self._send_queue = SendQueue()
        return outputs if code is None else [*outputs, Close(code)]

    # -- inside ----------------------------------------------------------------------------------

    def _offer(self, subscription: Subscription, delivery: Delivery) -> Sequence[Output]:
        if self.ready:
            return (Write(delivery.frame),)
        subscription.move(Input.QUEUED)
        self._send_queue.add_event(subscription, delivery)
        self._enforce_limit()
        return ()

    def _enforce_limit(self) -> None:
        """Past the limit, replace the queued events of all chats by snapshots; responses stay."""
        if self._send_queue.size <= self._limits.max_queued_bytes:
            return
        for owner in self._send_queue.owners():
            self._send_queue.drop(owner)
            owner.move(Input.OVERFLOW)
            owner.needs_snapshot = True
            owner.attempt += 1
