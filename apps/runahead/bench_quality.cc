#include "bench_quality.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <optional>
#include <random>

#include "base/input_file.h"
#include "base/json.h"
#include "base/output_file.h"
#include "demo_run.h"
#include "flags.h"
#include "model_folder.h"
#include "ops/devices.h"
#include "output.h"
#include "report/table.h"
#include "report/units.h"
#include "runahead/error.h"
#include "runahead/generate.h"

namespace runahead::cli {
namespace {

constexpr const char* kWindowTokens = "512";
constexpr const char* kRoundsLeast = "f32";  // the dtype in which exact rows tell what rounding alone costs
constexpr int64_t kQuestionTokens = 2000;    // tokens of a log with its question; fewer hold none at times

/// What is compared: engines that differ in one option.
struct Formats {
  std::string suite;
  std::vector<std::string> names;      // the reference first
  std::string EngineOptions::*option;  // what a name is set as
  double read_at_once = 0;             // share of a window that a prompt phase reads, the rest goes token by token
};

const Formats kWeights{"weights", {"stored", "int8", "int4"}, &EngineOptions::weights, 0};
const Formats kWire{"wire", {"exact", "int8", "fp8", "int4"}, &EngineOptions::wire, 0.75};

/// What one format does, position by position beside the reference.
struct FormatQuality {
  std::string name;
  ModelFacts facts;
  size_t bytes_sent = 0;       // bytes of rows that ranks handed over
  double bound = 0;            // largest PrefillReport::wire_bound
  double nats = 0;             // sum over positions of -log of the probability of what follows
  double squared_error = 0;    // sum over positions and tokens of squared differences of logits
  double largest_error = 0;    // the largest difference of a logit
  int64_t same_likeliest = 0;  // positions whose likeliest token is the same
  int right_answers = 0;

  [[nodiscard]] double Perplexity(int64_t positions) const { return std::exp(nats / static_cast<double>(positions)); }
};

/// All that was measured.
struct QualityReport {
  const Formats* kind = nullptr;
  int ranks = 1;
  std::string model;
  std::string text;
  int64_t positions = 0;
  double squared_logits = 0;  // sum over positions and tokens of the squares of logits about their position's mean
  double largest_logit = 0;   // largest magnitude of a logit
  int questions = 0;
  std::vector<FormatQuality> formats;  // the reference first

  /// Errors over the deviation of the logits, root mean squares.
  [[nodiscard]] double LogitError(const FormatQuality& format) const {
    return squared_logits > 0 ? std::sqrt(format.squared_error / squared_logits) : 0;
  }
};

/// -log of the probability of `token`.
double Nats(std::span<const float> logits, int32_t token) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum) - logits[static_cast<size_t>(token)];
}

