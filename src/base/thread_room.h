// Whether the system lets this process have as many threads as it is about to start.
#pragma once

namespace runahead {

/// How many of `wanted` threads more can exist at once, with some memory for them to work in: tried out, since limits
/// on threads, on their stacks and on address space all count. Takes some 20 us for each.
int StartableThreads(int wanted);

}  // namespace runahead
