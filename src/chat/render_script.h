// The Python program that renders chat templates: render.py.
#pragma once

namespace runahead::chat {

/// Its text, for `python3 -c`.
const char* RenderScript();

}  // namespace runahead::chat
