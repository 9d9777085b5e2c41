// `runahead batch`: a file of requests in, answers out as they end.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "answer.h"
#include "base/output_file.h"
#include "batch_input.h"
#include "batch_resume.h"
#include "command.h"
#include "flags.h"
#include "model_folder.h"
#include "output.h"
#include "report/units.h"
#include "runahead/error.h"
#include "runahead/model.h"
#include "runahead/request.h"
#include "signals.h"

namespace runahead::cli {
namespace {

struct Flags {
  std::string file;
  std::string model;
  std::string output;  // empty: stdout
  int concurrency = 64;
  EngineOptions engine;
};

/// One answer to be given.
struct Task {
  const BatchRequest* request;
  int choice;
};

/// What was done.
struct Totals {
  int64_t answers = 0;  // also failed ones
  int64_t failed = 0;
  std::string first_failure;  // "id: the reason"
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t new_tokens = 0;
};

/// Gives tasks to an engine in their order, so many at a time, and writes each answer as it ends.
class BatchRun {
 public:
  /// `write` gets whole lines without their ends, by one thread at a time.
  BatchRun(const Engine& engine, std::shared_ptr<const Tokenizer> words, std::vector<Task> tasks,
           std::function<void(const std::string&)> write)
      : engine_(engine), words_(std::move(words)), tasks_(std::move(tasks)), write_(std::move(write)) {}

  /// Until all is answered or `interrupts` came, which cancels what runs. Throws what `write` threw.
  Totals Run(int concurrency, const Interrupts& interrupts) {
    const auto threads = std::min(static_cast<size_t>(concurrency), tasks_.size());
    {
      std::vector<std::jthread> workers;
      try {
        for (size_t i = 0; i < threads; ++i) workers.emplace_back([&] { Work(interrupts); });
      } catch (const std::system_error&) {  // no room for more threads: fewer do the work
        if (workers.empty()) throw;
      }
    }
    if (failure_) std::rethrow_exception(failure_);
    return totals_;
  }

