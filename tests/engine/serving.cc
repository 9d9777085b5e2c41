#include "tests/engine/serving.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <stdexcept>

#include "engine/engine_state.h"
#include "runahead/group.h"
#include "tests/engine/tiny_model.h"
#include "wire/socket.h"
#include "worker/sampler.h"

namespace runahead {
namespace {

constexpr int kLikely = 3;

/// The natural logarithms of the `count` largest probabilities. logits: [vocab].
std::vector<float> LikeliestLogprobs(std::span<const float> logits, int count) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - top);
  const double log_sum = top + std::log(sum);
  std::vector<float> best(logits.begin(), logits.end());
  std::partial_sort(best.begin(), best.begin() + count, best.end(), std::greater<>());
  std::vector<float> logprobs;
  for (int i = 0; i < count; ++i) logprobs.push_back(static_cast<float>(best[static_cast<size_t>(i)] - log_sum));
  return logprobs;
}

class Draws {
 public:
  explicit Draws(unsigned seed) : random_(seed) {}
  int64_t Between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }
  bool Chance(double p) { return std::bernoulli_distribution(p)(random_); }
  template <typename T>
  const T& Of(const std::vector<T>& all) {
    return all[static_cast<size_t>(Between(0, std::ssize(all) - 1))];
  }

 private:
  std::mt19937 random_;
};

std::vector<int32_t> RandomIds(Draws& draws, int64_t count, int64_t vocab) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(draws.Between(0, vocab - 1));
  return ids;
}

PrefillOptions RandomOptions(Draws& draws, int ranks) {
  PrefillOptions options;
  if (draws.Chance(0.4)) return options;
  options.strategy = draws.Of(std::vector{Strategy::kRunahead, Strategy::kRunahead, Strategy::kRunahead,
                                          Strategy::kTspCausal, Strategy::kTspDense, Strategy::kSingle});
  if (draws.Chance(0.7)) options.topology = draws.Chance(0.5) ? Topology::kChain : Topology::kDirect;
  if (options.strategy == Strategy::kRunahead && draws.Chance(0.5)) options.partition.kind = PartitionKind::kEven;
  if (draws.Chance(0.3)) options.ranks = static_cast<int>(draws.Between(1, ranks));
  return options;
}

Request RandomRequest(Draws& draws, const std::vector<int32_t>& document, int64_t context, int64_t vocab, int ranks) {
  Request request;
  const int64_t most = context - 2;
  const int64_t shared = draws.Chance(0.6) ? std::min(draws.Of(std::vector<int64_t>{1, 40, 127, 128, 129, 300, 513}),
                                                      std::min(most, std::ssize(document)))
                                           : 0;
  request.prompt.assign(document.begin(), document.begin() + shared);
  const int64_t own = draws.Chance(0.3) ? draws.Between(1, 600) : draws.Between(1, 80);
  const std::vector<int32_t> rest = RandomIds(draws, std::clamp<int64_t>(own, 1, most - shared), vocab);
  request.prompt.insert(request.prompt.end(), rest.begin(), rest.end());
  request.generation.max_new_tokens =
      static_cast<int>(draws.Chance(0.2) ? draws.Between(30, 200) : draws.Between(1, 20));
  request.logprobs = kLikely;
  if (draws.Chance(0.4)) {
    request.generation.sampling.temperature = 0.9;
    request.generation.sampling.seed = static_cast<uint64_t>(draws.Between(0, 1000));
    if (draws.Chance(0.5)) request.generation.sampling.repetition_penalty = 1.3;
    if (draws.Chance(0.5)) request.generation.sampling.frequency_penalty = 0.5;
  }
  if (draws.Chance(0.2)) request.choices = static_cast<int>(draws.Between(2, 4));
  request.priority = static_cast<int>(draws.Between(0, 1));
  request.prefill = RandomOptions(draws, ranks);
  return request;
}

/// `cut`: a was ended early.
bool SameIds(const Answered& a, const Answered& b, bool cut) {
  const size_t ids = cut ? a.ids.size() : std::max(a.ids.size(), b.ids.size());
  if (a.ids.size() < ids || b.ids.size() < ids) return false;
  return std::equal(a.ids.begin(), a.ids.begin() + static_cast<std::ptrdiff_t>(ids), b.ids.begin());
}

bool SameBits(const Answered& a, const Answered& b) {
  return a.logprobs.size() <= b.logprobs.size() &&
         std::equal(a.logprobs.begin(), a.logprobs.end(), b.logprobs.begin());
}

}  // namespace