int64_t Likeliest(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

double SquaresAboutMean(std::span<const float> logits) {
  double sum = 0;
  double squares = 0;
  for (const float logit : logits) {
    sum += logit;
    squares += double{logit} * logit;
  }
  return squares - sum * sum / static_cast<double>(logits.size());
}

/// Takes the position whose logits the sessions hold, and what follows it.
void Compare(const std::vector<Session>& sessions, int32_t next, QualityReport& report) {
  const std::span<const float> reference = sessions.front().logits();
  report.squared_logits += SquaresAboutMean(reference);
  for (const float logit : reference) report.largest_logit = std::max(report.largest_logit, std::abs(double{logit}));
  ++report.positions;
  for (size_t i = 0; i < sessions.size(); ++i) {
    const std::span<const float> logits = sessions[i].logits();
    FormatQuality& quality = report.formats[i];
    quality.nats += Nats(logits, next);
    quality.same_likeliest += Likeliest(logits) == Likeliest(reference) ? 1 : 0;
    for (size_t token = 0; token < logits.size(); ++token) {
      const double error = double{logits[token]} - reference[token];
      quality.squared_error += error * error;
      quality.largest_error = std::max(quality.largest_error, std::abs(error));
    }
  }
}

/// A prompt phase over all ranks of each engine.
void Prefill(std::vector<Session>& sessions, std::span<const int32_t> ids, QualityReport& report) {
  PrefillOptions options;
  options.ranks = static_cast<int>(std::min<int64_t>(report.ranks, std::ssize(ids)));
  for (size_t i = 0; i < sessions.size(); ++i) {
    const PrefillReport phase = sessions[i].Prefill(ids, options);
    report.formats[i].bytes_sent += phase.bytes_sent;
    report.formats[i].bound = std::max(report.formats[i].bound, phase.wire_bound);
  }
}

/// Reads `ids` in windows, each from its begin on, with every engine in turn: a part in a prompt phase, the rest
/// token by token.
void ReadText(const std::vector<Engine>& engines, const std::vector<int32_t>& ids, int64_t window,
              QualityReport& report) {
  Progress progress("reading the text");
  std::vector<Session> sessions;
  for (const Engine& engine : engines) sessions.push_back(engine.NewSession(window));
  const auto n = std::ssize(ids);
  for (int64_t begin = 0; begin + 1 < n; begin += window) {
    const int64_t end = std::min(begin + window, n);
    const auto at_once = static_cast<int64_t>(report.kind->read_at_once * static_cast<double>(end - begin));
    const int64_t first = begin + std::max<int64_t>(at_once, 1) - 1;
    for (int64_t i = first; i + 1 < end; ++i) {
      if (i == first) {
        Prefill(sessions, std::span(ids).subspan(static_cast<size_t>(begin), static_cast<size_t>(first + 1 - begin)),
                report);
      } else {
        for (Session& session : sessions) session.Append(ids[static_cast<size_t>(i)]);
      }
      Compare(sessions, ids[static_cast<size_t>(i + 1)], report);
      progress.Show(static_cast<double>(i) / static_cast<double>(n));
    }
  }
}

/// Asks about so many of the demo's logs, which only a model knows that was trained on them.
void AskQuestions(const std::vector<Engine>& engines, const Tokenizer& tokenizer, const std::vector<int32_t>& eos,
                  QualityReport& report) {
  constexpr int kAnswerTokens = 24;
  Progress progress("answering questions");
  GenerationOptions options;
  options.max_new_tokens = kAnswerTokens;
  options.eos = eos;
  options.stop = {".", "\n"};
  std::vector<Session> sessions;
  for (const Engine& engine : engines) sessions.push_back(engine.NewSession(kQuestionTokens + kAnswerTokens));
  for (int question = 0; question < report.questions; ++question) {
    const DemoPrompt prompt = WriteDemoPrompt(tokenizer, static_cast<uint64_t>(question), kQuestionTokens, 1);
    for (size_t i = 0; i < sessions.size(); ++i) {
      PrefillOptions over_all;
      over_all.ranks = report.ranks;
      const Generation answer = Generate(sessions[i], &tokenizer, prompt.ids, over_all, options);
      report.formats[i].right_answers += demo::IsRightAnswer(prompt.question, answer.text) ? 1 : 0;
    }
    progress.Show(static_cast<double>(question + 1) / report.questions);
  }
}

Json JsonOf(const QualityReport& report) {
  Json formats = Json::array();
  for (const FormatQuality& format : report.formats) {
    formats.push_back({{report.kind->suite, format.name},
                       {"dtype", format.facts.dtype},
                       {"weight_bytes", format.facts.weight_bytes},
                       {"bytes_sent", format.bytes_sent},
                       {"wire_bound", format.bound},
                       {"perplexity", format.Perplexity(report.positions)},
                       {"logit_error", report.LogitError(format)},
                       {"largest_logit_error", format.largest_error},
                       {"same_likeliest", format.same_likeliest},
                       {"right_answers", format.right_answers}});
  }
  return {{"suite", report.kind->suite},   {"model", report.model},         {"ranks", report.ranks},
          {"text", report.text},           {"positions", report.positions}, {"largest_logit", report.largest_logit},
          {"questions", report.questions}, {"formats", std::move(formats)}};
}

std::string Table(const QualityReport& report) {
  const double reference = report.formats.front().Perplexity(report.positions);
  const bool wire = report.kind == &kWire;
  std::vector<report::Column> columns{{report.kind->suite, report::Align::kLeft},
                                      {wire ? "rows sent" : "a token reads"},
                                      {"perplexity"},
                                      {"change"},
                                      {"logit error"},
                                      {"largest"},
                                      {"same token"}};
  if (report.questions > 0) columns.push_back({"answers"});
  std::vector<std::vector<std::string>> rows;
  for (const FormatQuality& format : report.formats) {
    const double perplexity = format.Perplexity(report.positions);
    const double same = static_cast<double>(format.same_likeliest) / static_cast<double>(report.positions);
    rows.push_back({format.name, report::Bytes(wire ? format.bytes_sent : format.facts.weight_bytes),
                    fmt::format("{:.4f}", perplexity), fmt::format("{:+.2f} %", 100 * (perplexity / reference - 1)),
                    fmt::format("{:.2f} %", 100 * report.LogitError(format)),
                    fmt::format("{:.2f} %", 100 * format.largest_error / report.largest_logit),
                    fmt::format("{:.1f} %", 100 * same)});
    if (report.questions > 0) rows.back().push_back(fmt::format("{} of {}", format.right_answers, report.questions));
  }
  return fmt::format("{} in {} on {} rank{}: {} positions of {}\n\n{}", report.model,
                     report.formats.front().facts.dtype, report.ranks, report.ranks == 1 ? "" : "s",
                     report::Grouped(report.positions), report.text, report::FormatTable(columns, rows));
}

/// The tokens of the text: a file, for the demo's model one of its logs, or for rows that travel any tokens at all.
/// Throws ConfigError for what does not go together.
std::vector<int32_t> IdsOf(const SuiteFlags& flags, const Formats& kind, const Model& model,
                           const Tokenizer* tokenizer, uint64_t seed) {
  constexpr uint64_t kSeed = 1'000'000;  // of a log that no question is about
  if (flags.text.empty() && tokenizer != nullptr && flags.questions > 0) {
    return WriteDemoPrompt(*tokenizer, kSeed, flags.text_tokens, 1).ids;
  }
  std::vector<int32_t> ids;
  if (flags.text.empty()) {
    if (&kind != &kWire) throw ConfigError("--text: the weights suite needs a file to read");
    std::mt19937_64 random(seed);
    for (int64_t i = 0; i < flags.text_tokens; ++i) {
      ids.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(model.vocab())));
    }
    return ids;
  }
  ids = tokenizer->Encode(ReadInput(flags.text));
  if (std::ssize(ids) > flags.text_tokens) ids.resize(static_cast<size_t>(flags.text_tokens));
  if (ids.size() < 2) throw ConfigError(fmt::format("--text: {} holds fewer than two tokens", flags.text));
  const auto largest = *std::max_element(ids.begin(), ids.end());
  if (largest >= model.vocab()) {
    throw ConfigError(
        fmt::format("--text: token id {} is beyond the model's vocabulary of {}", largest, model.vocab()));
  }
  return ids;
}

