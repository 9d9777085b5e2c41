// What every subcommand file offers to main.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace runahead::cli {

// Exit codes; 0 is fine.
inline constexpr int kFailed = 1;         // while running
inline constexpr int kBadInput = 2;       // usage or input
inline constexpr int kInterrupted = 130;  // by SIGINT or SIGTERM, as shells have it

/// Runs a subcommand whose flags were parsed; the result is the exit code. Throws what the library throws, and
/// OutputClosed.
using Action = std::function<int()>;

// Each adds its flags to `command` and returns what runs it.
Action AddGenerate(CLI::App& command);
Action AddBatch(CLI::App& command);
Action AddChat(CLI::App& command);
Action AddServe(CLI::App& command);
Action AddBench(CLI::App& command);
Action AddCache(CLI::App& command);
Action AddDemo(CLI::App& command);
Action AddPlan(CLI::App& command);
Action AddTune(CLI::App& command);
Action AddLaunch(CLI::App& command);
Action AddTokenize(CLI::App& command);
Action AddInspect(CLI::App& command);
Action AddMakeModel(CLI::App& command);

}  // namespace runahead::cli
