#!/usr/bin/env python3
"""Checks that #includes keep the order of the rooms: tools/check_includes.py [ROOT OF THE PROJECT]

The rooms' order is that of src/CMakeLists.txt; which rooms one uses is what DEPENDS in its own CMakeLists.txt names, and the
programs' (apps/NAME, bench) what runahead_rooms there does, and the rooms' targets that they link by name. Prints a line for each breach, and exits with 1 when there is one.
- A room names only rooms above it.
- A file includes only its own room, rooms that its own names, and the public API.
- Folders within a room do not include each other, and the public API includes nothing but itself.
"""
import pathlib
import re
import sys

SOURCES = (".h", ".cc", ".cu", ".cuh")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
PUBLIC = "runahead"
TARGET = "runahead_"


def words_of(path):
    """The words of a CMakeLists.txt, parentheses by themselves and without comments."""
    lines = (line.split("#", 1)[0] for line in path.read_text().splitlines())
    return re.sub(r"([()])", r" \1 ", "\n".join(lines)).split()


def named(path, command, keyword):
    """The words behind `keyword` in every call of `command`, to the next keyword or the call's end."""
    words, found, taking, inside = words_of(path), [], False, False
    for before, word in zip([""] + words, words):
        if word == "(" and before == command:
            inside, taking = True, False
        elif word == ")":
            inside = taking = False
        elif inside and word.isupper() or inside and word == keyword:
            taking = word == keyword
        elif taking:
            found.append(word)
    return found


def includes(folder):
    """(file, line number, what is included in quotes) for all sources below `folder`."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in SOURCES:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if match := INCLUDE.match(line):
                yield path, number, match[1]


def breaches(root):
    source = root / "src"
    lists = source / "CMakeLists.txt"
    words = words_of(lists)
    rooms = [name for call, _, name in zip(words, words[1:], words[2:]) if call == "add_subdirectory"]
    uses = {source / room: set(named(source / room / "CMakeLists.txt", "runahead_room", "DEPENDS")) for room in rooms}
    for room in rooms:
        for other in sorted(uses[source / room]):
            if other not in rooms[: rooms.index(room)]:
                yield f"{(source / room / 'CMakeLists.txt').relative_to(root)}: {room} names {other}, which is not above it"
    for program in sorted([*(root / "apps").glob("*/CMakeLists.txt"), *root.glob("bench/CMakeLists.txt")]):
        linked = {word.removeprefix(TARGET) for word in words_of(program) if word.startswith(TARGET)}
        uses[program.parent] = set(named(program, "runahead_rooms", "rooms")) | linked.intersection(rooms)

    for folder, used in uses.items():
        for path, number, included in includes(folder):
            first, *rest = included.split("/")
            here = f"{path.relative_to(root)}:{number}: includes {included}"
            if folder == source / first:
                own = path.relative_to(folder).parts
                if len(own) > 1 and len(rest) > 1 and own[0] != rest[0]:
                    yield f"{here}, but {first}/{own[0]} and {first}/{rest[0]} do not use each other"
            elif first in rooms and first not in used:
                yield f"{here}, but {(folder / 'CMakeLists.txt').relative_to(root)} does not name {first}"
    for path, number, included in includes(root / "include"):
        if included.split("/")[0] != PUBLIC:
            yield f"{path.relative_to(root)}:{number}: includes {included}, which is not public"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)
    found = list(breaches(root))
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
