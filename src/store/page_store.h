// The pages of one model in a folder that processes share: found, read, written, and given up when they are too many.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "base/status.h"
#include "store/page_key.h"

namespace runahead {

/// Whose pages they are.
struct StoredModel {
  PageKey root;       // the key before the first page's
  std::string about;  // one line for people: "demo, bf16, weights stored"
};

/// A page is a file named by its key, and the folder is all that processes know of each other's: a file has its name
/// only once it is complete and synced, is never changed, and is checked when it is read, so that what was cut,
/// flipped, swapped or half written is a miss. Files that were used last have the youngest times. Thread-safe.
class PageStore {
 public:
  /// Makes `folder` where there is none. All its pages together, of other models too, shall take `limit` bytes at
  /// most. `row_bytes`: of one page. Throws IoError naming the folder and the reason, and ConfigError for a limit
  /// below a page.
  PageStore(const std::filesystem::path& folder, size_t limit, const StoredModel& model, size_t row_bytes);

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
  [[nodiscard]] size_t row_bytes() const { return row_bytes_; }
  /// Pages that it can have at a time.
  [[nodiscard]] int64_t most_pages() const;

  /// How many of the pages `keys` are there, one after the other from the first on. Looks at names alone.
  [[nodiscard]] int64_t Count(std::span<const PageKey> keys) const;
  [[nodiscard]] bool Has(const PageKey& key) const { return Count(std::span(&key, 1)) == 1; }

  /// The rows of page `key`, whose tokens are `tokens`, into `rows` [row_bytes]. False: it is not there, or was
  /// damaged and is not there any more; `rows` are then anything.
  [[nodiscard]] bool Read(const PageKey& key, std::span<const int32_t> tokens, std::span<std::byte> rows) const;
  /// They were used now, the first one last: a page is given up after those behind it.
  void Touch(std::span<const PageKey> keys) const;

  /// Keeps the rows of a page. Where the disk is full, and elsewhere, a failure says why they are not kept.
  [[nodiscard]] Status Write(const PageKey& key, std::span<const int32_t> tokens, std::span<const std::byte> rows);
  /// Gives up the pages that were used least recently where there are more than the limit. Reads the whole folder,
  /// but only once enough was written since the last time. One process does it at a time.
  void MakeRoom();

 private:
  [[nodiscard]] std::string PathOf(const PageKey& key) const;

  std::filesystem::path folder_;  // of all models
  std::filesystem::path pages_;   // of this one
  size_t limit_;
  size_t row_bytes_;
  std::atomic<size_t> written_;  // bytes since the folder was read last
};

}  // namespace runahead
