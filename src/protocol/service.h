// What all requests of an API share.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "protocol/board.h"
#include "protocol/token_texts.h"
#include "runahead/generate.h"
#include "runahead/request.h"
#include "runahead/tokenizer.h"

namespace runahead::protocol {

/// An answer's choice that ended, however it did.
struct EndedRequest {
  std::string id;  // "cmpl-..."
  FinishReason finish = FinishReason::kLength;
  std::string error;  // why it failed; empty: it did not
  RequestStats stats;
};

/// Thread-safe. Outlives the API as long as an engine still tells of a request; holds no engine, since a thread of
/// one may be the last that lets go of it.
class Service {
 public:
  Service(std::string model, std::string fingerprint, std::shared_ptr<const Tokenizer> tokenizer,
          std::function<void(const EndedRequest&)> on_end)
      : model_(std::move(model)),
        fingerprint_(std::move(fingerprint)),
        texts_(std::move(tokenizer)),
        on_end_(std::move(on_end)) {}

  [[nodiscard]] const std::string& model() const { return model_; }              // the name that clients ask for
  [[nodiscard]] const std::string& fingerprint() const { return fingerprint_; }  // names the program that answers
  [[nodiscard]] TokenTexts& texts() { return texts_; }
  [[nodiscard]] Board& board() { return board_; }

  void End(const BoardEntry& entry, const EndedRequest& ended) {
    {
      const std::lock_guard lock(mutex_);
      if (on_end_) on_end_(ended);
    }
    board_.End(entry, ended.finish, ended.stats);
  }
  /// Tells nobody any more.
  void Close() {
    const std::lock_guard lock(mutex_);
    on_end_ = nullptr;
  }

 private:
  std::string model_;
  std::string fingerprint_;
  TokenTexts texts_;
  Board board_;
  std::mutex mutex_;
  std::function<void(const EndedRequest&)> on_end_;  // guarded by mutex_
};

}  // namespace runahead::protocol
