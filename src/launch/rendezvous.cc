#include "launch/rendezvous.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <future>
#include <list>
#include <mutex>
#include <optional>
#include <set>

#include "base/check.h"
#include "base/descriptor.h"
#include "runahead/error.h"
#include "wire/bytes.h"

namespace runahead {
namespace {

enum Type : uint16_t { kControl = 1, kHeartbeat = 2, kMembers = 3, kUseless = 4, kLate = 5, kSeated = 6 };

/// A stranger holds up the group no longer than this.
constexpr auto kIntroduce = std::chrono::seconds(5);
/// Introductions that are heard at the same time.
constexpr size_t kMostAtOnce = 128;
/// Time until the next look at what was heard.
constexpr auto kLook = std::chrono::milliseconds(20);

/// What a process says first, on each of its two connections.
struct Hello {
  int rank = 0;
  int ranks = 0;
  std::string host;
  Introduction introduction;
};

std::string Encode(const Hello& hello) {
  ByteWriter out;
  out.Put(static_cast<int32_t>(hello.rank));
  out.Put(static_cast<int32_t>(hello.ranks));
  out.PutText(hello.host);
  out.PutCount(hello.introduction.facts.size());
  for (const auto& [name, value] : hello.introduction.facts) {
    out.PutText(name);
    out.PutText(value);
  }
  out.PutText(hello.introduction.address);
  return out.Take();
}

Status Decode(std::string_view bytes, Hello& hello) {
  ByteReader in(bytes);
  hello.rank = in.Get<int32_t>("rank");
  hello.ranks = in.Get<int32_t>("ranks");
  hello.host = in.GetText("host");
  hello.introduction.facts.resize(in.GetCount(2 * sizeof(uint64_t), "facts"));
  for (auto& [name, value] : hello.introduction.facts) {
    name = in.GetText("fact");
    value = in.GetText("fact");
  }
  hello.introduction.address = in.GetText("address");
  return in.End();
}

std::string Encode(const std::vector<MemberProcess>& members) {
  ByteWriter out;
  out.PutCount(members.size());
  for (const MemberProcess& member : members) {
    out.PutText(member.host);
    out.PutText(member.address);
  }
  return out.Take();
}

Status Decode(std::string_view bytes, std::vector<MemberProcess>& members) {
  ByteReader in(bytes);
  members.resize(in.GetCount(2 * sizeof(uint64_t), "members"));
  int rank = 0;
  for (MemberProcess& member : members) {
    member.rank = rank++;
    member.host = in.GetText("host");
    member.address = in.GetText("address");
  }
  return in.End();
}

/// The first difference from process 0, or nothing.
std::string Difference(const Hello& zero, const Hello& other) {
  const std::string who = fmt::format("process {} on {}", other.rank, other.host);
  if (other.ranks != zero.ranks) {
    return fmt::format("{} is one of {}, process 0 of {}", who, other.ranks, zero.ranks);
  }
  const auto& own = zero.introduction.facts;
  const auto& theirs = other.introduction.facts;
  for (size_t i = 0; i < std::max(own.size(), theirs.size()); ++i) {
    const auto& mine = i < own.size() ? own[i] : std::pair<std::string, std::string>("nothing more", "");
    const auto& its = i < theirs.size() ? theirs[i] : std::pair<std::string, std::string>("nothing more", "");
    if (mine.first != its.first) return fmt::format("{} says {} where process 0 says {}", who, its.first, mine.first);
    if (mine.second != its.second) {
      return fmt::format("{} has {} {}, process 0 has {}", who, its.first, its.second, mine.second);
    }
  }
  return {};
}

/// Rank 0's side: hears introductions until all are there.
class Host final : public Door {
 public:
  Host(const Place& place, Hello own, std::string_view secret, Deadline deadline)
      : secret_(secret), deadline_(deadline), listener_(AddressOf(place)) {
    places_.resize(static_cast<size_t>(place.ranks));
    places_.front().hello = std::move(own);
  }

