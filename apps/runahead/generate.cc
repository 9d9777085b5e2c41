// `runahead generate`: a prompt in, its continuation out.
#include "runahead/generate.h"

#include <fmt/format.h>

#include <chrono>
#include <climits>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "base/input_file.h"
#include "base/json.h"
#include "base/output_file.h"
#include "command.h"
#include "flags.h"
#include "group_flags.h"
#include "model_folder.h"
#include "output.h"
#include "report/trace_events.h"
#include "report/units.h"
#include "runahead/error.h"
#include "runahead/model.h"
#include "runahead/request.h"

namespace runahead::cli {
namespace {

struct GenerateFlags {
  std::string model;
  std::optional<std::string> prompt;
  std::optional<std::string> prompt_file;
  std::optional<std::string> prompt_ids;
  EngineOptions engine;
  GroupFlags group;
  PrefillOptions prefill;
  GenerationOptions generation;
  bool json = false;
  bool logits = false;
  bool ignore_eos = false;
  std::string trace;
  std::string timeline;
};

void AddPromptFlags(CLI::App& command, GenerateFlags& flags) {
  auto* prompt = command.add_option_group("prompt", "Exactly one of");
  prompt->add_option("--prompt", flags.prompt, "The text")->type_name("TEXT");
  prompt->add_option("--prompt-file", flags.prompt_file, "A file with the text; - is stdin")->type_name("FILE");
  prompt->add_option("--prompt-ids", flags.prompt_ids, "Token ids, used as they are")->type_name("1,2,3");
  prompt->require_option(1);
}

/// The prompt's tokens. Throws ConfigError for a prompt without any, and for text when there is no tokenizer.
std::vector<int32_t> PromptTokens(const GenerateFlags& flags, const TokenizerOrRefusal& words) {
  if (flags.prompt_ids) {
    const std::vector<int64_t> ids = ParseIntegers("--prompt-ids", *flags.prompt_ids, 0, INT32_MAX);
    return {ids.begin(), ids.end()};
  }
  const std::string file = flags.prompt_file.value_or("-");  // given when the others are not
  const std::string origin = flags.prompt ? "--prompt" : file;
  const std::string text = flags.prompt ? *flags.prompt : ReadInput(file);
  if (!words.tokenizer) throw ConfigError(words.refusal + ", so only --prompt-ids can be used");
  try {
    std::vector<int32_t> ids = words.tokenizer->Encode(text);
    if (ids.empty()) throw ConfigError("the prompt is empty");  // and the tokenizer begins it with no token
    return ids;
  } catch (const ConfigError& error) {
    throw ConfigError(fmt::format("{}: {}", origin, error.what()));
  }
}

/// Says when the prompt begins twice: most models were trained on texts that begin once.
void WarnOfTwoBegins(const std::vector<int32_t>& prompt, const Tokenizer* tokenizer) {
  if (tokenizer == nullptr || !tokenizer->bos_id() || prompt.size() < 2) return;
  const int32_t bos = *tokenizer->bos_id();
  if (prompt[0] != bos || prompt[1] != bos) return;
  Warn(fmt::format("the prompt begins with two \"{}\" (id {}): the tokenizer puts one before every text",
                   tokenizer->SpecialToken(bos), bos));
}

/// Refuses before the weights are loaded what Generate would refuse behind them.
void CheckIds(const char* what, const std::vector<int32_t>& ids, int64_t vocab) {
  for (const int32_t id : ids) {
    if (id < vocab) continue;
    throw ConfigError(fmt::format("{}: token id {} is outside the vocabulary of {}", what, id, vocab));
  }
}

/// Tokens of prompt and continuation together. Throws ConfigError when the prompt is beyond the model's context.
int64_t Capacity(const GenerateFlags& flags, size_t prompt_tokens, int64_t context) {
  const auto prompt = static_cast<int64_t>(prompt_tokens);
  if (prompt > context) {
    throw ConfigError(fmt::format("prompt: its {} tokens are more than the model's context of {}", prompt, context));
  }
  return std::min(context, prompt + flags.generation.max_new_tokens);
}

/// Whether the prompt is a request: an engine of several processes runs nothing else, and sessions have no cache on
/// disk.
bool ByRequest(const GenerateFlags& flags) {
  return flags.engine.group != nullptr || !flags.engine.cache_dir.empty();
}

/// The format of rows from each rank of a prompt phase to each other.
Json WireNamesOf(const PrefillReport& prefill) {
  const auto ranks = static_cast<size_t>(prefill.ranks());
  if (prefill.wire.size() != ranks * ranks) return Name(WireFormat::kExact);
  Json names = Json::object();
  for (size_t from = 0; from < ranks; ++from) {
    for (size_t to = 0; to < ranks; ++to) {
      if (from == to) continue;
      names[fmt::format("{}-{}", prefill.members[from], prefill.members[to])] = Name(prefill.wire[from * ranks + to]);
    }
  }
  return names;
}

std::string JsonOf(const Generation& result, const GenerateFlags& flags, const Engine& engine, size_t prompt_tokens) {
  const PrefillReport& prefill = result.prefill;
  std::vector<int64_t> chunks;
  for (size_t i = 0; i + 1 < prefill.cuts.size(); ++i) chunks.push_back(prefill.cuts[i + 1] - prefill.cuts[i]);
  Json json = {{"ids", result.ids},
               {"text", result.text},
               {"finish", Name(result.finish)},
               {"prompt_tokens", prompt_tokens},
               {"cached_tokens", prefill.cached_tokens},
               {"ttft_ms", prefill.ttft_ms},
               {"tpot_ms", result.tpot_ms},
               {"strategy", Name(prefill.strategy)},
               {"topology", Name(prefill.topology)},
               {"ranks", prefill.ranks()},
               {"threads_per_rank", engine.threads_per_rank()},
               {"partition", chunks},
               {"cuts", prefill.cuts},
               {"members", prefill.members},
               {"plan", prefill.plan},
               {"wire", WireNamesOf(prefill)},
               {"bytes_sent", prefill.bytes_sent},
               {"wire_bound", prefill.wire_bound},
               {"dtype", engine.facts().dtype},
               {"weights", engine.facts().weights}};
  if (ByRequest(flags)) {  // whose answer does not tell
    json.erase("topology");
    json.erase("plan");
  }
  if (flags.logits) json["logits"] = result.prompt_logits;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

/// One line for people who watch: what was done, and how fast.
void PrintSummary(const Generation& result, size_t prompt_tokens) {
  if (!SomeoneWatches()) return;
  std::fputs(fmt::format("[{} prompt tokens on {} rank{}: first token after {}, then {} each; {} new tokens, {}]\n{}",
                         report::Grouped(static_cast<int64_t>(prompt_tokens)), result.prefill.ranks(),
                         result.prefill.ranks() == 1 ? "" : "s", report::Milliseconds(result.prefill.ttft_ms),
                         report::Milliseconds(result.tpot_ms), result.ids.size(), Name(result.finish),
                         result.prefill.plan.empty() ? "" : fmt::format("[{}]\n", result.prefill.plan))
                 .c_str(),
             stderr);
}

/// What hears of the answer while it grows.
struct Watchers {
  std::function<void(std::string_view)> on_text;
  std::function<void(int32_t)> on_id;
};

Generation GenerateByRequest(const Engine& engine, std::shared_ptr<const Tokenizer> words,
                             const std::vector<int32_t>& prompt, const GenerateFlags& flags,
                             const Watchers& watchers) {
  constexpr auto kPatience = std::chrono::seconds(1);
  Request request;
  request.prompt = prompt;
  request.generation = flags.generation;
  request.prefill = flags.prefill;
  RequestHandle handle = engine.Submit(std::move(request), std::move(words));
  Generation result;
  while (true) {
    const std::optional<RequestEvent> event = handle.Next(kPatience);
    if (!event) continue;
    result.text += event->text;
    if (event->kind == RequestEvent::Kind::kToken) {
      result.ids.push_back(event->token.id);
      if (watchers.on_id) watchers.on_id(event->token.id);
    }
    if (watchers.on_text && !event->text.empty()) watchers.on_text(event->text);
    if (event->kind != RequestEvent::Kind::kEnd) continue;
    if (event->finish == FinishReason::kError) throw DeviceError(event->error);
    const RequestStats& stats = event->stats;
    result.finish = event->finish;
    result.tpot_ms = stats.tpot_ms;
    result.prefill.strategy = stats.members.size() > 1 ? flags.prefill.strategy : Strategy::kSingle;
    result.prefill.partition_kind = flags.prefill.partition.kind;
    result.prefill.cuts = stats.cuts;
    result.prefill.members = stats.members;
    result.prefill.predicted_ms = stats.predicted_ttft_ms;
    result.prefill.cached_tokens = stats.cached_tokens;
    result.prefill.ttft_ms = stats.ttft_ms;
    result.prefill.wire = stats.wire;
    result.prefill.bytes_sent = static_cast<size_t>(stats.bytes_sent);
    result.prefill.wire_bound = stats.wire_bound;
    result.prefill.timeline = stats.timeline;
    return result;
  }
}

void WritePictures(const PrefillReport& prefill, OutputFile& trace, OutputFile& timeline) {
  if (trace) trace.Write(report::TraceEvents(prefill.timeline));
  if (timeline) timeline.Write(TimelinePicture(prefill));
}

int RunGenerate(GenerateFlags& flags) {
  if (const std::optional<int> code = ServeFirstProcess(flags.model, flags.group, flags.engine)) return *code;
  if (ByRequest(flags) && flags.logits) {
    throw ConfigError(fmt::format("--logits: not with {}",
                                  flags.engine.group != nullptr ? "ranks in several processes" : "--cache-dir"));
  }
  OutputFiles outputs;
  outputs.Protect(flags.model);
  outputs.Protect(flags.prompt_file.value_or(""));
  OutputFile trace = outputs.Open("--trace", flags.trace);
  OutputFile timeline = outputs.Open("--timeline", flags.timeline);
  const Model model = OpenModel(flags.model, flags.engine);
  const TokenizerOrRefusal loaded = TryTokenizer(flags.model);
  const Tokenizer* const words = loaded.tokenizer ? &*loaded.tokenizer : nullptr;
  if (words == nullptr && !flags.generation.stop.empty()) {
    throw ConfigError(loaded.refusal + ", so --stop cannot be used");
  }
  const std::vector<int32_t> prompt = PromptTokens(flags, loaded);
  WarnOfTwoBegins(prompt, words);
  CheckIds("prompt", prompt, model.vocab());
  CheckIds("--stop-id", flags.generation.stop_ids, model.vocab());
  const int64_t capacity = Capacity(flags, prompt.size(), model.max_positions());
  if (!flags.ignore_eos) flags.generation.eos = EndTokens(model, words);
  flags.prefill.record_timeline = trace || timeline;

  const Engine engine = LoadEngine(model, flags.engine);
  Watchers watchers;
  if (words != nullptr && !flags.json) watchers.on_text = [](std::string_view piece) { WriteOut(piece); };
  const char* separator = "";
  if (words == nullptr && !flags.json) {
    watchers.on_id = [&separator](int32_t id) { WriteOut(fmt::format("{}{}", std::exchange(separator, ","), id)); };
  }
  Generation result;
  if (ByRequest(flags)) {
    auto shared = words == nullptr ? nullptr : std::make_shared<const Tokenizer>(*words);
    result = GenerateByRequest(engine, std::move(shared), prompt, flags, watchers);
  } else {
    Session session = engine.NewSession(capacity);
    result = Generate(session, words, prompt, flags.prefill, flags.generation, watchers.on_text, watchers.on_id);
  }
  WritePictures(result.prefill, trace, timeline);
  WriteOut(flags.json ? JsonOf(result, flags, engine, prompt.size()) : "\n");
  if (!flags.json) PrintSummary(result, prompt.size());
  FinishCache(engine, flags.engine);
  return 0;
}

}  // namespace

Action AddGenerate(CLI::App& command) {
  auto flags = std::make_shared<GenerateFlags>();
  command.add_option("--model", flags->model, "A Hugging Face folder or GGUF file")->required()->type_name("DIR");
  AddPromptFlags(command, *flags);
  AddSamplingFlags(command, flags->generation);
  command.add_flag("--ignore-eos", flags->ignore_eos, "Go on behind end-of-sequence tokens");
  AddEngineFlags(command, flags->engine);
  AddCacheFlags(command, flags->engine);
  AddPrefillFlags(command, flags->prefill);
  AddGroupFlags(command, flags->group);
  command.add_flag("--json", flags->json, "Print one JSON object instead of the text");
  command.add_flag("--logits", flags->logits, "With --json: add the logits of the prompt's last position")
      ->needs("--json");
  command.add_option("--trace", flags->trace, "Write the prompt phase as trace events (for Perfetto)")
      ->type_name("FILE");
  command.add_option("--timeline", flags->timeline, "Write a picture of the prompt phase")->type_name("FILE.svg");
  return [flags] { return RunGenerate(*flags); };
}

}  // namespace runahead::cli
