// Load generator: one thread, epoll, HTTP/1.1 keep-alive, loopback only. Prints one JSON line.
//
//   load --port P --path PATH --body FILE [--header "K: v"]... [--connections N]
//        [--rate R] [--seconds S] [--warm S] [--sse]
//
// --rate 0 (default) is a closed loop: each connection asks again as soon as it has its answer.
// --rate R sends at a constant rate; latency counts from the moment a request was scheduled, so
// a server that stalls cannot hide the requests it kept waiting.
// --sse reads "@<monotonic ns>@" stamps out of the stream (see mock.c): time to the first body
// byte, events, and how long each event was on its way.
//
// Times are microseconds. `finished` and `events_seen` count the warm part and what was still under
// way at the end of the window too; nothing else does.
// Events count as they come, so that a gateway too slow to end a stream still shows its rate.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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

enum { READY_MAX = 256, HEAD_MAX = 8192, HEADERS_MAX = 8192, BODY_MAX = 1 << 22, READ_MAX = 1 << 18 };
enum { SHOWN_ERROR = 200 };
static const int64_t LONGEST_WAIT_NS = 50000000, DRAIN_NS = 5000000000;

typedef struct {
  double *values;
  size_t count, capacity;
} Samples;

typedef enum { SIZE_LINE, CHUNK_BYTES, CHUNK_END, LAST_LINE } ChunkState;

typedef struct Connection {
  int fd, busy, wants_out;
  size_t sent;               // bytes of the request already written
  int64_t asked, first_byte; // ns; `asked` is the scheduled time at a constant rate
  char head[HEAD_MAX];
  int head_length, in_body, status, close_after;
  long length, received;     // content-length (-1 without one) and what came of it
  int chunked;
  ChunkState chunk;
  long chunk_left;
  char stamp[24];
  int in_stamp, stamp_length;
} Connection;

static struct {
  int port, connections, sse;
  double rate, seconds, warm;
  const char *path, *body_file;
  char headers[HEADERS_MAX];
} options = {.connections = 32, .seconds = 3, .warm = 0.5, .path = "/v1/chat/completions"};

static int poller, counting;
static struct sockaddr_in address;
static char *request;
static size_t request_length;
static Connection *connections;
static int *idle, idle_first, idle_count; // ring of connections without a request
static Samples latency, first_byte, lag;
static uint64_t good, bad, finished, events, events_seen, reconnects;
static int last_status;
static char last_error[SHOWN_ERROR + 1];

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void add_sample(Samples *s, double value) {
  if (s->count == s->capacity) {
    s->capacity = s->capacity ? s->capacity * 2 : 4096;
    s->values = realloc(s->values, s->capacity * sizeof *s->values);
  }
  s->values[s->count++] = value;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

// Of sorted samples; -1 when there are none.
static double quantile(const Samples *s, double q) {
  return s->count ? s->values[(size_t)(q * (s->count - 1) + 0.5)] : -1;
}

// ---- connections ----

static void set_idle(Connection *c) {
  c->busy = 0;
  idle[(idle_first + idle_count++) % options.connections] = c - connections;
}

static Connection *take_idle(void) {
  Connection *c = &connections[idle[idle_first]];
  idle_first = (idle_first + 1) % options.connections;
  idle_count--;
  return c;
}

static int connect_again(Connection *c) {
  int one = 1;
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(c->fd, (void *)&address, sizeof address)) {
    close(c->fd);
    c->fd = -1;
    return 0;
  }
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  c->wants_out = 0;
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e);
  return 1;
}

static void disconnect(Connection *c) {
  close(c->fd);
  c->fd = -1;
  reconnects++;
}

static void write_request(Connection *c) {
  while (c->sent < request_length) {
    ssize_t n = send(c->fd, request + c->sent, request_length - c->sent, MSG_NOSIGNAL);
    if (n < 0) break; // EAGAIN waits for EPOLLOUT; anything else shows when reading
    c->sent += n;
  }
  int wanted = c->sent < request_length;
  if (wanted == c->wants_out) return;
  c->wants_out = wanted;
  struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = c};
  epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
}

// 0 when the gateway refuses the connection.
static int ask(Connection *c, int64_t scheduled) {
  if (c->fd < 0 && !connect_again(c)) {
    bad += counting;
    set_idle(c);
    return 0;
  }
  c->busy = 1;
  c->asked = scheduled;
  c->first_byte = 0;
  c->sent = 0;
  c->head_length = c->in_body = c->close_after = c->chunked = 0;
  c->length = -1;
  c->received = 0;
  c->chunk = SIZE_LINE;
  c->chunk_left = 0;
  c->in_stamp = c->stamp_length = 0;
  write_request(c);
  return 1;
}

static void keep_error(const Connection *c) {
  last_status = c->status;
  if (last_error[0]) return;
  int n = c->head_length < SHOWN_ERROR ? c->head_length : SHOWN_ERROR;
  for (int i = 0; i < n; i++) {
    char ch = c->head[i];
    last_error[i] = ch < 32 || ch == '"' || ch == '\\' ? ' ' : ch;
  }
}

