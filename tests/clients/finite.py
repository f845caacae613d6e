"""`python finite.py CLIENT URL COUNT`: as finite.mjs, with the clients of Python."""

import http.client
import sys
from urllib.parse import urlsplit

import httpx
import openai
import requests

client, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])


def http_client():
    connection = http.client.HTTPConnection(urlsplit(url).netloc)

    def get():
        connection.request("GET", urlsplit(url).path)
        return connection.getresponse().read().decode()

    return get


def requests_session():
    session = requests.Session()
    return lambda: session.get(url).text


def httpx_client():
    pool = httpx.Client()
    return lambda: pool.get(url).text


def openai_client():
    # A call that fails is tried again by default: not here, where each failure counts.
    api = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    messages = [{"role": "user", "content": "hello"}]

    def ask():
        finished = False
        for chunk in api.chat.completions.create(model="test", messages=messages, stream=True):
            finished = chunk.choices[0].finish_reason == "stop"
        return "[DONE]" if finished else ""

    return ask


clients = {
    "http.client": http_client,
    "requests": requests_session,
    "httpx": httpx_client,
    "openai": openai_client,
}
read = clients[client]()
whole = 0
for _ in range(count):
    try:
        whole += "[DONE]" in read()
    except Exception as error:
        print(f"{client}: {error!r}", file=sys.stderr)
print(f"{whole} of {count}")
