"""Plants wrong includes in a small house and looks for the line that tells: check_includes_test.py tools/check_includes.py"""
import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECK = sys.argv.pop(1)

HOUSE = {
    "src/CMakeLists.txt": "# The order.\nadd_subdirectory(base)\nadd_subdirectory(ops)\nadd_subdirectory(engine)\n",
    "src/base/CMakeLists.txt": "runahead_room(base SOURCES check.cc LIBRARIES fmt::fmt)\n",
    "src/base/check.cc": '#include "base/check.h"\n\n#include <fmt/format.h>\n\n#include "runahead/error.h"\n',
    "src/ops/CMakeLists.txt": "runahead_room(ops\n  SOURCES ops.cc\n  DEPENDS base  # and no engine\n  LIBRARIES hwy)\n",
    "src/ops/cpu/rows.cc": '#include "base/check.h"\n#include "ops/cpu/rows.h"\n#include "ops/ops.h"\n',
    "src/engine/CMakeLists.txt": "runahead_room(engine SOURCES engine.cc DEPENDS ops)\n",
    "src/engine/engine.cc": '#include "ops/ops.h"\n',
    "apps/program/CMakeLists.txt": "runahead_rooms(rooms base ops)\n",
    "apps/program/main.cc": '#include "base/check.h"\n#include "flags.h"\n',
    "bench/CMakeLists.txt": "runahead_rooms(rooms base)\ntarget_link_libraries(rows_bench PRIVATE ${rooms} runahead_ops benchmark)\n",
    "bench/rows_bench.cc": '#include "base/check.h"\n#include "ops/ops.h"\n',
    "include/runahead/engine.h": '#include "runahead/error.h"\n',
}


class CheckIncludes(unittest.TestCase):
    def check(self, **changes):
        """What is said of the house with lines added to the files named."""
        with tempfile.TemporaryDirectory() as root:
            for name, text in HOUSE.items():
                path = pathlib.Path(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text + changes.get(name, ""))
            run = subprocess.run([sys.executable, CHECK, root], capture_output=True, text=True, check=False)
            self.assertEqual(run.stderr, "")
            self.assertEqual(run.returncode, 1 if run.stdout else 0)
            return run.stdout

    def test_order_is_kept(self):
        self.assertEqual(self.check(), "")

    def test_upward_include(self):
        self.assertEqual(self.check(**{"src/base/check.cc": '#include "engine/engine.h"\n'}),
                         "src/base/check.cc:6: includes engine/engine.h, but src/base/CMakeLists.txt does not name engine\n")

    def test_room_above_that_is_not_named(self):
        self.assertEqual(self.check(**{"src/engine/engine.cc": '#include "base/check.h"\n'}),
                         "src/engine/engine.cc:2: includes base/check.h, but src/engine/CMakeLists.txt does not name base\n")

    def test_upward_name(self):
        self.assertEqual(self.check(**{"src/base/CMakeLists.txt": "runahead_room(base DEPENDS ops)\n"}),
                         "src/base/CMakeLists.txt: base names ops, which is not above it\n")

    def test_folders_of_one_room(self):
        self.assertEqual(self.check(**{"src/ops/cpu/rows.cc": '  #  include "ops/cuda/kernels.h"\n'}),
                         "src/ops/cpu/rows.cc:4: includes ops/cuda/kernels.h, but ops/cpu and ops/cuda do not use each other\n")

    def test_program_reaches_inside(self):
        self.assertEqual(self.check(**{"apps/program/main.cc": '#include "engine/engine_state.h"\n'}),
                         "apps/program/main.cc:3: includes engine/engine_state.h, but apps/program/CMakeLists.txt does not name "
                         "engine\n")

    def test_benchmark_reaches_inside(self):
        self.assertEqual(self.check(**{"bench/rows_bench.cc": '#include "engine/engine_state.h"\n'}),
                         "bench/rows_bench.cc:3: includes engine/engine_state.h, but bench/CMakeLists.txt does not name engine\n")

    def test_public_header_reaches_inside(self):
        self.assertEqual(self.check(**{"include/runahead/engine.h": '#include "base/check.h"\n'}),
                         "include/runahead/engine.h:2: includes base/check.h, which is not public\n")


if __name__ == "__main__":
    unittest.main()