static void finish(Connection *c, int whole) {
  int64_t now = now_ns();
  finished++;
  if (counting && whole && c->status == 200) {
    good++;
    add_sample(&latency, (now - c->asked) / 1e3);
    if (c->first_byte) add_sample(&first_byte, (c->first_byte - c->asked) / 1e3);
  } else if (counting) {
    bad++;
    keep_error(c);
  }
  if (!whole || c->close_after) disconnect(c);
  set_idle(c);
}

// ---- reading answers ----

static void read_stamps(Connection *c, const char *bytes, long n) {
  int64_t now = 0;
  for (long i = 0; i < n; i++) {
    char ch = bytes[i];
    if (!c->in_stamp) {
      c->in_stamp = ch == '@';
      c->stamp_length = 0;
    } else if (ch >= '0' && ch <= '9' && c->stamp_length < 22) {
      c->stamp[c->stamp_length++] = ch;
    } else {
      c->in_stamp = 0;
      if (ch != '@' || c->stamp_length < 9) continue;
      c->stamp[c->stamp_length] = 0;
      events_seen++;
      if (!counting) continue;
      if (!now) now = now_ns();
      events++;
      add_sample(&lag, (now - atoll(c->stamp)) / 1e3);
    }
  }
}

static int hex_digit(char ch) {
  if (ch >= '0' && ch <= '9') return ch - '0';
  ch |= 32;
  return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

// 1 when the last chunk has come.
static int read_chunked(Connection *c, const char *bytes, long n) {
  while (n > 0) {
    if (c->chunk == CHUNK_BYTES) {
      long part = n < c->chunk_left ? n : c->chunk_left;
      if (options.sse) read_stamps(c, bytes, part);
      bytes += part;
      n -= part;
      c->chunk_left -= part;
      if (!c->chunk_left) c->chunk = CHUNK_END;
      continue;
    }
    char ch = *bytes++;
    n--;
    if (c->chunk == SIZE_LINE && ch != '\n') {
      int digit = hex_digit(ch);
      if (digit >= 0) c->chunk_left = c->chunk_left * 16 + digit;
    } else if (ch == '\n') {
      if (c->chunk == LAST_LINE) return 1;
      if (c->chunk == SIZE_LINE) c->chunk = c->chunk_left ? CHUNK_BYTES : LAST_LINE;
      else c->chunk = SIZE_LINE;
    }
  }
  return 0;
}

// 1 when the body is whole.
static int read_body(Connection *c, const char *bytes, long n) {
  if (n > 0 && !c->first_byte) c->first_byte = now_ns();
  if (c->chunked) return read_chunked(c, bytes, n);
  if (options.sse) read_stamps(c, bytes, n);
  c->received += n;
  return c->length >= 0 && c->received >= c->length;
}

static const char *header_value(const char *head, const char *name) {
  size_t n = strlen(name);
  for (const char *line = strchr(head, '\n'); line; line = strchr(line + 1, '\n')) {
    if (strncasecmp(line + 1, name, n)) continue;
    const char *value = line + 1 + n;
    while (*value == ' ') value++;
    return value;
  }
  return NULL;
}

// Bytes of the head inside `bytes`, -1 while it is not complete.
static long read_head(Connection *c, const char *bytes, long n) {
  int before = c->head_length, room = HEAD_MAX - 1 - before;
  memcpy(c->head + before, bytes, n < room ? n : room);
  c->head_length += n < room ? n : room;
  c->head[c->head_length] = 0;
  char *end = strstr(c->head, "\r\n\r\n");
  if (!end) return -1;
  long used = end - c->head + 4 - before;
  end[2] = 0;
  const char *value;
  c->status = atoi(c->head + 9);
  if ((value = header_value(c->head, "content-length:"))) c->length = atol(value);
  c->chunked = header_value(c->head, "transfer-encoding:") != NULL;
  if ((value = header_value(c->head, "connection:"))) c->close_after = !strncasecmp(value, "close", 5);
  c->in_body = 1;
  return used;
}

static void on_closed(Connection *c) {
  if (!c->busy) {
    disconnect(c);
    return;
  }
  int until_close = c->in_body && !c->chunked && c->length < 0;
  c->close_after = 1;
  finish(c, until_close);
}

static void on_readable(Connection *c) {
  static char buffer[READ_MAX];
  ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) {
    on_closed(c);
    return;
  }
  if (!c->busy) return;
  long used = 0;
  if (!c->in_body && (used = read_head(c, buffer, n)) < 0) return;
  if (c->length == 0 || read_body(c, buffer + used, n - used)) finish(c, 1);
}

// ---- the run ----

// Sends what is due; returns how many requests are late because every connection is busy.
static long send_due(int64_t now, int64_t *next, int64_t period) {
  if (!period) {
    while (idle_count)
      if (!ask(take_idle(), now_ns())) {
        usleep(1000);
        break;
      }
    return 0;
  }
  while (*next <= now && idle_count) {
    ask(take_idle(), *next);
    *next += period;
  }
  return *next <= now ? (now - *next) / period : 0;
}

