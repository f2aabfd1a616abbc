/* TCP connections with deadlines, for the side channel: every socket is nonblocking, and waits end at
 * a moment of sy_clock_ns. */
#ifndef SY_COMM_TCP_H
#define SY_COMM_TCP_H

#include <netdb.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/switchyard.h"

/* "host:port", or "[host]:port" for an IPv6 address. ARGUMENT. freeaddrinfo releases it. */
sy_status sy_tcp_resolve(const char *address, struct addrinfo **places_out);

/* A socket that listens there. TRANSPORT: in use, or not an address of this host. */
sy_status sy_tcp_listen(const struct addrinfo *places, const char *address, int *socket_out);

/* One that listens anywhere on this host, at a free port. */
sy_status sy_tcp_listen_anywhere(int family, int *socket_out, uint16_t *port_out);

/* Tries until somebody listens there. PEER: nobody did until the deadline; says what happened last. */
sy_status sy_tcp_connect(const struct addrinfo *places, const char *address, int64_t deadline_ns,
                         int *socket_out);

/* The next caller; -1 when none came until the deadline. */
int sy_tcp_accept(int listener, int64_t deadline_ns);

/* Whole messages. 0; or the errno: ETIMEDOUT at the deadline, ECONNRESET when the other end is gone. */
int sy_tcp_send(int socket, const void *data, size_t bytes, int64_t deadline_ns);
int sy_tcp_receive(int socket, void *data, size_t bytes, int64_t deadline_ns);

/* What goes without waiting: how many bytes; 0 when none do now; -1 when the other end is gone. */
ptrdiff_t sy_tcp_send_some(int socket, const void *data, size_t bytes);
ptrdiff_t sy_tcp_receive_some(int socket, void *data, size_t bytes);

#endif
