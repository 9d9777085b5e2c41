// What a folder of pages holds, of whatever models.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "store/page_key.h"

namespace runahead {

/// One file of a page.
struct StoredPage {
  std::filesystem::path path;
  PageKey key;
  size_t bytes = 0;
  int64_t used_ns = 0;  // time of its last use, ns since 1970
};

/// The pages of one model.
struct StoredPages {
  std::string id;     // the name of its folder
  std::string about;  // StoredModel::about; empty: nobody wrote it
  std::vector<StoredPage> pages;

  [[nodiscard]] size_t bytes() const;
  [[nodiscard]] int64_t used_ns() const;  // of the page that was used last; 0: there is none
};

/// Where the pages of model `root` lie in `folder`, and there page `key`.
std::filesystem::path PagesFolder(const std::filesystem::path& folder, const PageKey& root);
std::string PageName(const PageKey& key);
/// The file with StoredModel::about.
std::filesystem::path AboutFile(const std::filesystem::path& pages_folder);

/// All pages, and what killed processes left behind goes. Files that are none of Runahead's are passed over. Throws
/// IoError where the folder cannot be read; without one there are no pages.
std::vector<StoredPages> ReadCacheFolder(const std::filesystem::path& folder);

/// Gives up pages that were used least recently until all take `limit` bytes at most; returns how many went. While
/// another process does so it does nothing.
int64_t DropOldest(const std::filesystem::path& folder, size_t limit);

/// A page that is not what it should be.
struct DamagedPage {
  std::filesystem::path path;
  std::string reason;
};
/// Reads all files of `models` and checks their sums; those that are damaged are removed, those that cannot be read
/// stay. `on_page` is told the bytes of each.
std::vector<DamagedPage> VerifyPages(const std::vector<StoredPages>& models,
                                     const std::function<void(size_t)>& on_page);

/// Removes all pages of `models`, and their folders. Throws IoError naming what cannot be removed.
void DropPages(const std::filesystem::path& folder, const std::vector<StoredPages>& models);

}  // namespace runahead
