/* Files: what the host can ask for.
 *
 *     GET  /status                          → {"files": n}, a bounded count of regular files in the workspace
 *     POST /files/write                     length (4 bytes), {"files": [{path, size, mode, append}]}, contents
 *                                           → {"sizes": [n]}
 *     GET  /files/list?path=&recursive=&limit=&offset=  → {"files": [{path, size, modified, type}], "total": n}
 *     GET  /files/read?path=&limit=         → bytes, field size
 *     POST /files/delete?path=&recursive=   → {}
 *     GET  /contents?path=&start=&end=&ticket=   → bytes, fields: see `read_part`; or `last=` instead of start and end
 *     POST /uploads?path=&mode=             → {"upload": id}; the same with `ticket=&size=` → {"upload", "held": true}
 *     POST /uploads/part?upload=            bytes → {}
 *     POST /uploads/end?upload=             → {"size": n}
 *     POST /uploads/drop?upload=            → {}
 *     POST /files/mkdir?path=               → {"created": bool}
 *     POST /files/move?from=&to=&overwrite= → {}
 *     GET  /files/stat?path=                → {"type", "size", "modified", "mode", "target"} */

#include "bodies.h"
#include "list.h"
#include "moves.h"
#include "read.h"
#include "remove.h"
#include "uploads.h"
#include "write.h"

static const int64_t LARGEST_NUMBER = ((int64_t)1 << 53) - 1;
enum { ENTRIES = 1000, MOST_MODE = 07777 };

static void answer_count(void *self, long files) { answer_format(self, "{\"files\":%ld}", files); }

static void status(struct asked *asked) { count_files(settings.workspace, answer_count, asked); }

static void list(struct asked *asked) {
  struct failure failure;
  int64_t limit, offset;
  const char *path = NULL;
  if (asked_number(asked, "limit", ENTRIES, &limit, &failure) && asked_number(asked, "offset", 0, &offset, &failure))
    path = asked_path(asked, "path", &failure);
  if (path == NULL) return answer_failure(asked, &failure);
  list_directory(asked, path, asked_flag(asked, "recursive"), limit, offset);
}

static void read_all(struct asked *asked) {
  struct failure failure;
  int64_t limit;
  const char *path = asked_path(asked, "path", &failure);
  if (path == NULL || !asked_number(asked, "limit", LARGEST_BODY, &limit, &failure))
    return answer_failure(asked, &failure);
  read_file(asked, path, limit);
}

static void delete(struct asked *asked) {
  struct failure failure;
  const char *path = asked_path(asked, "path", &failure);
  if (path == NULL) return answer_failure(asked, &failure);
  remove_path(asked, path, asked_flag(asked, "recursive"));
}

static bool range_in(struct asked *asked, int64_t *start, int64_t *end, struct failure *failure) {
  return asked_number(asked, "end", LARGEST_NUMBER, end, failure) && asked_number(asked, "start", 0, start, failure);
}

static void contents(struct asked *asked) {
  struct failure failure;
  int64_t last, start = -1, end;
  bool failed = false;
  const char *path = asked_path(asked, "path", &failure);
  if (path == NULL || !asked_number(asked, "last", -1, &last, &failure)) return answer_failure(asked, &failure);
  const char *ticket = ticket_in(asked, &failed, &failure);
  if (failed) return answer_failure(asked, &failure);
  if (last >= 0) end = last;
  else if (!range_in(asked, &start, &end, &failure)) return answer_failure(asked, &failure);
  read_part(asked, path, start, end, ticket);
}

static void begin_upload(struct asked *asked) {
  struct failure failure;
  int64_t mode, size = 0;
  bool failed = false;
  if (!asked_number(asked, "mode", -1, &mode, &failure)) return answer_failure(asked, &failure);
  const char *ticket = ticket_in(asked, &failed, &failure);
  const char *path = failed ? NULL : asked_path(asked, "path", &failure);
  if (path == NULL) return answer_failure(asked, &failure);
  if (ticket != NULL && !asked_number(asked, "size", 0, &size, &failure)) return answer_failure(asked, &failure);
  int bits = mode < 0 ? -1 : (int)(mode & MOST_MODE);
  const char *id = upload_begin(path, bits, ticket, size, &failure);
  if (id == NULL) return answer_failure(asked, &failure);
  answer_format(asked, "{\"upload\":\"%s\"%s}", id, ticket != NULL ? ",\"held\":true" : "");
}

static void add_part(struct asked *asked, const uint8_t *bytes, size_t size) {
  struct failure failure;
  if (upload_add(asked_text(asked, "upload"), bytes, size, &failure)) answer_empty(asked);
  else answer_failure(asked, &failure);
}

static void upload_part(struct asked *asked) { asked_whole(asked, add_part); }

static void end_upload(struct asked *asked) {
  struct failure failure;
  int64_t size;
  if (!upload_end(asked_text(asked, "upload"), &size, &failure)) return answer_failure(asked, &failure);
  answer_format(asked, "{\"size\":%lld}", (long long)size);
}

static void drop_upload(struct asked *asked) {
  upload_drop(asked_text(asked, "upload"));
  answer_empty(asked);
}

static void mkdir_path(struct asked *asked) {
  struct failure failure;
  bool created;
  const char *path = asked_path(asked, "path", &failure);
  if (path == NULL || !make_directory(path, &created, &failure)) return answer_failure(asked, &failure);
  answer_format(asked, "{\"created\":%s}", created ? "true" : "false");
}

static void move(struct asked *asked) {
  struct failure failure;
  const char *from = asked_path(asked, "from", &failure);
  const char *to = from == NULL ? NULL : asked_path(asked, "to", &failure);
  if (to == NULL || !move_path(from, to, asked_flag(asked, "overwrite"), &failure))
    return answer_failure(asked, &failure);
  answer_empty(asked);
}

static void stat_path(struct asked *asked) {
  struct failure failure;
  struct bytes answer = {0};
  const char *path = asked_path(asked, "path", &failure);
  if (path != NULL && put_status(path, &answer, &failure)) return answer_json(asked, &answer);
  bytes_free(&answer);
  answer_failure(asked, &failure);
}

const struct operation files_operations[] = {
    {"GET /status",        status      },
    {"POST /files/write",  write_files },
    {"GET /files/list",    list        },
    {"GET /files/read",    read_all    },
    {"POST /files/delete", delete      },
    {"GET /contents",      contents    },
    {"POST /uploads",      begin_upload},
    {"POST /uploads/part", upload_part },
    {"POST /uploads/end",  end_upload  },
    {"POST /uploads/drop", drop_upload },
    {"POST /files/mkdir",  mkdir_path  },
    {"POST /files/move",   move        },
    {"GET /files/stat",    stat_path   },
    {NULL,                 NULL        },
};
