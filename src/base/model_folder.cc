#include "base/model_folder.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <string>

#include "base/file.h"
#include "runahead/error.h"

namespace runahead {
namespace {

using std::filesystem::path;

/// "org/name", as models are named on the hub.
bool LooksLikeHubName(const std::string& text) {
  const bool characters = std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '/';
  });
  return characters && std::count(text.begin(), text.end(), '/') == 1 && text.front() != '.' && text.front() != '/' &&
         text.back() != '/';
}

std::string WhyNoFolder(const path& dir, int error) {
  if (error == ENOENT) {
    std::string why = WhyNotOpened(dir, ENOENT);
    if (why != std::strerror(ENOENT)) return why;
    std::string text = "there is no such folder";
    if (LooksLikeHubName(dir.string())) text += "; a model of the hub is downloaded first, and its folder given";
    return text;
  }
  if (error == ENOTDIR) return "part of the path is a file, not a folder";
  return fmt::format("cannot open the folder: {}", std::strerror(error));
}

std::string WhatFileIs(const path& file) {
  const std::string name = file.filename().string();
  if (name.ends_with(".gguf")) return "is a GGUF file, expected a folder";
  const bool of_model = name.ends_with(".json") || name.ends_with(".safetensors") || name == "tokenizer.model";
  if (!of_model) return "is a file, expected a model's folder";
  const path parent = file.has_parent_path() ? file.parent_path() : path(".");
  return fmt::format("is a file of a model, expected its folder, {}", parent.string());
}

/// The commit that refs/main names, or any.
path SnapshotOf(const path& snapshots) {
  std::error_code error;
  const path ref = snapshots.parent_path() / "refs" / "main";
  if (std::filesystem::is_regular_file(ref, error)) {
    path snapshot = snapshots / ReadFile(ref);
    if (std::filesystem::is_directory(snapshot, error)) return snapshot;
  }
  for (const auto& entry : std::filesystem::directory_iterator(snapshots, error)) return entry.path();
  return snapshots;
}

std::string WhatFolderIs(const path& dir, std::string_view file) {
  std::error_code error;
  if (std::filesystem::is_directory(dir / "snapshots", error)) {
    return fmt::format("is the root of a hub cache entry; the model is in {}",
                       SnapshotOf(dir / "snapshots").string());
  }
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    if (entry.path().filename().string().starts_with("models--")) {
      return fmt::format("is a hub cache of several models; one is in {}",
                         SnapshotOf(entry.path() / "snapshots").string());
    }
  }
  if (error) return fmt::format("cannot read the folder: {}", error.message());
  return fmt::format("has no {}, so it is no model's folder", file);
}

}  // namespace

void CheckModelFolder(const path& dir, std::string_view file) {
  const auto refuse = [](const path& what, const std::string& reason) {
    throw IoError(fmt::format("{}: {}", what.string(), reason));
  };
  if (dir.empty()) throw IoError("model: expected a folder, got ''");
  struct stat info {};
  if (::stat(dir.c_str(), &info) != 0) refuse(dir, WhyNoFolder(dir, errno));
  if (S_ISREG(info.st_mode)) refuse(dir, WhatFileIs(dir));
  if (!S_ISDIR(info.st_mode)) refuse(dir, "is not a folder");
  if (file.empty() || ::stat((dir / file).c_str(), &info) == 0) return;
  if (errno != ENOENT) refuse(dir / file, fmt::format("cannot open: {}", std::strerror(errno)));
  std::error_code error;
  if (std::filesystem::is_symlink(dir / file, error)) refuse(dir / file, WhyNotOpened(dir / file, ENOENT));
  refuse(dir, WhatFolderIs(dir, file));
}

}  // namespace runahead
