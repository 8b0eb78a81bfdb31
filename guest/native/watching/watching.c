/* Watching files: what the host can ask for.
 *
 *     GET  /files/watch?path=&recursive=     → frames
 *
 *     w   the guest begins to set up watches
 *     r   everything is watched
 *     c   changes: [{event, path, from?, type?}]; paths are relative to what is watched, "" for itself
 *     l   events were lost
 *     u   {path}: a directory that is not watched, because there are too many
 *     x   {}: what was watched is gone
 *
 * A path is {"raw"} in base64 when it is not UTF-8. Recursive watches leave out node_modules and .git.
 *
 * A watch works in turns: it takes all notices, works out what they mean (hearing.c), scans the directories that have
 * appeared, and reports what has changed (telling.c). It frees itself, in a later turn of the loop, after what it
 * watched is gone or the host has left. */

#include "watching.h"
#include "asked.h"
#include "names.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const double GATHER = 25;        /* ms: changes within this time are reported together */
static const double PARTNER = 10;       /* ms to wait for the second half of a rename */
static const double LONGEST_TURN = 500; /* ms after which known changes are reported */
static const double LONGEST_RECOVERY = 10000;
static const double RECOVERY = 200; /* ms between losing events and scanning everything again */

/* --- Scans --- */

void watching_scan(struct watching *watching, struct directory *directory, bool is_news) {
  directory->is_scanned = true;
  if (is_news) directory->is_news = true;
  if (!watching->is_recursive) return;
  if (watching->scan_count == watching->scan_room) {
    watching->scan_room = watching->scan_room == 0 ? 16 : 2 * watching->scan_room;
    watching->scans = more_memory(watching->scans, watching->scan_room * sizeof(struct directory *));
  }
  watching->scans[watching->scan_count++] = directory_hold(directory);
}

static void end_scan(struct watching *watching) {
  if (watching->walk == NULL) return;
  walk_end(watching->walk);
  watching->walk = NULL;
  directory_release(watching->scanned);
}

static void forget_scans(struct watching *watching) {
  end_scan(watching);
  while (watching->scan_count > 0) directory_release(watching->scans[--watching->scan_count]);
  free(watching->scans);
  watching->scans = NULL;
  watching->scan_room = 0;
}

static bool enters_nothing(void *self, const struct found *found) { return false; }

static void begin_scan(struct watching *watching) {
  struct directory *directory = watching->scans[--watching->scan_count];
  if (!directory->is_watched) return directory_release(directory); /* gone, and what took its place has its own scan */
  char *place = place_in(&watching->directories, directory, "");
  watching->scanned = directory;
  watching->walk = walk_begin(place, enters_nothing, NULL);
  free(place);
}

/* One step of the scans. False when nothing is to be scanned. */
static bool scan_more(struct watching *watching) {
  if (watching->walk == NULL && watching->scan_count == 0) {
    free(watching->scans);
    watching->scans = NULL;
    watching->scan_room = 0;
    return false;
  }
  if (watching->walk == NULL) {
    begin_scan(watching);
    return true;
  }
  struct found found;
  struct failure failure;
  switch (walk_next(watching->walk, &found, &failure)) {
    case WALK_FOUND: watching_found(watching, watching->scanned, found.name, found.kind == KIND_DIRECTORY); return true;
    case WALK_FAILED: /* gone or moved with its parent; the notice has yet to arrive */
      failure_free(&failure);
      watching->scanned->is_scanned = false;
      break;
    case WALK_END: watching->scanned->is_news = false; break;
  }
  end_scan(watching);
  return true;
}

/* --- The end --- */

static void dispose(struct later *later) {
  struct watching *watching = MEMBER(later, struct watching, disposal);
  if (watching->outbox != NULL) outbox_finish(watching->outbox, NULL, 0);
  forget_scans(watching);
  watching_forget_leaving(watching);
  watching_forget_missed(watching);
  untold_overflow(&watching->untold);
  directories_end(&watching->directories);
  inotify_end(&watching->inotify);
  free(watching->unwatched);
  free(watching->only);
  free(watching->at);
  free(watching);
}

static void stop(struct watching *watching) {
  watching->is_over = true;
  inotify_end(&watching->inotify);
  timer_end(&watching->timer);
  later_end(&watching->work);
  later_begin(&watching->disposal, dispose);
}

void watching_end(struct watching *watching) {
  if (watching->only == NULL) untold_add(&watching->untold, EVENT_DELETED, "", true);
  watching->is_busy = false;
  watching_tell(watching);
  struct outbox *outbox = watching->outbox;
  watching->outbox = NULL;
  if (!watching->is_over) stop(watching);
  struct bytes frame = {0};
  frame_add(&frame, 'x', "{}", 2);
  outbox_on_gone(outbox, NULL, NULL);
  outbox_finish(outbox, frame.data, frame.size);
  bytes_free(&frame);
}

static void host_has_left(void *self) {
  struct watching *watching = self;
  if (watching->is_over) return;
  outbox_abandon(watching->outbox);
  if (!watching->is_over) stop(watching);
}

static void has_room(void *self) {
  struct watching *watching = self;
  if (watching->outbox != NULL) watching_tell(watching);
}

/* --- Turns --- */

static void push(struct watching *watching, char type) {
  struct bytes frame = {0};
  frame_add(&frame, type, "{}", 2);
  outbox_push(watching->outbox, frame.data, frame.size);
  bytes_free(&frame);
}

static void work(struct later *later);

static void begin_turn(struct watching *watching) {
  if (watching->is_busy || watching->is_over) return;
  watching->is_busy = true;
  watching->phase = WATCHING_HEARS;
  watching->turn++;
  watching->until = now() + LONGEST_TURN;
  later_begin(&watching->work, work);
}

