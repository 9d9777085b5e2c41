#include "server/server.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>

#include "protocol/http_status.h"
#include "runahead/error.h"
#include "server/connection.h"
#include "server/gate.h"
#include "server/listener.h"

namespace runahead::server {
namespace {

constexpr int kRefusedAtOnce = 64;  // connections beyond the limit that are told so

/// Serving sockets takes little: one thread for some eight processors.
int SocketThreads() {
  constexpr unsigned kMost = 4;
  constexpr unsigned kProcessors = 8;
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency() / kProcessors, 1U, kMost));
}

/// For tokenizing and rendering.
size_t WorkThreads() {
  constexpr unsigned kFewest = 2;
  constexpr unsigned kMost = 8;
  constexpr unsigned kProcessors = 4;
  return std::clamp(std::thread::hardware_concurrency() / kProcessors, kFewest, kMost);
}

/// Lets this process have as many descriptors as `connections` need, where the system does. Returns how many it has.
size_t RaiseDescriptors(int connections) {
  constexpr rlim_t kOthers = 256;
  const rlim_t wanted = static_cast<rlim_t>(connections) + kRefusedAtOnce + kOthers;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = std::min(wanted, limit.rlim_max);
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
  }
  return limit.rlim_cur;
}

std::chrono::steady_clock::duration Seconds(double seconds) {
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(seconds));
}

void CheckOptions(const ServerOptions& options) {
  if (options.tls_certificate.empty() != options.tls_key.empty()) {
    throw ConfigError(options.tls_key.empty() ? "--tls-certificate: needs --tls-key"
                                              : "--tls-key: needs --tls-certificate");
  }
  if (options.host.empty() && options.unix_socket.empty()) throw ConfigError("--host: there is nowhere to listen");
}

}  // namespace

class Server::Parts {
 public:
  Parts(ServerOptions options, Service service, ServerHooks hooks)
      : options_(std::move(options)), hooks_(std::move(hooks)), gate_(options_), site_(std::move(service)) {
    CheckOptions(options_);
    if (!options_.tls_certificate.empty()) tls_ = LoadTls(options_.tls_certificate, options_.tls_key);
    if (!options_.host.empty())
      listeners_.push_back(BindTcp(context_, options_.host, options_.port, tls_ != nullptr));
    if (!options_.unix_socket.empty()) listeners_.push_back(BindUnix(context_, options_.unix_socket));
    for (const auto& listener : listeners_) addresses_.push_back(listener->address);
  }

  [[nodiscard]] const std::vector<std::string>& addresses() const { return addresses_; }

  void Listen() {
    for (const auto& listener : listeners_) listener->Listen();
  }

  Outcome Run() {
    if (const size_t had = RaiseDescriptors(options_.max_connections);
        had < static_cast<size_t>(options_.max_connections)) {
      Note(fmt::format("--max-connections: {} is more than the {} open files that this process may have",
                       options_.max_connections, had));
    }
    for (const auto& listener : listeners_) AwaitConnection(*listener);
    {
      std::vector<std::jthread> threads;
      for (int i = 1; i < SocketThreads(); ++i) threads.emplace_back([this] { Serve(); });
      Serve();
    }
    pool_.join();
    context_.restart();  // what the pool's threads left for connections that are gone
    context_.poll();
    return cut_ ? Outcome::kCut : Outcome::kDrained;
  }

  void ListenToSignals() {
    signals_.emplace(control_, SIGTERM, SIGINT, SIGHUP);
    AwaitSignal();
  }

  void PostDrain() {
    asio::post(control_, [this] { Drain(); });
  }

  void PostStop() {
    asio::post(control_, [this] { Stop("the server was stopped"); });
  }

  void Reload() {
    try {
      gate_.Reload();
      if (!options_.tls_certificate.empty()) {
        auto tls = LoadTls(options_.tls_certificate, options_.tls_key);
        const std::lock_guard lock(mutex_);
        tls_ = std::move(tls);
      }
      Note("keys and certificate were read again");
    } catch (const Error& error) {
      Note(fmt::format("not read again, the old ones stay: {}", error.what()));
    }
  }

 private:
  /// An exception is a request's misfortune, not the server's.
  void Serve() {
    while (true) {
      try {
        context_.run();
        return;
      } catch (const std::exception& error) {
        Note(fmt::format("a connection failed: {}", error.what()));
      }
    }
  }

  void Note(const std::string& message) const {
    if (hooks_.note) hooks_.note(message);
  }

  void AwaitSignal() {
    signals_->async_wait([this](ErrorCode error, int signal) {
      if (error) return;
      AwaitSignal();  // before what may be the end, which takes this back
      if (signal == SIGHUP) {
        Reload();
      } else if (!room_.draining) {
        Drain();
      } else {
        Stop("the server was stopped");
      }
    });
  }

  void AwaitConnection(Listener& listener) {
    listener.acceptor.async_wait(Acceptor::wait_read, [this, &listener](ErrorCode error) {
      const std::lock_guard lock(listening_);
      if (error || !listener.acceptor.is_open()) return;
      if (AcceptAll(listener)) {
        AwaitConnection(listener);
      } else {
        constexpr auto kPause = std::chrono::milliseconds(100);
        auto timer = std::make_shared<asio::steady_timer>(context_, kPause);
        timer->async_wait([this, &listener, timer](ErrorCode /*error*/) {
          const std::lock_guard again(listening_);
          if (listener.acceptor.is_open()) AwaitConnection(listener);
        });
      }
    });
  }

