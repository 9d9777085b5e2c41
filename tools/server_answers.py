"""Answers of OpenAI's client as values that can be compared, whichever way they were asked for."""
import asyncio


class Choice:
    """What one choice of an answer is, whole or put together from a stream's chunks."""

    def __init__(self):
        self.text, self.finish, self.tokens, self.logprobs, self.tops = "", None, [], [], []

    def add(self, choice):
        said = getattr(choice, "delta", None) or getattr(choice, "message", None)
        self.text += (choice.text if said is None else said.content) or ""
        self.finish = choice.finish_reason or self.finish
        if choice.logprobs is None:
            return
        if said is None:
            self.tokens += choice.logprobs.tokens
            self.logprobs += choice.logprobs.token_logprobs
            self.tops += choice.logprobs.top_logprobs
        else:
            self.tokens += [each.token for each in choice.logprobs.content]
            self.logprobs += [each.logprob for each in choice.logprobs.content]
            self.tops += [{top.token: top.logprob for top in each.top_logprobs} for each in choice.logprobs.content]


class Answer:
    """An answer whichever way it came: equal ones say the same."""

    def __init__(self, parts):
        self.choices = []
        for part in parts:
            for choice in part.choices:
                self.choices.extend(Choice() for _ in range(choice.index + 1 - len(self.choices)))
                self.choices[choice.index].add(choice)
        usage = parts[-1].usage
        self.cached = usage.prompt_tokens_details.cached_tokens
        self.usage = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)

    def says(self):
        return [vars(choice) for choice in self.choices], self.usage


def every_way(server, kind, options):
    """The answers of four ways to ask: whole and as a stream, synchronously and asynchronously."""
    create = {"completions": lambda c: c.completions.create, "chat": lambda c: c.chat.completions.create}[kind]
    streamed = {**options, "stream": True, "stream_options": {"include_usage": True}}

    async def asynchronously():
        async with server.asynchronous() as many:
            whole, stream = await asyncio.gather(create(many)(**options), create(many)(**streamed))
            return Answer([whole]), Answer([chunk async for chunk in stream])

    return [Answer([create(server.client)(**options)]), Answer(list(create(server.client)(**streamed))), *asyncio.run(asynchronously())]
