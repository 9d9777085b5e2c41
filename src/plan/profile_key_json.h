// How the files of the planner name what they were measured for.
#pragma once

#include "base/json.h"
#include "plan/cost_profile.h"

namespace runahead {

Json KeyToJson(const ProfileKey& key);
/// The key in the file's field "key". Throws ConfigError naming the field and the value.
ProfileKey KeyFromJson(const JsonObject& file);

/// The objects of an array field, each named "<origin>: <key>[i]" in errors. Throws ConfigError when it is no array.
std::vector<JsonObject> ObjectsOf(const JsonObject& object, const char* key);

/// JsonObject::Number, refused below `min`.
double NumberAtLeast(const JsonObject& object, const char* key, double min);

}  // namespace runahead
