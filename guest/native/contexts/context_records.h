/* The record of each context: a small file on the session's volume (context_records.c). */

#pragma once

#include "failure.h"

enum { CONTEXT_ID = 22 }; /* characters: ctx_ and 18 more */

struct context_record {
  char id[CONTEXT_ID + 1];
  int64_t created_at; /* ms */
  char *working_dir;
  int64_t runs;
  char *lost;   /* why the context is lost; NULL while it runs */
  char *ending; /* why the context will count as lost if this record is the last one */
};

bool is_context_id(const char *text, size_t size);

/* Reads the records, once. To be called before the others. Contexts that a guest finds when it starts are lost.
 * Fails, and is then to be called again, when the directory cannot be read. */
bool context_records_load(struct failure *failure);
/* NULL: unknown. It is valid until it is deleted or made anew. A change is on disk after context_record_write. */
struct context_record *context_record_find(const char *id);
/* A new one, in place of one with this id. */
struct context_record *context_record_make(const char *id, const char *working_dir);
/* Replaces `lost` or `ending`. */
void context_record_set(char **member, const char *text);
/* On disk, if that has room. */
void context_record_write(const struct context_record *record);
/* Whether the context was known. Fails when the file cannot be removed. */
bool context_record_delete(const char *id, bool *was_known, struct failure *failure);
/* Forgets the oldest lost contexts. */
void context_records_keep_lost(size_t most);

void context_record_put(const struct context_record *record, struct bytes *into); /* as JSON */
void context_records_put(struct bytes *into);                                     /* an array of all, oldest first */
