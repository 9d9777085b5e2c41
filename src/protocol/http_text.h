// What the fields and the target of an HTTP request say.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "protocol/http_call.h"

namespace runahead::protocol {

/// The path of a target, without its query and with %XX as what it stands for.
std::string PathOf(std::string_view target);

/// The value of a field of the target's query; empty: there is none.
std::string QueryOf(std::string_view target, std::string_view name);

/// Throws ApiError for a body that is said to be something else than JSON. A page of anybody's may send other types
/// than that without asking first, which is why they are not taken.
void CheckMediaType(const HttpRequest& request);

/// Unix time, s.
int64_t UnixSeconds();

}  // namespace runahead::protocol