 private:
  void Work(const Interrupts& interrupts) {
    const auto stop = [&] { return stopped_ || interrupts.Came(); };
    try {
      while (!stop()) {
        const size_t task = next_++;
        if (task >= tasks_.size()) return;
        const Answer answer = Ask(tasks_[task], stop);
        if (answer.finish == FinishReason::kCancelled) return;
        Tell(tasks_[task], answer);
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      stopped_ = true;
    }
  }

  /// What an engine refuses is an answer too, so that one request does not end the others.
  [[nodiscard]] Answer Ask(const Task& task, const std::function<bool()>& stop) const {
    try {
      Request request = task.request->request;
      request.generation.sampling.seed += static_cast<uint64_t>(task.choice);
      return AwaitAnswer(engine_.Submit(std::move(request), words_), stop);
    } catch (const Error& error) {
      Answer answer;
      answer.finish = FinishReason::kError;
      answer.error = error.what();
      return answer;
    }
  }

  void Tell(const Task& task, const Answer& answer) {
    nlohmann::ordered_json line = {{"id", task.request->id}};
    if (task.request->choices > 1) line["index"] = task.choice;
    line.update(AnswerJson(answer, task.request->request.logprobs >= 0));
    const std::string text = OneLine(line);
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    write_(text);
    ++totals_.answers;
    if (answer.finish == FinishReason::kError) {
      if (totals_.failed++ == 0) totals_.first_failure = fmt::format("{}: {}", task.request->id.dump(), answer.error);
    }
    totals_.prompt_tokens += answer.stats.prompt_tokens;
    totals_.cached_tokens += answer.stats.cached_tokens;
    totals_.new_tokens += static_cast<int64_t>(answer.tokens.size());
    progress_.Show(static_cast<double>(totals_.answers) / static_cast<double>(tasks_.size()));
  }

  const Engine& engine_;
  std::shared_ptr<const Tokenizer> words_;
  std::vector<Task> tasks_;
  std::function<void(const std::string&)> write_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> stopped_ = false;
  std::mutex mutex_;
  Totals totals_;                            // guarded by mutex_
  Progress progress_{"answering requests"};  // guarded by mutex_
  std::exception_ptr failure_;               // guarded by mutex_
};

ModelLimits LimitsOf(const Model& model, const TokenizerOrRefusal& loaded) {
  const Tokenizer* const words = loaded.tokenizer ? &*loaded.tokenizer : nullptr;
  return {model.vocab(), model.max_positions(), words, loaded.refusal, EndTokens(model, words)};
}

/// Says what is wrong with the input; true when nothing is.
bool IsRight(const BatchInput& input) {
  for (const std::string& wrong : input.wrong) WriteError(wrong);
  const int64_t more = input.wrong_lines - static_cast<int64_t>(input.wrong.size());
  if (more > 0) WriteError(fmt::format("{}: {} more line{} wrong", input.name, more, more == 1 ? " is" : "s are"));
  if (input.wrong_lines > 0) return false;
  for (const std::string& name : input.unknown_fields) {
    Warn(fmt::format("{}: the field {} is not known and does nothing", input.name, Json(name).dump()));
  }
  const auto others = input.unknown_names - static_cast<int64_t>(input.unknown_fields.size());
  if (others > 0) Warn(fmt::format("{}: {} more fields are not known", input.name, others));
  return true;
}

std::vector<Task> TasksOf(const BatchInput& input, const AnswersThere& there) {
  std::vector<Task> tasks;
  for (size_t i = 0; i < input.requests.size(); ++i) {
    for (int choice = 0; choice < input.requests[i].choices; ++choice) {
      if (!there[i][static_cast<size_t>(choice)]) tasks.push_back({&input.requests[i], choice});
    }
  }
  return tasks;
}

/// One line for people who watch.
void PrintSummary(const Totals& totals, double seconds) {
  if (!SomeoneWatches()) return;
  constexpr double kMs = 1000;
  std::fputs(fmt::format("[{} answers in {}: {} prompt tokens, {} of them cached; {} new tokens, {:.1f} a second]\n",
                         report::Grouped(totals.answers), report::Milliseconds(seconds * kMs),
                         report::Grouped(totals.prompt_tokens), report::Grouped(totals.cached_tokens),
                         report::Grouped(totals.new_tokens), static_cast<double>(totals.new_tokens) / seconds)
                 .c_str(),
             stderr);
}

int Run(const Flags& flags) {
  OutputFiles outputs;
  outputs.Protect(flags.model);
  if (flags.file != "-") outputs.Protect(flags.file);
  const Model model(flags.model);
  const TokenizerOrRefusal loaded = TryTokenizer(flags.model);
  const BatchInput input = ReadBatch(flags.file, LimitsOf(model, loaded));
  if (!IsRight(input)) return kBadInput;
  std::optional<AppendedFile> file;
  if (!flags.output.empty()) file = outputs.OpenToAppend("--output", flags.output);
  std::vector<Task> tasks = TasksOf(input, file ? AnswersIn(*file, input) : NoAnswers(input));
  const auto wanted = static_cast<int64_t>(tasks.size());
  if (wanted == 0) return 0;

  const Engine engine = LoadEngine(model, flags.engine);
  const auto words = loaded.tokenizer ? std::make_shared<const Tokenizer>(*loaded.tokenizer) : nullptr;
  const auto write = [&](const std::string& line) { file ? file->Append(line) : WriteOut(line + "\n"); };
  const Interrupts interrupts({SIGINT, SIGTERM}, SecondSignal::kEndsTheProgram);
  const auto begin = std::chrono::steady_clock::now();
  const Totals totals = BatchRun(engine, words, std::move(tasks), write).Run(flags.concurrency, interrupts);
  PrintSummary(totals, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  if (totals.answers < wanted) return kInterrupted;
  if (totals.failed == 0) return 0;
  WriteError(
      fmt::format("{} of {} requests failed, the first: {}", totals.failed, totals.answers, totals.first_failure));
  return kFailed;
}

}  // namespace

Action AddBatch(CLI::App& command) {
  constexpr int kMostAtOnce = 1024;
  auto flags = std::make_shared<Flags>();
  command
      .add_option("file", flags->file,
                  "Requests, one JSON object a line with the fields of OpenAI's completions; - is stdin")
      ->required()
      ->type_name("FILE");
  command.add_option("--model", flags->model, "A Hugging Face folder")->required()->type_name("DIR");
  command
      .add_option(
          "--output", flags->output,
          "Append the answers here; those that are there already, failed ones too, are not given again [stdout]")
      ->type_name("FILE");
  AddInteger(command, "--concurrency", flags->concurrency, 1, kMostAtOnce,
             fmt::format("Requests that the engine has at a time, in the file's order [{}]", flags->concurrency));
  AddEngineFlags(command, flags->engine);
  AddKvMemoryFlag(command, flags->engine);
  AddMaxPauseFlag(command, flags->engine);
  return [flags] { return Run(*flags); };
}

}  // namespace runahead::cli