  /// Ends the connections of strangers that are still heard; a rank that is being answered gets its answer.
  ~Host() override {
    const std::lock_guard lock(mutex_);
    for (const Hearing& one : hearing_) {
      if (one.stranger) (void)::shutdown(one.stranger.get(), SHUT_RDWR);
    }
  }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  Meeting Gather() {
    while (!Complete()) {
      if (Clock::now() >= deadline_) RefuseLate();
      HearNext(std::min(deadline_, Clock::now() + kLook), deadline_);
    }
    return Conclude();
  }

  void Vacate(int rank) override {
    const std::lock_guard lock(mutex_);
    Seat& seat = places_.at(static_cast<size_t>(rank));
    seat.vacant = true;
    seat.control.reset();
    seat.heartbeat.reset();
  }

  std::optional<Joiner> Await(Deadline deadline) override {
    do {
      HearNext(hearing_.empty() ? deadline : std::min(deadline, Clock::now() + kLook), Deadline::max());
      if (std::optional<Joiner> arrival = TakeJoiner()) return arrival;
    } while (Clock::now() < deadline);
    return std::nullopt;
  }

 private:
  struct Seat {
    bool vacant = true;  // somebody may come
    std::optional<Hello> hello;
    std::unique_ptr<Channel> control;
    std::unique_ptr<Channel> heartbeat;
  };

  /// A connection whose other side is heard by a thread of its own, so that it holds up nobody else.
  struct Hearing {
    Descriptor stranger;  // the same connection as the thread's socket until it is a rank's, guarded by mutex_
    std::future<void> end;
  };

  static WireAddress AddressOf(const Place& place) {
    // Where all are on this host, nobody else's packets should even come in.
    const std::string& host = place.master_host;
    if (place.on_one_host()) return {host == "localhost" ? "127.0.0.1" : host, place.master_port, false};
    return {"", place.master_port, false};
  }

  bool Complete() {
    const std::lock_guard lock(mutex_);
    // Those who are on their way are told, too.
    if (!useless_.empty()) return met_.size() + 1 >= places_.size() || Clock::now() >= useless_until_;
    return std::all_of(places_.begin() + 1, places_.end(),
                       [](const Seat& seat) { return seat.control != nullptr && seat.heartbeat != nullptr; });
  }

  /// Begins to hear the next who comes, for no longer than `latest`; nobody when none comes before the deadline.
  void HearNext(Deadline deadline, Deadline latest) {
    const auto ended = [](const Hearing& one) {
      return one.end.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    };
    hearing_.remove_if(ended);
    if (hearing_.size() >= kMostAtOnce) {
      hearing_.front().end.wait_until(deadline);
      return;
    }
    std::optional<Socket> socket = listener_.Accept(deadline);
    if (!socket.has_value()) return;
    Hearing& one = hearing_.emplace_back();
    one.stranger = Descriptor(::fcntl(socket->fd(), F_DUPFD_CLOEXEC, 0));
    one.end = std::async(std::launch::async, [this, &one, latest, taken = std::move(*socket)]() mutable {
      Hear(std::move(taken), latest, one);
      Know(one);
    });
  }

  /// The other side is a rank, or is gone.
  void Know(Hearing& one) {
    const std::lock_guard lock(mutex_);
    one.stranger.Close();
  }

  /// Somebody who took a place that was vacant, on both connections.
  std::optional<Joiner> TakeJoiner() {
    std::optional<Joiner> joiner;
    std::string members;
    {
      const std::lock_guard lock(mutex_);
      const auto seat = std::find_if(places_.begin(), places_.end(), [](const Seat& one) {
        return one.vacant && one.control != nullptr && one.heartbeat != nullptr;
      });
      if (seat == places_.end()) return std::nullopt;
      seat->vacant = false;
      members = Encode(Members());
      const Hello& hello = *seat->hello;
      joiner = Joiner{{hello.rank, hello.host, hello.introduction.address},
                      std::move(seat->control),
                      {hello.rank, hello.host, std::move(seat->heartbeat)}};
    }
    (void)joiner->control->Send(kMembers, members, After(kIntroduce));  // however slow it is, others may come
    return joiner;
  }

