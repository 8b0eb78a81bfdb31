/* One watch of the host on files: what its modules share. */

#pragma once

#include "directories.h"
#include "frames.h"
#include "untold.h"
#include "walk.h"

/* A name in a directory, which is held. */
struct spot {
  struct directory *directory;
  char *name;
};

/* The first half of a rename. */
struct leaving {
  struct spot spot;
  bool is_directory;
  uint32_t cookie;
  unsigned turn; /* in which it was heard of */
  struct leaving *next, *previous, *next_by_cookie;
};

enum { LEAVING_BUCKETS = 256, MOST_LEAVING = 5000 };

struct watching {
  char *at;   /* the directory that is watched */
  char *only; /* the one name in it that counts, or NULL */
  bool is_recursive;
  struct outbox *outbox; /* NULL after its last frame */
  struct inotify inotify;
  struct directories directories;

  enum { WATCHING_BEGINS, WATCHING_HEARS, WATCHING_RECOVERS } phase; /* while it is busy */
  bool is_busy, is_lost, is_over, is_telling;
  unsigned turn;
  double until; /* when known changes are reported */
  struct timer timer;
  struct later work, disposal;

  /* What is to be scanned, the last one first, and what is being scanned. They are held. */
  struct directory **scans;
  size_t scan_count, scan_room;
  struct directory *scanned;
  struct walk *walk;

  struct {
    struct leaving *first, *last;
    size_t count;
    struct leaving *by_cookie[LEAVING_BUCKETS];
  } leaving;
  /* Directories that were created and could not be entered, because they were renamed before the notice of it was
   * understood. What is in them has not been reported yet. */
  struct {
    struct spot *items;
    size_t count, room;
  } missed;

  double recovery; /* ms until it starts over once more */
  struct untold untold;
  bool told_unwatched;
  char *unwatched; /* path of a directory, to be told, or NULL */
};

/* hearing.c: what notices mean */
void watching_hear(struct watching *watching, const struct notice *notice);
/* A scan has found this in the directory. */
void watching_found(struct watching *watching, struct directory *directory, const char *name, bool is_directory);
/* Files that left before this turn and did not arrive have moved elsewhere. */
void watching_settle(struct watching *watching);
/* Forgets what has left, and what was missed. */
void watching_forget_leaving(struct watching *watching);
void watching_forget_missed(struct watching *watching);

/* watching.c */
/* Has the directory scanned. */
void watching_scan(struct watching *watching, struct directory *directory, bool is_news);
/* What was watched is gone. */
void watching_end(struct watching *watching);

/* telling.c */
/* Reports all changes for which there is room. */
void watching_tell(struct watching *watching);
