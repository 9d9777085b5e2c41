// `runahead serve` as a program: its flags, its file of flags, its signals.
#include <algorithm>

#include "tests/cli/fixture.h"

namespace runahead {
namespace {

class ServeTest : public CliTest {
 protected:
  static std::string Refusal(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"serve"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = Runahead(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    return outcome.err;
  }

  static std::string RefusalOfFile(const std::string& text) {
    WriteFile(InFolder("serve.toml"), text);
    std::string refusal = Refusal({"--config", InFolder("serve.toml")});
    EXPECT_NE(refusal.find(InFolder("serve.toml")), std::string::npos) << refusal;
    return refusal;
  }

  /// What a server says until `signal` ended it, and "ended with N".
  static std::string Serve(const std::string& flags, const std::string& signal) {
    const std::string script = "exec 3< <(exec '" + ProgramPath() + "' serve " + flags +
                               " 2>&1); pid=$!; while read -r -t 60 -u 3 line; do echo \"$line\"; case \"$line\" in "
                               "*listening*) kill -" +
                               signal + " $pid ;; esac; done; wait $pid; echo \"ended with $?\"";
    return RunProgram("/bin/bash", {"-c", script}).out;
  }
};

TEST_F(ServeTest, RefusesWhatCannotBe) {
  EXPECT_NE(Refusal({}).find("--model is required"), std::string::npos);
  const auto refusal = [](std::vector<std::string> flags) {
    flags.insert(flags.end(), {"--model", Model()});
    return Refusal(flags);
  };
  EXPECT_NE(refusal({"--port", "65536"}).find("--port: expected an integer from 0 to 65535"), std::string::npos);
  EXPECT_NE(refusal({"--host", "0.0.0.0"}).find("--api-keys"), std::string::npos);
  EXPECT_NE(refusal({"--host", "nowhere", "--insecure-open"}).find("'nowhere'"), std::string::npos);
  EXPECT_NE(refusal({"--api-keys", InFolder("none")}).find(InFolder("none")), std::string::npos);
  EXPECT_NE(refusal({"--max-body", "2GiB"}).find("--max-body: expected at most"), std::string::npos);
  EXPECT_NE(refusal({"--log", "xml"}).find("--log: expected text or json, got 'xml'"), std::string::npos);
  EXPECT_NE(refusal({"--tls-key", "key.pem"}).find("--tls-certificate"), std::string::npos);
  EXPECT_NE(refusal({"--cors-origin", "chat.example"}).find("'chat.example'"), std::string::npos);
  EXPECT_NE(refusal({"--unix-socket", std::string(200, 'x')}).find("107 bytes"), std::string::npos);
}

TEST_F(ServeTest, RefusesWrongFilesOfFlags) {
  EXPECT_NE(RefusalOfFile("prot = 8080\n").find("\"prot\": unknown key (known: model"), std::string::npos);
  EXPECT_NE(RefusalOfFile("config = \"x\"\n").find("\"config\": unknown key"), std::string::npos);
  EXPECT_NE(RefusalOfFile("port = \"many\"\n").find("port: --port: expected an integer"), std::string::npos);
  EXPECT_NE(RefusalOfFile("port = true\n").find("port: expected N, got true"), std::string::npos);
  EXPECT_NE(RefusalOfFile("quiet = 1\n").find("quiet: expected true or false, got 1"), std::string::npos);
  EXPECT_NE(RefusalOfFile("[serve]\nport = 1\n").find("\"serve\": unknown key"), std::string::npos);
  EXPECT_NE(RefusalOfFile("port = \n").find("serve.toml"), std::string::npos);
  WriteFile(InFolder("serve.toml"), "model = \"\"\n");
  EXPECT_NE(Refusal({"--config", InFolder("serve.toml")}).find("--model: expected DIR, got ''"), std::string::npos);
}

TEST_F(ServeTest, DrainsOnSignals) {
  for (const char* signal : {"TERM", "INT"}) {
    const std::string said = Serve("--port 0 --model '" + Model() + "'", signal);
    EXPECT_NE(said.find("listening on http://127.0.0.1:"), std::string::npos) << said;
    EXPECT_NE(said.find("ended with 0\n"), std::string::npos) << said;
  }
}

TEST_F(ServeTest, TakesFlagsFromAFileBehindTheCommandLines) {
  const std::string socket = InFolder("socket");
  WriteFile(InFolder("serve.toml"), "model = \"" + Model() +
                                        "\"\nunix-socket = \"/nowhere/socket\"\nlog = \"json\"\n" +
                                        "threads-per-rank = [1, 1]\ndevices = \"cpu:2\"\nquiet = true\n" +
                                        "cors-origin = [\"http://a\", \"http://b\"]\n");
  const std::string said = Serve("--config '" + InFolder("serve.toml") + "' --unix-socket '" + socket + "'", "TERM");
  EXPECT_NE(said.find("\"message\":\"listening on unix:" + socket + "\""), std::string::npos) << said;
  EXPECT_NE(said.find("ended with 0\n"), std::string::npos) << said;
}

}  // namespace
}  // namespace runahead