  /// One connection: a rank's, or a stranger's, which ends here.
  void Hear(Socket socket, Deadline latest, Hearing& own) {
    const Deadline soon = std::min(latest, Clock::now() + kIntroduce);
    try {
      std::unique_ptr<Channel> channel = Channel::Open(std::move(socket), /*connected=*/false, secret_, soon);
      WireMessage message;
      Hello hello;
      if (!channel->Await(message, soon).ok() || !Decode(message.payload, hello).ok()) return;
      Know(own);
      if (const std::string wrong = Seated(message.type, hello, channel); !wrong.empty()) {
        (void)channel->Send(kUseless, wrong, soon);
      }
    } catch (const Error&) {  // a stranger's connection; the ranks that are missing are named at the deadline
    }
  }

  /// Gives `channel` its place. Returns what is wrong with it, or nothing.
  std::string Seated(uint16_t type, const Hello& hello, std::unique_ptr<Channel>& channel) {
    const std::lock_guard lock(mutex_);
    const Hello& zero = *places_.front().hello;
    met_.insert(hello.rank);
    std::string difference = Difference(zero, hello);
    if (difference.empty() && (hello.rank < 1 || hello.rank >= zero.ranks)) {
      difference = fmt::format("process {} on {} is none of {}", hello.rank, hello.host, zero.ranks);
    }
    if (!difference.empty()) {
      if (useless_.empty() && !concluded_) {
        useless_ = difference;
        useless_until_ = Clock::now() + kIntroduce;
      }
      return difference;
    }
    if (!useless_.empty()) return useless_;
    Seat& seat = places_.at(static_cast<size_t>(hello.rank));
    std::unique_ptr<Channel>& taken = type == kHeartbeat ? seat.heartbeat : seat.control;
    if (concluded_ && type == kControl) seat.heartbeat.reset();  // one that came before did not come in
    if (!seat.vacant || (taken != nullptr && !concluded_)) {
      return fmt::format("process {} came twice: from {} and from {}", hello.rank, seat.hello->host, hello.host);
    }
    seat.hello = hello;
    taken = std::move(channel);
    if (type == kControl) (void)taken->Send(kSeated, {}, After(kIntroduce));
    return {};
  }

  /// Tells all who came.
  void Tell(uint16_t type, std::string_view text) {
    for (Seat& seat : places_) {
      if (seat.control != nullptr) (void)seat.control->Send(type, text, After(kIntroduce));
    }
  }

  [[noreturn]] void RefuseLate() {
    const std::lock_guard lock(mutex_);
    std::vector<int> missing;
    for (size_t rank = 1; rank < places_.size(); ++rank) {
      if (places_[rank].control == nullptr || places_[rank].heartbeat == nullptr)
        missing.push_back(static_cast<int>(rank));
    }
    const std::string late =
        fmt::format("{} {} of {} did not come to {}", missing.size() == 1 ? "process" : "processes",
                    fmt::join(missing, ", "), places_.size(), listener_.address().text());
    Tell(kLate, late);
    throw LinkError(late);
  }

  Meeting Conclude() {
    const std::lock_guard lock(mutex_);
    if (!useless_.empty()) {
      Tell(kUseless, useless_);
      throw ConfigError(useless_);
    }
    Meeting meeting;
    meeting.members = Members();
    Tell(kMembers, Encode(meeting.members));
    concluded_ = true;
    for (Seat& seat : places_) {
      seat.vacant = false;
      meeting.control.push_back(std::move(seat.control));
      if (seat.heartbeat == nullptr) continue;
      meeting.heartbeats.push_back({seat.hello->rank, seat.hello->host, std::move(seat.heartbeat)});
    }
    return meeting;
  }

