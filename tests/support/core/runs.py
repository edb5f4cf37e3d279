"""Many raw chunks taken at once, against each taken by itself."""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from riverdelta.core.changes import Changes
from riverdelta.core.filter_results import FilterResult
from riverdelta.core.fold import ChatFold
from riverdelta.core.state import Entry, MessageState
from riverdelta.core.tracker import MISMATCH_RULES, MODES
from riverdelta.pipeline import Pipeline
from tests.support.core.codec_tools import lines_of, recordings
from tests.support.core.fold_tools import NOW_MS, control, new_state, start
from tests.support.core.streams import DOCUMENTS

Steps = list[tuple[str, bytes]]

RECORDED = [(source, lines_of(path)) for source in sorted(DOCUMENTS) for path in recordings(source)]


def steps_of(source: str, raws: list[bytes], chance: random.Random) -> Steps:
    """Encode one message: mostly whole, now and then with something between its chunks."""
    options = {"mode": chance.choice(MODES), "on_mismatch": chance.choice(MISMATCH_RULES)}
    steps: Steps = [start(source, **options), *(("chunk", raw) for raw in raws)]
    if chance.random() < 0.3:
        note = control("annotate", name="n", data=None)
        steps.insert(chance.randrange(1, len(steps) + 1), note)
    if chance.random() < 0.7:
        steps.append(control("end"))
    return steps


def _braided(messages: list[Steps], chance: random.Random) -> list[Entry]:
    """Put the messages of one chat behind and between each other."""
    left = {f"m{number}": enumerate(steps) for number, steps in enumerate(messages)}
    braid: list[Entry] = []
    while left:
        message_id = chance.choice(list(left))
        run = list(itertools.islice(left[message_id], chance.choice([1, 2, 10, 100])))
        if not run:
            del left[message_id]
        for at, (type_, data) in run:
            braid.append(Entry(len(braid) + 1, message_id, type_, 10 * at, data))
    return braid


def _batches(whole: list[Entry], chance: random.Random) -> list[list[Entry]]:
    largest = chance.choice([1, 3, 64, 1000])
    batches, at = [], 0
    while at < len(whole):
        size = chance.randint(1, largest)
        batches.append(whole[at : at + size])
        at += size
    return batches


def _message_facts(message: MessageState) -> list[Any]:
    fields = {name: getattr(message, name) for name in MessageState.__slots__}
    fields["codec"] = (message.codec.dump(), message.codec.skipped)
    fields["open_chunks"] = [
        (key, chunk.id, chunk.status, chunk.track.complete, chunk.track.remembered())
        for key, chunk in message.open_chunks.items()
    ]
    fields["closed"] = [(key, chunk.id, chunk.status, chunk.text) for key, chunk in message.closed]
    return list(fields.items())


def _asked(folder: ChatFold, changes: Changes) -> list[Any]:
    """Everything that a commit is made of, and the state that the next one starts from."""
    chunks = [
        (name, change.fresh, change.reset, "".join(change.texts), change.chunk.status)
        for name, change in changes.chunks.items()
    ]
    state = folder.state
    return [
        (changes.first_seq, changes.events, chunks, changes.rejected, changes.dropped),
        [_message_facts(message) for message in changes.messages.values()],
        [_message_facts(message) for message in state.messages.values()],
        (state.seq, state.processed, state.processed_bytes, state.recent, asdict(state.log)),
    ]


class _SlowFold(ChatFold):
    """Takes each entry by itself."""

    def apply(
        self,
        entries: Sequence[Entry],
        now_ms: int,
        filter_results: Mapping[int, FilterResult] | None = None,
    ) -> Changes:
        assert filter_results is None
        self._batch.begin(now_ms)
        for entry in entries:
            self._advance(entry)
            message = self.state.messages.get(entry.message)
            if entry.type != "chunk" or message is None:
                self._control(message, entry)
                continue
            self._batch.changes.messages[message.id] = message
            message.raw_chunks += 1
            message.raw_bytes += len(entry.data)
            message.last_at_ms = entry.at_ms
            for piece in message.codec.decode(entry.data):
                self._piece(message, piece, entry)
        return self._batch.end()


def check(messages: list[Steps], chance: random.Random, pipeline: Pipeline | None = None) -> None:
    """Fold *messages* by runs and one by one, and compare."""
    pipeline = pipeline or Pipeline()
    by_runs, one_by_one = ChatFold(new_state(), pipeline), _SlowFold(new_state(), pipeline)
    for batch in _batches(_braided(messages, chance), chance):
        changes = by_runs.apply(batch, NOW_MS)
        assert _asked(by_runs, changes) == _asked(one_by_one, one_by_one.apply(batch, NOW_MS))
