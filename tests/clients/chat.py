"""`python chat.py URL`: as chat.mjs, with the official client for Python."""

import sys

import openai

api = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
question = {"model": "parrot", "messages": [{"role": "user", "content": "What is that?"}]}

tokens = 0
text = ""
for chunk in api.chat.completions.create(**question, stream=True):
    choice = chunk.choices[0]
    text += choice.delta.content or ""
    tokens += 1
    if choice.finish_reason == "stop":
        print("streamed" if tokens > 50 else tokens)

whole = api.chat.completions.create(**question)
print("the same" if whole.choices[0].message.content == text else text)

try:
    api.chat.completions.create(**{**question, "messages": []})
except openai.BadRequestError as error:
    print(f"{error.status_code} {error.body['message']}")
