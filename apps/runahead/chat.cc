// `runahead chat`: a conversation in the terminal, or a script of one.
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "answer.h"
#include "base/input_file.h"
#include "chat/chat_templates.h"
#include "chat_talk.h"
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
#include "template_talk.h"

namespace runahead::cli {
namespace {

struct ChatFlags {
  std::string model;
  std::string system;
  std::string document;  // a file; empty: none
  TalkForm form;
  bool own_form = false;  // said by flags: the model's template is not wanted
  Request request;        // but for its prompt
  EngineOptions engine;
  GroupFlags group;
  bool json = false;
};

/// `text` with \n, \t and \\ as what they stand for. Throws ConfigError for other escapes.
std::string Unescaped(const std::string& flag, std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      result += text[i];
      continue;
    }
    const char escape = ++i < text.size() ? text[i] : '\0';
    if (escape != 'n' && escape != 't' && escape != '\\') {
      throw ConfigError(fmt::format("{}: expected \\n, \\t or \\\\ where a backslash is, got '{}'", flag, text));
    }
    result += escape == 'n' ? '\n' : escape == 't' ? '\t' : '\\';
  }
  return result;
}

/// `given`, which may be null, becomes true where the flag is.
void AddText(CLI::App& command, const std::string& flag, std::string& text, const std::string& help, bool* given) {
  const auto read = [&text, flag, given](const std::string& value) {
    text = Unescaped(flag, value);
    if (given != nullptr) *given = true;
  };
  command.add_option_function<std::string>(flag, read, help)->type_name("TEXT");
}

/// Lines of stdin. On a terminal a sign asks for each, and Ctrl-C takes back what is typed.
class Lines {
 public:
  explicit Lines(Interrupts& interrupts) : interrupts_(interrupts) {}

  [[nodiscard]] bool terminal() const { return terminal_; }

  /// The next line without its end; nothing at the end.
  std::optional<std::string> Next() {
    constexpr size_t kLongest = size_t{64} << 20;
    Ask();
    while (true) {
      const size_t end = held_.find('\n');
      if (end != std::string::npos || (ended_ && !held_.empty())) return Take(end);
      if (ended_) return std::nullopt;
      if (held_.size() > kLongest) throw ConfigError(fmt::format("stdin: a line has more than {} bytes", kLongest));
      if (terminal_) AwaitTyping();
      std::string block(size_t{1} << 16, '\0');
      block.resize(input_.Read(block));
      ended_ = block.empty();
      held_ += block;
    }
  }

 private:
  void Ask() const {
    if (terminal_ && ::isatty(STDOUT_FILENO) == 1) WriteOut("> ");
  }

  std::string Take(size_t end) {
    std::string line = held_.substr(0, end);
    held_.erase(0, end == std::string::npos ? end : end + 1);
    if (line.ends_with('\r')) line.pop_back();
    return line;
  }

  void AwaitTyping() {
    pollfd typed{STDIN_FILENO, POLLIN, 0};
    while (::poll(&typed, 1, /*timeout=*/-1) < 0 && errno == EINTR) {
      if (!interrupts_.Came()) continue;
      interrupts_.Forget();
      WriteOut("\n");
      Ask();
    }
  }

  Interrupts& interrupts_;
  InputFile input_{"-"};
  bool terminal_ = ::isatty(STDIN_FILENO) == 1;
  bool ended_ = false;
  std::string held_;
};

/// One dim line for people who watch.
void PrintSummary(const RequestStats& stats) {
  if (!SomeoneWatches()) return;
  std::fputs(
      fmt::format("\033[2m[{} of {} prompt tokens were in the cache; first token after {}, then {} each]\033[0m\n",
                  report::Grouped(stats.cached_tokens), report::Grouped(stats.prompt_tokens),
                  report::Milliseconds(stats.ttft_ms), report::Milliseconds(stats.tpot_ms))
          .c_str(),
      stderr);
}

/// Asks an engine for answers and shows them.
class Chat {
 public:
  Chat(const ChatFlags& flags, const Engine& engine, const Tokenizer& tokenizer, Talk& talk, Interrupts& interrupts)
      : flags_(flags),
        engine_(engine),
        words_(std::make_shared<const Tokenizer>(tokenizer)),
        interrupts_(interrupts),
        talk_(talk) {}

  void Clear() { talk_.Clear(); }

  /// Throws ConfigError for a turn that cannot be asked, and Error when the engine failed: the conversation is then
  /// as before.
  void Say(const std::string& line) {
    Request request = flags_.request;
    Turn turn = talk_.Next(line);
    request.prompt = turn.ids;
    const auto tokens = static_cast<int64_t>(request.prompt.size());
    const int64_t context = engine_.facts().max_positions;
    if (tokens > context) {
      throw ConfigError(
          fmt::format("the conversation has {} tokens with this turn, more than the model's context of "
                      "{}; /clear begins anew",
                      tokens, context));
    }
    interrupts_.Forget();
    const Answer answer = Show(engine_.Submit(std::move(request), words_));
    if (answer.finish == FinishReason::kError) throw Error(answer.error);
    talk_.Add(std::move(turn), answer);
    PrintSummary(answer.stats);
  }

