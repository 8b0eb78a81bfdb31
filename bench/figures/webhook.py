"""How long a change takes to a receiver, and what a receiver that fails gets from a server that is killed.

`webhook`: events at a steady rate. Each is a test of a webhook over the API, which commits it. The time runs from the
request to its arrival at the receiver. Baseline: one HTTP POST of the same size to the same receiver.

`webhook-losses`: events are put into the store as a command on the host does it, with numbers that grow within each
session. The receiver refuses the first attempt of every second event, by chance. The server is killed and started again
meanwhile.
"""

import asyncio
import time
from collections.abc import Sequence

import aiohttp

from bench import told
from bench.client import Client
from bench.context import MS, Context, beside
from bench.receiver import Receiver, receiving
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

LOCAL = {"BUNTIME_WEBHOOK_NETWORKS": "127.0.0.0/8", "BUNTIME_LOG_LEVEL": "warning"}
RATE = 200.0  # events a second
MOST_P50_MS, MOST_P99_MS = 20.0, 200.0
WARM = 50  # events before the measurement
BODY = b"x" * 400  # about the size of an event
POSTS = 200
ARRIVE_SECONDS = 30.0
LAST_SECONDS = 1800.0


async def measure(context: Context) -> list[Row]:
    async with beside(context, 0, LOCAL) as other, receiving() as receiver:
        hook = (await other.client.ask("/webhooks/create", url=receiver.url, events=["webhook.test"]))["webhookId"]
        await _sent(other.client, hook, WARM)
        posts = await _posts(receiver)
        sent, seconds = await _sent(other.client, hook, context.scale.webhook_events)
        await _arrived(receiver, sent)
        posts += await _posts(receiver)
        times = summarise([(receiver.first[event] - begun) * MS for event, begun in sent.items()])
    return [
        Row(
            figure="webhook",
            what=f"change → receiver has it, at {len(sent) / seconds:.0f} events/s",
            measured=times,
            baselines=(Baseline("one HTTP POST", summarise(posts)),),
            checks=(Check("p50", times.p50, MOST_P50_MS, " ms"), Check("p99", times.p99, MOST_P99_MS, " ms")),
        )
    ]


async def _sent(client: Client, hook: str, count: int) -> tuple[dict[str, float], float]:
    """Sends events at the rate. Returns when each was asked for, and the seconds that all took."""
    sent: dict[str, float] = {}
    start = time.perf_counter()

    async def one(number: int) -> None:
        await asyncio.sleep(max(0.0, start + number / RATE - time.perf_counter()))
        begun = time.perf_counter()
        sent[(await client.ask(f"/webhooks/{hook}/test"))["eventId"]] = begun

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(number))
    return sent, time.perf_counter() - start


async def _arrived(receiver: Receiver, sent: dict[str, float]) -> None:
    async with asyncio.timeout(ARRIVE_SECONDS):
        while not sent.keys() <= receiver.first.keys():  # noqa: ASYNC110 - the server sends
            await asyncio.sleep(0.01)


async def _posts(receiver: Receiver) -> list[float]:
    times = []
    async with aiohttp.ClientSession() as http:
        for _ in range(POSTS):
            begun = time.perf_counter()
            async with http.post(receiver.url, data=BODY) as answer:
                await answer.read()
            times.append((time.perf_counter() - begun) * MS)
    return times


async def measure_losses(context: Context) -> list[Row]:
    count, kills = context.scale.lost_events, context.scale.lost_kills
    async with beside(context, 0, LOCAL) as other, receiving(failing=0.5) as receiver:
        await other.client.ask("/webhooks/create", url=receiver.url, events=["session.idle"])
        account = await asyncio.to_thread(told.account_of, other.server.config)
        began, restarts = time.monotonic(), []
        for turn in range(kills):
            await asyncio.to_thread(
                told.add, other.server.config, account, turn * count // kills, (turn + 1) * count // kills
            )
            await asyncio.sleep(0.3 + turn % 5 / 10)  # in the middle of the deliveries
            restarts.append(await asyncio.to_thread(other.server.restart) * MS)
        async with asyncio.timeout(LAST_SECONDS):
            while receiver.accepted < count:  # noqa: ASYNC110 - the server sends
                await asyncio.sleep(0.2)
        seconds = time.monotonic() - began
        lost = count - receiver.accepted
        swapped = sum(_swapped(numbers) for numbers in receiver.order.values())
    return [
        Row(
            figure="webhook-losses",
            what=f"{count} events, half of them refused at first, {kills} kills of the server",
            measured=summarise(restarts),
            checks=(Check("lost", lost, 0, ""), Check("sessions out of order", swapped, 0, "")),
            note=f"{receiver.requests} requests in {seconds:.0f} s, {told.SESSIONS} sessions; ms are those of restarts",
        )
    ]


def _swapped(numbers: Sequence[int]) -> bool:
    return list(numbers) != sorted(numbers)
