// Mock upstream in OpenRouter's shape: one thread, epoll, HTTP/1.1 keep-alive.
//
//   mock PORT
//
// POST on any path: a body that holds "stream":true gets a stream of 50 content events, a finish
// chunk, a usage chunk and [DONE]; any other body a JSON answer of about 1 kB.
// GET: an empty model list, so that a gateway that refreshes its catalogue keeps its own.
//
// A mark in the prompt sets the timing of one request, because every gateway passes prompts on:
//   #!d50    wait 50 ms before the first byte
//   #!g1000  send one event each 1000 us (without it: all events in one write)
//
// Each content event carries "@<monotonic ns>@", the moment it was written, so that a client on
// the same machine can tell how long it was on its way.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_PER_STREAM = 50, READY_MAX = 256, FIRST_BUFFER = 8192 };

#define HEAD "{\"id\":\"gen-1763850000-AbCdEfGhIjKlMnOpQrSt\",\"provider\":\"Mock\",\"model\":\"openai/gpt-4o-mini\","
#define USAGE                                                                                    \
  "\"usage\":{\"prompt_tokens\":210,\"completion_tokens\":120,\"total_tokens\":330,"             \
  "\"cost\":0.0001035,\"is_byok\":false,"                                                        \
  "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},"                          \
  "\"completion_tokens_details\":{\"reasoning_tokens\":0}}"
#define CHUNK HEAD "\"object\":\"chat.completion.chunk\",\"created\":1763850000,"

typedef struct {
  char *bytes;
  size_t length, capacity;
} Buffer;

typedef struct Connection {
  int fd;
  Buffer in, out;
  size_t written;          // bytes of `out` already sent
  int answering, closed, wants_out;
  int streaming, started;  // started: the head of the stream is out
  int events_sent;
  int64_t delay_ns, gap_ns;
  int64_t due;             // when its timer fires
  int timer;               // place in the heap, -1 without a timer
  struct Connection *next_closed;
} Connection;

static int poller;
static Connection **timers;
static int timer_count, timer_capacity;
static Connection *closed_list;
static volatile sig_atomic_t stopping;
static char answer[4096];
static size_t answer_length;

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

// ---- timers: a binary heap ordered by `due` ----

static void timer_place(Connection *c, int at) {
  timers[at] = c;
  c->timer = at;
}

static void timer_rise(int at) {
  Connection *c = timers[at];
  while (at && timers[(at - 1) / 2]->due > c->due) {
    timer_place(timers[(at - 1) / 2], at);
    at = (at - 1) / 2;
  }
  timer_place(c, at);
}

static void timer_sink(int at) {
  Connection *c = timers[at];
  for (;;) {
    int child = 2 * at + 1;
    if (child >= timer_count) break;
    if (child + 1 < timer_count && timers[child + 1]->due < timers[child]->due) child++;
    if (timers[child]->due >= c->due) break;
    timer_place(timers[child], at);
    at = child;
  }
  timer_place(c, at);
}

static void timer_start(Connection *c, int64_t due) {
  if (timer_count == timer_capacity) {
    timer_capacity = timer_capacity ? timer_capacity * 2 : 1024;
    timers = realloc(timers, timer_capacity * sizeof *timers);
  }
  c->due = due;
  timer_place(c, timer_count++);
  timer_rise(c->timer);
}

static void timer_cancel(Connection *c) {
  int at = c->timer;
  if (at < 0) return;
  c->timer = -1;
  Connection *last = timers[--timer_count];
  if (last == c) return;
  timer_place(last, at);
  timer_rise(at);
  timer_sink(last->timer);
}

// ---- writing ----

static void put(Connection *c, const char *bytes, size_t length) {
  Buffer *out = &c->out;
  if (out->length + length > out->capacity) {
    out->capacity = (out->length + length) * 2;
    out->bytes = realloc(out->bytes, out->capacity);
  }
  memcpy(out->bytes + out->length, bytes, length);
  out->length += length;
}

static void put_frame(Connection *c, const char *bytes, int length) {
  char size[16];
  put(c, size, snprintf(size, sizeof size, "%x\r\n", length));
  put(c, bytes, length);
  put(c, "\r\n", 2);
}

static void want_out(Connection *c, int wanted) {
  if (c->wants_out == wanted) return;
  c->wants_out = wanted;
  struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = c};
  epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
}

