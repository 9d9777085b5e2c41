// Asio, compiled once for the room (asio.cc): every file that uses it includes this instead.
#pragma once

#define BOOST_ASIO_SEPARATE_COMPILATION
#define BOOST_ASIO_NO_DEPRECATED

// clang-format off
#include <utility>  // which Asio 1.18 forgets
// clang-format on

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

namespace runahead::server {

namespace asio = boost::asio;
using ErrorCode = boost::system::error_code;

/// What runs one at a time for one connection, on whichever thread.
using Strand = asio::strand<asio::io_context::executor_type>;

}  // namespace runahead::server
