"""Judges files and follows a stream without blocking an event loop: `asyncio_tasks.py clip.mp4`."""

import asyncio
import sys

from dfd_edge import Detector


async def follow(detector, source):
    with detector.watch(source) as watch:
        while (result := await asyncio.to_thread(next, watch, None)) is not None:
            yield result


async def main(source):
    detector = await asyncio.to_thread(Detector.load)
    verdicts = await asyncio.gather(
        *(asyncio.to_thread(detector.analyze, source) for _ in range(2))
    )
    print([str(verdict.label) for verdict in verdicts])
    async for result in follow(detector, source):
        print(f"{result.time_s:.1f} s {result.label}")


asyncio.run(main(sys.argv[1]))
