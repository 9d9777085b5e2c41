"""A server with the demo model, as the tools that load and fuzz it start one."""
import json
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "build" / "release" / "bin" / "runahead"
MODEL = ROOT / "models" / "demo"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"


class ServerProcess:
    """`runahead serve` on a free port; ends with the block that it is made for."""

    def __init__(self, program=PROGRAM, model=MODEL, flags=("--devices", "cpu:2")):
        command = [program, "serve", "--model", model, *flags, "--port", "0", "--quiet"]
        self.process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        line = next((line for line in self.process.stderr if "listening on" in line), None)
        if line is None:
            raise RuntimeError(f"the server did not start and ended with {self.process.wait(timeout=60)}")
        self.port = int(line.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(timeout=60)

    def alive(self):
        return self.process.poll() is None

    def memory(self):
        """Resident, MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) // 1024

    def processor(self):
        """Seconds that it took of a processor."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100


def copy_demo(folder, context=None):
    """The demo model with a plain chat template, and with a context of so many tokens. Returns `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(MODEL, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    if context is not None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": context}))
    return folder
