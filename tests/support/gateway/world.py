"""
The session without a socket: a log, its feed, a catch-up and a client, moved one step at a time.

Each does what `hub.py` and `sockets.py` do, in the order that a test chooses. The client holds what it
gets to the guarantee, and reduces it to a view.
"""

import json
from collections import deque

from riverdelta import ChatView, Event
from riverdelta.core.cursor import Verdict
from riverdelta.core.events import EventType, encode_event
from riverdelta.core.positions import NO_EPOCH, Position
from riverdelta_gateway.send_queue import Delivery
from riverdelta_gateway.session import CatchUp, Output, Session, SessionLimits, Subscription, Write
from tests.support.gateway.clients import check_runs

CHAT = "c"
MAX_QUEUED = 1500
"""About four entries: small tests overflow, too."""


def payload_of(frame: bytes) -> dict[str, object]:
    """The JSON in a text frame; its header ends before the first brace and quote."""
    document = json.loads(frame[frame.index(b'{"') :])
    assert isinstance(document, dict)
    return document


class World:
    """One chat, one session, one client."""

    def __init__(self, after: Position | None = None) -> None:
        self.session = Session(
            SessionLimits(max_chats=2, max_queued_bytes=MAX_QUEUED, stall_timeout_s=10)
        )
        self.log: list[Event] = []
        self.received: list[Event] = []
        self.epoch = "e1"
        self.states: list[str] = []
        self._view = ChatView()
        self._published = 0
        self._writable = True
        self._catching_up: deque[tuple[Subscription, int]] = deque()
        self._append(
            "message.started", None, {"role": "assistant", "source": "text", "metadata": {}}
        )
        self._start_chunk(0)
        self._start_chunk(1)
        self._deltas = 0
        self._published = len(self.log)
        self.feed = Position(self.epoch, self.seq)
        self.do(self.session.subscribe(CHAT, after))

    @property
    def seq(self) -> int:
        return len(self.log)

    @property
    def subscription(self) -> Subscription:
        return self.session._subscriptions[CHAT]

    # -- steps -----------------------------------------------------------------------------------

    def write_delta(self) -> None:
        """The worker commits a delta; two of three are of the chunk of the one before."""
        chunk = self._deltas // 3 % 2
        self._deltas += 1
        text = self._view.message("m")["chunks"][chunk]["text"]
        self._append("chunk.delta", chunk, {"offset": len(text), "text": f"<{self._deltas} é🚀>"})

    def write_other(self) -> None:
        """The worker commits something that does not merge, and is long."""
        data = {"name": "note", "data": "x" * 600}
        self._append("message.annotated", None, data)

    def publish(self) -> None:
        """The feed hands the next event out."""
        if self._published < len(self.log):
            self._hand_out(self.log[self._published])
            self._published += 1

    def new_epoch(self) -> None:
        """The server came back with less: the feed gives a snapshot."""
        self.epoch = f"e{int(self.epoch[1:]) + 1}"
        self._published = len(self.log)
        self._hand_out(self._snapshot())

    def block(self) -> None:
        self._writable = False
        self.session.blocked()

    def drain(self) -> None:
        """The socket takes everything."""
        self._writable = True
        while outputs := self.session.drained():
            self.do(outputs)

    def catch_up(self) -> None:
        """The catch-up that is under way takes one step, once the socket is ready."""
        if self.session.ready:
            self.catch_up_late()

    def catch_up_late(self) -> None:
        """The same; the socket was ready when the read was begun, and may not be any more."""
        while self._catching_up:
            subscription, attempt = self._catching_up[0]
            if subscription.attempt == attempt:
                break
            self._catching_up.popleft()
        else:
            return
        cursor = subscription.cursor
        verdict = Verdict.SNAPSHOT
        if not subscription.needs_snapshot:
            verdict = cursor.judge_head(Position(self.epoch, self.seq))
        if verdict is Verdict.SNAPSHOT:
            event = self._snapshot()
            cursor.restart(event)
            self.do(self.session.read(subscription, Delivery(event)))
        elif verdict is Verdict.READ_LOG:
            event = self.log[cursor.position.seq]
            assert cursor.judge_logged(event) is Verdict.DELIVER
            self.do(self.session.read(subscription, Delivery(event)))
        if subscription.attempt == attempt and cursor.position.seq >= self.feed.seq:
            self._catching_up.popleft()
            self.do(self.session.caught_up(subscription))

    def settle(self) -> None:
        """Everything that can happen happens."""
        while self._published < len(self.log):
            self.publish()
        self.drain()
        while self._catching_up:
            self.catch_up()
            self.drain()

    # -- what is held to ---------------------------------------------------------------------------

    def check(self) -> None:
        """The client has a contiguous run; in the end, all of it."""
        check_runs(self.received)
        view = ChatView()
        for event in self.received:
            view.apply(event)
        assert view.messages == self._view.messages

    def do(self, outputs: object) -> None:
        assert isinstance(outputs, list | tuple)
        for output in outputs:
            self._do(output)
        if self.session._subscriptions:
            assert self.session.queued_bytes <= MAX_QUEUED

    def _do(self, output: Output) -> None:
        if isinstance(output, Write):
            assert self._writable, "written to a socket that takes nothing"
            payload = payload_of(output.frame)["payload"]
            self.received.append(Event(json.dumps(payload).encode()))
        elif isinstance(output, CatchUp):
            self._catching_up.append((output.subscription, output.subscription.attempt))

    # -- the log -----------------------------------------------------------------------------------

    def _hand_out(self, event: Event) -> None:
        self.feed = Position(event.epoch, event.seq)
        self.do(self.session.event(self.subscription, Delivery(event)))

    def _start_chunk(self, index: int) -> None:
        fields = {"kind": "text", "format": "text", "index": index}
        self._append(
            "chunk.started",
            index,
            fields | {"tool_name": None, "tool_call_id": None, "section": None},
        )

    def _append(self, type_: EventType, chunk: int | None, data: object) -> None:
        event = self._event(type_, self.seq + 1, chunk, data)
        self.log.append(event)
        self._view.apply(event)

    def _snapshot(self) -> Event:
        return self._event("snapshot", self.seq, None, {"messages": self._view.messages})

    def _event(self, type_: EventType, seq: int, chunk: int | None, data: object) -> Event:
        return Event(
            encode_event(
                seq=seq,
                epoch=self.epoch,
                chat=CHAT,
                message=None if type_ == "snapshot" else "m",
                chunk=None if chunk is None else f"m.{chunk}",
                type_=type_,
                ts_ms=seq,
                data=data,
            )
        )


STEPS = (
    World.write_delta,
    World.write_other,
    World.publish,
    World.new_epoch,
    World.block,
    World.drain,
    World.catch_up,
    World.catch_up_late,
)
BEGINNING = Position(NO_EPOCH, 0)
