"""Renders chat templates for a program that does not trust them, as transformers' apply_chat_template does.

Stdin and stdout are one socket. Each message on it is 4 bytes, the length in big endian, and a JSON object in UTF-8.
First comes {"ready": true}, or {"missing": ...} where jinja2 is not installed. To each request {"template": text,
"special_tokens": {name: text}, "conversation": {...}} comes {"text": ...}, or {"error": ...} with "exhausted" when it
met a limit of memory or depth. Ends where stdin ends.
"""
import datetime
import functools
import json
import os
import resource
import sys

MEMORY_BYTES = 512 << 20  # address space
LONGEST_REPLY = 16 << 20  # bytes of JSON
LONGEST_ERROR = 2000  # characters
CPU_SECONDS = 5  # for one rendering; the other side ends it sooner, unless it is gone
TAG = "CONTINUE_FINAL_MESSAGE_TAG "  # stands where the final message ends
REASONING = ("reasoning_content", "thinking", "reasoning")  # names that templates read a message's reasoning under
OPTIONS = ("messages", "tools", "documents", "chat_template", "add_generation_prompt", "continue_final_message")


def send(message):
    data = json.dumps(message, ensure_ascii=False).encode()
    if len(data) > LONGEST_REPLY:
        raise ValueError(f"the text is longer than {LONGEST_REPLY} bytes")
    sys.stdout.buffer.write(len(data).to_bytes(4, "big") + data)
    sys.stdout.buffer.flush()


try:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox
except ImportError as error:
    send({"missing": str(error)})
    sys.exit(0)


def confine():
    """Gives up the network, new privileges, files and processes, as far as this system lets it."""
    try:
        import ctypes
        system = ctypes.CDLL(None)
        new_user, new_network, no_new_privileges = 0x10000000, 0x40000000, 38
        if system.unshare(new_user | new_network) != 0:
            system.unshare(new_network)
        system.prctl(no_new_privileges, 1, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass
    limits = {"AS": MEMORY_BYTES, "FSIZE": 0, "NPROC": 0, "CORE": 0}
    for name, most in limits.items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))


def allow_time():
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


class Refusal(jinja2.exceptions.TemplateError):
    """What a template says with raise_exception."""


class Generation(jinja2.ext.Extension):
    """{% generation %} ... {% endgeneration %} marks what an assistant wrote, and prints what it holds."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_held"), [], [], body).set_lineno(line)

    def _held(self, caller):
        return caller()


class Dict:
    """The global `dict`, without the attributes of the type."""

    def __call__(self, *args, **named):
        return dict(*args, **named)

    def fromkeys(self, *args, **named):
        return dict.fromkeys(*args, **named)


class Namespace(jinja2.utils.Namespace):
    """The global `namespace`, whose attributes begin with no underscore."""

    def __init__(*args, **named):  # so that an attribute may be called self
        values = dict(*args[1:], **named)
        for name in values:
            Namespace._check(name)
        jinja2.utils.Namespace.__init__(args[0], values)

    def __setitem__(self, name, value):
        Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace's attribute may not begin with _, got {name!r}")


def raise_exception(message):
    raise Refusal(message)


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(form):
    return datetime.datetime.now().strftime(form)


@functools.lru_cache(maxsize=16)
def compiled(text):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals.update(
        raise_exception=raise_exception, strftime_now=strftime_now, dict=Dict(), namespace=Namespace)
    return environment.from_string(text)


def normal(message):
    """Without fields that are null, and with its reasoning under the names that templates read."""
    message = {key: value for key, value in message.items() if value is not None}
    reasoning = next((message[name] for name in REASONING if name in message), None)
    if reasoning is not None:
        message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
    return message


def tag_final(message, field, template):
    """Appends the tag to the text of `field` that is to be continued, and returns that text."""
    value = message.get(field)
    if value is None:
        raise ValueError(f"continue_final_message: the final message has no {field!r} to continue")
    fields = [name for name in REASONING if message.get(name) == value] if field in REASONING else [field]
    if not any(name in template for name in fields):
        raise ValueError(f"continue_final_message: the template does not read {field!r}")
    if isinstance(value, str):
        message.update((name, value + TAG) for name in fields)
        return value
    blocks = value if isinstance(value, list) else []
    for block in reversed(blocks):
        if isinstance(block, dict) and isinstance(block.get("text"), str):
            text = block["text"]
            block["text"] += TAG
            return text
    raise ValueError("continue_final_message: the final message has no text to continue")


def cut_at_tag(rendered, final):
    if final.strip() not in rendered or TAG.strip() not in rendered:
        raise ValueError("continue_final_message: the final message is not in the rendered text as it was given")
    at = rendered.rindex(TAG.strip())
    if rendered[at:at + len(TAG)] == TAG:
        return rendered[:at]
    return rendered[:at].rstrip()  # the template trims messages


def render(request):
    template, conversation = request["template"], request["conversation"]
    program = compiled(template)
    messages = [normal(message) for message in conversation["messages"]]
    field = conversation.get("continue_final_message") or False
    if field:
        field = field if isinstance(field, str) else "content"
        final = tag_final(messages[-1], field, template)
    variables = dict(request["special_tokens"])
    variables.update((name, value) for name, value in conversation.items() if name not in OPTIONS)
    variables.update(messages=messages, tools=conversation.get("tools"), documents=conversation.get("documents"),
                     add_generation_prompt=conversation.get("add_generation_prompt") or False)
    rendered = program.render(variables)
    return cut_at_tag(rendered, final) if field else rendered


def line_of(error):
    """The template's line where `error` came up, or None."""
    line, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == "<template>":
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


def reason(error):
    """One clear line."""
    if isinstance(error, jinja2.exceptions.TemplateSyntaxError):
        return f"line {error.lineno}: {error.message}"
    if isinstance(error, Refusal):
        return str(error)
    if isinstance(error, MemoryError):
        return f"it needs more than {MEMORY_BYTES >> 20} MB of memory"
    if isinstance(error, RecursionError):
        return "it goes too deep into itself"
    line = line_of(error)
    text = str(error) or type(error).__name__
    return text if line is None else f"line {line}: {text}"


def answer(request):
    """Replies to `request`, JSON in UTF-8."""
    allow_time()
    try:
        send({"text": render(json.loads(request))})
    except Exception as error:  # whatever a template does
        text = reason(error)[:LONGEST_ERROR].encode(errors="replace").decode()
        send({"error": text, "exhausted": isinstance(error, (MemoryError, RecursionError))})


def main():
    confine()
    send({"ready": True})
    while True:
        size = sys.stdin.buffer.read(4)
        if len(size) < 4:
            return
        answer(sys.stdin.buffer.read(int.from_bytes(size, "big")))


main()