static void wait_and_read(int64_t wait) {
  struct epoll_event ready[READY_MAX];
  struct timespec t = {.tv_nsec = wait < 0 ? 0 : wait < LONGEST_WAIT_NS ? wait : LONGEST_WAIT_NS};
  int n = epoll_pwait2(poller, ready, READY_MAX, &t, NULL);
  for (int i = 0; i < n; i++) {
    Connection *c = ready[i].data.ptr;
    if (c->busy && ready[i].events & EPOLLOUT) write_request(c);
    if (c->fd >= 0 && ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
  }
}

static void print_result(double elapsed, long late) {
  double sum = 0;
  for (size_t i = 0; i < latency.count; i++) sum += latency.values[i];
  Samples *all[] = {&latency, &first_byte, &lag};
  for (int i = 0; i < 3; i++)
    if (all[i]->count) qsort(all[i]->values, all[i]->count, sizeof(double), by_value);
  printf("{\"ok\":%llu,\"errors\":%llu,\"finished\":%llu,\"elapsed\":%.3f,\"rps\":%.1f,",
         (unsigned long long)good, (unsigned long long)bad, (unsigned long long)finished, elapsed, good / elapsed);
  printf("\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f,", latency.count ? sum / latency.count : -1,
         quantile(&latency, .5), quantile(&latency, .9), quantile(&latency, .99), quantile(&latency, 1));
  printf("\"ttfb_p50\":%.1f,\"ttfb_p99\":%.1f,\"events\":%llu,\"events_seen\":%llu,\"events_per_s\":%.0f,\"lag_p50\":%.1f,\"lag_p99\":%.1f,",
         quantile(&first_byte, .5), quantile(&first_byte, .99), (unsigned long long)events, (unsigned long long)events_seen, events / elapsed,
         quantile(&lag, .5), quantile(&lag, .99));
  printf("\"reconnects\":%llu,\"late\":%ld,\"last_status\":%d,\"last_error\":\"%s\"}\n",
         (unsigned long long)reconnects, late, last_status, last_error);
}

// Ends what is under way, so that a gateway's processor time belongs to finished requests.
static void drain(int64_t now) {
  for (int64_t end = now + DRAIN_NS; idle_count < options.connections && now < end; now = now_ns())
    wait_and_read(LONGEST_WAIT_NS);
}

static void run(void) {
  int64_t start = now_ns(), from = start + (int64_t)(options.warm * 1e9);
  int64_t until = from + (int64_t)(options.seconds * 1e9);
  int64_t period = options.rate > 0 ? (int64_t)(1e9 / options.rate) : 0, next = start, now = start;
  long late = 0;
  for (; now < until; now = now_ns()) {
    if (!counting && now >= from) {
      counting = 1;
      from = now;
    }
    long behind = send_due(now, &next, period);
    if (counting && behind > late) late = behind;
    wait_and_read(period && idle_count ? next - now_ns() : LONGEST_WAIT_NS);
  }
  counting = 0;
  drain(now);
  print_result((now - from) / 1e9, late);
}

static int read_options(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    const char *name = argv[i];
    if (!strcmp(name, "--sse")) {
      options.sse = 1;
      continue;
    }
    if (++i >= argc) return 0;
    const char *value = argv[i];
    if (!strcmp(name, "--port")) options.port = atoi(value);
    else if (!strcmp(name, "--path")) options.path = value;
    else if (!strcmp(name, "--body")) options.body_file = value;
    else if (!strcmp(name, "--connections")) options.connections = atoi(value);
    else if (!strcmp(name, "--rate")) options.rate = atof(value);
    else if (!strcmp(name, "--seconds")) options.seconds = atof(value);
    else if (!strcmp(name, "--warm")) options.warm = atof(value);
    else if (!strcmp(name, "--header")) {
      size_t used = strlen(options.headers);
      if (used + strlen(value) + 3 > HEADERS_MAX) return 0;
      sprintf(options.headers + used, "%s\r\n", value);
    } else return 0;
  }
  return options.port && options.body_file && options.connections > 0;
}

static int build_request(void) {
  FILE *file = fopen(options.body_file, "rb");
  if (!file) {
    perror("load: body");
    return 0;
  }
  char *body = malloc(BODY_MAX);
  size_t length = fread(body, 1, BODY_MAX, file);
  fclose(file);
  request = malloc(length + 2 * HEADERS_MAX);
  int head = snprintf(request, 2 * HEADERS_MAX,
      "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: load/1\r\nAccept: */*\r\n"
      "Content-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n",
      options.path, options.port, options.headers, length);
  memcpy(request + head, body, length);
  request_length = head + length;
  free(body);
  return 1;
}

int main(int argc, char **argv) {
  if (!read_options(argc, argv)) {
    fprintf(stderr, "load: see the first lines of load.c for its options\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1000);
  if (!build_request()) return 1;
  address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(options.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  poller = epoll_create1(0);
  connections = calloc(options.connections, sizeof *connections);
  idle = calloc(options.connections, sizeof *idle);
  for (int i = 0; i < options.connections; i++) {
    if (!connect_again(&connections[i])) {
      printf("{\"error\":\"cannot connect\"}\n");
      return 1;
    }
    set_idle(&connections[i]);
  }
  run();
  return 0;
}