// The memory stays until the end of the loop: the same batch of events may name it again.
static void close_connection(Connection *c) {
  if (c->closed) return;
  timer_cancel(c);
  close(c->fd);
  c->closed = 1;
  c->next_closed = closed_list;
  closed_list = c;
}

static void flush_out(Connection *c) {
  while (c->written < c->out.length) {
    ssize_t n = send(c->fd, c->out.bytes + c->written, c->out.length - c->written, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
      want_out(c, 1);
      return;
    }
    if (n < 0) {
      close_connection(c);
      return;
    }
    c->written += n;
  }
  c->written = c->out.length = 0;
  want_out(c, 0);
}

// ---- answers ----

static void build_answer(void) {
  static const char words[] = "the quick brown fox jumps over the lazy dog and then writes a short answer ";
  char text[561], body[2048];
  for (size_t i = 0; i < sizeof text - 1; i++) text[i] = words[i % (sizeof words - 1)];
  text[sizeof text - 1] = 0;
  int length = snprintf(body, sizeof body,
      HEAD "\"object\":\"chat.completion\",\"created\":1763850000,\"system_fingerprint\":null,"
      "\"choices\":[{\"logprobs\":null,\"finish_reason\":\"stop\",\"native_finish_reason\":\"stop\",\"index\":0,"
      "\"message\":{\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null,\"reasoning\":null}}]," USAGE "}", text);
  answer_length = snprintf(answer, sizeof answer,
      "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Generation-Id: gen-1763850000-AbCdEfGhIjKlMnOpQrSt\r\n"
      "Content-Length: %d\r\nConnection: keep-alive\r\n\r\n%s", length, body);
}

static void put_stream_head(Connection *c) {
  static const char head[] =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
      "X-Generation-Id: gen-1763850000-AbCdEfGhIjKlMnOpQrSt\r\n"
      "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n";
  put(c, head, sizeof head - 1);
  c->started = 1;
  c->events_sent = 0;
}

// Puts the next event; 1 when the stream is over.
static int put_event(Connection *c) {
  if (c->events_sent < EVENTS_PER_STREAM) {
    char event[1024];
    int length = snprintf(event, sizeof event,
        "data: " CHUNK "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\" tok@%lld@\"},"
        "\"finish_reason\":null,\"native_finish_reason\":null,\"logprobs\":null}]}\n\n", (long long)now_ns());
    put_frame(c, event, length);
    c->events_sent++;
    return 0;
  }
  static const char finish[] =
      "data: " CHUNK "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
      "\"finish_reason\":\"stop\",\"native_finish_reason\":\"stop\",\"logprobs\":null}]}\n\n";
  static const char usage[] = "data: " CHUNK "\"choices\":[]," USAGE "}\n\n";
  static const char done[] = "data: [DONE]\n\n";
  put_frame(c, finish, sizeof finish - 1);
  put_frame(c, usage, sizeof usage - 1);
  put_frame(c, done, sizeof done - 1);
  put(c, "0\r\n\r\n", 5);
  return 1;
}

static void read_request(Connection *c);

static void finish_answer(Connection *c) {
  c->answering = 0;
  if (c->in.length) read_request(c);
}

static void answer_now(Connection *c) {
  int over = 1;
  if (!c->streaming) {
    put(c, answer, answer_length);
  } else {
    if (!c->started) put_stream_head(c);
    do over = put_event(c); while (!over && !c->gap_ns);
  }
  flush_out(c);
  if (c->closed) return;
  if (over) finish_answer(c);
}

static void on_timer(Connection *c, int64_t now) {
  int64_t due = c->due;
  timer_cancel(c);
  answer_now(c);
  if (c->closed || !c->answering || !c->streaming) return;
  int64_t next = due + c->gap_ns;
  timer_start(c, next > now ? next : now);
}

// ---- reading ----

static const char *header_value(const char *head, size_t length, const char *name) {
  size_t n = strlen(name);
  for (size_t i = 0; i + n < length; i++)
    if (head[i] == '\n' && !strncasecmp(head + i + 1, name, n)) return head + i + 1 + n;
  return NULL;
}

