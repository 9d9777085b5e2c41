// Factors between units of measurement.
#pragma once

namespace runahead {

inline constexpr double kMsPerSecond = 1e3;
inline constexpr double kMicrosPerSecond = 1e6;
inline constexpr double kNanosPerSecond = 1e9;
inline constexpr double kGiga = 1e9;

}  // namespace runahead
