#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/output_file.h"
#include "runahead/error.h"

namespace runahead {
namespace {

/// Files of a model's folder, and of measurements, whether they are there or not.
constexpr std::array<std::string_view, 11> kModelFiles = {"config.json",
                                                          "generation_config.json",
                                                          "model.safetensors",
                                                          "model.safetensors.index.json",
                                                          "tokenizer.json",
                                                          "tokenizer.model",
                                                          "tokenizer_config.json",
                                                          "special_tokens_map.json",
                                                          "added_tokens.json",
                                                          "vocab.json",
                                                          "merges.txt"};

bool IsInputName(std::string_view name) {
  if (std::find(kModelFiles.begin(), kModelFiles.end(), name) != kModelFiles.end()) return true;
  if (name.ends_with(".safetensors")) return true;
  return name.ends_with(".json") && (name.starts_with("profile-") || name.starts_with("partitions-"));
}

bool IsNull(const struct stat& info) {
  struct stat null {};
  return S_ISCHR(info.st_mode) && ::stat("/dev/null", &null) == 0 && info.st_rdev == null.st_rdev;
}

}  // namespace

/// The file, and its name in its folder: both must be free.
std::vector<OutputFiles::Identity> OutputFiles::IdentitiesOf(const std::filesystem::path& path) {
  constexpr int kMostLinks = 40;
  std::vector<Identity> identities;
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0) {
    if (IsNull(info)) return {};
    identities.emplace_back(info.st_dev, info.st_ino, "");
  }
  std::filesystem::path here = path;
  for (int links = 0; links < kMostLinks; ++links) {
    const std::filesystem::path folder = here.has_parent_path() ? here.parent_path() : ".";
    std::error_code error;
    const std::filesystem::path target = std::filesystem::read_symlink(here, error);
    if (error) {
      if (::stat(folder.c_str(), &info) == 0) {
        identities.emplace_back(info.st_dev, info.st_ino, here.filename().string());
      } else {  // to be made
        identities.emplace_back(0, 0, std::filesystem::weakly_canonical(here, error).string());
      }
      break;
    }
    here = target.is_absolute() ? target : folder / target;
  }
  return identities;
}

void OutputFiles::Take(const std::filesystem::path& path, const std::string& by) {
  for (Identity& identity : IdentitiesOf(path)) taken_.push_back({std::move(identity), by});
}

void OutputFiles::Protect(const std::filesystem::path& input) {
  if (input.empty()) return;
  std::error_code error;
  if (!std::filesystem::is_directory(input, error)) {
    Take(input, "an input of this command");
    return;
  }
  const std::string by = "a file of the folder " + input.string() + " that is read";
  for (const std::string_view name : kModelFiles) Take(input / name, by);
  for (const auto& entry : std::filesystem::directory_iterator(input, error)) {
    if (IsInputName(entry.path().filename().string())) Take(entry.path(), by);
  }
}

void OutputFiles::CheckFree(std::string_view flag, const std::filesystem::path& path,
                            const std::vector<Identity>& identities) const {
  for (const Taken& taken : taken_) {
    if (std::find(identities.begin(), identities.end(), taken.identity) == identities.end()) continue;
    const std::string why = taken.by.starts_with('-') ? "is where " + taken.by + " goes too" : "is " + taken.by;
    throw ConfigError(fmt::format("{}: {} {}", flag, path.string(), why));
  }
  struct stat info {};
  struct stat out {};
  const bool where_stdout_goes = !DescriptorNamedBy(path) && ::stat(path.c_str(), &info) == 0 &&
                                 S_ISREG(info.st_mode) && ::fstat(STDOUT_FILENO, &out) == 0 &&
                                 info.st_dev == out.st_dev && info.st_ino == out.st_ino;
  if (where_stdout_goes) throw ConfigError(fmt::format("{}: {} is where stdout goes too", flag, path.string()));
}

OutputFile OutputFiles::Open(std::string_view flag, const std::filesystem::path& path, Folders folders) {
  if (path.empty()) return {};
  const std::vector<Identity> identities = IdentitiesOf(path);
  CheckFree(flag, path, identities);
  OutputFile file(path, folders);
  for (const Identity& identity : identities) taken_.push_back({identity, std::string(flag)});
  return file;
}

AppendedFile OutputFiles::OpenToAppend(std::string_view flag, const std::filesystem::path& path) {
  const std::vector<Identity> identities = IdentitiesOf(path);
  CheckFree(flag, path, identities);
  AppendedFile file(path);
  for (const Identity& identity : identities) taken_.push_back({identity, std::string(flag)});
  return file;
}

}  // namespace runahead
