// The statuses that answers have (RFC 9110, section 15).
#pragma once

namespace runahead::protocol {

inline constexpr int kOk = 200;
inline constexpr int kNoContent = 204;
inline constexpr int kNotModified = 304;
inline constexpr int kBadRequest = 400;
inline constexpr int kNotFound = 404;
inline constexpr int kNotAllowed = 405;
inline constexpr int kTimeout = 408;
inline constexpr int kUnsupportedMediaType = 415;
inline constexpr int kExpectationFailed = 417;
inline constexpr int kTooManyRequests = 429;
inline constexpr int kInternalError = 500;
inline constexpr int kNotImplemented = 501;
inline constexpr int kUnavailable = 503;

}  // namespace runahead::protocol
