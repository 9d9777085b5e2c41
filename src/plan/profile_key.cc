#include <fmt/format.h>
#include <fmt/ranges.h>

#include "plan/profile_key_json.h"
#include "runahead/error.h"

namespace runahead {
namespace {

constexpr int64_t kMostRanks = 4096;

/// FNV-1a.
uint64_t HashOf(std::string_view text) {
  uint64_t hash = 14695981039346656037U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  return hash;
}

}  // namespace

std::string ProfileKey::FileStem() const {
  return fmt::format("{}{}-{:08x}", FamilyStem(), ranks(), HashOf(fmt::format("{}", fmt::join(devices, "; "))) >> 32);
}

std::string ProfileKey::FamilyStem() const { return fmt::format("{:016x}-{}-", HashOf(model), dtype); }

void ProfileKey::CheckFits(const ProfileKey& wanted, const std::string& origin) const {
  const auto refuse = [&](const std::string& what, const std::string& measured, const std::string& here) {
    throw ConfigError(fmt::format("{}: measured for {} '{}', but here it is '{}'; `runahead tune` measures anew",
                                  origin, what, measured, here));
  };
  if (model != wanted.model) refuse("the model", model, wanted.model);
  if (dtype != wanted.dtype) refuse("dtype", dtype, wanted.dtype);
  if (ranks() != wanted.ranks()) refuse("ranks", std::to_string(ranks()), std::to_string(wanted.ranks()));
  for (size_t i = 0; i < devices.size(); ++i) {
    if (devices[i] != wanted.devices[i]) refuse(fmt::format("device {}", i), devices[i], wanted.devices[i]);
  }
}

Json KeyToJson(const ProfileKey& key) {
  return {{"model", key.model}, {"dtype", key.dtype}, {"devices", key.devices}};
}

ProfileKey KeyFromJson(const JsonObject& file) {
  const JsonObject object = file.Object("key");
  ProfileKey key{object.String("model"), object.String("dtype"), {}};
  const Json& devices = object.At("devices");
  if (!devices.is_array() || devices.empty() || devices.size() > static_cast<size_t>(kMostRanks)) {
    object.Refuse("devices", "expected a list of names");
  }
  for (const Json& device : devices) {
    if (!device.is_string()) object.Refuse("devices", "expected a list of names");
    key.devices.push_back(device.get<std::string>());
  }
  return key;
}

std::vector<JsonObject> ObjectsOf(const JsonObject& object, const char* key) {
  const Json& list = object.At(key);
  if (!list.is_array()) object.Refuse(key, "expected a list");
  std::vector<JsonObject> objects;
  for (size_t i = 0; i < list.size(); ++i) {
    objects.emplace_back(list[i], fmt::format("{}: {}[{}]", object.origin(), key, i));
  }
  return objects;
}

double NumberAtLeast(const JsonObject& object, const char* key, double min) {
  const double value = object.Number(key);
  if (value < min) object.Refuse(key, fmt::format("expected a number of at least {}", min));
  return value;
}

}  // namespace runahead
