// `runahead tokenize`: lines of text to token ids, and back; a conversation to ids or text.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <exception>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "base/input_file.h"
#include "base/json.h"
#include "chat/chat_renderer.h"
#include "command.h"
#include "line_blocks.h"
#include "model_folder.h"
#include "output.h"
#include "runahead/error.h"
#include "tensor/cpu_device.h"

namespace runahead::cli {
namespace {

constexpr size_t kBlocksOfAProcessor = 16;  // translated at once: a megabyte

struct TokenizeFlags {
  std::string model;
  std::string file = "-";
  std::string chat;  // a file with a conversation; empty: lines of text
  bool text = false;
  bool decode = false;
  bool no_special = false;
  bool json_lines = false;
};

std::string JsonString(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string ListOf(const std::vector<int32_t>& ids) {
  std::string list = "[";
  const char* separator = "";
  for (const int32_t id : ids) {
    list += separator;
    list += fmt::format_int(id).c_str();
    separator = ", ";
  }
  return list + "]";
}

std::vector<int32_t> ReadIds(std::string_view line, const std::string& origin) {
  const Json json = ParseJson(line, origin);
  if (!json.is_array()) throw ConfigError(origin + ": expected a JSON list of ids");
  std::vector<int32_t> ids;
  for (const Json& id : json) {
    if (!id.is_number_integer() || id > INT32_MAX || id < 0) {
      throw ConfigError(fmt::format("{}: expected ids from 0 to {}, got {}", origin, INT32_MAX, id.dump()));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

/// Translates one line. Throws ConfigError that opens with `origin`.
class LineTranslator {
 public:
  LineTranslator(const Tokenizer& tokenizer, const TokenizeFlags& flags) : tokenizer_(tokenizer), flags_(flags) {}

  void Translate(std::string_view line, const std::string& origin, std::string& output) const {
    if (flags_.decode) {
      Decode(ReadIds(line, origin), origin, output);
    } else if (flags_.json_lines) {
      const Json json = ParseJson(line, origin);
      if (!json.is_string()) throw ConfigError(origin + ": expected a JSON string");
      Encode(json.get_ref<const std::string&>(), origin, output);
    } else {
      Encode(line, origin, output);
    }
    output += '\n';
  }

 private:
  void Encode(std::string_view text, const std::string& origin, std::string& output) const {
    try {
      output += ListOf(tokenizer_.Encode(text, !flags_.no_special));
    } catch (const ConfigError& error) {
      throw ConfigError(fmt::format("{}: {}", origin, error.what()));
    }
  }

  void Decode(const std::vector<int32_t>& ids, const std::string& origin, std::string& output) const {
    try {
      const std::string text = tokenizer_.Decode(ids, !flags_.no_special);
      output += flags_.json_lines ? JsonString(text) : text;
    } catch (const ConfigError& error) {
      throw ConfigError(fmt::format("{}: {}", origin, error.what()));
    }
  }

  const Tokenizer& tokenizer_;
  const TokenizeFlags& flags_;
};

/// Translates the lines of one block up to the first that is refused, whose error is thrown.
void TranslateBlock(const LineTranslator& translator, const std::string& origin, LineBlock& block) {
  std::string_view text = block.text;
  for (size_t number = block.first_line; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    translator.Translate(text.substr(0, end), fmt::format("{}: line {}", origin, number), block.output);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
}

/// Translates all blocks on all processors and writes what becomes of them, in order, up to the first line that is
/// refused, whose error is thrown.
void TranslateAll(const LineTranslator& translator, const std::string& origin, std::vector<LineBlock>& blocks) {
  std::vector<std::exception_ptr> failures(blocks.size());
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < blocks.size(); i = next++) {
      try {
        TranslateBlock(translator, origin, blocks[i]);
      } catch (...) {
        failures[i] = std::current_exception();
      }
    }
  };
  std::vector<std::thread> helpers;
  try {
    for (size_t i = 1; i < std::min(blocks.size(), AvailableProcessors().size()); ++i) helpers.emplace_back(work);
  } catch (const std::system_error&) {  // a limit on threads or memory: those that are there do the work
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  for (size_t i = 0; i < blocks.size(); ++i) {
    WriteOut(blocks[i].output);
    if (failures[i]) std::rethrow_exception(failures[i]);
  }
}

Tokenizer NeededTokenizer(const std::string& model) {
  std::optional<Tokenizer> tokenizer = LoadTokenizer(model);
  if (!tokenizer) throw IoError(model + ": the folder has neither tokenizer.json nor tokenizer.model");
  return std::move(*tokenizer);
}

/// Prints what becomes of the conversation in the file flags.chat.
int RunChat(const TokenizeFlags& flags) {
  chat::ChatRenderer renderer{chat::ChatTemplates(flags.model)};
  const std::string origin = flags.chat == "-" ? "stdin" : flags.chat;
  const auto render = [&] { return renderer.Render(chat::ChatRequest::Parse(ReadInput(flags.chat), origin)); };
  if (flags.text) {
    WriteOut(render());
  } else {
    const Tokenizer tokenizer = NeededTokenizer(flags.model);
    WriteOut(ListOf(tokenizer.Encode(render(), /*add_special=*/false)) + "\n");
  }
  return 0;
}

int RunTokenize(const TokenizeFlags& flags) {
  if (!flags.chat.empty()) return RunChat(flags);
  const Tokenizer tokenizer = NeededTokenizer(flags.model);
  const LineTranslator translator(tokenizer, flags);
  InputFile input(flags.file);
  LineBlocks lines([&input](std::span<char> buffer) { return input.Read(buffer); }, input.name());
  std::vector<LineBlock> blocks;
  while (lines.Next(kBlocksOfAProcessor * AvailableProcessors().size(), blocks)) {
    TranslateAll(translator, input.name(), blocks);
  }
  return 0;
}

}  // namespace

Action AddTokenize(CLI::App& command) {
  auto flags = std::make_shared<TokenizeFlags>();
  command.add_option("--model", flags->model, "A folder with tokenizer.json or tokenizer.model")
      ->required()
      ->type_name("DIR");
  command.add_option("--file", flags->file, "The input, a text per line; - is stdin [-]")->type_name("FILE");
  auto* chat = command
                   .add_option("--chat", flags->chat,
                               "A file with a JSON object: messages and as wanted tools, documents, "
                               "add_generation_prompt, continue_final_message, chat_template, and variables of the "
                               "template; prints the ids of the conversation")
                   ->type_name("FILE")
                   ->excludes("--file");
  command.add_flag("--text", flags->text, "With --chat: print the conversation's text as it is, not its ids")
      ->needs(chat);
  command.add_flag("--decode", flags->decode, "Read a JSON list of ids per line and print their texts");
  command.add_flag(
      "--no-special", flags->no_special,
      "Add no begin and end tokens; with --decode, write special tokens out rather than leave them away");
  command.add_flag("--json-lines", flags->json_lines, "Every text, read or printed, is a JSON string");
  for (const char* flag : {"--decode", "--no-special", "--json-lines"}) chat->excludes(flag);
  return [flags] { return RunTokenize(*flags); };
}

}  // namespace runahead::cli
