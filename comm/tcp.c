#define _GNU_SOURCE /* accept4 */
#include "comm/tcp.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "comm/clock.h"
#include "runtime/status.h"

/* Until the socket can be read or written. 0, or ETIMEDOUT. */
static int await(int socket, short events, int64_t deadline_ns) {
  for (;;) {
    const int64_t left_ns = deadline_ns - sy_clock_ns();
    if (left_ns <= 0) {
      return ETIMEDOUT;
    }
    const int64_t left_ms = left_ns / 1000000 + 1;
    struct pollfd poller = {.fd = socket, .events = events};
    const int count = poll(&poller, 1, left_ms < 1000 ? (int)left_ms : 1000);
    if (count > 0) {
      return 0;
    }
    if (count < 0 && errno != EINTR) {
      return errno;
    }
  }
}

/* ---- Addresses ---- */

sy_status sy_tcp_resolve(const char *address, struct addrinfo **places_out) {
  const char *colon = address != NULL ? strrchr(address, ':') : NULL;
  char host[256];
  if (colon == NULL || colon == address || (size_t)(colon - address) >= sizeof host ||
      colon[1] == '\0' || strspn(colon + 1, "0123456789") != strlen(colon + 1)) {
    return sy_fail(SY_ERR_ARGUMENT, "the address '%s' is not of the form host:port",
                   address != NULL ? address : "(null)");
  }
  const size_t length = (size_t)(colon - address);
  const bool has_brackets = address[0] == '[' && colon[-1] == ']';
  snprintf(host, sizeof host, "%.*s", (int)(has_brackets ? length - 2 : length),
           has_brackets ? address + 1 : address);
  const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  const int error = getaddrinfo(host, colon + 1, &hints, places_out);
  return error == 0 ? SY_OK
                    : sy_fail(SY_ERR_ARGUMENT, "the address '%s': %s", address,
                              error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
}

/* ---- Listening ---- */

static int open_socket(int family) {
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  if (fd >= 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  return fd;
}

static int listen_at(int family, const struct sockaddr *place, socklen_t bytes) {
  const int on = 1;
  const int fd = open_socket(family);
  if (fd < 0) {
    return -1;
  }
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, place, bytes) != 0 || listen(fd, SOMAXCONN) != 0) {
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  return fd;
}

sy_status sy_tcp_listen(const struct addrinfo *places, const char *address, int *socket_out) {
  int error = 0;
  for (const struct addrinfo *place = places; place != NULL; place = place->ai_next) {
    const int fd = listen_at(place->ai_family, place->ai_addr, place->ai_addrlen);
    if (fd >= 0) {
      *socket_out = fd;
      return SY_OK;
    }
    error = errno;
  }
  return sy_fail(SY_ERR_TRANSPORT, "cannot listen at %s: %s", address, strerror(error));
}

sy_status sy_tcp_listen_anywhere(int family, int *socket_out, uint16_t *port_out) {
  union {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
  } place;
  memset(&place, 0, sizeof place); /* any address, any port */
  place.any.sa_family = (sa_family_t)family;
  socklen_t bytes = family == AF_INET6 ? sizeof place.in6 : sizeof place.in;
  const int fd = listen_at(family, &place.any, bytes);
  if (fd < 0 || getsockname(fd, &place.any, &bytes) != 0) {
    const int error = errno;
    if (fd >= 0) {
      close(fd);
    }
    return sy_fail(SY_ERR_TRANSPORT, "cannot listen for other ranks: %s", strerror(error));
  }
  *port_out = ntohs(family == AF_INET6 ? place.in6.sin6_port : place.in.sin_port);
  *socket_out = fd;
  return SY_OK;
}

int sy_tcp_accept(int listener, int64_t deadline_ns) {
  for (;;) {
    if (await(listener, POLLIN, deadline_ns) != 0) {
      return -1;
    }
    const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      return fd;
    }
    if (errno == EMFILE || errno == ENFILE) {
      return -1; /* others are callers that left again, and interruptions */
    }
  }
}

/* ---- Calling ---- */

/* 0 and a socket, or the errno. */
static int connect_once(const struct addrinfo *place, int64_t deadline_ns, int *socket_out) {
  const int fd = open_socket(place->ai_family);
  if (fd < 0) {
    return errno;
  }
  int error = connect(fd, place->ai_addr, place->ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS || error == EINTR) {
    socklen_t bytes = sizeof error;
    const int waited = await(fd, POLLOUT, deadline_ns);
    error = waited;
    if (waited == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0) {
      error = errno;
    }
  }
  if (error != 0) {
    close(fd);
    return error;
  }
  *socket_out = fd;
  return 0;
}

sy_status sy_tcp_connect(const struct addrinfo *places, const char *address, int64_t deadline_ns,
                         int *socket_out) {
  enum { RETRY_NS = 20000000 };
  int error = ETIMEDOUT;
  do {
    for (const struct addrinfo *place = places; place != NULL; place = place->ai_next) {
      error = connect_once(place, deadline_ns, socket_out);
      if (error == 0) {
        return SY_OK;
      }
    }
    nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
  } while (sy_clock_ns() < deadline_ns);
  return sy_fail(SY_ERR_PEER, "nobody is reached at %s: %s", address, strerror(error));
}

/* ---- Bytes ---- */

ptrdiff_t sy_tcp_send_some(int socket, const void *data, size_t bytes) {
  for (;;) {
    const ssize_t sent = send(socket, data, bytes, MSG_NOSIGNAL);
    if (sent >= 0) {
      return sent;
    }
    if (errno != EINTR) {
      return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    }
  }
}

ptrdiff_t sy_tcp_receive_some(int socket, void *data, size_t bytes) {
  for (;;) {
    const ssize_t received = recv(socket, data, bytes, 0);
    if (received > 0) {
      return received;
    }
    if (received == 0) {
      return bytes == 0 ? 0 : -1;
    }
    if (errno != EINTR) {
      return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    }
  }
}

int sy_tcp_send(int socket, const void *data, size_t bytes, int64_t deadline_ns) {
  for (size_t done = 0; done < bytes;) {
    const ptrdiff_t sent = sy_tcp_send_some(socket, (const char *)data + done, bytes - done);
    if (sent < 0) {
      return ECONNRESET;
    }
    done += (size_t)sent;
    const int error = sent == 0 ? await(socket, POLLOUT, deadline_ns) : 0;
    if (error != 0) {
      return error;
    }
  }
  return 0;
}

int sy_tcp_receive(int socket, void *data, size_t bytes, int64_t deadline_ns) {
  for (size_t done = 0; done < bytes;) {
    const ptrdiff_t received = sy_tcp_receive_some(socket, (char *)data + done, bytes - done);
    if (received < 0) {
      return ECONNRESET;
    }
    done += (size_t)received;
    const int error = received == 0 ? await(socket, POLLIN, deadline_ns) : 0;
    if (error != 0) {
      return error;
    }
  }
  return 0;
}
