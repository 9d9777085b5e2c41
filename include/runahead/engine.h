// The engine: a model on a group of ranks, and sessions that prefill a prompt over them and decode on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runahead/engine_status.h"
#include "runahead/error.h"
#include "runahead/export.h"
#include "runahead/model.h"
#include "runahead/options.h"
#include "runahead/timeline.h"

namespace runahead {

struct GroupOptions;

struct EngineOptions {
  std::string devices = "cpu";           // "cpu": one rank; "cpu:4": four ranks of this process; "cuda:0,1": GPUs
  int threads_per_rank = 0;              // 0: this machine's processors divided by the ranks
  std::vector<int> threads_of_rank;      // one for each rank, instead of threads_per_rank; empty: all alike
  std::vector<double> slowdown_of_rank;  // for experiments: factor of each rank's compute time in the prompt phase
  std::string link = "auto";             // "host": between GPUs through host memory even where they reach each other
  /// For experiments, the rate of each link by itself: "10GB/s" for all, or "0-1=10GB/s,1-2=2GB/s". Empty: not
  /// limited.
  std::string link_bandwidth;
  /// For experiments, the rate of all that leaves a rank together, and of all that enters it: "10GB/s" for all, or
  /// one for each rank. Empty: not limited.
  std::string rank_bandwidth;
  /// How rows travel between CPU ranks: "exact", "int8", "fp8" or "int4"; "auto": each link exact or int8, whichever
  /// is predicted to be faster. With any but exact, what follows a prompt depends a little on how it was cut.
  std::string wire = "exact";
  std::string tuned_folder;  // folder of the measurements of `runahead tune`; empty: the user's cache folder
  int64_t context = 0;       // tokens of the longest sequence (Model::WithContext); 0: as the model says
  /// "f32", "bf16" or "f16". Empty: the weights' own dtype where the device is good at it, f32 elsewhere.
  std::string dtype;
  /// "int8" or "int4" (CPU ranks), "fp8" (GPUs): matrices are quantised when they are loaded. Empty or "stored": as
  /// they are.
  std::string weights;
  /// A request's tokens and logits do not depend, by a single bit, on the requests beside it, nor on prefixes and
  /// ranks. On CPUs they never do; GPUs take slower algorithms for it.
  bool deterministic = false;
  double timeout_s = 600;  // longest wait of a rank for rows of another, s
  /// Bytes of each rank's KV-cache for all its requests, made by Load; 0: what is free when the first one is
  /// submitted, less a reserve. Sessions have caches of their own.
  size_t kv_memory = 0;
  /// Folder in which rows of requests outlive the engine, for every process with the same model: made where it does
  /// not exist. Empty: they go with the engine. Ranks of other processes than the first keep and find none.
  std::string cache_dir;
  size_t cache_size = 10'000'000'000;  // bytes that the folder holds at most; what was used least recently goes
  double max_pause_ms = 200;  // longest time that running answers wait for a step of somebody's prompt phase, ms
  int max_queued = 100'000;   // most requests that wait to begin; Submit refuses what is beyond
  /// This process's place among several that make one engine (runahead/group.h); null: there is one. Such an engine
  /// has no sessions, and runs requests alone. Its links are not limited, and `devices` are those of this process.
  std::shared_ptr<const GroupOptions> group;
  /// Is told the share of the weights that is ready, 0 to 1. May be empty.
  std::function<void(double)> on_load_progress;
};

/// What a caller needs to know of the model.
struct ModelFacts {
  std::string architecture;
  std::string dtype;  // dtype of activations and cache
  int layers = 0;
  int64_t vocab = 0;
  int64_t max_positions = 0;
  size_t kv_bytes_per_token = 0;
  std::string weights;      // format of the layers' matrices: "stored", "int8", "int4", "fp8"
  size_t weight_bytes = 0;  // bytes of the matrices that each decoded token reads
};

/// One finished prompt phase.
struct PrefillReport {
  Strategy strategy = Strategy::kSingle;
  Topology topology = Topology::kChain;
  PartitionKind partition_kind = PartitionKind::kAuto;
  std::vector<int64_t> cuts;     // ranks used + 1 cut points
  std::vector<int> members;      // ranks of the engine, one for each chunk
  std::string plan;              // the reason for these ranks and cuts, one line
  int64_t cached_tokens = 0;     // tokens whose rows a cache had; of a session none
  double predicted_ms = 0;       // predicted TTFT, ms; 0: there are no measurements to predict from
  double ttft_ms = 0;            // time from the call to the last position's logits in host memory, ms
  std::vector<WireFormat> wire;  // [ranks][ranks], from one to another; empty: all exact
  size_t bytes_sent = 0;         // bytes of rows that left all ranks
  /// Largest bound of a key's error, 0 with exact rows: an attention score is wrong by at most this times the root
  /// mean square of its query's features.
  double wire_bound = 0;
  std::vector<TimelineEvent> timeline;  // empty unless asked for

