// Addresses of processes as they travel: UCX's own bytes, which it does not check, behind their length and sum.
#pragma once

#include <string>
#include <string_view>

namespace runahead {

std::string WrapUcxAddress(std::string_view address);

/// Throws LinkError for bytes that WrapUcxAddress did not make.
std::string_view UnwrapUcxAddress(std::string_view wrapped);

}  // namespace runahead
