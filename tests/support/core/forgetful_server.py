"""
A model of Redis, for one message: stores as ``push.lua`` does, and loses, repeats, delays, forgets.

The message may be a turn that was accepted: then it is adopted, as by ``adopt.lua``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from riverdelta.core.outgoing import Adopt, NewEntry, Open, Push, PushReply, Resend

ENDS = ("end", "fail", "stop")

Sending = Open | Adopt | Push | Resend


@dataclass
class ForgetfulServer:
    """
    Attributes:
        log: Entries of the message, its start left out; None: the server does not know it.
        ended: Whether it is no longer open: somebody else ended it, or a worker processed its end.
        full: Whether the backlog is at its limit.
        stop: The reason of a reader, or "".
        taken: The id is another opener's, or the turn another producer's.
        waiting: A turn that nobody writes; *log* is None.
        over: A turn that was stopped while it waited.
        late: Sent, and still under way.
    """

    log: list[NewEntry] | None = None
    ended: bool = False
    full: bool = False
    stop: str = ""
    owned: bool = True
    taken: bool = False
    waiting: bool = False
    over: bool = False
    late: list[Sending] = field(default_factory=list)

    def take(self, sent: Sending) -> PushReply:
        """Do what was sent."""
        if isinstance(sent, Open):
            if self.taken:
                return self._reply("exists")
            if self.log is not None:
                return self._reply("repeat")
            self.log = []
            return self._reply("stored")
        if isinstance(sent, Adopt):
            return self._adopt()
        return self._push(sent)

    def _adopt(self) -> PushReply:
        refusals = (
            ("unknown", self.log is None and not self.waiting),
            ("stopped", self.over),
            ("ended", self.ended),
            ("taken", self.taken),
            ("repeat", not self.waiting),
        )
        status = next((status for status, holds in refusals if holds), "stored")
        if status == "stored":
            self.log, self.waiting = [], False
        return self._reply(status)

    def check(self) -> PushReply:
        """Say how the message stands."""
        if self.log is None and not self.waiting:
            return self._reply("unknown")
        return self._reply("completed" if self.ended else "open")

    def arrive(self) -> None:
        """Let what is under way arrive."""
        late, self.late = self.late, []
        for sent in late:
            self.take(sent)

    def fill(self) -> None:
        """Reach the backlog's limit."""
        self.full = True

    def ask_to_stop(self) -> None:
        """Have a reader stop the message."""
        if self.waiting:
            self.log = [NewEntry("stop", 0, b"")]
            self.waiting, self.over = False, True
        if self.log is not None:
            self.stop = "a reader"

    def process(self) -> None:
        """Have a worker process everything."""
        self.full = False
        if self.log and self.log[-1].type in ENDS:
            self.ended = True

    def forget_adoption(self) -> None:
        """Come back with the turn as it was accepted."""
        self.late = []
        if self.log is not None:
            self.log, self.stop, self.ended, self.over, self.waiting = None, "", False, False, True

    def forget(self, most: int) -> None:
        """Come back with *most* entries at most; -1: without the message. Connections do not survive."""
        self.late = []
        if most < 0:
            self.log, self.stop, self.ended, self.over, self.waiting = None, "", False, False, False
            return
        if self.log is None or self.over:
            return
        before = len(self.log)
        del self.log[most:]
        if len(self.log) < before:
            self.ended = False

    def _push(self, sent: Push | Resend) -> PushReply:
        refusal = self._refusal(sent)
        if refusal:
            return self._reply(refusal)
        assert self.log is not None
        self.log += sent.entries[self._last() + 1 - sent.message_seq :]
        return self._reply("stored")

    def _refusal(self, sent: Push | Resend) -> str:
        """Why nothing of it is stored, or ""."""
        last, first = self._last(), sent.message_seq
        is_end = bool(sent.entries) and sent.entries[-1].type in ENDS
        is_full = isinstance(sent, Push) and first == last + 1 and self.full
        refusals = (
            ("repeat", first + len(sent.entries) - 1 <= last),
            ("unknown", self.log is None and not self.waiting),
            ("hole", first > last + 1),
            ("ended", self.ended),
            ("stopped", bool(self.stop) and not is_end),
            ("full", is_full and not is_end),
        )
        return next((status for status, holds in refusals if holds), "")

    def _last(self) -> int:
        return 0 if self.log is None or self.over else 1 + len(self.log)

    def _reply(self, status: str) -> PushReply:
        last = self._last()
        return PushReply(status, last, last, 0, "w" if self.owned else "", 0, self.stop)
