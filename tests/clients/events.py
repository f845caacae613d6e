"""`python events.py CLIENT URL LAST`: as events.mjs, with the clients of Python."""

import json
import sys

import httpx
import httpx_sse
import openai
import requests
import sseclient

client, url, last = sys.argv[1:]


def with_httpx_sse():
    with httpx_sse.connect_sse(httpx.Client(timeout=None), "GET", url) as source:
        for event in source.iter_sse():
            yield event.data


def with_sseclient():
    headers = {"Accept": "text/event-stream"}
    response = requests.get(url, stream=True, headers=headers)
    for event in sseclient.SSEClient(response).events():
        yield event.data


def with_openai():
    """It parses the data of each message as JSON."""
    api = openai.OpenAI(api_key="none", max_retries=0)
    for data in api.post(url, cast_to=object, stream=True, stream_cls=openai.Stream[object]):
        yield str(data)


clients = {
    "httpx-sse": with_httpx_sse,
    "sseclient-py": with_sseclient,
    "openai": with_openai,
}
for data in clients[client]():
    print(json.dumps(data), flush=True)
    if data == last:
        break
