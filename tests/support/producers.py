"""What tests do to a producer from the inside: stop its loops, kill it, look at what it keeps."""

from riverdelta import Producer
from riverdelta.broker.producer.registry import Registry


def registry_of(producer: Producer) -> Registry:
    """Its messages, and what is kept to be sent again."""
    return producer._registry


async def stand_still(producer: Producer) -> None:
    """No heartbeat and no check any more, as in a frozen process."""
    await producer._heartbeat.shutdown()
    await producer._caretaker.shutdown()


async def die(producer: Producer) -> None:
    """End as by kill -9."""
    await stand_still(producer)
    await registry_of(producer).client.aclose()
