#!/usr/bin/env python3
"""Runs clang-tidy on C++ sources of a configured build: tools/tidy.py BUILD [FILE...]

BUILD holds compile_commands.json; without files, all sources of the project in it are checked. Nearly all of clang-tidy's time
goes into the headers of a source, so sources are joined: BUILD/units/*.cc include several each, those whose private names differ. Prints what was found, and exits with 1 when that is anything.
"""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOST_SOURCES = 20  # in one unit: few enough that all cores stay at work to the end
PRIVATE_NAMES = (
    r"^(?:struct|class|enum class|enum|using|#define)\s+(\w+)",
    r"^(?:alignas\(\w+\)\s+)?(?:constexpr|const|thread_local)\b[^=({]*?(\w+)(?:\[\w*\])?\s*[={(]",
    r"^[A-Za-z_][\w:<>,&*\s]*[\s&*](\w+)\(",
)


def private_names(path):
    """What a source declares for itself, at the start of a line; two sources of one unit must not share any."""
    text = path.read_text()
    inside = "\n".join(re.findall(r"^namespace \{$(.*?)^\}  // namespace$", text, re.DOTALL | re.MULTILINE))
    macros = "\n".join(re.findall(r"^#define .*", text, re.MULTILINE))
    programs = set(re.findall(r"^int (main)\(", text, re.MULTILINE))
    return programs | {name for pattern in PRIVATE_NAMES for name in re.findall(pattern, inside + "\n" + macros, re.MULTILINE)}


def flags_of(entry):
    """The compiler's arguments without the program, the source and the output."""
    words = shlex.split(entry["command"])[1:]
    kept, skip = [], False
    for word in words:
        if not skip and word not in ("-o", "-c"):
            kept.append(word)
        skip = word in ("-o", "-c")
    return kept


def units_of(sources):
    """Lists of sources that can be compiled as one."""
    units = []
    for path in sources:
        text = path.read_text()
        names = private_names(path)
        parts = path.relative_to(ROOT).parts
        # Tests, and the kernels of several instruction sets, repeat names in headers of their own.
        folder = parts[:2] if parts[0] == "tests" or parts[1] == "ops" else parts[:1]
        # Highway compiles such a file several times over by including it again.
        alone = "foreach_target.h" in text
        for unit in units:
            fits = not alone and not unit["alone"] and folder == unit["folder"] and not names & unit["names"]
            if fits and len(unit["sources"]) < MOST_SOURCES:
                break
        else:
            unit = {"folder": folder, "names": set(), "sources": [], "alone": alone}
            units.append(unit)
        unit["sources"].append(path)
        unit["names"] |= names
    return sorted((unit["sources"] for unit in units), key=len, reverse=True)


def tidy(build, sources, flags):
    """What clang-tidy says about these sources in one unit, and whether it passed."""
    unit = build / "units" / ("_".join(sources[0].relative_to(ROOT).with_suffix("").parts) + f"_{len(sources)}.cc")
    unit.write_text("".join(f'#include "{path}"\n' for path in sources))
    together = list(dict.fromkeys(flag for path in sources for flag in flags[path]))
    command = ["clang-tidy", "--quiet", "--warnings-as-errors=*", unit, "--", *together]
    done = subprocess.run(command, cwd=build, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    said = done.stdout + "".join(
        line for line in done.stderr.splitlines(True) if not re.match(r"\d+ warnings?( and \d+ errors?)? (generated|treated)", line)
    )
    if len(sources) > 1 and "clang-diagnostic-error" in said:  # they do not go together after all, or one is broken
        half = len(sources) // 2
        halves = [tidy(build, part, flags) for part in (sources[:half], sources[half:])]
        return "".join(text for text, _ in halves), all(passed for _, passed in halves)
    return said, done.returncode == 0


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    (build / "units").mkdir(exist_ok=True)
    flags = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        flags[pathlib.Path(entry["file"])] = flags_of(entry)
    sources = [pathlib.Path(name).resolve() for name in sys.argv[2:]]
    for path in sources:
        if path not in flags:
            sys.exit(f"tidy.py: {path} is not compiled in {build}")
    if not sources:
        sources = sorted(path for path in flags if path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "build"))
    units = units_of(sources)
    passed, shown = True, set()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for said, good in pool.map(lambda unit: tidy(build, unit, flags), units):
            passed = passed and good
            if said.strip() and said not in shown:
                print(said, end="", flush=True)
            shown.add(said)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
