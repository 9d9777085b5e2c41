// `runahead batch`: a file of requests in, answers out as they end.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "answer.h"
#include "base/output_file.h"
#include "batch_input.h"
#include "batch_resume.h"
#include "command.h"
#include "flags.h"
#include "group_flags.h"
#include "model_folder.h"
#include "output.h"
#include "report/units.h"
#include "runahead/error.h"
#include "runahead/model.h"
#include "runahead/request.h"
#include "signals.h"

namespace runahead::cli {
namespace {

struct BatchFlags {
  std::string file;
  std::string model;
  std::string output;  // empty: stdout
  int concurrency = 64;
  EngineOptions engine;
  GroupFlags group;
};

/// Answers to be given to one prompt, which is read once for them.
struct Task {
  const BatchRequest* request;
  int first_choice;
  int choices;
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

/// A task whose answers are on their way.
struct Running {
  std::shared_ptr<std::vector<Answer>> answers;  // [choices]
  std::optional<RequestHandle> handle;           // nothing where the engine refused it
  int left = 0;                                  // answers that are not complete
};

/// A complete answer.
struct Ended {
  size_t task;  // number of its task
  size_t choice;
};

/// The answers that are complete. Thread-safe.
class EndedAnswers {
 public:
  void Add(Ended answer) {
    {
      const std::lock_guard lock(mutex_);
      ended_.push_back(answer);
    }
    changed_.notify_one();
  }
  /// All that ended since the last call; waits for the first one, `patience` at most.
  [[nodiscard]] std::vector<Ended> Take(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, patience, [this] { return !ended_.empty(); });
    return std::exchange(ended_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Ended> ended_;  // guarded by mutex_
};

/// Gives tasks to an engine in their order, so many at a time, and writes each answer as it ends.
class BatchRun {
 public:
  /// `write` gets whole lines without their ends.
  BatchRun(const Engine& engine, std::shared_ptr<const Tokenizer> words, std::vector<Task> tasks,
           std::function<void(const std::string&)> write)
      : engine_(engine), words_(std::move(words)), tasks_(std::move(tasks)), write_(std::move(write)) {
    for (const Task& task : tasks_) wanted_ += task.choices;
  }

  /// Until all is answered or `interrupts` came, which cancels what runs. Throws what `write` threw.
  Totals Run(int concurrency, const Interrupts& interrupts) {
    constexpr auto kPatience = std::chrono::milliseconds(50);  // between two looks at the interrupts
    bool stopped = false;
    for (size_t next = 0; true;) {
      if (!stopped && interrupts.Came()) {
        stopped = true;
        for (auto& [task, running] : running_) {
          if (running.handle) running.handle->Cancel();
        }
      }
      while (!stopped && next < tasks_.size() && std::ssize(running_) < concurrency) Begin(next++);
      if (running_.empty()) return totals_;
      for (const Ended& answer : ended_->Take(kPatience)) End(answer);
    }
  }

 private:
  /// What an engine refuses is an answer too, so that one request does not end the others.
  void Begin(size_t number) {
    const Task& task = tasks_[number];
    Running& running = running_[number];
    running.answers = std::make_shared<std::vector<Answer>>(static_cast<size_t>(task.choices));
    running.left = task.choices;
    Request request = task.request->request;
    request.generation.sampling.seed += static_cast<uint64_t>(task.first_choice);
    request.choices = task.choices;
    // The last events of a cancelled request may come when this run has ended.
    const auto sink = [answers = running.answers, ended = ended_, number](RequestEvent event) {
      const auto choice = static_cast<size_t>(event.choice);
      if (answers->at(choice).Add(std::move(event))) ended->Add({number, choice});
    };
    try {
      running.handle.emplace(engine_.Submit(std::move(request), words_, sink));
    } catch (const Error& error) {
      for (size_t choice = 0; choice < running.answers->size(); ++choice) {
        (*running.answers)[choice].finish = FinishReason::kError;
        (*running.answers)[choice].error = error.what();
        ended_->Add({number, choice});
      }
    }
  }

  void End(const Ended& ended) {
    Running& running = running_.at(ended.task);
    const Task& task = tasks_[ended.task];
    const Answer answer = std::move(running.answers->at(ended.choice));
    if (--running.left == 0) running_.erase(ended.task);
    if (answer.finish == FinishReason::kCancelled) return;
    Tell(*task.request, task.first_choice + static_cast<int>(ended.choice), answer);
  }