void Await(RequestHandle& handle, std::vector<Answered>& answers, int most) {
  const auto goes_on = [&] {
    return std::any_of(answers.begin(), answers.end(), [](const Answered& answered) { return !answered.end; });
  };
  for (int i = 0; i < most && goes_on(); ++i) {
    std::optional<RequestEvent> event = handle.Next(std::chrono::minutes(1));
    if (!event) throw std::runtime_error("a request gave nothing for a minute");
    Answered& answered = answers.at(static_cast<size_t>(event->choice));
    if (event->kind == RequestEvent::Kind::kToken) {
      answered.ids.push_back(event->token.id);
      for (const TokenLogprob& likely : event->likely) answered.logprobs.push_back(likely.logprob);
    }
    if (event->kind == RequestEvent::Kind::kEnd) answered.end = std::move(event);
  }
}

namespace {

/// Processes that this one started, which end by themselves.
class Others {
 public:
  ~Others() {
    for (const pid_t child : children_) (void)::waitpid(child, nullptr, 0);
  }
  void Start(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"serving_traces", "--serve-ranks"});
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_t child = 0;
    if (::posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, argv.data(), environ) != 0) {
      throw std::runtime_error("no process");
    }
    children_.push_back(child);
  }

 private:
  std::vector<pid_t> children_;
};

EngineOptions OptionsOf(const ServingEngines::Key& key) {
  EngineOptions options;
  options.devices = key.devices;
  options.threads_per_rank = 1;
  options.dtype = key.dtype;
  options.timeout_s = 300;
  options.max_pause_ms = 5;
  options.deterministic = key.deterministic;
  const Engine probe = Engine::Load(TinyModelFolder(key.preset), options);
  options.kv_memory = probe.facts().kv_bytes_per_token * static_cast<size_t>(kPageRows * key.pages);
  return options;
}

GroupOptions GroupOf(int process, int processes, int port) {
  GroupOptions group;
  group.process = process;
  group.processes = processes;
  group.host = "127.0.0.1";
  group.port = static_cast<uint16_t>(port);
  group.lost_after_s = 60;
  return group;
}

}  // namespace

const Engine& ServingEngines::Of(const Key& key) {
  constexpr size_t kAtOnce = 6;
  if (const auto found = engines_.find(key); found != engines_.end()) return *found->second.engine;
  if (engines_.size() >= kAtOnce) engines_.clear();
  EngineOptions options = OptionsOf(key);
  options.cache_dir = cache_dir_;
  const auto others = std::make_shared<Others>();
  if (key.processes > 1) {
    const int port = SocketListener(WireAddress::Parse("127.0.0.1:0")).address().port;
    options.group = std::make_shared<const GroupOptions>(GroupOf(0, key.processes, port));
    for (int process = 1; process < key.processes; ++process) {
      others->Start({std::to_string(process), std::to_string(key.processes), std::to_string(port), key.preset,
                     key.dtype, std::to_string(key.pages)});
    }
  }
  auto engine = std::make_unique<const Engine>(Engine::Load(TinyModelFolder(key.preset), options));
  return *engines_.emplace(key, Served{others, std::move(engine)}).first->second.engine;
}

void ServeRanksOf(const std::vector<std::string>& arguments) {
  ServingEngines::Key key;
  key.preset = arguments.at(3);
  key.dtype = arguments.at(4);
  key.devices = "cpu";
  key.pages = std::stoll(arguments.at(5));
  EngineOptions options = OptionsOf(key);
  options.group = std::make_shared<const GroupOptions>(
      GroupOf(std::stoi(arguments.at(0)), std::stoi(arguments.at(1)), std::stoi(arguments.at(2))));
  ServeRanks(Model(TinyModelFolder(key.preset)), options);
}

Answered ServingEngines::Alone(const Key& key, const Request& request) {
  const std::string first = key.devices.substr(0, key.devices.find(','));
  const Engine& engine = Of({key.preset, key.dtype, first.starts_with("cpu") ? "cpu" : first, 1, key.deterministic});
  const int64_t context = std::min(engine.facts().max_positions, key.pages * kPageRows);
  Session session =
      engine.NewSession(std::min(context, std::ssize(request.prompt) + request.generation.max_new_tokens));
  session.Prefill(request.prompt, {Strategy::kSingle, Topology::kChain, {}, 0, false});
  Sampler sampler(request.generation.sampling);
  sampler.SeePrompt(request.prompt);
  Answered answered;
  while (true) {
    const std::vector<float> logprobs = LikeliestLogprobs(session.logits(), kLikely);
    answered.logprobs.insert(answered.logprobs.end(), logprobs.begin(), logprobs.end());
    answered.ids.push_back(sampler.Draw(session.logits()));
    sampler.SeeDrawn(answered.ids.back());
    if (std::ssize(answered.ids) == request.generation.max_new_tokens || session.size() == session.capacity()) {
      return answered;
    }
    session.Append(answered.ids.back());
  }
}

