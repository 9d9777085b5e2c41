// The numbers that requests may have, on the command line, in files and over the network.
#pragma once

namespace runahead::protocol {

inline constexpr double kHottest = 1e6;           // temperature
inline constexpr double kSmallestTopP = 1e-12;    // above 0, since the likeliest token always stays
inline constexpr double kSmallestPenalty = 1e-6;  // repetition penalty
inline constexpr double kLargestPenalty = 1e6;    // repetition penalty
inline constexpr double kMostPresence = 2;        // presence and frequency penalty, either sign

}  // namespace runahead::protocol
