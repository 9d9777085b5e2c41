// runahead.1: sections that nobody else knows, and between them the commands as they declare themselves.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "flag_facts.h"
#include "pages.h"
#include "runahead/version.h"

namespace runahead::cli {
namespace {

/// Text as roff prints it: hyphens that can be copied, and no line that roff takes for a request.
std::string Escaped(std::string_view text) {
  std::string roff;
  if (text.starts_with('.') || text.starts_with('\'')) roff += "\\&";
  for (const char c : text) {
    if (c == '\\') {
      roff += "\\e";
    } else if (c == '-') {
      roff += "\\-";
    } else {
      roff += c;
    }
  }
  return roff;
}

/// A value of the user's choice, in italics.
std::string Value(const std::string& value) {
  return value.empty() ? "" : fmt::format(" \\fI{}\\fR", Escaped(value));
}

std::string Entry(const FlagFacts& flag) {
  std::vector<std::string> names;
  for (const std::string& name : flag.names) names.push_back(fmt::format("\\fB{}\\fR", Escaped(name)));
  std::string text = fmt::format(".TP\n{}{}\n{}.\n", fmt::join(names, ", "), Value(flag.value), Escaped(flag.help));
  if (!flag.values.empty())
    text += fmt::format("Known: {}.\n", Escaped(fmt::format("{}", fmt::join(flag.values, ", "))));
  return text;
}

std::string Usage(const CLI::App& command, const std::vector<FlagFacts>& flags) {
  std::string line = fmt::format("\\fBrunahead {}\\fR", Escaped(command.get_name()));
  for (const FlagFacts& flag : flags) {
    if (flag.names.empty()) line += Value(flag.value);
  }
  return line + " [\\fIOPTIONS\\fR]";
}

constexpr const char* kFoot = R"(.SH EXIT STATUS
.TP
0
Done.
.TP
1
It failed while it ran: a device, a link, no memory left.
.TP
2
An input or an option cannot be used. One line on standard error names it and its value.
.SH ENVIRONMENT
.TP
\fBXDG_CACHE_HOME\fR
Where \fBrunahead tune\fR leaves its measurements, in the folder \fIrunahead\fR; without it \fI$HOME/.cache\fR.
.TP
\fBCUDA_VISIBLE_DEVICES\fR
The GPUs that \fB\-\-devices\fR numbers.
.TP
\fBRANK\fR, \fBWORLD_SIZE\fR, \fBMASTER_ADDR\fR, \fBMASTER_PORT\fR
This process's place among several whose ranks make one engine, unless a launcher says it in words of its own.
.TP
\fBRUNAHEAD_SECRET_FILE\fR
What \fB\-\-secret\-file\fR says.
.SH EXAMPLES
.nf
runahead demo
runahead generate \-\-model DIR \-\-prompt\-file report.txt \-n 200 \-\-devices cpu:4
runahead tune \-\-model DIR \-\-devices cpu:2 \-\-contexts 1000,4000
runahead plan \-\-preset 4x4090\-pcie \-\-ranks 4 \-\-contexts 4096,16384
.fi
.SH SEE ALSO
M. Cho, M. Rastegari, D. Naik: KV\-Runahead: Scalable Causal LLM Inference by Parallel Key\-Value Cache Generation,
ICML 2024.
)";

}  // namespace

std::string ManPage(const CLI::App& app) {
  std::string text = fmt::format(
      ".TH RUNAHEAD 1 \"\" \"runahead {}\" \"User Commands\"\n"
      ".SH NAME\nrunahead \\- the first token of a long prompt, sooner, from several ranks\n"
      ".SH SYNOPSIS\n\\fBrunahead\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n"
      ".SH DESCRIPTION\n"
      "Runahead answers prompts with decoder\\-only language models.\n"
      "It spreads the prompt phase, all work up to the first token, over several ranks with KV\\-Runahead.\n"
      "A model is a Hugging Face folder, or a GGUF file.\n"
      ".SH OPTIONS\n",
      Escaped(DescribeBuild().version));
  for (const FlagFacts& flag : FlagsOf(app)) text += Entry(flag);
  text += ".SH COMMANDS\n";
  for (const CLI::App* command : CommandsOf(app)) {
    const std::vector<FlagFacts> flags = FlagsOf(*command);
    text += fmt::format(".SS {}\n{}.\n.PP\n{}\n", Escaped(command->get_name()), Escaped(command->get_description()),
                        Usage(*command, flags));
    for (const FlagFacts& flag : flags) text += Entry(flag);
  }
  return text + kFoot;
}

}  // namespace runahead::cli
