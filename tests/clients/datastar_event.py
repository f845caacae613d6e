"""`python datastar_event.py URL ELEMENTS`: whether the first event at URL is the one that the official package writes."""

import sys

import httpx
import httpx_sse
from datastar_py import ServerSentEventGenerator

url, elements = sys.argv[1:]
with httpx_sse.connect_sse(httpx.Client(), "GET", url) as source:
    event = next(event for event in source.iter_sse() if event.data)
lines = [f"event: {event.event}"] + [f"data: {line}" for line in event.data.split("\n")]
written = "\n".join(lines) + "\n\n"
expected = ServerSentEventGenerator.patch_elements(elements)
print("the same" if written == expected else f"{written!r} is not {expected!r}")