  [[nodiscard]] int ranks() const { return static_cast<int>(cuts.size()) - 1; }
};

class EngineState;
class RequestHandle;
class SessionState;
class Tokenizer;
struct Request;
struct RequestEvent;
using EventSink = std::function<void(RequestEvent)>;  // see runahead/request.h

/// One sequence: its KV-caches on the ranks and the logits of its last position. Move-only; used by one thread at a
/// time. Sessions of one engine may be used from several threads: their work queues. All methods of a session that
/// was moved from throw ConfigError.
class RUNAHEAD_API Session {
 public:
  explicit Session(std::unique_ptr<SessionState> state);
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  /// Starts the sequence anew with `tokens`: builds the KV-cache over the ranks and leaves the last position's logits
  /// in logits(). Throws ConfigError for options out of range, an empty prompt, a token id out of range, or one that
  /// is longer than the capacity or the model's context; LinkError when a rank was lost. With fewer tokens than
  /// ranks, fewer ranks are used.
  PrefillReport Prefill(std::span<const int32_t> tokens, const PrefillOptions& options = {});

  /// Adds one token behind the sequence and computes its logits, on the rank that holds the whole cache.
  /// Throws ConfigError when the sequence is full or was not prefilled.
  void Append(int32_t token);

  /// Append for greedy decoding: returns the likeliest next token, of equal ones the lowest id, without fetching the
  /// logits, which stay those of the last Prefill or Append. `go_on`: the returned token will probably be appended
  /// next; where the device can, its work is enqueued before the host has seen it. Throws as Append does, and
  /// DeviceError when the logits hold a NaN.
  int32_t AppendGreedy(int32_t token, bool go_on);

  /// Logits of the last position: [vocab], f32. Valid until the next call.
  [[nodiscard]] std::span<const float> logits() const;
  [[nodiscard]] int64_t size() const;      // tokens in the cache
  [[nodiscard]] int64_t capacity() const;  // tokens there is room for

  /// The keys (or values) of one layer as f32, [size, kv_heads, head_dim], copied from the rank that holds the whole
  /// cache. For checks. Throws ConfigError for a layer that the model does not have, and before the first Prefill.
  [[nodiscard]] std::vector<float> CacheRows(int layer, bool values) const;

 private:
  [[nodiscard]] SessionState& State() const;

  std::unique_ptr<SessionState> state_;
};

/// A model's weights on a group of ranks, each with its own threads. Cheap to copy (shared); thread-safe. All methods
/// of an engine that was moved from throw ConfigError.
class RUNAHEAD_API Engine {
 public:
  /// Loads a Hugging Face folder or a GGUF file. Throws ConfigError or IoError that names the file and the value.
  static Engine Load(const std::filesystem::path& model_dir, const EngineOptions& options = {});
  /// The same for a folder whose config.json was read.
  static Engine Load(const Model& model, const EngineOptions& options = {});

  [[nodiscard]] int ranks() const;
  [[nodiscard]] int threads_per_rank() const;
  [[nodiscard]] std::vector<std::string> devices() const;  // [ranks], "cpu" or "cuda:0 (NVIDIA H200)"
  [[nodiscard]] ModelFacts facts() const;
  /// What its requests and ranks do now; sessions are no part of it. Thread-safe, and waits for no step.
  [[nodiscard]] EngineStatus Status() const;

  /// Waits until the rows of requests that have ended are in EngineOptions::cache_dir, for a minute at most. Returns
  /// why some are not; empty: all are.
  [[nodiscard]] std::string FlushCache() const;

  /// A sequence of at most `capacity` tokens, prompt and continuation. Throws ConfigError when that is beyond the
  /// model's context, or when its cache does not fit in memory.
  [[nodiscard]] Session NewSession(int64_t capacity) const;

  /// Queues `request`, which runs beside others from then on. `tokenizer`, which may be null, gives the text of the
  /// answer. Throws ConfigError for a prompt or options out of range and for a request that can never fit the
  /// KV-cache; RefusedError when max_queued requests wait already, and for a deadline that cannot be met.
  /// Thread-safe. Sessions of this engine wait until no request runs.
  [[nodiscard]] RequestHandle Submit(Request request, std::shared_ptr<const Tokenizer> tokenizer = nullptr) const;
  /// The same for a request whose events `sink` is told.
  [[nodiscard]] RequestHandle Submit(Request request, std::shared_ptr<const Tokenizer> tokenizer,
                                     EventSink sink) const;

 private:
  friend std::shared_ptr<EngineState> StateOf(const Engine& engine);
  explicit Engine(std::shared_ptr<EngineState> state);
  [[nodiscard]] EngineState& State() const;

  std::shared_ptr<EngineState> state_;
};

}  // namespace runahead
