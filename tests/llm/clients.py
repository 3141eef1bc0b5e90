#!/usr/bin/env python3
"""The official clients of Ollama and OpenAI, put to work on a server: `clients.py http://HOST:PORT`.

Prints what they made of its answers, as one line of JSON. The model `tiny` must be there and `nope`
must not. Moments, durations and sizes are left out, so that the line is the same for every server
that behaves.
"""
import json
import sys

import ollama
import openai

HI = [{"role": "user", "content": "hi"}]
SHORT = {"num_predict": 3, "num_thread": 1}


def refused(act):
    """How an error reaches whoever called."""
    try:
        act()
    except Exception as error:
        return [type(error).__name__, getattr(error, "status_code", None), str(error)[:60]]
    return None


def of_ollama(host):
    client = ollama.Client(host=host, timeout=60)
    nowhere = ollama.Client(host="http://127.0.0.1:1", timeout=60)
    seen = {"list": [model.model for model in client.list().models]}
    seen["load"] = client.generate(model="tiny", keep_alive="5m").done_reason
    seen["ps"] = [model.model for model in client.ps().models]
    assert all(model.expires_at.year >= 2020 for model in client.ps().models)
    answer = client.generate(model="tiny", prompt="hi", options=SHORT)
    assert answer.response and answer.eval_duration > 0 and answer.total_duration > 0
    seen["generate"] = [answer.done, answer.done_reason, answer.eval_count]
    pieces = list(client.chat(model="tiny", messages=HI, stream=True, options=SHORT))
    assert any(piece.message.content for piece in pieces)
    seen["chat"] = [pieces[-1].done, pieces[-1].done_reason, pieces[-1].eval_count]
    assert not any(piece.done for piece in pieces[:-1])
    seen["show"] = client.show("tiny").details.format
    seen["refused"] = {
        "generate": refused(lambda: client.generate(model="nope", prompt="x")),
        "show": refused(lambda: client.show("nope")),
        "embed": refused(lambda: client.embed(model="tiny", input="x"))[:2],
        "option": refused(lambda: client.generate(model="tiny", prompt="x", options={"num_predict": "x"}))[:2],
        "pull": refused(lambda: list(client.pull("nope", stream=True)))[:2],
        "nobody": refused(nowhere.list)[:1],
    }
    seen["unload"] = client.generate(model="tiny", keep_alive=0).done_reason
    seen["ps after"] = [model.model for model in client.ps().models]
    return seen


def of_openai(host):
    client = openai.OpenAI(base_url=f"{host}/v1", api_key="x", max_retries=0, timeout=60)
    chat = client.chat.completions.create
    seen = {"list": [model.id for model in client.models.list().data]}
    answer = chat(model="tiny", messages=HI, max_tokens=3)
    assert answer.choices[0].message.content
    seen["chat"] = [answer.choices[0].finish_reason, answer.usage.completion_tokens]
    pieces = list(chat(model="tiny", messages=HI, max_tokens=3, stream=True))
    ends = [choice.finish_reason for piece in pieces for choice in piece.choices]
    seen["stream"] = [end for end in ends if end]
    assert any(choice.delta.content for piece in pieces for choice in piece.choices)
    text = client.completions.create(model="tiny", prompt="hi", max_tokens=3)
    seen["completion"] = [text.object, text.choices[0].finish_reason]
    seen["refused"] = refused(lambda: chat(model="nope", messages=HI))[:2]
    return seen


def main():
    host = sys.argv[1]
    print(json.dumps({"ollama": of_ollama(host), "openai": of_openai(host)}))


if __name__ == "__main__":
    main()
