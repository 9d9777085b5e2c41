#include "wire/channel.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "runahead/error.h"

namespace runahead {
namespace {

constexpr std::string_view kMagic = "RUNWIRE1";  // its digit is the version of all that is below

/// In front of every payload; its HMAC is behind.
struct FrameHeader {
  uint32_t bytes = 0;  // of the payload
  uint16_t type = 0;
  uint16_t unused = 0;
  uint64_t number = 0;  // of the message in its direction, from 0
};
static_assert(sizeof(FrameHeader) == 16);

/// Reads as many bytes as `buffer` has. Throws LinkError.
void ReadExactly(Socket& socket, std::span<char> buffer, Deadline deadline) {
  while (!buffer.empty()) {
    size_t got = 0;
    if (const Status status = socket.ReadSome(buffer, deadline, got); !status.ok()) throw LinkError(status.message());
    if (got == 0) throw LinkError("it did not answer before the deadline");
    buffer = buffer.subspan(got);
  }
}

void WriteExactly(Socket& socket, std::string_view bytes, Deadline deadline) {
  if (const Status status = socket.WriteAll(bytes, deadline); !status.ok()) throw LinkError(status.message());
}

/// Both nonces, that of the side that connected first.
std::string ExchangeNonces(Socket& socket, bool connected, Deadline deadline) {
  const Nonce own = NewNonce();
  WriteExactly(socket, std::string(kMagic).append(TextOf(own)), deadline);
  std::array<char, 40> greeting{};
  ReadExactly(socket, greeting, deadline);
  const std::string_view got(greeting.data(), greeting.size());
  if (got.substr(0, kMagic.size()) != kMagic) {
    if (got.starts_with(kMagic.substr(0, kMagic.size() - 1))) {
      throw LinkError(fmt::format("it speaks version {} of the protocol, this side {}",
                                  static_cast<int>(got[kMagic.size() - 1]) - '0', kMagic.back()));
    }
    throw LinkError("it is no rank of Runahead's");
  }
  const std::string_view other = got.substr(kMagic.size());
  if (other == TextOf(own)) throw LinkError("it sends back what it gets");
  return connected ? std::string(TextOf(own)).append(other) : std::string(other).append(TextOf(own));
}

}  // namespace

std::unique_ptr<Channel> Channel::Open(Socket socket, bool connected, std::string_view secret, Deadline deadline) {
  const std::string peer = socket.peer();
  if (secret.empty() && !socket.is_local()) {
    throw ConfigError(fmt::format(
        "{} is not this host: ranks on several hosts need a secret that they share (--secret-file)", peer));
  }
  try {
    const std::string nonces = ExchangeNonces(socket, connected, deadline);
    const auto proof = [&](bool of_connected) {
      return MacOf(secret,
                   {of_connected ? "proof of the side that connected" : "proof of the side that listened", nonces});
    };
    const Mac own = proof(connected);
    if (connected) WriteExactly(socket, TextOf(own), deadline);
    Mac other{};
    ReadExactly(socket, other, deadline);
    if (!SameMac(other, proof(!connected))) throw LinkError("it does not know the secret");
    if (!connected) WriteExactly(socket, TextOf(own), deadline);
    return std::unique_ptr<Channel>(new Channel(std::move(socket), secret, nonces, connected));
  } catch (const LinkError& error) {
    throw LinkError(fmt::format("{}: {}", peer, error.what()));
  }
}

Channel::Channel(Socket socket, std::string_view secret, std::string_view nonces, bool connected)
    : socket_(std::move(socket)) {
  const Mac of_connected = MacOf(secret, {"key of the side that connected", nonces});
  const Mac of_listener = MacOf(secret, {"key of the side that listened", nonces});
  send_key_ = connected ? of_connected : of_listener;
  receive_key_ = connected ? of_listener : of_connected;
}

Status Channel::Send(uint16_t type, std::string_view payload, Deadline deadline) {
  if (payload.size() > kMostBytes) {
    return Status::Failed(fmt::format("a message of {} bytes; {} at most", payload.size(), kMostBytes));
  }
  const std::lock_guard lock(sending_);
  if (!send_failed_.ok()) return send_failed_;
  const FrameHeader header{static_cast<uint32_t>(payload.size()), type, 0, sent_++};
  std::string frame(sizeof header, '\0');
  std::memcpy(frame.data(), &header, sizeof header);
  frame.append(payload);
  const Mac mac = MacOf(TextOf(send_key_), {frame});
  frame.append(TextOf(mac));
  send_failed_ = socket_.WriteAll(frame, deadline);
  return send_failed_;
}

Status Channel::Take(std::optional<WireMessage>& message) {
  FrameHeader header;
  if (input_.size() < sizeof header) return Status::Ok();
  std::memcpy(&header, input_.data(), sizeof header);
  if (header.bytes > kMostBytes) {
    return Status::Failed(fmt::format("it announced a message of {} bytes; {} at most", header.bytes, kMostBytes));
  }
  const size_t signed_bytes = sizeof header + header.bytes;
  Mac mac{};
  if (input_.size() < signed_bytes + mac.size()) return Status::Ok();
  std::memcpy(mac.data(), input_.data() + signed_bytes, mac.size());
  const std::string_view frame = std::string_view(input_).substr(0, signed_bytes);
  if (!SameMac(mac, MacOf(TextOf(receive_key_), {frame}))) {
    return Status::Failed("a message came that is not from it, or was changed on its way");
  }
  if (header.number != received_) {
    return Status::Failed(fmt::format("message {} came in place of message {}", header.number, received_));
  }
  ++received_;
  message = WireMessage{header.type, input_.substr(sizeof header, header.bytes)};
  input_.erase(0, signed_bytes + mac.size());
  return Status::Ok();
}

Status Channel::Receive(std::optional<WireMessage>& message, Deadline deadline) {
  message.reset();
  std::array<char, 1 << 16> buffer;
  while (receive_failed_.ok()) {
    receive_failed_ = Take(message);
    if (message.has_value() || !receive_failed_.ok()) break;
    size_t got = 0;
    receive_failed_ = socket_.ReadSome(buffer, deadline, got);
    if (receive_failed_.ok() && got == 0) break;
    input_.append(buffer.data(), got);
  }
  return receive_failed_;
}

Status Channel::Await(WireMessage& message, Deadline deadline) {
  std::optional<WireMessage> got;
  if (Status status = Receive(got, deadline); !status.ok()) return status;
  if (!got.has_value()) return Status::Failed("it sent no message before the deadline");
  message = std::move(*got);
  return Status::Ok();
}

}  // namespace runahead