  /// False when the system has no room for more.
  bool AcceptAll(Listener& listener) {
    while (true) {
      Strand strand = asio::make_strand(context_);
      Socket socket(strand);
      ErrorCode error;
      listener.acceptor.accept(socket, error);
      if (error == asio::error::would_block) return true;
      if (error == asio::error::no_descriptors || error == asio::error::no_memory ||
          error == asio::error::no_buffer_space) {
        Note(fmt::format("{}: no connection can be accepted: {}", listener.address, error.message()));
        return false;
      }
      if (error) continue;  // the client has left already
      Welcome(std::move(strand), std::move(socket), listener.local);
    }
  }

  void Welcome(Strand strand, Socket socket, bool local) {
    ErrorCode ignored;
    if (!local) socket.set_option(asio::ip::tcp::no_delay(true), ignored);
    std::shared_ptr<Connection> connection;
    std::optional<Refusal> refusal;
    {
      const std::lock_guard lock(mutex_);
      const size_t most = static_cast<size_t>(options_.max_connections);
      if (connections_.size() >= most + kRefusedAtOnce) return;
      if (connections_.size() >= most) {
        refusal = Refusal{protocol::kUnavailable,
                          "too_many_connections",
                          fmt::format("the server has {} connections, and takes no more", options_.max_connections),
                          {{"retry-after", "1"}}};
      }
      auto stream = MakeStream(std::move(socket), local ? nullptr : tls_);
      connection = std::make_shared<Connection>(room_, std::move(strand), std::move(stream), local);
      connections_.emplace(connection.get(), connection);
      TellConnections();
    }
    connection->Start(std::move(refusal));
  }

  void Closed(const Connection* connection) {
    std::shared_ptr<Connection> last;  // goes behind the lock
    const std::lock_guard lock(mutex_);
    const auto found = connections_.find(connection);
    if (found == connections_.end()) return;
    last = std::move(found->second);
    connections_.erase(found);
    TellConnections();
    if (room_.draining && connections_.empty()) asio::post(control_, [this] { End(); });
  }

  void TellConnections() const {
    if (hooks_.connections) hooks_.connections(static_cast<int>(connections_.size()));
  }

  std::vector<std::shared_ptr<Connection>> Connections() {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<Connection>> all;
    for (const auto& [key, connection] : connections_) all.push_back(connection);
    return all;
  }

  void Drain() {
    if (room_.draining.exchange(true)) return;
    {
      // Who connected before is served.
      const std::lock_guard lock(listening_);
      for (const auto& listener : listeners_) {
        (void)AcceptAll(*listener);
        ErrorCode ignored;
        listener->acceptor.close(ignored);
      }
    }
    const auto all = Connections();
    Note(fmt::format("draining: {} connections", all.size()));
    for (const auto& connection : all) connection->PostDrain();
    if (all.empty()) return End();
    timer_.expires_after(Seconds(options_.drain_timeout_s));
    timer_.async_wait([this](ErrorCode error) {
      if (!error) Stop("the server ends, and this answer took longer than it waits");
    });
  }

  void Stop(const std::string& reason) {
    Drain();
    const auto all = Connections();
    if (all.empty()) return;
    cut_ = true;
    const Refusal refusal{protocol::kUnavailable, "server_stopped", reason, {}};
    for (const auto& connection : all) connection->PostStop(refusal);
    constexpr auto kLastWords = std::chrono::seconds(1);
    timer_.expires_after(kLastWords);
    timer_.async_wait([this](ErrorCode error) {
      if (!error) context_.stop();
    });
  }

  void End() {
    timer_.cancel();
    if (signals_) signals_->cancel();
    work_.reset();
  }

  const ServerOptions options_;
  const ServerHooks hooks_;
  Gate gate_;
  const Site site_;
  asio::io_context context_;
  asio::executor_work_guard<asio::io_context::executor_type> work_ = asio::make_work_guard(context_);
  asio::thread_pool pool_{WorkThreads()};
  std::mutex listening_;  // guards the acceptors
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::string> addresses_;
  Strand control_ = asio::make_strand(context_);  // signals, Drain, Stop, End
  std::optional<asio::signal_set> signals_;
  asio::steady_timer timer_{control_};
  std::atomic<bool> cut_ = false;
  ConnectionRoom room_{options_,
                       gate_,
                       site_,
                       [this](std::function<void()> work) { asio::post(pool_, std::move(work)); },
                       [this](const RequestRecord& record) {
                         if (hooks_.answered) hooks_.answered(record);
                       },
                       [this](const Connection* connection) { Closed(connection); }};

  std::mutex mutex_;
  std::shared_ptr<asio::ssl::context> tls_;                                         // guarded by mutex_
  std::unordered_map<const Connection*, std::shared_ptr<Connection>> connections_;  // guarded by mutex_
};

Server::Server(ServerOptions options, Service service, ServerHooks hooks)
    : parts_(std::make_unique<Parts>(std::move(options), std::move(service), std::move(hooks))) {}
Server::~Server() = default;

const std::vector<std::string>& Server::addresses() const { return parts_->addresses(); }
void Server::Listen() { parts_->Listen(); }
Server::Outcome Server::Run() { return parts_->Run(); }
void Server::ListenToSignals() { parts_->ListenToSignals(); }
void Server::Drain() { parts_->PostDrain(); }
void Server::Stop() { parts_->PostStop(); }
void Server::Reload() { parts_->Reload(); }

}  // namespace runahead::server