static void notices_have_come(struct inotify *inotify) { begin_turn(MEMBER(inotify, struct watching, inotify)); }

static void partners_had_time(struct timer *timer) { begin_turn(MEMBER(timer, struct watching, timer)); }

static void end_turn(struct watching *watching) {
  watching_settle(watching);
  watching->recovery = 0;
  watching->is_busy = false;
  watching_tell(watching);
  if (watching->is_over) return;
  if (watching->leaving.first != NULL || inotify_has_more(&watching->inotify))
    return timer_begin(&watching->timer, PARTNER, partners_had_time);
  watching_forget_missed(watching);
  inotify_rearm(&watching->inotify);
}

/* Starts over: events were lost, and with them directories that should be watched. */
static void begin_again(struct timer *timer) {
  struct watching *watching = MEMBER(timer, struct watching, timer);
  struct failure failure;
  forget_scans(watching);
  watching_forget_leaving(watching);
  watching_forget_missed(watching);
  inotify_end(&watching->inotify); /* first, so that it need not forget each directory */
  directories_end(&watching->directories);
  watching->told_unwatched = false;
  untold_overflow(&watching->untold);
  if (!inotify_begin(&watching->inotify, notices_have_come, GATHER, &failure)) {
    failure_free(&failure);
    return watching_end(watching);
  }
  if (!directories_begin(&watching->directories, watching->at, &watching->inotify)) return watching_end(watching);
  watching->phase = WATCHING_HEARS;
  watching_scan(watching, watching->directories.root, false);
  later_begin(&watching->work, work);
}

/* The host is told when all is watched again. If that does not succeed at once, it is told before: what makes a tree
 * impossible to watch, as a mount of it in itself, may stay. */
static bool recover(struct watching *watching) {
  bool is_again = watching->recovery > 0;
  double wait = is_again ? watching->recovery : RECOVERY;
  watching->recovery = 2 * wait < LONGEST_RECOVERY ? 2 * wait : LONGEST_RECOVERY;
  watching->is_lost = false;
  watching->phase = WATCHING_RECOVERS;
  untold_overflow(&watching->untold);
  watching->is_busy = !is_again;
  watching_tell(watching);
  watching->is_busy = true;
  if (!watching->is_over) timer_begin(&watching->timer, wait, begin_again);
  return false;
}

/* One step of a turn in which nothing is to be scanned. False when there is nothing to do now. */
static bool advance(struct watching *watching) {
  if (watching->phase == WATCHING_BEGINS) {
    push(watching, 'r');
    watching->is_busy = false;
    begin_turn(watching);
    return false;
  }
  struct notice notice;
  if (inotify_next(&watching->inotify, &notice)) {
    watching_hear(watching, &notice);
    return true;
  }
  if (watching->is_lost || watching->directories.is_confused) return recover(watching);
  if (inotify_has_more(&watching->inotify) && now() < watching->until) {
    inotify_read(&watching->inotify);
    return true;
  }
  end_turn(watching);
  return false;
}

/* A directory's contents are reported before later changes. */
static void work(struct later *later) {
  struct watching *watching = MEMBER(later, struct watching, work);
  struct pace pace;
  pace_begin(&pace, 0);
  while (!watching->is_over) {
    if (pace_is_due(&pace)) return later_begin(&watching->work, work);
    if (!scan_more(watching) && !advance(watching)) return;
  }
}

/* --- The beginning --- */

/* Finds what is to be watched. Fails as a `stat` of the path does. */
static bool look_at(struct watching *watching, const char *path, bool is_recursive, struct failure *failure) {
  struct stat found;
  if (stat(path, &found) != 0) return fail_call(failure, errno, "stat", path);
  char *real = realpath(path, NULL);
  if (real == NULL) return fail_call(failure, errno, "realpath", path);
  if (S_ISDIR(found.st_mode)) {
    watching->at = real;
    watching->is_recursive = is_recursive;
    return true;
  }
  char *slash = strrchr(real, '/');
  watching->only = copy_text(slash + 1);
  slash[slash == real ? 1 : 0] = '\0';
  watching->at = real;
  return true;
}

static bool root_fails(const char *path, struct failure *failure) {
  struct stat found;
  if (lstat(path, &found) != 0) return fail_call(failure, errno, "lstat", path);
  return fail(failure, EMFILE, "no more can be watched");
}

static bool set_up(struct watching *watching, const char *path, bool is_recursive, struct failure *failure) {
  if (!look_at(watching, path, is_recursive, failure)) return false;
  if (!inotify_begin(&watching->inotify, notices_have_come, GATHER, failure)) return false;
  return directories_begin(&watching->directories, watching->at, &watching->inotify) || root_fails(path, failure);
}

static void watch_files(struct asked *asked) {
  struct failure failure;
  const char *path = asked_path(asked, "path", &failure);
  if (path == NULL) return answer_failure(asked, &failure);
  struct watching *watching = memory(sizeof *watching);
  watching->inotify.watch.fd = -1;
  watching->is_busy = true;
  watching->phase = WATCHING_BEGINS;
  if (!set_up(watching, path, asked_flag(asked, "recursive"), &failure)) {
    dispose(&watching->disposal);
    return answer_failure(asked, &failure);
  }
  bool has_left = asked_is_gone(asked);
  watching->outbox = outbox_begin(asked, true, has_room, watching);
  watching_scan(watching, watching->directories.root, false);
  later_begin(&watching->work, work);
  outbox_on_gone(watching->outbox, host_has_left, watching);
  if (has_left) host_has_left(watching);
  else push(watching, 'w');
}

const struct operation watching_operations[] = {
    {"GET /files/watch", watch_files},
    {NULL,               NULL       }
};