/// The formats of `kind` that such devices have, the reference first.
std::vector<std::string> FormatsOn(const std::string& devices, const Formats& kind) {
  if (&kind == &kWeights && ParseDevices(devices).front().gpu) return {"stored", "fp8"};
  return kind.names;
}

int64_t WindowOf(const SuiteRequest& request, const Formats& kind, const Model& model) {
  const std::vector<int64_t> windows =
      ParseIntegers("--contexts", request.contexts.empty() ? kWindowTokens : request.contexts, 2, INT32_MAX);
  if (windows.size() != 1) {
    throw ConfigError(fmt::format("--contexts: the {} suite takes the tokens of a window alone, got {} values",
                                  kind.suite, windows.size()));
  }
  return std::min(windows.front(), model.max_positions());
}

std::string TextName(const SuiteFlags& flags) {
  if (!flags.text.empty()) return NameOfFolder(flags.text);
  return flags.questions > 0 ? "a log of the demo" : "random tokens";
}

int RunQuality(const Formats& kind, const SuiteFlags& flags, const SuiteRequest& request) {
  if (request.models.size() != 1) {
    throw ConfigError(fmt::format("--model: the {} suite takes one, got '{}' too", kind.suite, request.models.at(1)));
  }
  if (const std::string& given = request.engine.*kind.option; given != EngineOptions().*kind.option) {
    throw ConfigError(fmt::format("--{}: the suite runs all formats, got '{}'", kind.suite, given));
  }
  const std::string& folder = request.models.front();
  OutputFiles outputs;
  outputs.Protect(folder);
  OutputFile json = outputs.Open("--json", request.json);
  const Model model = OpenModel(folder, request.engine);
  std::optional<Tokenizer> tokenizer;
  if (&kind == &kWeights || !flags.text.empty() || flags.questions > 0) tokenizer = Tokenizer::Load(folder);
  const std::vector<int32_t> ids = IdsOf(flags, kind, model, tokenizer ? &*tokenizer : nullptr, request.seed);
  const int64_t window = WindowOf(request, kind, model);
  QualityReport report;
  report.kind = &kind;
  report.model = NameOfFolder(folder);
  report.text = TextName(flags);
  report.questions = flags.questions;
  std::vector<Engine> engines;
  const auto compare = [&](const std::string& name, const EngineOptions& options) {
    engines.push_back(LoadEngine(model, options));
    FormatQuality& quality = report.formats.emplace_back();
    quality.name = name;
    quality.facts = engines.back().facts();
  };
  for (const std::string& format : FormatsOn(request.engine.devices, kind)) {
    EngineOptions options = request.engine;
    options.*kind.option = format;
    compare(format, options);
  }
  if (&kind == &kWire && report.formats.front().facts.dtype != kRoundsLeast) {
    EngineOptions options = request.engine;
    options.dtype = kRoundsLeast;
    compare(fmt::format("{} in {}", kind.names.front(), kRoundsLeast), options);
  }
  report.ranks = engines.front().ranks();
  ReadText(engines, ids, window, report);
  if (report.questions > 0) AskQuestions(engines, *tokenizer, EndTokens(model, &*tokenizer), report);
  if (json) json.Write(JsonOf(report).dump(1) + "\n");
  WriteOut(Table(report));
  return 0;
}

}  // namespace

int RunWeights(const SuiteFlags& flags, const SuiteRequest& request) { return RunQuality(kWeights, flags, request); }

int RunWire(const SuiteFlags& flags, const SuiteRequest& request) { return RunQuality(kWire, flags, request); }

}  // namespace runahead::cli