  void Tell(const BatchRequest& request, int choice, const Answer& answer) {
    nlohmann::ordered_json line = {{"id", request.id}};
    if (request.choices > 1) line["index"] = choice;
    line.update(AnswerJson(answer, request.request.logprobs >= 0));
    write_(OneLine(line));
    ++totals_.answers;
    if (answer.finish == FinishReason::kError) {
      if (totals_.failed++ == 0) totals_.first_failure = fmt::format("{}: {}", request.id.dump(), answer.error);
    }
    totals_.prompt_tokens += answer.stats.prompt_tokens;
    totals_.cached_tokens += answer.stats.cached_tokens;
    totals_.new_tokens += static_cast<int64_t>(answer.tokens.size());
    progress_.Show(static_cast<double>(totals_.answers) / static_cast<double>(wanted_));
  }

  const Engine& engine_;
  std::shared_ptr<const Tokenizer> words_;
  std::vector<Task> tasks_;
  std::function<void(const std::string&)> write_;
  int64_t wanted_ = 0;  // answers
  Totals totals_;
  Progress progress_{"answering requests"};
  std::shared_ptr<EndedAnswers> ended_ = std::make_shared<EndedAnswers>();
  std::map<size_t, Running> running_;  // by the task's number
};

protocol::ModelLimits LimitsOf(const Model& model, const TokenizerOrRefusal& loaded) {
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
      if (there[i][static_cast<size_t>(choice)]) continue;
      const bool follows = !tasks.empty() && tasks.back().request == &input.requests[i] &&
                           tasks.back().first_choice + tasks.back().choices == choice;
      if (!follows) tasks.push_back({&input.requests[i], choice, 0});
      ++tasks.back().choices;
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

int RunBatch(BatchFlags& flags) {
  if (const std::optional<int> code = ServeFirstProcess(flags.model, flags.group, flags.engine)) return *code;
  OutputFiles outputs;
  outputs.Protect(flags.model);
  if (flags.file != "-") outputs.Protect(flags.file);
  const Model model = OpenModel(flags.model, flags.engine);
  const TokenizerOrRefusal loaded = TryTokenizer(flags.model);
  const BatchInput input = ReadBatch(flags.file, LimitsOf(model, loaded));
  if (!IsRight(input)) return kBadInput;
  std::optional<AppendedFile> file;
  if (!flags.output.empty()) file = outputs.OpenToAppend("--output", flags.output);
  std::vector<Task> tasks = TasksOf(input, file ? AnswersIn(*file, input) : NoAnswers(input));
  if (tasks.empty()) return 0;
  int64_t wanted = 0;
  for (const Task& task : tasks) wanted += task.choices;

  const Engine engine = LoadEngine(model, flags.engine);
  const auto words = loaded.tokenizer ? std::make_shared<const Tokenizer>(*loaded.tokenizer) : nullptr;
  const auto write = [&](const std::string& line) { file ? file->Append(line) : WriteOut(line + "\n"); };
  const Interrupts interrupts({SIGINT, SIGTERM}, SecondSignal::kEndsTheProgram);
  const auto begin = std::chrono::steady_clock::now();
  const Totals totals = BatchRun(engine, words, std::move(tasks), write).Run(flags.concurrency, interrupts);
  PrintSummary(totals, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  FinishCache(engine, flags.engine);
  if (totals.answers < wanted) return kInterrupted;
  if (totals.failed == 0) return 0;
  WriteError(
      fmt::format("{} of {} requests failed, the first: {}", totals.failed, totals.answers, totals.first_failure));
  return kFailed;
}

}  // namespace

Action AddBatch(CLI::App& command) {
  constexpr int kMostAtOnce = 1024;
  auto flags = std::make_shared<BatchFlags>();
  command
      .add_option("file", flags->file,
                  "Requests, one JSON object a line with the fields of OpenAI's completions; - is stdin")
      ->required()
      ->type_name("FILE");
  command.add_option("--model", flags->model, "A Hugging Face folder or GGUF file")->required()->type_name("DIR");
  command
      .add_option(
          "--output", flags->output,
          "Append the answers here; those that are there already, failed ones too, are not given again [stdout]")
      ->type_name("FILE");
  AddInteger(command, "--concurrency", flags->concurrency, 1, kMostAtOnce,
             fmt::format("Requests that the engine has at a time, in the file's order [{}]", flags->concurrency));
  AddEngineFlags(command, flags->engine);
  AddKvMemoryFlag(command, flags->engine);
  AddCacheFlags(command, flags->engine);
  AddMaxPauseFlag(command, flags->engine);
  AddGroupFlags(command, flags->group);
  return [flags] { return RunBatch(*flags); };
}

}  // namespace runahead::cli
