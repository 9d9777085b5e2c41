// What the shared library shows of itself.
#pragma once

/// Marks the classes and functions of the public API. Everything else of the library is compiled with hidden names.
#define RUNAHEAD_API [[gnu::visibility("default")]]