 private:
  Answer Show(RequestHandle handle) {
    const auto stop = [this] { return interrupts_.Came(); };
    if (flags_.json) {
      Answer answer = AwaitAnswer(std::move(handle), stop);
      WriteOut(OneLine(AnswerJson(answer, /*logprobs=*/false)) + "\n");
      return answer;
    }
    bool begun = false;
    Answer answer = AwaitAnswer(std::move(handle), stop, [&begun](std::string_view piece) {
      if (!begun) piece.remove_prefix(std::min(piece.find_first_not_of(' '), piece.size()));
      begun = begun || !piece.empty();
      WriteOut(piece);
    });
    WriteOut("\n");
    return answer;
  }

  const ChatFlags& flags_;
  const Engine& engine_;
  std::shared_ptr<const Tokenizer> words_;
  Interrupts& interrupts_;
  Talk& talk_;
};

/// What stands before the first turn when the form is not a template's.
std::string Opening(const ChatFlags& flags) {
  std::string opening = flags.system;
  if (!opening.empty()) opening += flags.form.turn_end;
  if (!flags.document.empty()) opening += ReadInput(flags.document) + flags.form.turn_end;
  return opening;
}

/// In the form of the model's template, or else in that of the flags, with its stop text.
std::unique_ptr<Talk> TalkFor(ChatFlags& flags, const Tokenizer& tokenizer) {
  if (!flags.own_form) {
    chat::ChatTemplates templates(flags.model);
    if (!templates.empty()) {
      TalkOpening opening{flags.system, flags.document.empty() ? "" : ReadInput(flags.document)};
      return std::make_unique<TemplateTalk>(tokenizer, std::move(templates), std::move(opening));
    }
  }
  flags.form.opening = Opening(flags);
  if (const std::string stop = flags.form.NextTurn(); !stop.empty()) {
    flags.request.generation.stop.push_back(stop);
  }
  return std::make_unique<PlainTalk>(tokenizer, flags.form);
}

int RunChat(ChatFlags& flags) {
  if (const std::optional<int> code = ServeFirstProcess(flags.model, flags.group, flags.engine)) return *code;
  const Model model = OpenModel(flags.model, flags.engine);
  const std::optional<Tokenizer> tokenizer = LoadTokenizer(flags.model);
  if (!tokenizer)
    throw ConfigError(flags.model + ": the folder has no tokenizer, so there are no words to talk with");
  const std::unique_ptr<Talk> talk = TalkFor(flags, *tokenizer);
  const int64_t opening = talk->opening_tokens();
  if (opening >= model.max_positions()) {
    throw ConfigError(
        fmt::format("--system and --document: their {} tokens leave no room in the model's context of {}", opening,
                    model.max_positions()));
  }
  flags.request.generation.eos = EndTokens(model, &*tokenizer);

  const Engine engine = LoadEngine(model, flags.engine);
  Interrupts interrupts({SIGINT}, SecondSignal::kIsCounted);
  Chat chat(flags, engine, *tokenizer, *talk, interrupts);
  Lines lines(interrupts);
  while (std::optional<std::string> line = lines.Next()) {
    if (*line == "/exit") {
      FinishCache(engine, flags.engine);
      return 0;
    }
    if (*line == "/clear") chat.Clear();
    if (line->empty() || *line == "/clear") continue;
    try {
      chat.Say(*line);
    } catch (const Error& error) {
      if (!lines.terminal()) throw;
      WriteError(error.what());
    }
  }
  if (lines.terminal()) WriteOut("\n");
  FinishCache(engine, flags.engine);
  return 0;
}

}  // namespace

Action AddChat(CLI::App& command) {
  constexpr int kUsualTokens = 512;
  auto flags = std::make_shared<ChatFlags>();
  flags->request.generation.max_new_tokens = kUsualTokens;
  command.add_option("--model", flags->model, "A Hugging Face folder or GGUF file with a tokenizer")
      ->required()
      ->type_name("DIR");
  AddText(command, "--system", flags->system, "A text before all turns; \\n is a line's end, as in the three below",
          nullptr);
  command.add_option("--document", flags->document, "A file with a text to talk about, behind the system's text")
      ->type_name("FILE");
  bool* own = &flags->own_form;
  TalkForm& form = flags->form;
  AddText(command, "--user-prefix", form.user_prefix,
          "Before what you say [User: ]; this and the next two stand instead of the model's chat template", own);
  AddText(command, "--assistant-prefix", form.assistant_prefix, "Before each answer [\\nAssistant:]", own);
  AddText(command, "--turn-end", form.turn_end, "Behind each answer, and behind text and document [\\n]", own);
  AddSamplingFlags(command, flags->request.generation);
  command.add_flag("--json", flags->json, "Print one JSON object for each answer instead of its text");
  AddEngineFlags(command, flags->engine);
  AddKvMemoryFlag(command, flags->engine);
  AddCacheFlags(command, flags->engine);
  AddGroupFlags(command, flags->group);
  flags->group.interrupt_ends = false;
  return [flags] { return RunChat(*flags); };
}

}  // namespace runahead::cli
