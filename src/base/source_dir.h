// Where the sources lay when the program was built: for the demo in a checkout, and for the tests' own files.
#pragma once

namespace runahead {

/// An absolute path without a slash at its end. The one thing in a build that depends on the checkout's folder.
const char* SourceDir();

}  // namespace runahead
