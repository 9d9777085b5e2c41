// Engine and Session.
#include "runahead/engine.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <functional>
#include <optional>

#include "bindings.h"
#include "runahead/generate.h"

namespace runahead::python {
namespace {

using nb::literals::operator""_a;

using Logits = nb::ndarray<nb::numpy, const float, nb::ndim<1>>;

/// A session that refuses a second call while one is at work, from another thread or out of a callback.
class GuardedSession {
 public:
  explicit GuardedSession(Session session) : session_(std::move(session)) {}

  /// Runs work(session) while other threads of Python may run.
  template <typename Work>
  auto Run(Work&& work) {
    const nb::gil_scoped_release release;
    if (busy_.test_and_set()) throw ConfigError("session: it is at work; one call at a time");
    const Release end{busy_};
    return std::forward<Work>(work)(session_);
  }
  [[nodiscard]] const Session& session() const { return session_; }

 private:
  struct Release {
    std::atomic_flag& busy;
    ~Release() { busy.clear(); }
  };

  Session session_;
  std::atomic_flag busy_;
};

/// The keywords of one prompt phase.
struct PhaseKeywords {
  const std::string& strategy;
  const std::optional<std::string>& topology;
  nb::handle partition;
  int ranks;
  bool timeline;
  const std::string& gather;

