// `runahead serve`: the engine behind an HTTP server, until a signal.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <optional>
#include <utility>

#include "chat/chat_renderer.h"
#include "command.h"
#include "config_file.h"
#include "flags.h"
#include "group_flags.h"
#include "model_folder.h"
#include "output.h"
#include "protocol/api.h"
#include "runahead/error.h"
#include "runahead/model.h"
#include "server/metrics.h"
#include "server/request_log.h"
#include "server/server.h"

namespace runahead::cli {
namespace {

using server::RequestLog;

struct ServeFlags {
  std::string model;
  std::string model_name;
  std::string config;
  server::ServerOptions server;
  bool tcp = true;  // --host or --port was given, or no unix socket
  RequestLog::Form log = RequestLog::Form::kText;
  bool quiet = false;
  EngineOptions engine;
  GroupFlags group;
};

/// What renders conversations, or why there is nothing that does.
std::unique_ptr<chat::ChatRenderer> RendererFor(const std::string& model, std::string& refusal) {
  try {
    chat::ChatTemplates templates(model);
    if (templates.empty()) {
      refusal = model + ": the folder has no chat template";
      return nullptr;
    }
    auto renderer = std::make_unique<chat::ChatRenderer>(std::move(templates));
    renderer->Start();
    return renderer;
  } catch (const Error& error) {
    refusal = error.what();
    return nullptr;
  }
}

protocol::ApiOptions ApiOptionsFor(const ServeFlags& flags, const TokenizerOrRefusal& loaded) {
  protocol::ApiOptions options;
  options.model_name = flags.model_name.empty() ? NameOfFolder(flags.model) : flags.model_name;
  options.no_tokenizer = loaded.refusal;
  return options;
}

/// Where it listens, and what to try.
void Greet(const server::Server& server, const std::string& model, RequestLog& log, bool quiet) {
  log.Note(fmt::format("listening on {}", fmt::join(server.addresses(), " and ")));
  const std::string& address = server.addresses().front();
  if (quiet || !SomeoneWatches() || !address.starts_with("http")) return;
  log.Note(
      fmt::format("a chat is at {}/, the API at {}/v1; try: curl {}/v1/completions -H 'Content-Type: "
                  "application/json' -d '{{\"model\": \"{}\", \"prompt\": \"Harbour log\", \"max_tokens\": 20}}'",
                  address, address, address, model));
}

int RunServe(ServeFlags& flags) {
  if (flags.model.empty()) throw ConfigError("--model is required");
  if (const std::optional<int> code = ServeFirstProcess(flags.model, flags.group, flags.engine)) return *code;
  if (!flags.tcp) flags.server.host.clear();
  RequestLog log(flags.quiet && flags.log == RequestLog::Form::kText ? RequestLog::Form::kNone : flags.log,
                 STDERR_FILENO);
  server::Metrics metrics;
  std::optional<Engine> engine;
  std::unique_ptr<protocol::Api> api;

  server::Service service;
  service.start = [&api](protocol::HttpRequest request, std::shared_ptr<protocol::HttpAnswer> answer) {
    return api->Start(std::move(request), std::move(answer));
  };
  service.failure = [&engine] {
    const EngineStatus status = engine->Status();
    return status.failed ? status.failure : std::string();
  };
  service.metrics = [&] { return metrics.Text(engine->Status()); };
  server::ServerHooks hooks;
  hooks.connections = [&metrics](int open) { metrics.SetConnections(open); };
  hooks.note = [&log](const std::string& message) { log.Note(message); };
  hooks.answered = [&](const server::RequestRecord& record) {
    metrics.Answered(record);
    if (!flags.quiet) log.Write(record);
  };
  // Before the weights, which take long, and with nobody accepted until they are there.
  server::Server server(flags.server, std::move(service), std::move(hooks));

  const Model model = OpenModel(flags.model, flags.engine);
  const TokenizerOrRefusal loaded = TryTokenizer(flags.model);
  protocol::ApiOptions options = ApiOptionsFor(flags, loaded);
  const std::string name = options.model_name;
  std::unique_ptr<chat::ChatRenderer> renderer = RendererFor(flags.model, options.no_chat);
  if (!loaded.tokenizer) log.Note(fmt::format("prompts must be token ids: {}", loaded.refusal));
  if (renderer == nullptr) log.Note(fmt::format("no chat: {}", options.no_chat));
  const auto tokenizer = loaded.tokenizer ? std::make_shared<const Tokenizer>(*loaded.tokenizer) : nullptr;
  engine = LoadEngine(model, flags.engine);
  api = std::make_unique<protocol::Api>(
      *engine, model, tokenizer, std::move(renderer), std::move(options),
      [&metrics](const protocol::EndedRequest& ended) { metrics.Ended(ended.finish, ended.stats); });

  server.ListenToSignals();
  server.Listen();
  Greet(server, name, log, flags.quiet);
  const bool drained = server.Run() == server::Server::Outcome::kDrained;
  FinishCache(*engine, flags.engine);
  return drained ? 0 : kInterrupted;
}

void AddSize(CLI::App& command, const std::string& flag, size_t& size, size_t most, const std::string& help) {
  const auto read = [&size, flag, most](const std::string& text) {
    size = ParseBytes(flag, text);
    if (size > most) throw ConfigError(fmt::format("{}: expected at most {} bytes, got '{}'", flag, most, text));
  };
  command.add_option_function<std::string>(flag, read, help)->type_name("SIZE");
}

void AddSeconds(CLI::App& command, const std::string& flag, double& seconds, const std::string& help) {
  constexpr double kShortest = 0.01;
  constexpr double kLongest = 1e6;
  AddNumber(command, flag, seconds, kShortest, kLongest, fmt::format("{} [{}]", help, seconds))->type_name("SECONDS");
}

void AddListenFlags(CLI::App& command, server::ServerOptions& options) {
  constexpr int kMostPorts = 65535;
  command.add_option("--host", options.host, "IP address to listen on, or localhost [127.0.0.1]")->type_name("HOST");
  AddInteger(command, "--port", options.port, 0, kMostPorts, "Port to listen on; 0: any that is free [8080]");
  command
      .add_option("--unix-socket", options.unix_socket,
                  "Listen on this socket; on a port only if --host or --port says so")
      ->type_name("FILE");
  command
      .add_option("--tls-certificate", options.tls_certificate, "Serve HTTPS with this certificate and chain, in PEM")
      ->type_name("FILE");
  command.add_option("--tls-key", options.tls_key, "The certificate's key, in PEM")->type_name("FILE");
  command
      .add_option(
          "--api-keys", options.api_keys,
          "Ask for one of these keys, one a line; read again on SIGHUP. Needed where others than this machine "
          "reach the server")
      ->type_name("FILE");
  command.add_flag("--insecure-open", options.insecure_open, "Let others than this machine ask without a key");
  command
      .add_option("--cors-origin", options.cors_origins,
                  "Let web pages of this origin ask, as in https://chat.example, or * for all; may be given several "
                  "times [none]")
      ->type_name("ORIGIN")
      ->allow_extra_args(false);
}

void AddLimitFlags(CLI::App& command, server::ServerOptions& options) {
  constexpr size_t kMostHead = size_t{1} << 20;
  constexpr size_t kMostBody = size_t{1} << 30;
  constexpr int kMostConnections = 100'000;
  AddSize(command, "--max-body", options.max_body, kMostBody, "Longest body of a request [32MiB]");
  AddSize(command, "--max-header", options.max_header, kMostHead, "Longest head of a request [32KiB]");
  AddInteger(command, "--max-connections", options.max_connections, 1, kMostConnections,
             fmt::format("Connections at a time; others are told to come again [{}]", options.max_connections));
  AddSeconds(command, "--idle-timeout", options.idle_timeout_s,
             "A connection ends that was idle, or whose client read nothing, for so long");
  AddSeconds(command, "--header-timeout", options.header_timeout_s, "Longest time for the head of a request to come");
  AddSeconds(command, "--body-timeout", options.body_timeout_s,
             "Longest time for a body, and a second more for each 16 KiB of it");
  AddSeconds(command, "--drain-timeout", options.drain_timeout_s,
             "After SIGTERM or SIGINT running answers have so long to end; a second signal ends them at once");
}

void AddLogFlags(CLI::App& command, ServeFlags& flags) {
  const auto read = [&flags](const std::string& text) {
    if (text != "text" && text != "json")
      throw ConfigError(fmt::format("--log: expected text or json, got '{}'", text));
    flags.log = text == "json" ? RequestLog::Form::kJson : RequestLog::Form::kText;
  };
  command.add_option_function<std::string>("--log", read, "A line on stderr for each request: text or json [text]")
      ->type_name("FORM");
  command.add_flag("--quiet", flags.quiet, "No line for each request");
}

}  // namespace

Action AddServe(CLI::App& command) {
  constexpr int kMostQueued = 1'000'000;
  constexpr int kUsualQueue = 1000;
  auto flags = std::make_shared<ServeFlags>();
  flags->engine.max_queued = kUsualQueue;
  command.add_option("--model", flags->model, "A Hugging Face folder or GGUF file")->type_name("DIR");
  command.add_option("--model-name", flags->model_name, "The name that clients know it by [the folder's]")
      ->type_name("NAME");
  command
      .add_option("--config", flags->config,
                  "A TOML file with flags, as in port = 8080; the command line's go before it")
      ->type_name("FILE");
  AddListenFlags(command, flags->server);
  AddLimitFlags(command, flags->server);
  AddInteger(command, "--max-queued", flags->engine.max_queued, 1, kMostQueued,
             fmt::format("Requests that wait to begin; others are told when to come again [{}]", kUsualQueue));
  AddLogFlags(command, *flags);
  AddEngineFlags(command, flags->engine);
  AddKvMemoryFlag(command, flags->engine);
  AddCacheFlags(command, flags->engine);
  AddMaxPauseFlag(command, flags->engine);
  flags->group.on_failure = "replan";
  AddGroupFlags(command, flags->group);
  return [flags, &command] {
    if (!flags->config.empty()) ReadConfigFile(command, flags->config);
    const bool named = command.count("--host") > 0 || command.count("--port") > 0;
    flags->tcp = named || flags->server.unix_socket.empty();
    return RunServe(*flags);
  };
}

}  // namespace runahead::cli
