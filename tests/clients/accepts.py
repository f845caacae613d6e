"""`python accepts.py CLIENT URL`: as accepts.mjs, with the clients of Python."""

import sys

import httpx
import openai
import requests

client, url = sys.argv[1:]


def with_httpx():
    with httpx.stream("GET", url) as response:
        return response.headers["content-type"]


def with_openai():
    api = openai.OpenAI(api_key="none", max_retries=0)
    stream = api.post(url, cast_to=object, stream=True, stream_cls=openai.Stream[object])
    return stream.response.headers["content-type"]


clients = {
    "httpx": with_httpx,
    "requests": lambda: requests.get(url, stream=True).headers["content-type"],
    "openai": with_openai,
}
print(clients[client]())