  [[nodiscard]] PrefillOptions Options() const {
    PrefillOptions options;
    options.strategy = ParseStrategy(strategy);
    if (topology) options.topology = ParseTopology(*topology);
    options.partition = ToPartition(partition);
    options.ranks = ranks;
    options.record_timeline = timeline;
    options.gather = ParseGather(gather);
    return options;
  }
};

PrefillReport Prefill(GuardedSession& self, nb::handle tokens, const std::string& strategy,
                      const std::optional<std::string>& topology, nb::handle partition, int ranks, bool timeline,
                      const std::string& gather) {
  const std::vector<int32_t> ids = TokenIds(tokens);
  const PrefillOptions options = PhaseKeywords{strategy, topology, partition, ranks, timeline, gather}.Options();
  return self.Run([&](Session& session) { return session.Prefill(ids, options); });
}

/// Passes text to `on_text` and lets Ctrl-C end the generation.
void PassText(const std::optional<nb::callable>& on_text, std::string_view text) {
  const nb::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
  if (on_text) (*on_text)(nb::str(text.data(), text.size()));
}

Generation GenerateAnswer(GuardedSession& self, nb::handle prompt, int max_new_tokens, const Tokenizer* tokenizer,
                          double temperature, int top_k, double top_p, uint64_t seed, std::vector<int32_t> eos,
                          std::vector<std::string> stop, std::vector<int32_t> stop_ids, double min_p,
                          double repetition_penalty, double presence_penalty, double frequency_penalty,
                          const std::optional<nb::callable>& on_text, const std::string& strategy,
                          const std::optional<std::string>& topology, nb::handle partition, int ranks, bool timeline,
                          const std::string& gather) {
  const std::vector<int32_t> ids = TokenIds(prompt);
  const PrefillOptions prefill = PhaseKeywords{strategy, topology, partition, ranks, timeline, gather}.Options();
  const SamplingOptions sampling{temperature,      top_k, top_p, seed, min_p, repetition_penalty, presence_penalty,
                                 frequency_penalty};
  const GenerationOptions options{max_new_tokens, sampling, std::move(eos), std::move(stop), std::move(stop_ids)};
  return self.Run([&](Session& session) {
    return Generate(session, tokenizer, ids, prefill, options,
                    [&](std::string_view text) { PassText(on_text, text); });
  });
}

void BindSession(nb::module_& module) {
  nb::class_<GuardedSession>(
      module, "Session",
      "One sequence: its KV-caches on the ranks and the logits of its last position. One call at a time.")
      .def(
          "prefill", &Prefill, "tokens"_a, nb::kw_only(), "strategy"_a = "runahead", "topology"_a = nb::none(),
          "partition"_a = "auto", "ranks"_a = 0, "timeline"_a = false, "gather"_a = "copies",
          nb::sig("def prefill(self, tokens: TokenIds, *, strategy: str = 'runahead', topology: str | None = None, "
                  "partition: Partition = 'auto', ranks: int = 0, timeline: bool = False, "
                  "gather: str = 'copies') -> PrefillReport"),
          "Starts the sequence anew with `tokens`: builds the KV-cache over the ranks and leaves the last position's "
          "logits in `logits`. `ranks`: use the first so many; 0: all, or with auto those that help. Raises "
          "ConfigError for an empty prompt, an id out of range or a prompt that does not fit; LinkError when a rank "
          "was lost.")
      .def(
          "append",
          [](GuardedSession& self, int32_t token) { self.Run([&](Session& session) { session.Append(token); }); },
          "token"_a, "Adds one token behind the sequence and computes its logits.")
      .def(
          "append_greedy",
          [](GuardedSession& self, int32_t token, bool go_on) {
            return self.Run([&](Session& session) { return session.AppendGreedy(token, go_on); });
          },
          "token"_a, "go_on"_a = true,
          "Adds one token and returns the likeliest next one; `logits` stay as they were. `go_on`: the returned "
          "token "
          "will probably be appended next.")
      .def("generate", &GenerateAnswer, "prompt"_a, nb::kw_only(), "max_new_tokens"_a = 128,
           "tokenizer"_a.none() = nb::none(), "temperature"_a = 0.0, "top_k"_a = 0, "top_p"_a = 1.0, "seed"_a = 0,
           "eos"_a = nb::list(), "stop"_a = nb::list(), "stop_ids"_a = nb::list(), "min_p"_a = 0.0,
           "repetition_penalty"_a = 1.0, "presence_penalty"_a = 0.0, "frequency_penalty"_a = 0.0,
           "on_text"_a = nb::none(), "strategy"_a = "runahead", "topology"_a = nb::none(), "partition"_a = "auto",
           "ranks"_a = 0, "timeline"_a = false, "gather"_a = "copies",
           nb::sig("def generate(self, prompt: TokenIds, *, max_new_tokens: int = 128, "
                   "tokenizer: Tokenizer | None = None, temperature: float = 0.0, top_k: int = 0, "
                   "top_p: float = 1.0, seed: int = 0, eos: Sequence[int] = [], stop: Sequence[str] = [], "
                   "stop_ids: Sequence[int] = [], min_p: float = 0.0, repetition_penalty: float = 1.0, "
                   "presence_penalty: float = 0.0, frequency_penalty: float = 0.0, "
                   "on_text: Callable[[str], object] | None = None, strategy: str = 'runahead', "
                   "topology: str | None = None, partition: Partition = 'auto', ranks: int = 0, "
                   "timeline: bool = False, gather: str = 'copies') -> Generation"),
           "Prefills `prompt` and goes on until a token of `eos` (end_tokens() has the model's own), a string of "
           "`stop`, an id of `stop_ids`, max_new_tokens, or a full session. temperature 0 takes the likeliest token; "
           "`min_p` keeps tokens at least so many times as likely as that. The penalties change the logits of tokens "
           "that came, as `runahead generate --help` says. `on_text` gets the text piece by piece; text needs a "
           "tokenizer.")
      .def_prop_ro(
          "logits",
          [](nb::handle_t<GuardedSession> self) {
            const std::span<const float> logits = nb::cast<const GuardedSession&>(self).session().logits();
            return Logits(logits.data(), {logits.size()}, self);
          },
          "Of the last position: [vocab], float32. A read-only view without a copy: it shows the newest logits, and "
          "keeps the session alive. `.copy()` keeps them.")
      .def_prop_ro(
          "size", [](const GuardedSession& self) { return self.session().size(); }, "tokens in the cache")
      .def_prop_ro(
          "capacity", [](const GuardedSession& self) { return self.session().capacity(); },
          "tokens there is room for");
}

}  // namespace

void BindEngine(nb::module_& module) {
  nb::class_<ModelFacts>(module, "ModelFacts", "What a caller needs to know of the model.")
      .def_ro("architecture", &ModelFacts::architecture)
      .def_ro("dtype", &ModelFacts::dtype, "of activations and cache")
      .def_ro("layers", &ModelFacts::layers)
      .def_ro("vocab", &ModelFacts::vocab)
      .def_ro("max_positions", &ModelFacts::max_positions)
      .def_ro("kv_bytes_per_token", &ModelFacts::kv_bytes_per_token)
      .def_ro("weights", &ModelFacts::weights, "format of the layers' matrices: stored, int8, int4 or fp8")
      .def_ro("weight_bytes", &ModelFacts::weight_bytes, "bytes of the matrices that each decoded token reads");
  BindSession(module);
  nb::class_<Engine>(module, "Engine",
                     "A model's weights on a group of ranks, each with its own threads. Any thread may use it.")
      .def(
          "__init__",
          [](Engine* self, const std::filesystem::path& model_dir, std::string devices, int threads_per_rank,
             std::vector<int> threads_of_rank, std::string link, std::string link_bandwidth,
             std::string rank_bandwidth, std::string tuned_folder, std::string dtype, std::string weights,
             int64_t context, double timeout_s, std::function<void(double)> on_load_progress) {
            EngineOptions options;
            options.devices = std::move(devices);
            options.threads_per_rank = threads_per_rank;
            options.threads_of_rank = std::move(threads_of_rank);
            options.link = std::move(link);
            options.link_bandwidth = std::move(link_bandwidth);
            options.rank_bandwidth = std::move(rank_bandwidth);
            options.tuned_folder = std::move(tuned_folder);
            options.dtype = std::move(dtype);
            options.weights = std::move(weights);
            options.context = context;
            options.timeout_s = timeout_s;
            options.on_load_progress = std::move(on_load_progress);
            new (self) Engine(WithoutGil([&] { return Engine::Load(model_dir, options); }));
          },
          "model_dir"_a, nb::kw_only(), "devices"_a = "cpu", "threads_per_rank"_a = 0,
          "threads_of_rank"_a = nb::list(), "link"_a = "auto", "link_bandwidth"_a = "", "rank_bandwidth"_a = "",
          "tuned_folder"_a = "", "dtype"_a = "", "weights"_a = "", "context"_a = 0, "timeout_s"_a = 600.0,
          "on_load_progress"_a = nb::none(),
          "Loads a Hugging Face folder or a GGUF file. `devices`: \"cpu\", \"cpu:4\" (four ranks of this process) or "
          "\"cuda:0,1\". "
          "`threads_per_rank`: 0 divides this machine's processors by the ranks. `dtype`: \"f32\", \"bf16\", "
          "\"f16\"; empty: the weights' own where the device is good at it. `weights`: \"int8\" or \"int4\" "
          "on CPU ranks and \"fp8\" on GPUs quantise "
          "matrices while they are loaded; empty: as they are stored. `context`: the longest sequence, "
          "be it "
          "more than the model says; 0: as it says. `timeout_s`: the longest wait of "
          "a rank for rows of another. `on_load_progress` is told the share that is ready. Raises ConfigError or "
          "IoError naming the file and the value.")
      .def_prop_ro("ranks", &Engine::ranks)
      .def_prop_ro("threads_per_rank", &Engine::threads_per_rank)
      .def_prop_ro("facts", &Engine::facts)
      .def(
          "session",
          [](const Engine& self, int64_t capacity) { return new GuardedSession(self.NewSession(capacity)); },
          "capacity"_a, nb::rv_policy::take_ownership,
          "A sequence of at most `capacity` tokens, prompt and continuation. Raises ConfigError when that is beyond "
          "the model's context or does not fit in memory.");
  module.def(
      "end_tokens",
      [](const std::filesystem::path& model_dir, const Tokenizer* tokenizer) {
        return EndTokens(Model(model_dir), tokenizer);
      },
      "model_dir"_a, "tokenizer"_a.none() = nb::none(),
      "The ids that end a text, by the model's files and its tokenizer.");
}

}  // namespace runahead::python
