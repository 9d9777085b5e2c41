// The CPU as a device: host memory, and streams that are always drained.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tensor/device.h"

namespace runahead {

/// Processors this process may run on, as the kernel numbers them (its affinity mask).
std::vector<int> AvailableProcessors();

/// The processor as it calls itself, "AMD EPYC 9454"; "unknown processor" where the kernel does not tell.
std::string CpuModel();

/// Binds the calling thread, and threads it starts later, to `processors`. Best effort: an empty list or a refusal
/// leaves it as it was.
void BindThread(const std::vector<int>& processors);

/// Counts f32 numbers below 2^-126 as 0 on the calling thread and on threads that it starts later, as matrix units
/// do: x86 processors take a hundred times as long for an operation with one of them, and weights of
/// faraway keys are full of them. Does nothing on other processors.
void FlushSubnormals();

/// Host memory for one rank. Allocations are page-aligned and untouched until written, so a rank's first writes place
/// them near it.
std::unique_ptr<Device> MakeCpuDevice();

}  // namespace runahead