  /// With mutex_ held.
  [[nodiscard]] std::vector<MemberProcess> Members() const {
    std::vector<MemberProcess> members;
    for (const Seat& seat : places_) {
      members.push_back({seat.hello->rank, seat.hello->host, seat.hello->introduction.address});
    }
    return members;
  }

  std::string secret_;
  Deadline deadline_;
  SocketListener listener_;
  std::mutex mutex_;
  std::vector<Seat> places_;         // [ranks], guarded by mutex_
  bool concluded_ = false;           // the group has met, guarded by mutex_
  std::set<int> met_;                // ranks that introduced themselves, guarded by mutex_
  std::string useless_;              // why there can be no group, guarded by mutex_
  Clock::time_point useless_until_;  // end of telling late ranks so, guarded by mutex_
  std::list<Hearing> hearing_;       // last: their threads use all of the above
};

std::unique_ptr<Channel> Call(const Place& place, uint16_t type, const Hello& own, std::string_view secret,
                              Deadline deadline) {
  Socket socket = Socket::Connect({place.master_host, place.master_port, false}, deadline);
  std::unique_ptr<Channel> channel = Channel::Open(std::move(socket), /*connected=*/true, secret, deadline);
  if (const Status sent = channel->Send(type, Encode(own), deadline); !sent.ok()) throw LinkError(sent.message());
  return channel;
}

/// What rank 0 says next. Throws LinkError.
WireMessage Answer(Channel& control, Deadline deadline) {
  WireMessage answer;
  if (const Status heard = control.Await(answer, deadline); !heard.ok()) throw LinkError(heard.message());
  return answer;
}

/// Every other rank's side.
Meeting Attend(const Place& place, const Hello& own, std::string_view secret, Deadline deadline) {
  Meeting meeting;
  WireMessage answer;
  try {
    meeting.control.push_back(Call(place, kControl, own, secret, deadline));
    answer = Answer(*meeting.control.front(), deadline);
    if (answer.type == kSeated) {
      try {
        const Deadline soon = std::min(deadline, After(kIntroduce));  // it listens
        meeting.heartbeats.push_back({0, place.master_host, Call(place, kHeartbeat, own, secret, soon)});
      } catch (const LinkError&) {
        // It says why on the connection that stands, or nothing any more.
      }
      // At the deadline it tells who is missing: that answer is on its way then.
      answer = Answer(*meeting.control.front(), deadline + kIntroduce);
    }
  } catch (const LinkError& error) {
    throw LinkError(fmt::format("process {}: process 0 at {}:{}: {}", place.rank, place.master_host,
                                place.master_port, error.what()));
  }
  if (answer.type == kUseless) throw ConfigError(answer.payload);
  if (answer.type == kLate) throw LinkError(answer.payload);
  const Status read = Decode(answer.payload, meeting.members);
  if (answer.type != kMembers || meeting.heartbeats.empty() || !read.ok() ||
      std::ssize(meeting.members) != place.ranks) {
    throw LinkError(fmt::format("process 0 at {}:{}: it named no group of {}", place.master_host, place.master_port,
                                place.ranks));
  }
  meeting.heartbeats.front().host = meeting.members.front().host;
  return meeting;
}

}  // namespace

std::string HostName() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "an unnamed host";
}

Meeting Meet(const Place& place, const Introduction& own, std::string_view secret, Deadline deadline) {
  CHECK(0 <= place.rank && place.rank < place.ranks);
  if (secret.empty() && !place.on_one_host()) {
    throw ConfigError(fmt::format(
        "process 0 is at {}, which is not 127.0.0.1: processes on several hosts need a secret (--secret-file)",
        place.master_host));
  }
  const Hello hello{place.rank, place.ranks, HostName(), own};
  if (place.rank > 0) return Attend(place, hello, secret, deadline);
  auto host = std::make_unique<Host>(place, hello, secret, deadline);
  Meeting meeting = host->Gather();
  meeting.door = std::move(host);
  return meeting;
}

}  // namespace runahead