namespace {

/// Compares a choice with what `request`, which has its seed, gets alone.
void Compare(ServingEngines& engines, const ServingEngines::Key& key, const Request& request,
             const Answered& answered, bool cut, TraceOutcome& outcome) {
  const RequestEvent& end = *answered.end;
  outcome.cached_tokens += end.stats.cached_tokens;
  outcome.gangs += end.choice == 0 && end.stats.members.size() > 1 ? 1 : 0;
  outcome.cancelled += end.finish == FinishReason::kCancelled ? 1 : 0;
  const Answered alone = engines.Alone(key, request);
  const bool ended_well = end.finish == FinishReason::kLength || (cut && end.finish == FinishReason::kCancelled);
  const bool early = end.finish == FinishReason::kCancelled;
  const bool same_bits = key.devices.starts_with("cpu") || key.deterministic;
  if (ended_well && SameIds(answered, alone, early) && (!same_bits || SameBits(answered, alone))) return;
  ++outcome.differ;
  if (!outcome.first_difference.empty()) return;
  outcome.first_difference = "a request of " + std::to_string(request.prompt.size()) + " tokens, choice " +
                             std::to_string(end.choice) + ", finish " + std::string(Name(end.finish)) + " " +
                             end.error + ", " + std::to_string(answered.ids.size()) + " of " +
                             std::to_string(alone.ids.size()) + " tokens";
}

}  // namespace

TraceOutcome PlayTrace(ServingEngines& engines, unsigned seed, const std::string& devices, bool deterministic,
                       int processes) {
  Draws draws(seed);
  const bool on_cpu = devices == "cpu";
  const bool same_bits = on_cpu || deterministic;
  ServingEngines::Key key;
  std::vector<std::string> presets = {"tiny-llama", "tiny-mistral", "tiny-falcon", "tiny-mixtral"};
  if (on_cpu) presets.emplace_back("tiny-deepseek-v3");
  key.preset = draws.Of(presets);
  key.dtype = draws.Of(std::vector<std::string>{"f32", same_bits ? "bf16" : "f32"});
  key.devices = on_cpu ? "cpu:" + std::to_string(draws.Of(std::vector<int>{1, 2, 2, 3, 4, 8})) : devices;
  key.pages = draws.Of(std::vector<int64_t>{10, 16, 64});
  key.deterministic = deterministic;
  key.processes = processes;
  if (processes > 1) key.devices = "cpu";
  const Engine& engine = engines.Of(key);
  const ModelFacts facts = engine.facts();
  const int64_t context = std::min(facts.max_positions, key.pages * kPageRows);
  const std::vector<int32_t> document = RandomIds(draws, context, facts.vocab);

  TraceOutcome outcome;
  outcome.situation = key.preset + " " + key.dtype + " on " + key.devices + ", " + std::to_string(key.pages) +
                      " pages, " + std::to_string(key.processes) + " processes, seed " + std::to_string(seed);
  std::vector<Request> requests;
  std::vector<RequestHandle> handles;
  std::vector<bool> cut;
  outcome.requests = static_cast<int>(draws.Between(1, 12));
  std::vector<std::vector<Answered>> answers;
  size_t awaited = 0;
  for (int i = 0; i < outcome.requests; ++i) {
    requests.push_back(RandomRequest(draws, document, context, facts.vocab, engine.ranks()));
    answers.emplace_back(static_cast<size_t>(requests.back().choices));
    handles.push_back(engine.Submit(requests.back()));
    cut.push_back(draws.Chance(0.15));
    if (cut.back()) {  // at once, or in the middle of its prompt phase or of its answer
      if (draws.Chance(0.6)) {
        Await(handles.back(), answers.back(), static_cast<int>(draws.Between(1, 8)));
      }
      handles.back().Cancel();
    }
    if (draws.Chance(0.2)) {  // the later ones arrive when an earlier one has ended
      Await(handles[awaited], answers[awaited]);
      ++awaited;
    }
  }
  for (; awaited < handles.size(); ++awaited) Await(handles[awaited], answers[awaited]);
  handles.clear();  // which keep the engine
  for (size_t i = 0; i < requests.size(); ++i) {
    for (const Answered& answered : answers[i]) {
      Compare(engines, key, requests[i], answered, cut[i], outcome);
      ++requests[i].generation.sampling.seed;
    }
  }
  return outcome;
}

}  // namespace runahead