// Length of the whole request at the start of the buffer, 0 while it is not complete.
static size_t request_length(Connection *c, size_t head) {
  const char *value;
  if ((value = header_value(c->in.bytes, head, "content-length:"))) {
    size_t whole = head + strtoul(value, NULL, 10);
    return c->in.length >= whole ? whole : 0;
  }
  if (header_value(c->in.bytes, head, "transfer-encoding:")) {
    char *end = memmem(c->in.bytes + head, c->in.length - head, "0\r\n\r\n", 5);
    return end ? (size_t)(end - c->in.bytes) + 5 : 0;
  }
  return head;
}

static void read_timing(Connection *c, const char *body, size_t length) {
  c->delay_ns = c->gap_ns = 0;
  const char *mark = memmem(body, length, "#!", 2);
  if (!mark || mark + 3 >= body + length) return;
  long value = strtol(mark + 3, NULL, 10);
  if (mark[2] == 'd') c->delay_ns = value * 1000000L;
  if (mark[2] == 'g') c->gap_ns = value * 1000L;
}

static void answer_get(Connection *c) {
  static const char empty[] =
      "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\nConnection: keep-alive\r\n\r\n{\"data\":[]}";
  put(c, empty, sizeof empty - 1);
  flush_out(c);
  if (!c->closed) finish_answer(c);
}

static void read_request(Connection *c) {
  if (c->answering) return;
  char *end = memmem(c->in.bytes, c->in.length, "\r\n\r\n", 4);
  if (!end) return;
  size_t head = end - c->in.bytes + 4, whole = request_length(c, head);
  if (!whole) {
    if (c->in.length == head && header_value(c->in.bytes, head, "expect:")) {
      put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
      flush_out(c);
    }
    return;
  }
  const char *body = c->in.bytes + head;
  size_t length = whole - head;
  int get = !memcmp(c->in.bytes, "GET", 3);
  c->streaming = memmem(body, length, "\"stream\":true", 13) || memmem(body, length, "\"stream\": true", 14);
  c->started = 0;
  read_timing(c, body, length);
  memmove(c->in.bytes, c->in.bytes + whole, c->in.length - whole);
  c->in.length -= whole;
  c->answering = 1;
  if (get) {
    answer_get(c);
  } else if (c->delay_ns || (c->streaming && c->gap_ns)) {
    timer_start(c, now_ns() + c->delay_ns);
  } else {
    answer_now(c);
  }
}

static void on_readable(Connection *c) {
  if (c->in.length == c->in.capacity) {
    c->in.capacity *= 2;
    c->in.bytes = realloc(c->in.bytes, c->in.capacity);
  }
  ssize_t n = recv(c->fd, c->in.bytes + c->in.length, c->in.capacity - c->in.length, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) {
    close_connection(c);
    return;
  }
  c->in.length += n;
  read_request(c);
}

// ---- the loop ----

static void accept_all(int listener) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), one = 1;
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    Connection *c = calloc(1, sizeof *c);
    c->fd = fd;
    c->timer = -1;
    c->in.capacity = FIRST_BUFFER;
    c->in.bytes = malloc(FIRST_BUFFER);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
  }
}

static int listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(fd, (void *)&a, sizeof a) || listen(fd, 4096)) {
    perror("mock: cannot listen");
    exit(1);
  }
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
  epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
  return fd;
}

static void free_closed(void) {
  while (closed_list) {
    Connection *c = closed_list;
    closed_list = c->next_closed;
    free(c->in.bytes);
    free(c->out.bytes);
    free(c);
  }
}

static void on_stop(int signal_number) {
  (void)signal_number;
  stopping = 1;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: mock PORT\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  signal(SIGTERM, on_stop);
  signal(SIGINT, on_stop);
  prctl(PR_SET_TIMERSLACK, 1000);
  build_answer();
  poller = epoll_create1(0);
  int listener = listen_on(atoi(argv[1]));
  struct epoll_event ready[READY_MAX];
  while (!stopping) {
    struct timespec wait = {0};
    if (timer_count) {
      int64_t left = timers[0]->due - now_ns();
      if (left > 0) wait = (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    }
    int n = epoll_pwait2(poller, ready, READY_MAX, timer_count ? &wait : NULL, NULL);
    for (int i = 0; i < n; i++) {
      Connection *c = ready[i].data.ptr;
      if (!c) {
        accept_all(listener);
        continue;
      }
      if (!c->closed && ready[i].events & EPOLLOUT) flush_out(c);
      if (!c->closed && ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
    }
    int64_t now = now_ns();
    while (timer_count && timers[0]->due <= now) on_timer(timers[0], now);
    free_closed();
  }
  return 0;
}
