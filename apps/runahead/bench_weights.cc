#include "bench_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cmath>

#include "base/input_file.h"
#include "base/json.h"
#include "base/output_file.h"
#include "demo_run.h"
#include "flags.h"
#include "model_folder.h"
#include "output.h"
#include "report/table.h"
#include "report/units.h"
#include "runahead/error.h"
#include "runahead/generate.h"

namespace runahead::cli {
namespace {

constexpr const char* kWindowTokens = "512";
constexpr int64_t kQuestionTokens = 2000;  // tokens of a log with its question; fewer hold none at times

/// What one format does, position by position beside the stored weights.
struct FormatQuality {
  ModelFacts facts;
  double nats = 0;             // sum over positions of -log of the probability of what follows
  double squared_error = 0;    // sum over positions and tokens of squared differences of logits
  double largest_error = 0;    // the largest difference of a logit
  int64_t same_likeliest = 0;  // positions whose likeliest token is the same
  int right_answers = 0;

  [[nodiscard]] double Perplexity(int64_t positions) const { return std::exp(nats / static_cast<double>(positions)); }
};

/// All that was measured.
struct WeightsReport {
  std::string model;
  std::string text;
  int64_t positions = 0;
  double squared_logits = 0;  // sum over positions and tokens of the squares of logits about their position's mean
  int questions = 0;
  std::vector<FormatQuality> formats;  // the stored weights first

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
void Compare(const std::vector<Session>& sessions, int32_t next, WeightsReport& report) {
  const std::span<const float> reference = sessions.front().logits();
  report.squared_logits += SquaresAboutMean(reference);
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

/// Reads `ids` in windows, each from its begin on, token by token with every engine in turn.
void ReadText(const std::vector<Engine>& engines, const std::vector<int32_t>& ids, int64_t window,
              WeightsReport& report) {
  Progress progress("reading the text");
  std::vector<Session> sessions;
  for (const Engine& engine : engines) sessions.push_back(engine.NewSession(window));
  const auto n = std::ssize(ids);
  for (int64_t begin = 0; begin + 1 < n; begin += window) {
    const int64_t end = std::min(begin + window, n);
    for (int64_t i = begin; i + 1 < end; ++i) {
      const int32_t token = ids[static_cast<size_t>(i)];
      for (Session& session : sessions) {
        if (i == begin) {
          (void)session.Prefill(std::span(&token, 1));
        } else {
          session.Append(token);
        }
      }
      Compare(sessions, ids[static_cast<size_t>(i + 1)], report);
      progress.Show(static_cast<double>(i) / static_cast<double>(n));
    }
  }
}

/// Asks about so many of the demo's logs, which only a model knows that was trained on them.
void AskQuestions(const std::vector<Engine>& engines, const Tokenizer& tokenizer, const std::vector<int32_t>& eos,
                  WeightsReport& report) {
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
      const Generation answer = Generate(sessions[i], &tokenizer, prompt.ids, {}, options);
      report.formats[i].right_answers += demo::IsRightAnswer(prompt.question, answer.text) ? 1 : 0;
    }
    progress.Show(static_cast<double>(question + 1) / report.questions);
  }
}

Json JsonOf(const WeightsReport& report) {
  Json formats = Json::array();
  for (const FormatQuality& format : report.formats) {
    formats.push_back({{"weights", format.facts.weights},
                       {"dtype", format.facts.dtype},
                       {"weight_bytes", format.facts.weight_bytes},
                       {"perplexity", format.Perplexity(report.positions)},
                       {"logit_error", report.LogitError(format)},
                       {"largest_logit_error", format.largest_error},
                       {"same_likeliest", format.same_likeliest},
                       {"right_answers", format.right_answers}});
  }
  return {{"suite", "weights"},
          {"model", report.model},
          {"text", report.text},
          {"positions", report.positions},
          {"questions", report.questions},
          {"formats", std::move(formats)}};
}

std::string Table(const WeightsReport& report) {
  const double reference = report.formats.front().Perplexity(report.positions);
  std::vector<report::Column> columns{{"weights", report::Align::kLeft},
                                      {"a token reads"},
                                      {"perplexity"},
                                      {"change"},
                                      {"logit error"},
                                      {"same token"}};
  if (report.questions > 0) columns.push_back({"answers"});
  std::vector<std::vector<std::string>> rows;
  for (const FormatQuality& format : report.formats) {
    const double perplexity = format.Perplexity(report.positions);
    const double same = static_cast<double>(format.same_likeliest) / static_cast<double>(report.positions);
    rows.push_back({format.facts.weights, report::Bytes(format.facts.weight_bytes), fmt::format("{:.4f}", perplexity),
                    fmt::format("{:+.2f} %", 100 * (perplexity / reference - 1)),
                    fmt::format("{:.2f} %", 100 * report.LogitError(format)), fmt::format("{:.1f} %", 100 * same)});
    if (report.questions > 0) rows.back().push_back(fmt::format("{} of {}", format.right_answers, report.questions));
  }
  return fmt::format("{} in {}: {} positions of {}\n\n{}", report.model, report.formats.front().facts.dtype,
                     report::Grouped(report.positions), report.text, report::FormatTable(columns, rows));
}

/// The tokens of the text: a file, or for the demo's model one of its logs. Throws ConfigError for what does not go
/// together.
std::vector<int32_t> IdsOf(const SuiteFlags& flags, const Model& model, const Tokenizer& tokenizer) {
  constexpr uint64_t kSeed = 1'000'000;  // of a log that no question is about
  if (flags.text.empty() && flags.questions > 0) return WriteDemoPrompt(tokenizer, kSeed, flags.text_tokens, 1).ids;
  if (flags.text.empty()) throw ConfigError("--text: the weights suite needs a file to read");
  std::vector<int32_t> ids = tokenizer.Encode(ReadInput(flags.text));
  if (std::ssize(ids) > flags.text_tokens) ids.resize(static_cast<size_t>(flags.text_tokens));
  if (ids.size() < 2) throw ConfigError(fmt::format("--text: {} holds fewer than two tokens", flags.text));
  const auto largest = *std::max_element(ids.begin(), ids.end());
  if (largest >= model.vocab()) {
    throw ConfigError(
        fmt::format("--text: token id {} is beyond the model's vocabulary of {}", largest, model.vocab()));
  }
  return ids;
}

int64_t WindowOf(const SuiteRequest& request, const Model& model) {
  const std::vector<int64_t> windows =
      ParseIntegers("--contexts", request.contexts.empty() ? kWindowTokens : request.contexts, 2, INT32_MAX);
  if (windows.size() != 1) {
    throw ConfigError(fmt::format("--contexts: the weights suite takes the tokens of a window alone, got {} values",
                                  windows.size()));
  }
  return std::min(windows.front(), model.max_positions());
}

}  // namespace

int RunWeights(const SuiteFlags& flags, const SuiteRequest& request) {
  if (request.models.size() != 1) {
    throw ConfigError(fmt::format("--model: the weights suite takes one, got '{}' too", request.models.at(1)));
  }
  if (!request.engine.weights.empty()) {
    throw ConfigError(fmt::format("--weights: the suite runs all formats, got '{}'", request.engine.weights));
  }
  const std::string& folder = request.models.front();
  OutputFiles outputs;
  outputs.Protect(folder);
  OutputFile json = outputs.Open("--json", request.json);
  const Model model = OpenModel(folder, request.engine);
  const Tokenizer tokenizer = Tokenizer::Load(folder);
  const std::vector<int32_t> ids = IdsOf(flags, model, tokenizer);
  const int64_t window = WindowOf(request, model);
  WeightsReport report;
  report.model = NameOfFolder(folder);
  report.text = flags.text.empty() ? "a log of the demo" : NameOfFolder(flags.text);
  report.questions = flags.questions;
  std::vector<Engine> engines;
  for (const char* format : {"stored", "int8", "int4"}) {
    EngineOptions options = request.engine;
    options.weights = format;
    engines.push_back(LoadEngine(model, options));
    report.formats.emplace_back().facts = engines.back().facts();
  }
  ReadText(engines, ids, window, report);
  if (report.questions > 0) AskQuestions(engines, tokenizer, EndTokens(model, &tokenizer), report);
  if (json) json.Write(JsonOf(report).dump(1) + "\n");
  WriteOut(Table(report));
  return 0;
}

}  // namespace runahead::cli
