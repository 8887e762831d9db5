"""The embedded model answers the same every time, and never without end."""

import pytest
from openai import OpenAI

from tale_core.local import SMALL_MODEL, serve
from tale_core.local.server import ServerSettings


@pytest.mark.model
@pytest.mark.usefixtures("small_model")
def test_requests_that_name_neither_are_greedy_and_capped():
    server = serve(SMALL_MODEL, settings=ServerSettings(answer_limit=16, threads=1))
    client = OpenAI(base_url=server.base_url, api_key=server.api_key)

    def ask(**settings):
        story = [{"role": "user", "content": "Tell me a story about a dog."}]
        return client.chat.completions.create(model=server.model, messages=story, **settings)

    first, second, longer = ask(), ask(), ask(max_tokens=24)
    assert first.choices[0].message.content == second.choices[0].message.content
    assert (first.choices[0].finish_reason, first.usage.completion_tokens) == ("length", 16)
    assert longer.usage.completion_tokens == 24
    server.close()
